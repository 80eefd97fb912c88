"""Retries: only what failed is asked again, pictures are added to the old ones, what depends on them is redone."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faults import FaultServer, Route, Talk
from small_crawls import article, assert_adds_up, counts, jpeg, plan, records, run, run_until, write

from mmc4_builder import commits, storage
from mmc4_builder.commits import Commit, Output
from mmc4_builder.fetch import FetchConfig
from mmc4_builder.images import normalise
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines import retry
from pipelines.config import ImagesConfig
from pipelines.plan import Plan
from pipelines.schemas import TOTALS

LATER = "/later.jpg"


class Recovering:
    """Fails until it is told to be well."""

    def __init__(self, status: int, data: bytes) -> None:
        self.status, self.data = status, data
        self.is_well = False

    def __call__(self, talk: Talk) -> None:
        talk.reply(200, self.data) if self.is_well else talk.reply(self.status)


def serves(data: bytes, *headers: tuple[str, str]) -> Route:
    return lambda talk: talk.reply(200, data, *headers)


def routes() -> dict[str, Route]:
    return {
        "/good.jpg": serves(jpeg(1)),
        LATER: Recovering(500, jpeg(2)),
        "/copy.jpg": Recovering(503, jpeg(1)),  # of a picture that is stored already
        "/never.jpg": Recovering(500, b""),
        "/then-gone.jpg": Recovering(500, b"no picture"),
        "/gone.jpg": lambda talk: talk.reply(404),
        "/refused.jpg": serves(jpeg(3), ("X-Robots-Tag", "noai")),
        "/private/a.jpg": serves(jpeg(4)),
        "/robots.txt": serves(b"User-agent: *\nDisallow: /private/"),
    }


@pytest.fixture(scope="module")
def web() -> Iterator[FaultServer]:
    with FaultServer(routes()) as running:
        yield running


@pytest.fixture
def server(web: FaultServer) -> FaultServer:
    """Ill again for each test."""
    web.routes.update(routes())
    return web


def recover(server: FaultServer, *paths: str) -> None:
    for path in paths:
        route = server.routes[path]
        assert isinstance(route, Recovering)
        route.is_well = True


@pytest.fixture(scope="module")
def finished(web: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A finished images stage: two documents files, of which only the first names what fails."""
    folder = tmp_path_factory.mktemp("retry")
    fetch = FetchConfig(
        contact="https://example.org/",
        allow_private=True,
        ports=(web.port,),
        retries=0,
        delay_seconds=0.0,
        max_failures=100,
    )
    failing = [web.url(path) for path in web.routes if path.endswith(".jpg")]
    crawl = write(folder / "crawl", [article("mill", *failing)], [article("barn", web.url("/good.jpg"))])
    build = plan(folder / "out", crawl, images=ImagesConfig(source="live", fetch=fetch))
    run_until(build, "images")
    return build


@pytest.fixture
def made(finished: Plan, tmp_path: Path, server: FaultServer) -> Plan:
    """A copy of it for one test."""
    return replace(finished, root=str(shutil.copytree(finished.root, tmp_path / "out")))


def image_rows(made: Plan) -> dict[str, dict[str, Any]]:
    paths = sorted(Path(made.root, "images").glob("[0-9]*.parquet"))
    return {"/" + row["url"].split("/", 3)[3]: row for path in paths for row in read_rows(str(path))}


def try_again(made: Plan) -> None:
    stage = retry.stage(made)
    assert stage is not None
    run(stage.transform)
    assert retry.finish(made)


def hits(server: FaultServer) -> dict[str, int]:
    return {path: server.hits(path) for path in server.routes if path.endswith(".jpg")}


FAILED = {LATER, "/copy.jpg", "/never.jpg", "/then-gone.jpg"}


def test_only_what_failed_is_asked_again(made: Plan, server: FaultServer) -> None:
    before = hits(server)
    try_again(made)
    assert {path for path, times in hits(server).items() if times > before[path]} == FAILED


