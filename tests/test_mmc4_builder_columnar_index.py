"""Common Crawl's columnar index: which rows are looked at, which ranges are asked for, and what is refused."""

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from servers import Fault, serve
from small_index import SCHEMA, surt_key

from mmc4_builder.columnar_index import (
    COLUMNS,
    ColumnarIndexError,
    IndexPart,
    IndexRules,
    coalesce,
    files_together,
    normalized,
    not_a_capture,
    surt_prefixes,
    within,
)
from mmc4_builder.http_rules import NoRange, NotFound, RetryPolicy, TransportError
from mmc4_builder.range_file import RangeFile, open_ranges
from mmc4_builder.urls import normalize_url

RULES = IndexRules(parts=("a.parquet",))
QUICK = RetryPolicy(tries=3, sleep=lambda seconds: None)


@pytest.mark.parametrize(
    ("url", "prefixes"),
    [
        ("https://an.wikipedia.org/wiki/Escopete", ("org,wikipedia,an)",)),
        ("http://www.bbc.co.uk/", ("uk,co,bbc)", "uk,co,bbc,www)")),
        ("http://WWW2.example.com:80/", ("com,example)", "com,example,www2)")),
        ("https://example.com:8443/", ("com,example:8443)",)),
        ("http://example.com:443/", ("com,example:443)",)),
        ("http://user@example.com./", ("com,example)",)),
        ("http://10.1.2.3/", ("10.1.2.3)", "3,2,1,10)")),
        ("http://wwwhat.example/", ("example,wwwhat)",)),
        ("http://x.example:99999/", ()),
        ("http://[half/", ()),
        ("no url", ()),
        ("", ()),
    ],
)
def test_surt_prefixes(url: str, prefixes: tuple[str, ...]) -> None:
    assert surt_prefixes(url) == tuple(sorted(prefixes))


KEYS = st.builds(
    lambda host, path: f"{','.join(host)}){path}",
    st.lists(st.text("ab", min_size=1, max_size=2), min_size=1, max_size=3),
    st.text("/a?", max_size=3),
)


@given(st.lists(KEYS, min_size=1, max_size=20), st.sets(KEYS, max_size=8))
def test_no_row_group_that_holds_a_host_is_pruned(keys: list[str], wanted: set[str]) -> None:
    prefixes = sorted({key[: key.find(")") + 1] for key in wanted})
    found = within(prefixes, min(keys), max(keys))
    assert found == sorted(set(found))
    held = {at for at, prefix in enumerate(prefixes) if any(key.startswith(prefix) for key in keys)}
    assert held <= set(found)
    assert within(prefixes, "", None) == list(range(len(prefixes)))


def test_hosts_elsewhere_are_pruned() -> None:
    prefixes = ["com,a)", "com,b)", "com,c)", "com,c,d)"]
    assert within(prefixes, "com,b)/x", "com,c)/a") == [1, 2]
    assert within(prefixes, "com,b,z)/", "com,b,zz)/") == []
    assert within(prefixes, "com,c,d)/a", "com,c,d)/b") == [3]


# Arrow compiles its expressions when they are first met
@given(st.lists(st.text("http:/w.?=utm_refd#Ä \t", max_size=30).map(lambda text: f"http://www.{text}"), max_size=5))
def test_a_column_is_normalized_as_each_url_is(urls: list[str]) -> None:
    assert normalized(pa.array(urls, pa.string())).to_pylist() == [normalize_url(url) for url in urls]


# Ranges asked for together.


@pytest.mark.parametrize(
    ("records", "blocks"),
    [
        ([], []),
        ([(5, 10)], [(5, 10)]),
        ([(0, 10), (10, 10)], [(0, 20)]),
        ([(0, 10), (15, 10)], [(0, 25)]),  # exactly the gap
        ([(0, 10), (16, 10)], [(0, 10), (16, 10)]),
        ([(0, 60), (60, 40)], [(0, 100)]),
        ([(0, 60), (60, 41)], [(0, 60), (60, 41)]),  # one byte too many for a block
        ([(0, 500), (500, 10)], [(0, 500), (500, 10)]),  # a record may be larger than a block
        ([(0, 50), (10, 5), (52, 8)], [(0, 60)]),  # an index that lies: one inside the other
    ],
)
def test_coalesce(records: list[tuple[int, int]], blocks: list[tuple[int, int]]) -> None:
    assert [(block.offset, block.length) for block in coalesce(records, 5, 100)] == blocks


