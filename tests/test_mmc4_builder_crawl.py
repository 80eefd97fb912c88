"""A crawl's name becomes its list of files, or an error that says what to do."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Fault, FolderServer, serve

from mmc4_builder.crawl import COLLINFO, COMMON_CRAWL, CrawlError, expand_inputs, list_crawl
from mmc4_builder.transport import Forbidden, RetryPolicy, TransportError, Unreachable

RETRY = RetryPolicy(tries=3, sleep=lambda _: None)
CRAWL = "CC-MAIN-2024-10"
PATHS = [
    f"crawl-data/{CRAWL}/segments/170794747.{part}/warc/CC-MAIN-20240220211055-20240221001055-0000{part}.warc.gz"
    for part in (1, 0, 2)
]


def write_list(folder: Path, lines: list[str], crawl: str = CRAWL) -> None:
    target = folder / "crawl-data" / crawl / "warc.paths.gz"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    write_list(tmp_path, PATHS)
    write_list(tmp_path, PATHS, "CC-MAIN-2024-18")
    (tmp_path / "crawl-data" / "notes").mkdir()
    return tmp_path


@pytest.fixture
def server(bucket: Path) -> Iterator[FolderServer]:
    with serve(bucket) as server:
        yield server


def test_a_crawl_of_a_folder(bucket: Path) -> None:
    assert list_crawl(CRAWL, str(bucket)) == [f"{bucket}/{path}" for path in PATHS]
    assert list_crawl(CRAWL, f"{bucket}/", limit=2) == [f"{bucket}/{path}" for path in PATHS[:2]]


def test_a_crawl_of_a_server(server: FolderServer) -> None:
    server.fail(f"crawl-data/{CRAWL}/warc.paths.gz", Fault(status=503), Fault(cut_after=20))
    assert list_crawl(CRAWL, server.root, retry=RETRY) == [server.url(path) for path in PATHS]
    assert list_crawl(CRAWL, server.root, limit=1, retry=RETRY) == [server.url(PATHS[0])]
    assert not server.asked("collinfo.json")


def test_the_default_root_is_common_crawl() -> None:
    assert COMMON_CRAWL == "https://data.commoncrawl.org"
    assert COLLINFO == "https://index.commoncrawl.org/collinfo.json"


def test_an_unknown_crawl_names_its_neighbours(bucket: Path) -> None:
    with pytest.raises(CrawlError) as caught:
        list_crawl("CC-MAIN-2024-11", str(bucket))
    text = str(caught.value)
    assert f"{bucket}/crawl-data/CC-MAIN-2024-11/warc.paths.gz is missing" in text
    assert "the nearest names are CC-MAIN-2024-1" in text and "notes" not in text


def test_an_unknown_crawl_of_a_server(bucket: Path, server: FolderServer) -> None:
    crawls = [{"id": name} for name in ("CC-MAIN-2026-39", "CC-MAIN-2024-18", "CC-MAIN-2024-10", "X")]
    (bucket / "collinfo.json").write_text(json.dumps([*crawls, "odd", {"name": "no id"}]))
    with pytest.raises(CrawlError, match="nearest names are CC-MAIN-2024-1"):
        list_crawl("CC-MAIN-2024-11", server.root, retry=RETRY)
    with pytest.raises(CrawlError, match="knows CC-MAIN-2026-39, CC-MAIN-2024-18"):
        list_crawl("latest", server.root, retry=RETRY)


@pytest.mark.parametrize(
    "fault", [Fault(status=404), Fault(status=503), Fault(body=b"<html>"), Fault(body=b"\xff\xfe")]
)
def test_without_a_list_of_crawls_the_error_stays(server: FolderServer, fault: Fault) -> None:
    server.fail("collinfo.json", fault)
    with pytest.raises(CrawlError, match="is missing; the list of crawls could not be had either"):
        list_crawl("CC-MAIN-2024-11", server.root, retry=RETRY)
    assert len(server.asked("collinfo.json")) == 1


def test_an_empty_folder_has_no_crawls(tmp_path: Path) -> None:
    with pytest.raises(CrawlError, match="has no crawls at all"):
        list_crawl(CRAWL, str(tmp_path))


@pytest.mark.parametrize(
    ("crawl", "text"),
    [
        ("CC-NEWS", "news crawl has no list"),
        ("CC-NEWS-2024-01", "news crawl has no list"),
        ("CC-MAIN-2012", "ARC files"),
        ("CC-MAIN-2009-2010", "ARC files"),
        ("CC-MAIN-2012-40", "ARC files"),
        ("CC-MAIN-2005-10", "first WARC crawl is of 2013"),
        ("CC-MAIN-2024-54", "a name looks like CC-MAIN-2024-10"),
        ("CC-MAIN-2024-00", "a name looks like"),
        ("cc-main-2024-10", "nearest names are CC-MAIN-2024-10"),
        ("2024-10", "nearest names are CC-MAIN-2024-10"),
        ("CC-MAIN-2024-1O", "nearest names are .*CC-MAIN-2024-10"),
        ("../../etc", "a name looks like"),
        ("CC-MAIN-２０２４-10", "a name looks like"),
        ("", "a name looks like"),
    ],
)
def test_names_that_are_none(bucket: Path, crawl: str, text: str) -> None:
    with pytest.raises(CrawlError, match=text):
        list_crawl(crawl, str(bucket))


@pytest.mark.parametrize(
    "line",
    [
        "https://elsewhere.example/x.warc.gz",
        "/crawl-data/CC-MAIN-2024-10/segments/1/warc/a.warc.gz",
        "crawl-data/CC-MAIN-2024-10/segments/1/wet/a.warc.wet.gz",
        "crawl-data/CC-MAIN-2024-10/segments/../warc/a.warc.gz",
        "crawl-data/CC-MAIN-2024-10/segments/1/warc/a b.warc.gz",
        "crawl-data/CC-MAIN-2024-10/segments/1/warc/é.warc.gz",
        "x" * 5000,
    ],
)
def test_a_list_with_something_else_in_it(bucket: Path, line: str) -> None:
    write_list(bucket, [PATHS[0], line])
    with pytest.raises(CrawlError, match="line 2 of .* is no path of a WARC file"):
        list_crawl(CRAWL, str(bucket))


@pytest.mark.parametrize("damage", ["cut", "flipped", "html", "empty", "blank"])
def test_a_damaged_list(bucket: Path, damage: str) -> None:
    target = bucket / "crawl-data" / CRAWL / "warc.paths.gz"
    data = target.read_bytes()
    target.write_bytes(
        {
            "cut": data[:-9],
            "flipped": data[:30] + bytes([data[30] ^ 0xFF]) + data[31:],
            "html": b"<html>Slow down</html>",
            "empty": b"",
            "blank": gzip.compress(b"\n\n"),
        }[damage]
    )
    with pytest.raises(CrawlError, match="is damaged|lists no WARC files"):
        list_crawl(CRAWL, str(bucket))


def test_a_blocked_client_stops(server: FolderServer) -> None:
    server.fail(f"crawl-data/{CRAWL}/warc.paths.gz", Fault(status=403))
    with pytest.raises(Forbidden, match="blocks clients"):
        list_crawl(CRAWL, server.root, retry=RETRY)
    assert len(server.requests) == 1


def test_an_unreachable_root() -> None:
    with pytest.raises(Unreachable):
        list_crawl(CRAWL, "http://127.0.0.1:9", retry=RETRY)


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_is_at_least_one(bucket: Path, limit: int) -> None:
    with pytest.raises(CrawlError, match="at least 1"):
        list_crawl(CRAWL, str(bucket), limit)
    with pytest.raises(CrawlError, match="at least 1"):
        expand_inputs([str(bucket)], limit)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("b.warc.gz", "a.warc.gz", "c.warc", "notes.txt", "deep/d.warc.gz", "odd[1].warc.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        (["b.warc.gz", "a.warc.gz"], ["a.warc.gz", "b.warc.gz"]),
        (["*.warc.gz", "a.warc.gz"], ["a.warc.gz", "b.warc.gz", "odd[1].warc.gz"]),
        (["**/*.warc.gz"], ["a.warc.gz", "b.warc.gz", "deep/d.warc.gz", "odd[1].warc.gz"]),
        (["."], ["./a.warc.gz", "./b.warc.gz", "./c.warc", "./odd[1].warc.gz"]),
        (["odd[1].warc.gz"], ["odd[1].warc.gz"]),
        (["notes.txt"], ["notes.txt"]),
    ],
)
def test_local_patterns(files: Path, monkeypatch: pytest.MonkeyPatch, patterns: list[str], names: list[str]) -> None:
    monkeypatch.chdir(files)
    assert expand_inputs(patterns) == names
    assert expand_inputs(patterns, limit=1) == names[:1]


def test_absolute_and_remote_paths(files: Path) -> None:
    url = "https://example.org/x.warc.gz?y=1"
    assert expand_inputs([f"file://{files}/a.warc.gz", url, url, "gs://bucket/x.warc.gz"]) == [
        f"{files}/a.warc.gz",
        "gs://bucket/x.warc.gz",
        url,
    ]


@pytest.mark.parametrize(
    ("patterns", "text"),
    [
        ([], "no input"),
        (["missing.warc.gz"], "matches missing.warc.gz"),
        (["*.zip"], r"matches \*.zip"),
        (["a.warc.gz", "deep/*.zip"], "deep"),
        (["https://example.org/*.warc.gz"], "cannot be listed"),
    ],
)
def test_inputs_that_are_not_there(
    files: Path, monkeypatch: pytest.MonkeyPatch, patterns: list[str], text: str
) -> None:
    monkeypatch.chdir(files)
    with pytest.raises(CrawlError, match=text):
        expand_inputs(patterns)


def test_a_store_that_nothing_serves() -> None:
    with pytest.raises(TransportError, match="no file system for nosuch://"):
        expand_inputs(["nosuch://bucket/*.warc.gz"])