def test_pictures_are_added_and_nothing_is_taken_away(made: Plan, server: FaultServer) -> None:
    before = image_rows(made)
    old = before["/good.jpg"]
    tar = Path(made.root, old["store"]).read_bytes()
    recover(server, LATER, "/copy.jpg", "/then-gone.jpg")
    try_again(made)
    after = image_rows(made)
    assert list(after) == list(before)
    assert {path: row["reason"] for path, row in after.items()} == {
        "/good.jpg": None,
        LATER: None,
        "/copy.jpg": None,
        "/never.jpg": "http_500",
        "/then-gone.jpg": "not_an_image",
        "/gone.jpg": "http_404",
        "/refused.jpg": "optout_header",
        "/private/a.jpg": "optout_robots",
    }
    assert after["/good.jpg"] == old and Path(made.root, old["store"]).read_bytes() == tar
    new = after[LATER]
    assert new["store"] == old["store"].replace(".tar", ".retry1.tar")
    data = Path(made.root, new["store"]).read_bytes()[new["store_offset"] :][: new["store_length"]]
    assert hashlib.sha256(data).hexdigest() == new["sha256"] == normalise(jpeg(2)).sha256
    assert (after["/copy.jpg"]["store"], after["/copy.jpg"]["store_offset"]) == (old["store"], old["store_offset"])
    assert (new["units"], new["documents"]) == (["00000"], 1)


def test_the_records_are_as_if_it_had_been_so_from_the_start(made: Plan, server: FaultServer) -> None:
    recover(server, LATER, "/copy.jpg")
    try_again(made)
    counted = commits.total(records_of(made, "images"))
    assert_adds_up(counted)
    assert (counted["urls.kept"], counted["urls.dropped.http_500"]) == (3, 2)
    run(made.stage("images").transform)  # occurrences and frequent are done again, pictures are not
    assert counts(made, "images")["images"]["urls.kept"] == 3
    totals = {}
    for unit in made.buckets:
        sent = records(made, "images")["occurrences"]
        pieces = tuple(piece for commit in sent for piece in commit.pieces.get(unit.name, ()))
        table = Workspace(made.root, "", Unit(name=unit.name, pieces=pieces)).received("totals", TOTALS)
        totals |= dict(zip(table["key"].to_pylist(), table["documents"].to_pylist(), strict=True))
    assert totals == {normalise(jpeg(1)).phash: 3, normalise(jpeg(2)).phash: 1}


def records_of(made: Plan, step: str) -> list[Commit]:
    (work,) = (work for work in made.stage("images").work if work.step == step)
    found = work.committed(made.root)
    assert len(found) == len(work.units)  # whole: every output has the size that its record names
    return found


def test_a_second_retry_goes_into_a_tar_of_its_own(made: Plan, server: FaultServer) -> None:
    recover(server, LATER)
    try_again(made)
    first = image_rows(made)[LATER]
    server.routes["/never.jpg"] = serves(jpeg(5))
    before = hits(server)
    try_again(made)
    after = image_rows(made)
    assert after[LATER] == first
    assert after["/never.jpg"]["store"].endswith(".retry2.tar")
    assert server.hits(LATER) == before[LATER]
    assert_adds_up(commits.total(records_of(made, "images")))


def test_without_failures_there_is_nothing_to_retry(made: Plan, server: FaultServer) -> None:
    recover(server, *FAILED)
    try_again(made)
    try_again(made) if retry.stage(made) else None
    assert retry.stage(made) is None or image_rows(made)["/never.jpg"]["reason"] == "empty"


def test_answers_of_hosts_are_kept_of_both_times(made: Plan, server: FaultServer) -> None:
    server.routes["/robots.txt"] = serves(b"User-agent: *\nDisallow: /private/\nDisallow: /later")
    recover(server, LATER, "/copy.jpg")
    try_again(made)
    assert image_rows(made)[LATER]["reason"] == "optout_robots"
    files = [row for path in Path(made.root, "images/hosts").glob("*") for row in read_rows(str(path))]
    bodies = {row["body"] for row in files if row["url"].endswith("/robots.txt")}
    assert len(bodies) in (1, 2)  # one where both were asked within a second
    assert retry.stage(made) is None or LATER not in {
        path for path, row in image_rows(made).items() if row["reason"] == "http_500"
    }


def test_what_was_removed_since_is_not_asked_for(made: Plan, server: FaultServer) -> None:
    Path(made.root, "removals").mkdir()
    Path(made.root, "removals/keys.txt").write_text(server.url(LATER))
    recover(server, LATER)
    before = server.hits(LATER)
    try_again(made)
    assert image_rows(made)[LATER]["reason"] == "removed"
    assert server.hits(LATER) == before


# What depends on it.

