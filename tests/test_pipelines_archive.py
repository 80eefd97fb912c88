"""Pictures out of the crawl itself: which capture of a URL is taken, and where redirects lead."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pvalue import PCollection
from hypothesis import given
from hypothesis import strategies as st
from small_crawls import (
    HTML,
    TIMESTAMP,
    agrees,
    article,
    counts,
    extracted,
    jpeg,
    markup,
    picture,
    plan,
    redirect,
    rows,
    run,
    run_until,
    write,
)

from mmc4_builder import storage
from mmc4_builder.commits import Commit, load_all
from mmc4_builder.images import normalise
from mmc4_builder.warc import Response, read_record
from mmc4_builder.workspace import Unit, Workspace
from pipelines.archive import MAX_HOPS, FollowRedirects, follow, host_key, newest, warc_path
from pipelines.plan import Plan
from pipelines.schemas import ARCHIVED
from pipelines.units import Committed


@pytest.mark.parametrize(
    ("redirects", "end"),
    [
        ({}, "a"),
        ({"a": "b"}, "b"),
        ({"a": "b", "b": "c"}, "c"),
        ({"a": "a"}, None),
        ({"a": "b", "b": "a"}, None),
        ({"a": "b", "b": "c", "c": "b"}, None),
        ({"abcdef"[i]: "abcdef"[i + 1] for i in range(MAX_HOPS)}, "f"),
        ({"abcdefg"[i]: "abcdefg"[i + 1] for i in range(MAX_HOPS + 1)}, None),
    ],
)
def test_follow(redirects: dict[str, str], end: str | None) -> None:
    assert follow(redirects, "a") == end


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")))
def test_chains_end_where_no_redirect_begins(redirects: dict[str, str]) -> None:
    for url in "abcdefgh":
        end = follow(redirects, url)
        assert end is None or end not in redirects


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://x.example/a.jpg", "http://x.example/b/c.jpg"),
        ("http://x.example/a.jpg", "https://X.example:8080/a.jpg"),
        ("http://x.example/a.jpg", "http://user@x.example./a.jpg"),
    ],
)
def test_a_host_has_one_bucket(one: str, other: str) -> None:
    assert host_key(one) == host_key(other) != host_key("http://www.x.example/a.jpg")


def test_names_lie_below_the_root_of_the_crawl() -> None:
    assert warc_path("", "/data/a.warc.gz") == "/data/a.warc.gz"
    assert warc_path("https://x.example/", "crawl-data/a.warc.gz") == "https://x.example/crawl-data/a.warc.gz"


def held_by(folder: Path, *records: Response) -> dict[str, dict[str, Any]]:
    """What the index of one WARC file with these records says."""
    crawl = write(folder / "crawl", records)
    extracted(folder / "out", folder / "crawl" / "0.warc.gz")
    (commit,) = load_all(str(folder / "out"), "extract", ["00000"])
    pieces = tuple(piece for sent in commit.pieces.values() for piece in sent)
    table = Workspace(str(folder / "out"), "", Unit(name="", pieces=pieces)).received("archive", ARCHIVED)
    assert crawl.warcs[0][0] == "0.warc.gz"
    return newest(table)


URL = "http://x.example/a.jpg"


@pytest.mark.parametrize(
    "record",
    [
        picture(URL, 1),
        picture(URL, 1, kind="text/html"),  # a server that calls everything a page
        picture(URL, 1, kind="application/octet-stream"),
        picture("http://x.example/photo?id=1", 1),  # no extension, but the right type
    ],
)
def test_pictures_are_found(record: Response, tmp_path: Path) -> None:
    held = held_by(tmp_path, record)
    assert list(held) == [record.url]
    row = held[record.url]
    found = read_record(str(tmp_path / "crawl" / row["warc"]), row["offset"], row["length"])
    assert (found.payload, found.digest, found.timestamp) == (jpeg(1), row["digest"], row["timestamp"])


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Response(url=URL, timestamp=TIMESTAMP, payload=b"", status=404, headers=(HTML,)), "http_status"),
        (Response(url=URL, timestamp=TIMESTAMP, payload=b"", status=503), "http_status"),
        (picture("http://x.example/a.pdf", kind="application/pdf"), "not_html"),
    ],
)
def test_what_is_no_picture_is_not_called_one(record: Response, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "crawl", [record])
    found = extracted(tmp_path / "out", tmp_path / "crawl" / "0.warc.gz")
    assert found.counts == {"records.entered": 1, f"records.dropped.{reason}": 1}


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_the_newest_capture_of_one_file_is_taken(order: tuple[int, int], tmp_path: Path) -> None:
    """Wherever in the file it stands."""
    records = [picture(URL, seed, timestamp=f"2024-03-0{seed}T00:00:00Z") for seed in order]
    assert held_by(tmp_path, *records)[URL]["timestamp"] == "2024-03-02T00:00:00Z"


def test_of_equally_old_captures_the_first_is_taken(tmp_path: Path) -> None:
    row = held_by(tmp_path, picture(URL, 1), picture(URL, 2))[URL]
    assert read_record(str(tmp_path / "crawl/0.warc.gz"), row["offset"], row["length"]).payload == jpeg(1)


NOWHERE = [
    "http://[broken/a.jpg",
    "http://x.example:port/",
    "",
    "//",
    "\x00",
    "a" * 9000,
    "ftp://x.example/",
    "é",
]


def test_redirects_to_nowhere_are_no_error(tmp_path: Path) -> None:
    urls = [f"http://x.example/{number}.jpg" for number in range(len(NOWHERE))]
    redirects = [redirect(url, target) for url, target in zip(urls, NOWHERE, strict=True)]
    odd = redirect("http://[x/a.jpg", "http://x.example/a.jpg")
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [article("mill", *urls), *redirects, odd]))
    run_until(made, "images")
    assert [row["reason"] for row in rows(made.root, "images")] == ["missing"] * len(NOWHERE)


# A crawl of three files whose pictures lie behind redirects of all kinds.

CHAIN = [redirect(f"http://chain.example/{i}.jpg", f"http://chain.example/{i + 1}.jpg") for i in range(MAX_HOPS + 1)]
EXPECTED = {
    "http://x.example/plain.jpg": 1,
    "http://x.example/near.jpg": 1,  # redirects in the same file
    "http://x.example/relative.jpg": 1,
    "http://x.example/temporary.jpg": 1,
    "http://x.example/far.jpg": 2,  # to another file
    "http://x.example/abroad.jpg": 3,  # to another host
    "http://x.example/twice.jpg": 3,  # a chain of two, over files and hosts
    "http://x.example/renewed.jpg": 5,  # the newest capture lies in the second file
    "http://x.example/moved.jpg": 6,  # held under its own name, so the redirect does not count
    "http://x.example/page.jpg": 7,  # under the type of a page
    "http://chain.example/1.jpg": 8,  # as many hops as are allowed
    "http://chain.example/0.jpg": None,  # one too many
    "http://x.example/loop.jpg": None,
    "http://x.example/self.jpg": None,
    "http://x.example/dead-end.jpg": None,
    "http://x.example/absent.jpg": None,
}
FIRST = [
    article("first", *EXPECTED),
    picture("http://x.example/plain.jpg", 1),
    redirect("http://x.example/near.jpg", "http://x.example/plain.jpg"),
    redirect("http://x.example/relative.jpg", "plain.jpg", 302),
    redirect("http://x.example/temporary.jpg", "//x.example/plain.jpg", 307),
    redirect("http://x.example/far.jpg", "http://x.example/elsewhere.jpg", 308),
    redirect("http://x.example/abroad.jpg", "http://y.example/a.jpg"),
    redirect("http://x.example/twice.jpg", "http://y.example/b.jpg"),
    picture("http://x.example/renewed.jpg", 4, timestamp="2024-03-01T00:00:00Z"),
    redirect("http://x.example/moved.jpg", "http://x.example/plain.jpg"),
    redirect("http://x.example/loop.jpg", "http://x.example/pool.jpg"),
    redirect("http://x.example/pool.jpg", "http://x.example/loop.jpg"),
    redirect("http://x.example/self.jpg", ""),
    redirect("http://x.example/dead-end.jpg", "http://x.example/nothing.jpg"),
]
SECOND = [
    picture("http://x.example/elsewhere.jpg", 2),
    redirect("http://y.example/b.jpg", "http://y.example/a.jpg"),
    picture("http://x.example/renewed.jpg", 5, timestamp="2024-03-05T00:00:00Z"),
    picture("http://x.example/moved.jpg", 6),
    *CHAIN,
]
THIRD = [
    picture("http://y.example/a.jpg", 3),
    picture("http://x.example/renewed.jpg", 9, timestamp="2024-02-01T00:00:00Z"),
    picture("http://x.example/page.jpg", 7, kind="text/html"),
    picture(f"http://chain.example/{MAX_HOPS + 1}.jpg", 8),
]


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The crawl, with its documents made."""
    folder = tmp_path_factory.mktemp("archive")
    made = plan(folder / "out", write(folder / "crawl", FIRST, SECOND, THIRD))
    run_until(made, "documents")
    return made


