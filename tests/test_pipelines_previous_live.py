"""Pictures of earlier builds on the live web: none is asked for again, and who refuses today is obeyed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from faults import FaultServer, Talk
from small_crawls import article, assert_adds_up, counts, jpeg, plan, rows, write
from without_engine import built

from mmc4_builder import key_lists, storage, tombstones
from mmc4_builder.fetch import FetchConfig
from pipelines import previous
from pipelines.archive import host_key
from pipelines.config import ImagesConfig
from pipelines.plan import Plan

pytestmark = pytest.mark.timeout(300)  # a machine that may have other things to do
BUCKETS = 4
JPEG = ("Content-Type", "image/jpeg")
REFUSAL = b"User-agent: *\nDisallow: /\n"


def hosts() -> list[str]:
    """A name for each bucket, so that each has a tar of its own."""
    names = [f"host{n}.localhost" for n in range(40)]
    by_bucket = {host_key(f"http://{name}/") % BUCKETS: name for name in names}
    return [by_bucket[bucket] for bucket in range(BUCKETS)]


PLAIN, LOST, SPOILT, CHANGED = hosts()
DOWN = next(f"{n}.localhost" for n in range(40) if host_key(f"http://{n}.localhost/") % BUCKETS == 0)


@dataclass
class Web:
    """Hosts of one server. `today` is the time of the second crawl, when some have changed their minds."""

    server: FaultServer
    today: bool = False

    def url(self, name: str, host: str = PLAIN) -> str:
        return self.server.url(f"/{name}.jpg", host)

    def asked(self, since: int = 0) -> list[tuple[str, str]]:
        """Host and path of each request for a picture."""
        said = [(one.headers["host"].partition(":")[0], one.path) for one in self.server.requests[since:]]
        return sorted((host, path) for host, path in said if path.endswith(".jpg"))

    def files(self, since: int) -> list[str]:
        """Hosts that were asked for robots.txt."""
        return [one.headers["host"].partition(":")[0] for one in self.server.requests[since:] if "robots" in one.path]


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    found: list[Web] = []

    def robots(talk: Talk) -> None:
        host = talk.request.headers["host"].partition(":")[0]
        if found[0].today and host == CHANGED:
            talk.reply(200, REFUSAL)
        elif found[0].today and host == DOWN:
            talk.reply(503)
        else:
            talk.reply(404)

    def moved(talk: Talk) -> None:
        talk.reply(302, b"", ("Location", found[0].url("end", CHANGED)))

    def flaps(talk: Talk) -> None:
        talk.reply(200, jpeg(9), JPEG) if found[0].today else talk.reply(500)

    def refused(talk: Talk) -> None:
        talk.reply(200, jpeg(8), JPEG, ("X-Robots-Tag", "noai"))

    routes: dict[str, Any] = {
        "/robots.txt": robots,
        "/moved.jpg": moved,
        "/flaps.jpg": flaps,
        "/refused.jpg": refused,
        "/gone.jpg": lambda talk: talk.reply(404),
    }
    for seed, name in enumerate(("a", "b", "end", "new", "c", "d", "e", "f")):
        routes[f"/{name}.jpg"] = partial(show, data=jpeg(20 + seed))
    with FaultServer(routes) as server:
        found.append(Web(server))
        yield found[0]


def show(talk: Talk, data: bytes) -> None:
    talk.reply(200, data, JPEG)


def planned(web: Web, root: Path, crawl: Path, topic: str, urls: list[str]) -> Plan:
    fetch = FetchConfig(
        contact="https://example.org/crawl", allow_private=True, ports=(web.server.port,), retries=0, per_host=8,
        delay_seconds=0.0, max_failures=100,
    )  # fmt: skip
    return plan(root, write(crawl, [article(topic, *urls)]), images=ImagesConfig(source="live", fetch=fetch))


@dataclass
class Told:
    a: Plan
    b: Plan
    first: list[tuple[str, str]]  # requests of A
    second: list[tuple[str, str]]  # of B
    files: list[str]
    rows: dict[str, dict[str, Any]]  # of B, by URL
    before: dict[str, dict[str, Any]]  # of A


@pytest.fixture(scope="module")
def told(web: Web, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """A, and after a while, in which a tar was lost and another one spoilt, B, which shows all of A's and one more."""
    folder = tmp_path_factory.mktemp("live")
    urls = [web.url(name) for name in ("a", "moved", "flaps", "refused", "gone")]
    urls += [web.url("b", LOST), web.url("c", SPOILT), web.url("d", SPOILT), web.url("e", CHANGED), web.url("f", DOWN)]
    a = built(planned(web, folder / "a", folder / "crawl-a", "mill", urls))
    first, since = web.asked(), len(web.server.requests)
    before = {row["url"]: row for row in rows(a.root, "images")}
    Path(a.root, before[web.url("b", LOST)]["store"]).unlink()
    spoil(a, before[web.url("c", SPOILT)])
    web.today = True
    b = planned(web, folder / "b", folder / "crawl-b", "barn", [*urls, web.url("new")])
    found, _ = previous.find([a.root], b.root, b.build)
    b = built(replace(b, build=replace(b.build, previous=found)))
    return Told(
        a=a, b=b, first=first, second=web.asked(since), files=web.files(since), before=before,
        rows={row["url"]: row for row in rows(b.root, "images")},
    )  # fmt: skip