@given(st.sets(st.tuples(st.integers(0, 400), st.integers(1, 60)), max_size=30), st.integers(0, 50))
def test_every_record_lies_in_the_block_that_names_it(records: set[tuple[int, int]], gap: int) -> None:
    blocks = coalesce(sorted(records), gap, 100)
    assert [record for block in blocks for record in block.records] == sorted(records)
    for block in blocks:
        assert all(block.offset <= o and o + n <= block.offset + block.length for o, n in block.records)
        assert block.length <= 100 or len(block.records) == 1
        assert min(o for o, _ in block.records) == block.offset


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 40)), min_size=1, max_size=9))
def test_the_gap_gives_the_least_cost(steps: list[tuple[int, int]]) -> None:
    """Beside every other way to cut the same records into requests, blocks without bound."""
    rules = replace(RULES, request_seconds=2.0, bytes_per_second=50.0)
    records, at = [], 0
    for space, length in steps:
        records.append((at + space, length))
        at += space + length

    def cost(blocks: list[tuple[int, int]]) -> float:
        return rules.request_seconds * len(blocks) + sum(size for _, size in blocks) / rules.bytes_per_second

    def cut(mask: int) -> list[tuple[int, int]]:
        made: list[tuple[int, int]] = []
        for number, (offset, length) in enumerate(records):
            if made and not mask >> number & 1:
                made[-1] = (made[-1][0], offset + length - made[-1][0])
            else:
                made.append((offset, length))
        return made

    ours = cost([(block.offset, block.length) for block in coalesce(records, rules.gap, 1 << 40)])
    assert ours == pytest.approx(min(cost(cut(mask)) for mask in range(1 << len(records))))


@pytest.mark.parametrize("change", [{"parts": ()}, {"files_per_unit": 0}, {"max_block": 0}, {"bytes_per_second": 0.0}])
def test_rules_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="index|positive"):
        replace(RULES, **change)


@pytest.mark.parametrize(
    ("released", "files", "together"),
    [(305_000_000_000, 56_000, 1), (298_000_000, 56_000, 29), (1000, 56_000, 256), (1000, 4, 4), (0, 0, 1)],
)
def test_files_together(released: int, files: int, together: int) -> None:
    """All of C4, one of its 1024 files, next to nothing."""
    assert files_together(released, files) == together


# Rows.

SOUND: dict[str, Any] = {
    "fetch_status": 200,
    "fetch_time": datetime(2024, 3, 1),
    "content_mime_type": "text/html",
    "content_mime_detected": "text/html",
    "warc_filename": "a.warc.gz",
    "warc_record_offset": 0,
    "warc_record_length": 100,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"content_mime_type": "Text/HTML; charset=x"}, None),
        ({"content_mime_type": None}, None),
        ({"content_mime_type": "unk", "content_mime_detected": "application/xhtml+xml"}, None),
        ({"content_mime_type": None, "content_mime_detected": None}, None),
        ({"content_mime_type": None, "content_mime_detected": "image/png"}, "not_html"),
        ({"content_mime_type": "image/jpeg"}, "not_html"),
        ({"fetch_status": 301}, "http_status"),
        ({"fetch_status": None}, "http_status"),
        ({"fetch_time": None}, "bad_time"),
        ({"warc_record_offset": -1}, "bad_range"),
        ({"warc_record_offset": None}, "bad_range"),
        ({"warc_record_length": 0}, "bad_range"),
        ({"warc_record_length": 2**31 - 1}, "bad_range"),
        ({"warc_filename": ""}, "bad_range"),
        ({"warc_filename": None}, "bad_range"),
    ],
)
def test_not_a_capture(change: dict[str, Any], reason: str | None) -> None:
    assert not_a_capture({**SOUND, **change}, 1 << 20) == reason


# Files.


def parquet(folder: Path, urls: list[str], schema: pa.Schema = SCHEMA, **options: Any) -> Path:
    rows = [{**dict.fromkeys(SCHEMA.names), "url": url, "url_surtkey": surt_key(url)} for url in sorted(urls)]
    path = folder / "part.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **options)
    return path


URLS = [f"http://host{i:03d}.example/page" for i in range(200)]