@pytest.fixture(scope="module")
def stored(documented: Plan) -> Plan:
    counters = run(documented.stage("images").transform)
    assert agrees(counters, counts(documented, "images"))
    return documented


@pytest.mark.parametrize(("url", "seed"), EXPECTED.items())
def test_the_right_picture_is_stored(url: str, seed: int | None, stored: Plan) -> None:
    (row,) = [row for row in rows(stored.root, "images") if row["url"] == url]
    if seed is None:
        assert (row["reason"], row["sha256"], row["origin"]) == ("missing", None, None)
    else:
        assert (row["reason"], row["sha256"]) == (None, normalise(jpeg(seed)).sha256)
        assert row["origin"] == "archive"


def test_rows_tell_which_record_was_read(stored: Plan) -> None:
    for row in rows(stored.root, "images"):
        if row["warc"]:
            path = Path(stored.crawl.root, row["warc"])
            with storage.open_read(str(path)) as stream:
                stream.seek(row["warc_offset"])
                record = read_record(str(path), row["warc_offset"], len(stream.read()))
            assert (record.url, record.timestamp) == (row["final_url"], row["fetched"])


def test_missing_pictures_are_counted(stored: Plan) -> None:
    counted = counts(stored, "images")["images"]
    assert counted.pop("bytes") == sum(len(jpeg(seed)) for seed in EXPECTED.values() if seed)
    assert counted == {
        "urls.entered": len(EXPECTED),
        "urls.kept": 11,
        "urls.dropped.missing": 5,
    }