def spoil(made: Plan, row: dict[str, Any]) -> None:
    path = Path(made.root, row["store"])
    data = bytearray(path.read_bytes())
    data[row["store_offset"] + 100] ^= 1
    path.write_bytes(data)


def test_only_what_no_earlier_build_has_is_asked_for(told: Told) -> None:
    assert told.second == sorted(
        [
            (PLAIN, "/new.jpg"),
            (PLAIN, "/flaps.jpg"),  # it may pass
            (PLAIN, "/refused.jpg"),  # consent is of today
            (PLAIN, "/gone.jpg"),  # a page of today names it
            (LOST, "/b.jpg"),  # its tar is gone
            (SPOILT, "/c.jpg"),  # its bytes are others
        ]
    )
    assert (PLAIN, "/a.jpg") in told.first and (SPOILT, "/d.jpg") in told.first


def test_copies_are_what_was_fetched_then(told: Told, web: Web) -> None:
    for address in (web.url("a"), web.url("d", SPOILT), web.url("f", DOWN)):
        for name in ("sha256", "fetched", "origin", "final_url", "headers", "phash", "detail", "statements"):
            assert told.rows[address][name] == told.before[address][name], (address, name)
        row = told.rows[address]
        data = Path(told.b.root, row["store"]).read_bytes()[row["store_offset"] :][: row["store_length"]]
        assert hashlib.sha256(data).hexdigest() == row["sha256"]


def test_what_cannot_be_copied_is_fetched_and_counted(told: Told, web: Web) -> None:
    counted = counts(told.b, "images")["images"]
    assert_adds_up(counted)
    assert {name: n for name, n in counted.items() if name.startswith("previous.")} == {
        "previous.entered": 7,  # a, b, c, d, e, f, and the one that moved
        "previous.kept": 3,
        "previous.dropped.tar_missing": 1,
        "previous.dropped.tar_damaged": 1,
        "previous.dropped.optout_robots": 2,
    }
    for address in (web.url("b", LOST), web.url("c", SPOILT)):
        assert told.rows[address]["sha256"] == told.before[address]["sha256"]
        assert told.rows[address]["fetched"] >= told.before[address]["fetched"]


def test_who_refuses_today_is_obeyed(told: Told, web: Web) -> None:
    """The host of the picture, or the one to which it leads; nobody is asked for the picture to find that out."""
    for address in (web.url("e", CHANGED), web.url("moved")):
        row = told.rows[address]
        assert told.before[address]["sha256"] and row["sha256"] is None
        assert row["reason"] == "optout_robots"
        assert "Disallow: /" in [said["value"] for said in row["statements"]]
    stored = {row["sha256"] for row in told.rows.values()}
    assert told.before[web.url("e", CHANGED)]["sha256"] not in stored


def test_a_host_that_cannot_be_asked_refuses_nothing(told: Told, web: Web) -> None:
    assert DOWN in told.files
    assert told.rows[web.url("f", DOWN)]["reason"] is None


def test_what_failed_before_is_asked_again(told: Told, web: Web) -> None:
    names = ("flaps", "refused", "gone")
    reasons = {name: tuple(rows[web.url(name)]["reason"] for rows in (told.before, told.rows)) for name in names}
    assert reasons == {
        "flaps": ("http_500", None),
        "refused": ("optout_header", "optout_header"),
        "gone": ("http_404", "http_404"),
    }


def test_what_hosts_said_today_is_kept_for_the_audit(told: Told) -> None:
    said = {row["url"]: row["status"] for row in rows(told.b.root, "images/hosts") if CHANGED in row["url"]}
    assert said and set(said.values()) == {200}


def test_removals_and_lists_win_over_copies(told: Told, web: Web, tmp_path: Path) -> None:
    """By URL, by domain and by hash; nothing is asked for."""
    since = len(web.server.requests)
    names = [web.url("a"), web.url("d", SPOILT)]
    crawl = tmp_path / "crawl"
    made = planned(web, tmp_path / "b", crawl, "barn", names)
    keys = (told.before[web.url("a")]["sha256"],)
    tombstones.add(made.root, key_lists.parse("\n".join(keys), "a test"))
    listed = replace(made.build.images, optout_keys=(SPOILT,))
    found, _ = previous.find([told.a.root], made.root, made.build)
    built(replace(made, build=replace(made.build, images=listed, previous=found)))
    reasons = {row["url"]: (row["reason"], row["sha256"]) for row in rows(made.root, "images")}
    assert reasons == {names[0]: ("removed", None), names[1]: ("optout_list", None)}
    assert not web.asked(since)
    assert storage.names(f"{made.root}/images")
