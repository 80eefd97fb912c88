"""Released C4's pages found by the columnar index: the same documents as from the whole crawl, and far fewer bytes."""

import gzip
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from builds import digests
from servers import Fault, FolderServer, serve
from small_crawls import (
    HTML,
    TIMESTAMP,
    agrees,
    article,
    assert_adds_up,
    http,
    markup,
    member,
    page,
    paragraphs,
    picture,
    plan,
    prose,
    response_fields,
    rows,
    run,
)
from small_index import SCHEMA, rows_of, surt_key, write_index

from filters.text import url_key
from mmc4_builder import commits, crawl, key_lists, storage, transport, warc
from mmc4_builder.absence import Needles, search
from mmc4_builder.cli import main
from mmc4_builder.columnar_index import ColumnarIndexError, IndexRules
from mmc4_builder.http_rules import NoRange
from mmc4_builder.urls import normalize_url
from mmc4_builder.warc import Response, write_warc
from mmc4_builder.workspace import Unit, Workspace
from pipelines import index, ranges, remove
from pipelines.build import build
from pipelines.config import DocumentsConfig
from pipelines.documents import Documents
from pipelines.launch import Engine
from pipelines.plan import Crawl, Plan
from pipelines.units import units

CRAWL = "CC-MAIN-2024-10"
NAMES = tuple(
    f"crawl-data/{CRAWL}/segments/1707947473347.0/warc/CC-MAIN-20240220211055-20240221001055-{n:05d}.warc.gz"
    for n in range(3)
)
STEPS = ("map_index", "read_c4", "route", "look_up", "pick", "extract", "join_c4", "documents")
BUCKETS = units(4)


def shown(name: str, timestamp: str = TIMESTAMP, *, address: str = "", topic: str = "") -> Response:
    first, *rest = prose(topic or name)
    body = paragraphs(["Menu", first, "Share"]) + f'<img src="http://x.example/{name}.jpg">' + paragraphs(rest)
    return page(address or f"https://www.{name}.example/", body, timestamp=timestamp)


def released(folder: Path, *documents: tuple[str, str, str]) -> Path:
    """C4 documents of (URL, timestamp, topic)."""
    lines = [{"text": "\n".join(prose(topic)), "timestamp": time, "url": url} for url, time, topic in documents]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "c4-train.00000-of-00001.json.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode(), mtime=0))
    return path


def crawled(root: Path, *files: Sequence[Response]) -> None:
    """WARC files in Common Crawl's layout, with their index."""
    for name, records in zip(NAMES, files, strict=False):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_warc(str(root / name), records, filename=Path(name).name)
    write_index(root, CRAWL, rows_of(root, NAMES[: len(files)]))
    listing = "".join(f"{name}\n" for name in NAMES[: len(files)]).encode()
    (root / f"crawl-data/{CRAWL}/warc.paths.gz").write_bytes(gzip.compress(listing, mtime=0))


def documents(
    out: Path, root: str, released: Path, *, indexed: bool = True, names: Sequence[str] = NAMES, **rules: Any
) -> Documents:
    """The stage as a plan makes it, with a unit for each `files_per_unit` WARC files."""
    found = IndexRules(parts=tuple(crawl.list_index(CRAWL, root)), **rules) if indexed else None
    together = found.files_per_unit if found else 1
    groups = [tuple(names[at : at + together]) for at in range(0, len(names), together)]
    return Documents(
        root=str(out),
        crawl_root=root,
        fingerprint="f",
        corpus_fingerprint="c",
        near_fingerprint="n",
        config=DocumentsConfig(c4=(str(released),), index=found),
        files=tuple(Unit(name=f"{number:05d}", inputs=group) for number, group in enumerate(groups)),
        buckets=BUCKETS,
    )


def counted(out: Path, *steps: str) -> dict[str, int]:
    root = str(out)
    found = (commit for step in steps or STEPS for commit in commits.load_all(root, step, commits.done(root, step)))
    return {name: count for name, count in commits.total(found).items() if count}