def test_only_a_group_and_its_columns_are_fetched(tmp_path: Path) -> None:
    """Columns of which nothing is wanted lie between; without a gap they are passed by."""
    path = parquet(tmp_path, URLS, row_group_size=50, compression="gzip")
    with serve(tmp_path) as server, open_ranges(server.url("part.parquet"), retry=QUICK) as source:
        part = IndexPart("part", source)
        assert [(g.lowest, g.highest) for g in part.groups][1] == ("example,host050)/page", "example,host099)/page")
        before = source.requests
        batches = list(part.rows(part.groups[1], 0))
        assert [url for batch in batches for url in batch.column("url").to_pylist()] == URLS[50:100]
        assert batches[0].schema.names == list(COLUMNS)
        assert source.requests - before <= 4
        assert source.bytes < path.stat().st_size + (64 << 10)
        assert len(server.asked("part.parquet")) == source.requests
        assert all("range" in request.headers for request in server.asked("part.parquet"))


def test_without_statistics_nothing_is_pruned(tmp_path: Path) -> None:
    parquet(tmp_path, URLS, row_group_size=50, write_statistics=False)
    with open_ranges(str(tmp_path / "part.parquet")) as source:
        part = IndexPart("part", source)
        assert {(group.lowest, group.highest) for group in part.groups} == {("", None)}


def without(name: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        parquet(path.parent, URLS, pa.schema([field for field in SCHEMA if field.name != name]))

    return change


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without("warc_record_offset"), "no column warc_record_offset"),
        (without("url_surtkey"), "no column url_surtkey"),
        (lambda path: path.write_bytes(b""), "is no Parquet file"),
        (lambda path: path.write_bytes(b"<html>503 Slow Down</html>"), "is no Parquet file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "is no Parquet file"),
        (lambda path: path.write_bytes(bytes(3000) + path.read_bytes()[3000:]), "is damaged"),
    ],
)
def test_a_broken_part_is_named(damage: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    path = parquet(tmp_path, URLS, row_group_size=50)
    damage(path)
    with pytest.raises(ColumnarIndexError, match=said), open_ranges(str(path)) as source:
        part = IndexPart(str(path), source)
        for group in part.groups:
            list(part.rows(group, 1 << 20))


def test_a_group_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path, URLS)
    with open_ranges(str(path)) as source:
        part = IndexPart(str(path), source)
        with pytest.raises(ColumnarIndexError, match="more than"):
            list(part.rows(replace(part.groups[0], unpacked=1 << 40), 0))


# Parts of files.


def test_a_range_file_is_a_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    (tmp_path / "f").write_bytes(data)
    with serve(tmp_path) as server, open_ranges(server.url("f"), retry=QUICK) as source:
        server.fail("f", Fault(status=503, headers={"Retry-After": "0"}), Fault(cut_after=0))
        assert source.size == len(data)
        assert source.fetch(100, 50) == data[100:150]
        assert source.fetch(len(data) - 5, 50) == data[-5:]
        assert source.fetch(len(data) + 5, 50) == b""
        asked = source.requests
        source.hold([(0, 100), (200, 10)])
        assert source.seek(10) == 10
        assert (source.read(5), source.tell()) == (data[10:15], 15)
        source.seek(-10, io.SEEK_END)
        assert source.seek(200) == 200 and source.read(10) == data[200:210]
        assert source.requests == asked + 2
        assert source.seek(95) == 95 and source.read(20) == data[95:115]  # reaches beyond what is held
        assert source.seek(0) == 0 and source.read() == data


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        for path in (server.url("gone"), str(tmp_path / "gone")):
            with open_ranges(path, retry=QUICK) as source, pytest.raises(NotFound, match="gone"):
                _ = source.size


def test_a_server_that_ignores_range_sends_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(50 << 20))
    with serve(tmp_path) as server, open_ranges(server.url("f"), retry=QUICK) as source:
        server.fail("f", Fault(times=None, ignore_range=True))
        with pytest.raises(NoRange, match="ignores Range"):
            source.fetch(1000, 10)
        with pytest.raises(NoRange, match="ignores Range"):
            _ = source.size
        assert source.bytes == 0


def test_a_server_that_keeps_cutting_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(1000))
    with serve(tmp_path) as server, open_ranges(server.url("f"), retry=QUICK) as source:
        server.fail("f", Fault(times=None, cut_after=3))
        with pytest.raises(TransportError, match="gave up"):
            source.fetch(0, 100)


def test_range_files_can_be_read_into(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    with open_ranges(str(tmp_path / "f")) as source:
        assert isinstance(source, RangeFile) and source.readable() and source.seekable()
        assert io.BufferedReader(source).read() == b"0123456789"
