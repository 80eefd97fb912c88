"""No host is asked too often or too much at once, and every URL comes out once."""

from collections import Counter, deque
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.frontier import HOST_BUDGET, HOST_DOWN, Frontier, Pace

PACE = Pace(concurrency=2, per_host=1, delay_seconds=1.0, max_failures=3, host_seconds=1000.0, host_requests=1000)


def frontier(items: str = "", **changes: float) -> Frontier[str]:
    """Items are written "a1 a2 b1": the letter is the host."""
    made: Frontier[str] = Frontier(replace(PACE, **changes))  # type: ignore[arg-type]
    for item in items.split():
        made.add(item[0], item)
    return made


def test_one_at_a_time_and_a_pause_after_each() -> None:
    queue = frontier("a1 a2")
    assert queue.take(0.0) == "a1"
    assert (queue.take(5.0), queue.wake_at()) == (None, None)
    queue.done("a", 5.0)
    assert (queue.take(5.9), queue.wake_at()) == (None, 6.0)
    assert queue.take(6.0) == "a2"


def test_several_at_once_start_with_a_pause_between() -> None:
    queue = frontier("a1 a2 a3", per_host=2)
    assert [queue.take(now) for now in (0.0, 0.5, 1.0, 9.0)] == ["a1", None, "a2", None]


def test_hosts_take_turns_within_the_limit() -> None:
    queue = frontier("a1 a2 b1 c1")
    assert [queue.take(0.0) for _ in range(3)] == ["a1", "b1", None]
    queue.done("a", 0.5)
    assert queue.take(0.5) == "c1"


def test_first_goes_ahead_and_a_retry_waits() -> None:
    queue = frontier("a1", delay_seconds=0.0)
    queue.add("a", "late", at=9.0)
    queue.add("a", "robots", first=True)
    taken = []
    for now in (0.0, 1.0, 2.0):
        taken.append(queue.take(now))
        if taken[-1]:
            queue.done("a", now)
    assert taken == ["robots", "a1", None]
    assert queue.wake_at() == 9.0
    queue.add("a", "a2")  # does not wait for the retry
    assert queue.take(2.0) == "a2"


def test_pause_holds_the_whole_host() -> None:
    queue = frontier("a1 a2 b1", concurrency=9)
    queue.take(0.0)
    queue.done("a", 0.0, failed=True, pause=60.0)
    assert queue.take(1.0) == "b1"
    assert (queue.take(59.0), queue.take(60.0)) == (None, "a2")


def test_a_longer_delay_holds_from_the_last_request_on() -> None:
    queue = frontier("a1 a2 a3")
    queue.take(0.0)
    queue.done("a", 0.0)
    queue.slow_down("a", 10.0)
    queue.slow_down("a", 2.0)  # never faster
    assert (queue.take(9.9), queue.take(10.0)) == (None, "a2")


def test_a_host_that_fails_in_a_row_is_down() -> None:
    queue = frontier("a1 a2 a3 a4 a5 a6 a7", delay_seconds=0.0)
    for failed in (True, True, False, True, True, True):
        assert queue.take(0.0)
        assert not queue.ended
        queue.done("a", 0.0, failed=failed)
    queue.add("a", "a8")
    assert list(queue.ended) == [("a7", HOST_DOWN), ("a8", HOST_DOWN)]


def test_giving_up_ends_what_waits() -> None:
    queue = frontier("a1 a2 b1")
    queue.add("a", "later", at=5.0)
    queue.take(0.0)
    queue.give_up("a")
    assert list(queue.ended) == [("a2", HOST_DOWN), ("later", HOST_DOWN)]
    assert queue.take(0.0) == "b1"
    queue.done("a", 1.0)
    assert queue.take(99.0) is None


@pytest.mark.parametrize(("budget", "asked"), [({"host_requests": 2}, 2), ({"host_seconds": 2.5}, 3)])
def test_budget_of_a_host(budget: dict[str, float], asked: int) -> None:
    queue = frontier("a1 a2 a3 a4 a5", **budget)
    taken = []
    for now in range(10):
        if item := queue.take(float(now)):
            taken.append(item)
            queue.done("a", float(now))
    assert len(taken) == asked
    assert [reason for _, reason in queue.ended] == [HOST_BUDGET] * (5 - asked)


@dataclass
class _Run:
    """What happened in a random run, by host."""

    starts: dict[str, list[float]]
    ends: dict[str, list[float]]
    out: Counter[tuple[str, int]]


HOSTS = st.sampled_from("abc")
PACES = st.builds(
    Pace,
    concurrency=st.integers(1, 4),
    per_host=st.integers(1, 3),
    delay_seconds=st.sampled_from([0.0, 0.5, 2.0]),
    max_failures=st.integers(1, 4),
    host_seconds=st.sampled_from([3.0, 1e9]),
    host_requests=st.sampled_from([2, 10**9]),
)
DURATIONS = st.sampled_from([0.0, 0.25, 1.75])
STEPS = st.lists(st.tuples(DURATIONS, st.booleans(), st.sampled_from([0.0, 0.0, 4.0])), min_size=1, max_size=12)


@given(PACES, st.lists(HOSTS, max_size=25), STEPS)
def test_any_run_is_polite_and_loses_nothing(
    pace: Pace, hosts: list[str], steps: list[tuple[float, bool, float]]
) -> None:
    queue: Frontier[tuple[str, int]] = Frontier(pace)
    for number, host in enumerate(hosts):
        queue.add(host, (host, number), at=1.5 if number % 5 == 4 else None)
    run = _drive(queue, pace, steps)
    assert run.out == Counter((host, number) for number, host in enumerate(hosts))
    for host, starts in run.starts.items():
        assert all(later - earlier >= pace.delay_seconds for earlier, later in zip(starts, starts[1:], strict=False))
        assert len(starts) <= pace.host_requests
        assert starts[-1] < starts[0] + pace.host_seconds
        if pace.per_host == 1:
            pairs = zip(run.ends[host], starts[1:], strict=False)
            assert all(start - end >= pace.delay_seconds for end, start in pairs)


def _drive(queue: Frontier[tuple[str, int]], pace: Pace, steps: list[tuple[float, bool, float]]) -> _Run:
    """Takes, ends and waits until nothing is left; checks the limits of concurrency on the way."""
    run, now, turn = _Run({}, {}, Counter()), 0.0, 0
    under_way: deque[tuple[float, str]] = deque()
    while True:
        while (item := queue.take(now)) is not None:
            run.out[item] += 1
            run.starts.setdefault(item[0], []).append(now)
            under_way.append((now + steps[turn % len(steps)][0], item[0]))
            turn += 1
            assert len(under_way) <= pace.concurrency
            assert max(Counter(host for _, host in under_way).values()) <= pace.per_host
        while queue.ended:
            run.out[queue.ended.popleft()[0]] += 1
        if under_way:
            end, host = min(under_way)
            under_way.remove((end, host))
            now = max(now, end)
            _, failed, pause = steps[turn % len(steps)]
            queue.done(host, now, failed=failed, pause=pause)
            run.ends.setdefault(host, []).append(now)
        elif (wake_at := queue.wake_at()) is not None:
            now = max(now, wake_at)
        else:
            return run