def letters(out: Path, step: str) -> list[dict[str, Any]]:
    paths = sorted((out / "dead_letters" / step).glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


# The same documents as from the whole crawl.

FILLER = 60  # pages a file that C4 does not have
WANTED = [
    ("http://mill.example/", TIMESTAMP, "mill"),
    ("http://mill.example/?utm_source=x", TIMESTAMP, "mill"),  # the page is taken
    ("https://www.barn.example/a/", "2024-03-08T00:00:00Z", "barn"),  # of three captures the nearest
    ("http://barn.example/a?ref=1", "2024-03-02T00:00:00Z", "early"),
    ("https://even.example", "2024-03-05T00:00:00Z", "even"),  # two captures equally near
    ("http://same.example/x", TIMESTAMP, "same"),  # two at the same second, in two files
    ("http://other.example/", "2024-03-01T11:00:00Z", "other"),  # a picture was captured there nearer in time
    ("http://Case.example/A?b=2&a=1", TIMESTAMP, "case"),
    ("http://query.example/q?x=1", TIMESTAMP, "query"),  # another query is another page
    ("http://gone.example/", TIMESTAMP, "gone"),
    ("http://nowhere.example/", TIMESTAMP, "nowhere"),
]


def filler(number: int) -> list[Response]:
    return [article(f"filler{number}x{i}", "http://x.example/f.jpg") for i in range(FILLER)]


@dataclass(frozen=True)
class Site:
    folder: Path
    server: FolderServer
    released: Path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    first = [
        shown("mill", address="http://mill.example/"),
        shown("barn", "2024-03-01T00:00:00Z", address="http://barn.example/a?ref=home", topic="early"),
        shown("even", "2024-03-07T00:00:00Z", address="http://even.example/"),
        *filler(0),
        shown("same", address="http://same.example/x"),
        Response(url="http://gone.example/", timestamp=TIMESTAMP, payload=b"", status=404, headers=(HTML,)),
    ]
    second = [
        shown("barn", "2024-03-09T00:00:00Z", address="http://www.barn.example/a"),
        shown("even", "2024-03-03T00:00:00Z", address="https://www.even.example/"),
        picture("http://other.example/", timestamp="2024-03-01T11:00:00Z"),
        shown("other", "2024-03-01T10:00:00Z", address="http://other.example/"),
        *filler(1),
        shown("case", address="http://Case.example/A?b=2&a=1"),
    ]
    third = [
        shown("same", address="https://www.same.example/x/"),
        *filler(2),
        shown("query", address="http://query.example/q?x=1"),
        shown("query", address="http://query.example/q?x=2", topic="queries"),
        shown("barn", "2024-03-30T00:00:00Z", address="https://barn.example/a/"),
    ]
    crawled(folder / "www", first, second, third)
    path = released(folder, *WANTED)
    with serve(folder / "www") as server:
        yield Site(folder / "www", server, path)


@pytest.fixture(scope="module")
def scanned(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scanned")
    run(documents(out, str(site.folder), site.released, indexed=False))
    return out


@pytest.fixture(scope="module")
def found(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Over HTTP, by a server that is busy at times, and with no gap between records of one request."""
    out = tmp_path_factory.mktemp("found")
    site.server.requests.clear()
    made = documents(out, site.server.root, site.released, request_seconds=0.0)
    busy = Fault(status=503, headers={"Retry-After": "0"})
    for path in (NAMES[0], made.config.index.parts[0]) if made.config.index else ():
        site.server.fail(path, busy, Fault(cut_after=100))
    counters = run(made)
    assert agrees(counters, {step: counted(out, step) for step in STEPS if counted(out, step)})
    return out


def test_the_documents_are_those_of_the_whole_crawl(found: Path, scanned: Path) -> None:
    made = rows(str(found), "documents")
    assert {row["url"] for row in made} == {url for url, _, _ in WANTED} - {WANTED[1][0], *(w[0] for w in WANTED[-2:])}
    folders = ("documents", "exchange/c4")
    ours, theirs = (
        {path: digest for path, digest in digests(root, *folders).items() if "pages" not in str(path)}
        for root in (found, scanned)
    )
    assert ours == theirs and len(ours) > 3


def test_captures_are_chosen_as_in_the_whole_crawl(found: Path) -> None:
    chosen = {row["url"]: (row["timestamp"], NAMES.index(row["warc"])) for row in rows(str(found), "documents")}
    assert chosen["https://www.barn.example/a/"] == ("2024-03-09T00:00:00Z", 1)
    assert chosen["http://barn.example/a?ref=1"] == ("2024-03-01T00:00:00Z", 0)
    assert chosen["https://even.example"] == ("2024-03-03T00:00:00Z", 1)  # the earlier
    assert chosen["http://same.example/x"] == (TIMESTAMP, 0)  # the first in the crawl


def test_everything_adds_up(found: Path) -> None:
    total = counted(found)
    assert_adds_up({n: c for n, c in total.items() if not n.startswith(("index.", "ranges."))})
    assert {n: c for n, c in total.items() if n.startswith(("lookups", "c4", "captures"))} == {
        "lookups.entered": len(WANTED),
        "lookups.kept": len(WANTED) - 2,
        "lookups.dropped.not_in_index": 2,
        "captures.entered": 13,
        "captures.kept": 11,
        "captures.dropped.http_status": 1,
        "captures.dropped.not_html": 1,
        "c4.entered": len(WANTED),
        "c4.kept": len(WANTED) - 3,
        "c4.dropped.page_taken": 1,
        "c4.dropped.page_not_in_crawl": 2,
    }
    assert total["groups.dropped.pruned"] > 20


def test_documents_that_the_index_lacks_are_dead_letters(found: Path) -> None:
    told = letters(found, "pick")
    assert sorted(letter["url"] for letter in told) == ["http://gone.example/", "http://nowhere.example/"]
    assert {(letter["what"], letter["reason"]) for letter in told} == {("lookups", "not_in_index")}


def test_only_these_records_are_fetched(found: Path, site: Site) -> None:
    total = counted(found)
    whole = sum((site.folder / name).stat().st_size for name in NAMES)
    assert total["ranges.bytes"] == total["ranges.wanted_bytes"] < whole / 5
    asked = [request for name in NAMES for request in site.server.asked(name)]
    assert all(request.headers["range"].count("-") == 1 for request in asked)
    assert total["ranges.requests"] <= len(asked) <= total["ranges.requests"] + 2  # and two that were asked again


@pytest.mark.parametrize("rules", [{"request_seconds": 9e9}, {"max_block": 1}, {"files_per_unit": 2}])
def test_how_records_are_fetched_changes_no_document(
    rules: dict[str, Any], found: Path, site: Site, tmp_path: Path
) -> None:
    run(documents(tmp_path, str(site.folder), site.released, **rules))
    assert rows(str(tmp_path), "documents") == rows(str(found), "documents")
    total, before = counted(tmp_path), counted(found)
    if "request_seconds" in rules:
        assert total["ranges.requests"] == len(NAMES)
    if "max_block" in rules:
        assert total["ranges.requests"] == total["records.entered"] > before["ranges.requests"]


def test_a_part_of_the_crawl(site: Site, tmp_path: Path) -> None:
    """The index tells of all WARC files; with a limit some are not read."""
    run(documents(tmp_path, str(site.folder), site.released, names=NAMES[:1]))
    total = counted(tmp_path, "pick")
    assert total["lookups.dropped.in_other_warcs"] == 3
    assert {row["warc"] for row in rows(str(tmp_path), "documents")} == {NAMES[0]}


def test_committed_units_are_not_done_again(found: Path, site: Site, tmp_path: Path) -> None:
    run(documents(tmp_path, site.server.root, site.released))
    before = digests(tmp_path)
    site.server.requests.clear()
    for step, unit in (("extract", "00001"), ("pick", "00002"), ("look_up", "00000")):
        Path(commits.path_of(str(tmp_path), step, unit)).unlink()
    run(documents(tmp_path, site.server.root, site.released))
    assert digests(tmp_path) == before
    assert {request.path.rsplit("/", 1)[1][:8] for request in site.server.requests} == {
        "cc-index", "part-000", NAMES[1].rsplit("/", 1)[1][:8]
    }  # fmt: skip
    assert not site.server.asked(NAMES[0])


# An index that is wrong, and records that are made to hurt.


def sound(name: str) -> bytes:
    return member(response_fields(f"http://{name}.example/"), http(markup(paragraphs(prose(name))), HTML))


def entry(name: str, offset: int, length: int, **changes: Any) -> dict[str, Any]:
    url = f"http://{name}.example/"
    return {
        **dict.fromkeys(SCHEMA.names),
        "url_surtkey": surt_key(url),
        "url": url,
        "fetch_time": datetime(2024, 3, 1, 12, tzinfo=timezone.utc),
        "fetch_status": 200,
        "content_mime_type": "text/html",
        "warc_filename": NAMES[0],
        "warc_record_offset": offset,
        "warc_record_length": length,
        **changes,
    }


def bomb() -> bytes:
    """A header without an end: 64 MB in 64 KB."""
    return gzip.compress(b"WARC/1.0\r\nWARC-Type: response\r\nX: " + bytes(64 << 20), mtime=0)


REQUEST = member({**response_fields("http://bad6.example/"), "WARC-Type": "request"}, b"GET / HTTP/1.1\r\n\r\n")
Changes = Callable[[int, int], tuple[int, int]]  # true place -> what the index says


def as_is(offset: int, length: int) -> tuple[int, int]:
    return offset, length


BAD: list[tuple[bytes, Changes, str | None]] = [
    (sound("bad0"), lambda offset, length: (1 << 30, length), "beyond_end_of_file"),
    (sound("bad1"), lambda offset, length: (offset, 1 << 20), "beyond_end_of_file"),
    (sound("bad2"), lambda offset, length: (offset, length + 40), "wrong_length"),
    (sound("bad3"), lambda offset, length: (offset, length - 40), "truncated_file"),
    (sound("bad4"), lambda offset, length: (offset + 3, length - 3), "garbage"),
    (sound("liar"), as_is, "another_page"),
    (REQUEST, as_is, "not_a_response"),
    (b"no gzip at all" * 20, as_is, "garbage"),
    (bytes(300), as_is, "garbage"),
    (sound("bad9")[:60] + bytes(20) + sound("bad9")[80:], as_is, None),
    (bomb(), as_is, None),
]


def test_a_bad_record_is_a_dead_letter_and_the_others_stay(tmp_path: Path) -> None:
    before, after = sound("before"), sound("after")
    data, entries, said = before, [entry("before", 0, len(before))], {}
    for number, (content, change, reason) in enumerate(BAD):
        place = change(len(data), len(content))
        entries.append(entry(f"bad{number}", *place))
        said[place[0]] = reason
        data += content
    entries += [entry("after", len(data), len(after)), entry("same", 0, len(before))]  # `same`: the place of another
    made = hostile(tmp_path, data + after + bytes(100), *entries)
    pages = {row["url"] for row in rows(str(tmp_path / "out"), "documents/pages")}
    assert pages == {"http://before.example/", "http://after.example/"}
    found = {letter["offset"]: letter["reason"] for letter in letters(tmp_path / "out", "extract")}
    assert found.keys() == said.keys()
    assert all(reason in (None, found[offset]) for offset, reason in said.items()), found
    assert made["records.entered"] == len(BAD) + 2
    assert made["c4.dropped.page_not_in_crawl"] == len(BAD) + 1


def test_rows_that_cannot_be_asked_for(tmp_path: Path) -> None:
    """Only what can be a record, in a WARC file that the crawl lists, is ever asked for."""
    changes: list[dict[str, Any]] = [
        {"warc_record_offset": -5},
        {"warc_record_length": 0},
        {"warc_record_length": -1},
        {"warc_record_length": 2**31 - 1},
        {"warc_filename": ""},
    ]
    names = ("../../../etc/passwd", "/etc/passwd", "http://10.0.0.1/x.warc.gz", NAMES[2])
    elsewhere = [{"warc_filename": name} for name in names]
    entries = [entry(f"bad{i}", 0, 9, **change) for i, change in enumerate([*changes, *elsewhere])]
    made = hostile(tmp_path, sound("bad"), *entries)
    assert made["captures.dropped.bad_range"] == len(changes) == made["lookups.dropped.not_in_index"]
    assert made["lookups.dropped.in_other_warcs"] == len(elsewhere)
    assert "ranges.requests" not in made
    assert {letter["reason"] for letter in letters(tmp_path / "out", "look_up")} == {"bad_range"}


def test_a_bomb_in_the_payload_is_a_bad_record() -> None:
    """64 MB in 64 KB: no more than the limit is unpacked."""
    body = http(gzip.compress(bytes(64 << 20)), HTML, ("Content-Encoding", "gzip"))
    data = member(response_fields("http://bad.example/"), body)
    keys = {url_key(normalize_url("http://bad.example/"))}
    record = ranges.read_one(data, ("x.warc.gz", 0, len(data)), keys, warc.WarcLimits())
    assert isinstance(record, warc.BadRecord) and record.reason == "payload_too_large"


def hostile(folder: Path, data: bytes, *entries: dict[str, Any]) -> dict[str, int]:
    """A crawl of one WARC file, and what its index says of it; C4 has all that the index names."""
    path = folder / "www" / NAMES[0]
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    write_index(folder / "www", CRAWL, sorted(entries, key=lambda e: str(e["url_surtkey"])), parts=1)
    wanted = [(str(e["url"]), TIMESTAMP, "some") for e in entries]
    run(documents(folder / "out", str(folder / "www"), released(folder, *wanted), names=NAMES[:1]))
    made = counted(folder / "out")
    assert_adds_up({n: c for n, c in made.items() if n.startswith(("records", "captures", "lookups", "pages"))})
    return made


def unit_of(root: str, rules: IndexRules, name: str = "00000") -> tuple[Unit, Workspace]:
    unit = Unit(name=name, inputs=(rules.parts[0],))
    return unit, Workspace(root, "map_index", unit)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "part of the index is missing .*build without --index"),
        (lambda path: path.write_bytes(b"PAR1 but no more"), "is no Parquet file"),
    ],
)
def test_a_part_that_is_missing_or_broken_ends_the_run(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    crawled(tmp_path, [shown("mill")])
    rules = IndexRules(parts=tuple(crawl.list_index(CRAWL, str(tmp_path))))
    damage(tmp_path / rules.parts[0])
    unit, workspace = unit_of(str(tmp_path / "out"), rules)
    with pytest.raises(ColumnarIndexError, match=said):
        index.map_index(unit, workspace, rules=rules, crawl_root=str(tmp_path))


def test_a_server_without_range_sends_no_whole_files(site: Site) -> None:
    site.server.fail(NAMES[0], Fault(ignore_range=True))
    workspace = Workspace("/none", "extract", Unit(name="0"))
    places = {NAMES[0]: [(1000, 10, 1)]}
    rules = IndexRules(parts=("x",))
    with pytest.raises(NoRange, match="ignores Range"):
        list(ranges.read_ranges(places, workspace, rules, (site.server.root, warc.WarcLimits())))


def test_a_warc_file_that_is_gone_ends_the_run(site: Site) -> None:
    """As when it is read as a whole: the rest of the crawl would pass for all of it."""
    workspace = Workspace("/none", "extract", Unit(name="0"))
    with pytest.raises(transport.NotFound, match="00009"):
        places = {NAMES[0].replace("00000.warc", "00009.warc"): [(0, 10, 1)]}
        list(ranges.read_ranges(places, workspace, IndexRules(parts=("x",)), (site.server.root, warc.WarcLimits())))


def test_letters_of_a_bucket_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most documents of C4 are in no other crawl; their names alone would fill the disk."""
    monkeypatch.setattr(index, "LETTERS", 2)
    crawled(tmp_path / "www", [shown("mill")])
    path = released(tmp_path, *((f"http://no{i}.example/", TIMESTAMP, "x") for i in range(40)))
    run(documents(tmp_path / "out", str(tmp_path / "www"), path, names=NAMES[:1]))
    assert counted(tmp_path / "out")["lookups.dropped.not_in_index"] == 40
    assert 0 < len(letters(tmp_path / "out", "pick")) <= 2 * len(BUCKETS)


def test_an_index_without_released_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="released C4"):
        DocumentsConfig(index=IndexRules(parts=("x",)))


# A plan with an index.


def planned(site: Site, out: Path, **rules: Any) -> Plan:
    parts = tuple(crawl.list_index(CRAWL, site.server.root))
    config = DocumentsConfig(c4=(str(site.released),), index=IndexRules(parts=parts, **rules))
    made = Crawl(name=CRAWL, root=site.server.root, warcs=tuple((name,) for name in NAMES))
    return plan(out, made, documents=config)


@pytest.mark.parametrize("together", [1, 2])
def test_a_build_of_documents_by_the_index(together: int, site: Site, found: Path, tmp_path: Path) -> None:
    made = planned(site, tmp_path / "out", files_per_unit=together)
    assert [unit.inputs for unit in made.files] == [NAMES[:together], NAMES[together : 2 * together], NAMES[2:]][
        : len(made.files)
    ]
    build(made, Engine(workers=1), stages=("documents",))
    assert rows(made.root, "documents") == rows(str(found), "documents")
    assert build(made, Engine(workers=1), stages=("documents",)).ran == ()
    steps = {(s["unit"]): s for s in json.loads((tmp_path / "out/funnel.json").read_text())["steps"]}
    assert steps["lookups"]["reasons"] == {"not_in_index": 2}


def test_a_removed_page_is_gone_from_all_that_the_index_left_and_stays_away(site: Site, tmp_path: Path) -> None:
    """The list of wanted pages, their places in the crawl and their records are as much a part of the build."""
    made = planned(site, tmp_path / "out")
    build(made, Engine(workers=1))
    gone = "http://mill.example/"
    before = {row["url"] for row in rows(made.root, "documents")}
    assert gone in before
    assert remove.run(made, key_lists.parse(gone, "list"), Engine(workers=1)) == 0
    assert {row["url"] for row in rows(made.root, "documents")} == before - {gone} | {""}  # its row is empty
    needles = Needles.of([gone])
    left = [path for path in storage.walk(made.root) if not path.startswith("removals/")]
    assert [path for path in left if search(storage.join(made.root, path), needles)[0]] == []
    assert build(made, Engine(workers=1)).ran == ()
    shutil.rmtree(Path(made.root, "commits"))
    build(made, Engine(workers=1))
    assert {row["url"] for row in rows(made.root, "documents")} == before - {gone}


def test_the_command_line_finds_the_index(site: Site, found: Path, tmp_path: Path) -> None:
    flags = ["--crawl", CRAWL, "--crawl-root", site.server.root, "--c4", str(site.released.parent), "--index",
             "--contact", "https://example.org/", "--clip", "tiny", "--stages", "documents",
             "--workers", "1"]  # fmt: skip
    assert main([*flags, "--output", str(tmp_path / "out")]) == 0
    assert rows(str(tmp_path / "out"), "documents") == rows(str(found), "documents")


def test_a_crawl_without_an_index_is_told(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / f"crawl-data/{CRAWL}").mkdir(parents=True)
    listing = f"crawl-data/{CRAWL}/warc.paths.gz"
    (tmp_path / listing).write_bytes(gzip.compress(f"{NAMES[0]}\n".encode()))
    (tmp_path / NAMES[0]).parent.mkdir(parents=True)
    (tmp_path / NAMES[0]).write_bytes(b"")
    flags = ["--crawl", CRAWL, "--crawl-root", str(tmp_path), "--c4", str(site.released.parent), "--index"]
    more = ["--contact", "https://example.org/", "--clip", "tiny", "--output", str(tmp_path / "out")]
    assert main([*flags, *more]) == 1
    assert "cc-index-table.paths.gz is missing" in capsys.readouterr().err