STEPS = {
    "occurrences": ("00000", "00001", "00002", "00003"),
    "frequent": ("00000",),
    "heads": ("00000", "00001", "00002", "00003"),
    "embed": ("00000", "00001", "00002", "00003"),
    "faces": ("00000", "00001", "00002", "00003"),
    "scores": ("00000", "00001"),
    "interleave": ("00000", "00001"),
    "shards": ("00000",),
    "mention": ("00000", "00001"),
    "documents": ("00000", "00001"),
}


def pretend(made: Plan) -> None:
    """Records of all later steps, where there are none yet."""
    for step, names in STEPS.items():
        for name in set(names) - set(commits.done(made.root, step)):
            commits.write(made.root, Commit(step=step, unit=name, fingerprint="f"))


def test_only_what_reads_changed_rows_is_done_again(made: Plan, server: FaultServer) -> None:
    pretend(made)
    recover(server, LATER)
    bucket = Path(image_rows(made)["/good.jpg"]["store"]).stem
    try_again(made)
    left = {step: tuple(commits.done(made.root, step)) for step in STEPS}
    others = tuple(name for name in STEPS["embed"] if name != bucket)
    assert left == {
        "occurrences": (),
        "frequent": (),
        "heads": (),
        "embed": others,
        "faces": others,
        "scores": ("00001",),
        "interleave": (),
        "shards": (),
        "mention": STEPS["mention"],
        "documents": STEPS["documents"],
    }
    assert commits.done(made.root, "retry") == []


def test_where_nothing_changed_nothing_is_done_again(made: Plan) -> None:
    pretend(made)
    try_again(made)
    assert {step: tuple(commits.done(made.root, step)) for step in STEPS} == STEPS


# Killed anywhere: the build that starts next finds its way.


class Killed(Exception):
    """Stands in for kill -9: the file that is to be written next is not."""


@pytest.mark.parametrize("point", range(8))
def test_a_retry_that_is_killed_while_merging_is_put_to_its_end(
    point: int, made: Plan, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(made)
    recover(server, LATER)
    stage = retry.stage(made)
    assert stage is not None and isinstance(stage.transform, retry.Retry)
    with monkeypatch.context() as patch:
        patch.setattr(retry, "merge", lambda commit, **_: commit)
        run(stage.transform)
    whole = shutil.copytree(made.root, f"{made.root}-whole")
    assert retry.finish(replace(made, root=str(whole)))
    left = [point]
    real_write, real_remove = storage.write_atomic, storage.remove

    def spend(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomic", lambda path: (spend(), real_write(path))[1])
        patch.setattr(storage, "remove", lambda path: (spend(), real_remove(path))[1])
        with pytest.raises(Killed):
            retry.finish(made)
    asked = len(server.requests)
    assert retry.finish(made)
    assert len(server.requests) == asked
    assert contents(Path(made.root)) == contents(Path(whole))
    assert not retry.finish(made)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_a_retry_of_another_configuration_is_let_go(
    made: Plan, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover(server, LATER)
    stage = retry.stage(made)
    assert stage is not None
    with monkeypatch.context() as patch:
        patch.setattr(retry, "merge", lambda commit, **_: commit)
        run(stage.transform)
    images = replace(made.build.images, frequent_from=9)
    other = replace(made, build=replace(made.build, images=images))
    assert not retry.finish(other)
    assert commits.done(made.root, "retry") == []
    assert image_rows(made)[LATER]["reason"] == "http_500"


# Planning.


def commit(unit: str, outputs: tuple[str, ...] = (), **reasons: int) -> Commit:
    return Commit(
        step="images",
        unit=unit,
        fingerprint="f",
        counts={f"urls.dropped.{reason}": n for reason, n in reasons.items()} | {"urls.kept": 3},
        outputs=tuple(Output(path=path, size=1, sha256="") for path in outputs),
    )


def test_buckets_are_chosen_by_their_counts() -> None:
    found = [
        commit("00000", http_404=5, optout_robots=2, too_small=1),
        commit("00001", timeout=1),
        commit("00002", ("retries/00002.1.parquet", "retries/hosts/00002.1.parquet"), http_503=2, http_404=1),
        commit("00003"),
    ]
    assert retry.units_to_retry(found) == (Unit(name="00001", inputs=("1",)), Unit(name="00002", inputs=("2",)))
    assert [retry.may_succeed(one.counts) for one in found] == [0, 1, 2, 0]


def test_an_archive_is_not_asked_again(tmp_path: Path) -> None:
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [article("mill")]))
    assert retry.stage(made) is None
