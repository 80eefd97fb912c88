"""On a hostile web each URL ends in its reason, hosts are left in peace, and no forbidden path is asked for."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hostile_server import EXPECTED, GOOD, ROBOTS, TDMREP, HostileServer, Seen, most_at_once, refuse

from filters import optout
from mmc4_builder.fetch import Fetched, fetch_all
from mmc4_builder.host_files import HostFile
from mmc4_builder.images import ImageError, normalise
from mmc4_builder.signals import Statement


class Visited:
    """One run over the whole hostile web."""

    def __init__(self, web: HostileServer) -> None:
        self.web = web
        self.cases = web.cases()
        self.files: list[HostFile] = []
        urls = [case.url for case in self.cases]
        found = list(fetch_all(urls, web.config(), refuse=refuse, keep_host_file=self.files.append))
        self.results = {result.url: result for result in found}
        assert len(found) == len(self.results) == len(urls)

    def of(self, host: str, path: str) -> Fetched:
        return self.results[self.web.url(host, path)]


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    with HostileServer(tmp_path_factory.mktemp("web")) as web:
        yield Visited(web)


def test_each_url_has_its_reason(visited: Visited) -> None:
    found = {case.url: visited.results[case.url].reason for case in visited.cases}
    assert found == {case.url: case.reason for case in visited.cases}


def test_what_came_through_is_whole_or_no_picture(visited: Visited) -> None:
    came = [case for case in visited.cases if case.reason is None]
    found = {case.url: _picture_reason(visited.results[case.url]) for case in came}
    assert found == {case.url: case.picture for case in came}
    assert visited.of("fine", "/0.jpg").data == visited.of("bodies", "/coded.jpg").data == GOOD


def _picture_reason(fetched: Fetched) -> str | None:
    try:
        normalise(fetched.data or b"")
    except ImageError as error:
        return error.reason
    return None


def test_every_url_ends_within_its_deadline(visited: Visited) -> None:
    # Not a timing test: what has no deadline would never be in the results.
    assert max(result.seconds for result in visited.results.values()) < visited.web.config().total_seconds + 1


def test_robots_are_asked_first_and_once(visited: Visited) -> None:
    asked = Counter(file.url for file in visited.files)
    assert set(asked.values()) == {1}
    again = {"robots-500": 2, "robots-429": 2, "robots-flaps": 1, "robots-drips": 2, "robots-resets": 2}
    again |= {"robots-loops": 5, "robots-good": 1}  # over redirects, and for the host that points here
    for host in EXPECTED:
        paths = visited.web.paths(host)
        assert paths[0] == ROBOTS
        assert 1 <= paths.count(ROBOTS) <= 1 + again.get(host, 0), host


def test_forbidden_paths_are_never_asked_for(visited: Visited) -> None:
    forbidden = [
        (host, path)
        for host, paths in EXPECTED.items()
        for path, (reason, _) in paths.items()
        if reason in ("optout_robots", "optout_tdm", "robots_unreachable") and host != "redirects"
    ]
    assert len(forbidden) > 10
    for host, path in forbidden:
        assert path not in visited.web.paths(host)
    assert "/private/b.jpg" not in visited.web.paths("robots-good")  # where a redirect would have led
    assert TDMREP not in visited.web.paths("reserved-in-vain")


def test_statements_are_the_evidence(visited: Visited) -> None:
    web = visited.web
    said = {
        name: [(each.name, each.value, each.source) for each in visited.of(*name).statements]
        for name in (("reserved", "/reserved/a.jpg"), ("says-noai", "/a.jpg"), ("robots-500", "/a.jpg"))
    }
    assert said == {
        ("reserved", "/reserved/a.jpg"): [("tdmrep:tdm-reservation", "1", web.url("reserved", TDMREP))],
        ("says-noai", "/a.jpg"): [("header:x-robots-tag", "noai", web.url("says-noai", "/a.jpg"))],
        ("robots-500", "/a.jpg"): [("robots:unreachable", "http_500", web.url("robots-500", ROBOTS))],
    }
    (own,) = visited.of("robots-ours", "/a.jpg").statements
    assert (own.name, own.value) == ("robots:mmc-build", "Disallow: /")


def test_one_request_at_a_time_for_each_host(visited: Visited) -> None:
    assert most_at_once(visited.web.visits("slow")) == 1
    assert len(visited.web.visits("slow")) == 2 + 3


def gaps(visits: list[Seen]) -> float:
    """The shortest time between two requests, as the server sees it; tests ask for half, for busy machines."""
    return min(later.start - earlier.start for earlier, later in zip(visits, visits[1:], strict=False))


def test_a_crawl_delay_and_a_retry_after_are_kept(visited: Visited) -> None:
    slow = visited.web.visits("robots-slow")[2:]  # the files themselves come before anyone knows
    assert gaps(slow) > 0.2
    says_when = visited.web.visits("storm-says-when")[2:]
    assert len(says_when) == 3
    assert gaps(says_when) > 0.5


def test_no_retry_where_it_is_in_vain(visited: Visited) -> None:
    hits = Counter((host, path) for host in EXPECTED for path in visited.web.paths(host))
    retries = visited.web.config().retries
    assert hits["flaps", "/c.jpg"] == hits["hangs-up", "/reset"] == hits["storm", "/a.jpg"] == 1 + retries
    assert hits["storm-later", "/a.jpg"] == hits["storm-forever", ROBOTS] == 1
    assert hits["redirects", "/absent.jpg"] == hits["bodies", "/empty"] == hits["bodies", "/bomb.gz"] == 1
    assert hits["redirects", "/loop"] == 1 + visited.web.config().max_redirects


def test_every_request_says_who_asks(visited: Visited) -> None:
    for seen in visited.web.seen:
        assert seen.headers["user-agent"] == visited.web.config().user_agent
        assert seen.headers["accept-encoding"] == "identity"
        assert "cookie" not in seen.headers


@pytest.fixture
def web(tmp_path: Path) -> Iterator[HostileServer]:
    with HostileServer(tmp_path) as web:
        yield web


QUICK = (
    "fine",
    "flaps",
    "redirects",
    "bodies",
    "robots-good",
    "robots-500",
    "reserved",
    "says-noai",
    "storm-says-when",
)


def test_the_same_web_gives_the_same_results(tmp_path_factory: pytest.TempPathFactory) -> None:
    runs = []
    for number, order in enumerate((1, -1)):
        with HostileServer(tmp_path_factory.mktemp(f"web{number}")) as web:
            cases = [case for case in web.cases() if case.url.split("//")[1].split(".")[0] in QUICK]
            urls = [case.url for case in cases][::order]
            found = fetch_all(urls, web.config(concurrency=2 + 30 * number), refuse=refuse)
            runs.append({(_path(each.url), each.reason, each.status, each.data) for each in found})
    assert runs[0] == runs[1]


def _path(url: str) -> str:
    """Without the port, which is another in each run."""
    host, _, path = url.removeprefix("http://").partition("/")
    return f"{host.partition(':')[0]}/{path}"


def test_the_real_policy_says_the_same(web: HostileServer) -> None:
    cases = [case for case in web.cases() if "reserved" in case.url or "noai" in case.url]

    def real(statements: tuple[Statement, ...]) -> str | None:
        return optout.reject([each.signal for each in statements], rules=optout.OptOutRules())

    found = fetch_all([case.url for case in cases], web.config(), refuse=real)
    assert {each.url: each.reason for each in found} == {case.url: case.reason for case in cases}


def test_a_host_that_is_down_is_left_alone(web: HostileServer) -> None:
    urls = [web.url("down", f"/{number}.jpg") for number in range(12)]
    found = {each.url: each.reason for each in fetch_all(urls, web.config(retries=0, max_failures=5))}
    assert [found[url] for url in urls] == ["http_500"] * 5 + ["host_down"] * 7
    assert len(web.paths("down")) == 2 + 5


def test_a_host_that_asks_for_a_day_is_left_alone(web: HostileServer) -> None:
    urls = [web.url("storm-later", f"/{number}.jpg") for number in range(3)]
    found = {each.url: each.reason for each in fetch_all(urls, web.config())}
    assert [found[url] for url in urls] == ["http_503", "host_down", "host_down"]
    assert len(web.paths("storm-later")) == 2 + 1


def test_a_budget_ends_a_host(web: HostileServer) -> None:
    urls = [web.url("fine", f"/{number}.jpg") for number in range(6)]
    found = {each.url: each.reason for each in fetch_all(urls, web.config(host_requests=2 + 4))}
    assert [found[url] for url in urls] == [None] * 4 + ["host_budget"] * 2


def test_delay_between_requests(web: HostileServer) -> None:
    urls = [web.url("fine", f"/{number}.jpg") for number in range(3)]
    assert all(each.data for each in fetch_all(urls, web.config(delay_seconds=0.2)))
    assert gaps(web.visits("fine")) > 0.1


def test_forgotten_hosts_are_asked_again(web: HostileServer) -> None:
    """Memory is bounded by forgetting: a host is asked for its files again, never fetched from without."""
    urls = [web.url(host, f"/{number}.jpg") for number in range(2) for host in ("fine", "robots-good")]
    config = replace(web.config(), window=1, max_rules_bytes=1)
    assert all(each.data for each in fetch_all(urls, config))
    assert web.paths("fine") == [ROBOTS, TDMREP, "/0.jpg", ROBOTS, TDMREP, "/1.jpg"]


def test_agents_of_others_are_reported(web: HostileServer) -> None:
    web.hosts["agents.localhost"] = {
        **web.hosts["fine.localhost"],
        ROBOTS: lambda talk: talk.reply(200, b"User-agent: CCBot\nDisallow: /\n"),
    }
    (fetched,) = fetch_all([web.url("agents", "/a.jpg")], web.config(agents=("CCBot",)))
    assert [(each.name, each.value) for each in fetched.statements] == [("robots:CCBot", "Disallow: /")]
    assert fetched.data == GOOD
