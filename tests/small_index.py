"""A columnar index of small crawls, in the layout and with the columns of Common Crawl's own."""

import gzip
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from mmc4_builder import warc
from mmc4_builder.columnar_index import surt_prefixes

TABLE = "cc-index/table/cc-main/warc"
_TEXT = ("url_surtkey", "url", "url_host_name", "url_host_tld", "url_host_2nd_last_part", "url_host_3rd_last_part",
         "url_host_4th_last_part", "url_host_5th_last_part", "url_host_registry_suffix", "url_host_registered_domain",
         "url_host_private_suffix", "url_host_private_domain", "url_host_name_reversed", "url_protocol")  # fmt: skip
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXT),
        ("url_port", pa.int32()),
        ("url_path", pa.string()),
        ("url_query", pa.string()),
        ("fetch_time", pa.timestamp("ms", tz="UTC")),
        ("fetch_status", pa.int16()),
        ("fetch_redirect", pa.string()),
        ("content_digest", pa.string()),
        ("content_mime_type", pa.string()),
        ("content_mime_detected", pa.string()),
        ("content_charset", pa.string()),
        ("content_languages", pa.string()),
        ("content_truncated", pa.string()),
        ("warc_filename", pa.string()),
        ("warc_record_offset", pa.int32()),
        ("warc_record_length", pa.int32()),
        ("warc_segment", pa.string()),
    ]
)


def surt_key(url: str) -> str:
    """As the crawler's own key, for the plain URLs of tests."""
    parts = urlsplit(url)
    query = "&".join(sorted(parts.query.split("&"))) if parts.query else ""
    path = parts.path.rstrip("/") if parts.path.rstrip("/") else "/"
    return (min(surt_prefixes(url), key=len) + path + (f"?{query}" if query else "")).lower()


def row(record: warc.Record, name: str) -> dict[str, Any]:
    """The row of one response."""
    parts = urlsplit(record.url)
    return {
        **dict.fromkeys(SCHEMA.names),
        "url_surtkey": surt_key(record.url),
        "url": record.url,
        "url_host_name": parts.hostname,
        "url_protocol": parts.scheme,
        "url_path": parts.path,
        "url_query": parts.query or None,
        "fetch_time": datetime.fromisoformat(f"{record.timestamp[:19]}+00:00"),
        "fetch_status": record.status,
        "content_mime_type": record.content_type or None,
        "content_mime_detected": record.content_type or None,
        "warc_filename": name,
        "warc_record_offset": record.offset,
        "warc_record_length": record.length,
        "warc_segment": "1",
    }


def rows_of(root: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each response of these WARC files, in the order of the index."""
    found = []
    for name in names:
        with open(root / name, "rb") as stream:
            records = warc.read_records(stream, name)
            found += [row(record, name) for record in records if isinstance(record, warc.Record)]
    return sorted(found, key=lambda r: (r["url_surtkey"], r["fetch_time"]))


def write_index(
    root: Path, crawl: str, rows: Sequence[dict[str, Any]], *, parts: int = 2, group: int = 4
) -> tuple[str, ...]:
    """Write the index of a crawl below `root`, and its list of paths; the parts that tell of WARC files."""
    folder = f"{TABLE}/crawl={crawl}/subset=warc"
    (root / folder).mkdir(parents=True, exist_ok=True)
    names = tuple(f"{folder}/part-{number:05d}-0a1b2c3d.c000.gz.parquet" for number in range(parts))
    share = -(-len(rows) // parts)
    for number, name in enumerate(names):
        table = pa.Table.from_pylist(list(rows[number * share : (number + 1) * share]), schema=SCHEMA)
        pq.write_table(table, root / name, row_group_size=group, compression="gzip")
    other = names[0].replace("subset=warc", "subset=robotstxt")
    listing = root / f"crawl-data/{crawl}/cc-index-table.paths.gz"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_bytes(gzip.compress("".join(f"{name}\n" for name in (other, *names)).encode(), mtime=0))
    return names
