"""Which URL may be asked for next: queues by host, their pace, and the point at which a host is given up.

Pure: the caller says what time it is, and nothing here waits, reads a clock or touches the network. Times are
seconds on any clock that does not go back.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T")

HOST_DOWN: Final = "host_down"
HOST_BUDGET: Final = "host_budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast, and how long at most."""

    concurrency: int  # requests under way
    per_host: int  # of them to one host
    delay_seconds: float  # between the end of one request to a host and the start of the next
    max_failures: int  # in a row, until a host counts as down
    host_seconds: float  # from the first request to a host to the start of its last
    host_requests: int  # to one host, host files, redirects and retries included


@dataclass(slots=True, eq=False)
class _Host(Generic[T]):
    """One host: what waits for it, and how it has behaved."""

    delay: float
    queue: deque[T] = field(default_factory=deque)
    later: list[tuple[float, int, T]] = field(default_factory=list)  # a heap of retries by their time
    under_way: int = 0
    open_at: float = float("-inf")  # no request starts before
    ends_at: float = float("inf")
    requests: int = 0
    failures: int = 0
    closed: str | None = None  # why no more requests are made
    listed_at: float = float("inf")  # its place in the frontier's heap; other entries of it there are stale


class Frontier(Generic[T]):
    """Items by host, given out one at a time. Each item added comes out once: by `take`, or in `ended`.

    An item that was taken and is wanted again (retry, redirect) is added again.
    """

    def __init__(self, pace: Pace) -> None:
        self.ended: deque[tuple[T, str]] = deque()  # items that will not be given out, with the reason
        self._pace = pace
        self._hosts: dict[str, _Host[T]] = {}
        self._heap: list[tuple[float, int, _Host[T]]] = []  # by the time at which each may be asked again
        self._turn = count()  # first come, first served among equals
        self._under_way = 0

    def add(self, host: str, item: T, *, at: float | None = None, first: bool = False) -> None:
        """Queues an item; not before `at` where given, ahead of its host's other items with `first`."""
        state = self._hosts.get(host)
        if state is None:
            state = self._hosts[host] = _Host(self._pace.delay_seconds)
        if state.closed:
            self.ended.append((item, state.closed))
            return
        if at is not None:
            heappush(state.later, (at, next(self._turn), item))
        elif first:
            state.queue.appendleft(item)
        else:
            state.queue.append(item)
        self._list(state)

    def take(self, now: float) -> T | None:
        """An item whose request may start now, or None. Its end must be told to `done`."""
        heap = self._heap
        while heap and heap[0][0] <= now and self._under_way < self._pace.concurrency:
            at, _, state = heappop(heap)
            if state.closed or at != state.listed_at:
                continue
            state.listed_at = float("inf")
            if now >= state.ends_at or state.requests >= self._pace.host_requests:
                self._close(state, HOST_BUDGET)
            elif self._ready_at(state) <= now:  # it may have been put off since it was listed
                return self._start(state, now)
            else:
                self._list(state)
        return None

    def wake_at(self) -> float | None:
        """When `take` may next have something, None where that depends on `done` or `add`."""
        return self._heap[0][0] if self._heap and self._under_way < self._pace.concurrency else None

    def done(self, host: str, now: float, *, failed: bool = False, pause: float = 0.0) -> None:
        """A request to this host has ended. `failed` counts against the host; `pause` is what it asked for."""
        state = self._hosts[host]
        state.under_way -= 1
        self._under_way -= 1
        state.open_at = max(state.open_at, now + max(state.delay, pause))
        state.failures = state.failures + 1 if failed else 0
        if state.failures >= self._pace.max_failures:
            self._close(state, HOST_DOWN)
        self._list(state)

    def slow_down(self, host: str, delay: float) -> None:
        """Makes the host's delay this long, or leaves it where it is longer."""
        state = self._hosts[host]
        if delay > state.delay:
            state.open_at += delay - state.delay
            state.delay = delay

    def give_up(self, host: str) -> None:
        """Ends what waits for this host, now and later."""
        self._close(self._hosts[host], HOST_DOWN)

    def _start(self, state: _Host[T], now: float) -> T:
        if not state.requests:
            state.ends_at = now + self._pace.host_seconds
        retry_is_due = state.later and state.later[0][0] <= now
        item = heappop(state.later)[2] if retry_is_due else state.queue.popleft()
        state.requests += 1
        state.under_way += 1
        self._under_way += 1
        state.open_at = now + state.delay
        self._list(state)
        return item

    def _list(self, state: _Host[T]) -> None:
        """Puts a host that has work and a free place in the heap, unless it stands there early enough."""
        if state.closed or state.under_way >= self._pace.per_host or not (state.queue or state.later):
            return
        at = self._ready_at(state)
        if at < state.listed_at:
            state.listed_at = at
            heappush(self._heap, (at, next(self._turn), state))

    def _ready_at(self, state: _Host[T]) -> float:
        return state.open_at if state.queue else max(state.open_at, state.later[0][0])

    def _close(self, state: _Host[T], reason: str) -> None:
        if state.closed is None:
            state.closed = reason
            self.ended.extend((item, reason) for item in state.queue)
            self.ended.extend((item, reason) for _, _, item in sorted(state.later, key=lambda entry: entry[:2]))
            state.queue.clear()
            state.later.clear()