class Follow(beam.PTransform):
    """The part of the images stage under test, alone."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def expand(self, pipeline: beam.Pipeline) -> PCollection[Commit]:
        followed: PCollection[Commit] = (
            pipeline
            | beam.Create(self.plan.files)
            | Committed(self.plan.root, "extract")
            | FollowRedirects(self.plan.root, "f", self.plan.buckets)
        )
        return followed


def test_aliases_lie_in_the_bucket_of_the_host_that_pages_name(documented: Plan, tmp_path: Path) -> None:
    root = shutil.copytree(documented.root, tmp_path / "out", ignore=shutil.ignore_patterns("aliases"))
    run(Follow(replace(documented, root=str(root))))
    sent = load_all(str(root), "aliases", [unit.name for unit in documented.buckets])
    found: dict[str, int] = {}
    for number, bucket in enumerate(documented.buckets):
        pieces = tuple(p for commit in sent for p in commit.pieces.get(bucket.name, ()))
        table = Workspace(str(root), "", Unit(name=bucket.name, pieces=pieces)).received("aliased", ARCHIVED)
        found |= dict.fromkeys(table["url"].to_pylist(), number)
    reached = {"near", "relative", "temporary", "far", "abroad", "twice", "moved"}
    assert {f"http://x.example/{name}.jpg" for name in reached} <= set(found)
    assert "http://x.example/loop.jpg" not in found
    assert all(number == host_key(url) % len(documented.buckets) for url, number in found.items())


def test_pages_that_look_like_pictures_are_pages_too(tmp_path: Path) -> None:
    """A page at a URL that ends like a picture's is read as a page, and as a picture it is no good."""
    odd = Response(url=URL, timestamp=TIMESTAMP, payload=markup("<p>no picture</p>"), headers=(HTML,))
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [article("mill", URL), odd]))
    run_until(made, "images")
    assert counts(made, "documents")["extract"]["records.kept"] == 2
    (row,) = rows(made.root, "images")
    assert row["reason"] == "not_an_image"
