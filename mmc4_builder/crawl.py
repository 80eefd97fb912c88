"""Which WARC files a build reads: those of a named Common Crawl, or those that the user points at."""

import difflib
import glob
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import IO, cast

from mmc4_builder import beam_files
from mmc4_builder.transport import (
    DEFAULT_RETRY,
    HTTP_SCHEMES,
    NotFound,
    RetryPolicy,
    TransportError,
    local_path,
    open_stream,
    read_bytes,
    scheme,
)

COMMON_CRAWL = "https://data.commoncrawl.org"
COLLINFO = "https://index.commoncrawl.org/collinfo.json"
MIRRORS = (  # addresses of the same bucket: the list of its crawls is at COLLINFO
    COMMON_CRAWL,
    "https://ds5q9oxwqwsfj.cloudfront.net",
    "s3://commoncrawl",
)
FIRST_WARC_YEAR = 2013  # the crawls of 2008 to 2012 are ARC files under other paths
MAX_LINE = 1024
MAX_PATHS = 5_000_000
MAX_COLLINFO = 4 << 20

_NAME = re.compile(r"CC-MAIN-(20\d\d)-([0-5]\d)", re.ASCII)
# the maintainers' own pattern, CCWarcFilenameParser.java in cc-index-table
_PART = r"[!-.0-~]+"  # ASCII without blanks and slashes
_PATH = re.compile(rf"(?:common-crawl/)?crawl-data/{_PART}/segments/{_PART}/warc/{_PART}\.warc\.gz")
_INDEX = re.compile(rf"cc-index/table/cc-main/warc/crawl={_PART}/subset={_PART}/{_PART}\.parquet")
_WARC_FILE = re.compile(r"\.warc(\.gz)?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Listing:
    """A list of paths that each crawl has."""

    name: str
    what: str  # it lists
    pattern: re.Pattern[str]  # of its lines


_WARCS = _Listing("warc.paths.gz", "WARC file", _PATH)
_TABLE = _Listing("cc-index-table.paths.gz", "Parquet file", _INDEX)


class CrawlError(Exception):
    """The input that was asked for is not there. The text says what was looked for, and the remedy."""


def list_crawl(
    crawl: str,
    root: str = COMMON_CRAWL,
    limit: int | None = None,
    *,
    retry: RetryPolicy = DEFAULT_RETRY,
) -> list[str]:
    """Full paths of a crawl's WARC files, in the crawl's own order; the first `limit` of them.

    `root` is the bucket's root: an https:// address, s3://commoncrawl, or a folder with `crawl-data` in it.
    Raises CrawlError, or a TransportError where the list cannot be fetched.
    """
    _check_limit(limit)
    return _list(crawl, root, _WARCS, limit, retry)


def list_index(crawl: str, root: str = COMMON_CRAWL, *, retry: RetryPolicy = DEFAULT_RETRY) -> list[str]:
    """Parquet files of a crawl's columnar index that tell of its WARC files, relative to `root`, in their order.

    Raises CrawlError, or a TransportError where the list cannot be fetched.
    """
    paths = _list(crawl, root, _TABLE, None, retry)
    found = [path.removeprefix(f"{root.rstrip('/')}/") for path in paths if "/subset=warc/" in path]
    if not found:
        raise CrawlError(f"the index of crawl {crawl} at {root} has no subset=warc; leave --index out")
    return found


def _list(crawl: str, root: str, listing: _Listing, limit: int | None, retry: RetryPolicy) -> list[str]:
    root = root.rstrip("/")
    flaw = _flaw_of_name(crawl)
    if flaw:
        raise CrawlError(f"{crawl!r} is no crawl that can be read: {flaw}{_nearest(crawl, root, retry)}")
    address = f"{root}/crawl-data/{crawl}/{listing.name}"
    try:
        with open_stream(address, retry=retry) as stream:
            paths = list(islice(_read_paths(cast(IO[bytes], stream), address, listing), limit))
    except NotFound as error:
        raise CrawlError(f"no crawl {crawl} at {root}: {address} is missing{_nearest(crawl, root, retry)}") from error
    if not paths:
        raise CrawlError(f"{address} lists no {listing.what}s")
    return [f"{root}/{path}" for path in paths]


def expand_inputs(patterns: Sequence[str], limit: int | None = None) -> list[str]:
    """WARC files that the patterns name, sorted and each once; the first `limit` of them.

    A pattern is a path, a local or object-store glob, or a local folder of *.warc and *.warc.gz files.
    Raises CrawlError for a pattern that names nothing.
    """
    _check_limit(limit)
    found = sorted({path for pattern in patterns for path in _expand(pattern)})
    if not found:
        raise CrawlError("no input: name at least one WARC file, folder or pattern")
    return found[:limit]


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise CrawlError(f"the limit of WARC files must be at least 1, got {limit}")


def _flaw_of_name(crawl: str) -> str:
    found = _NAME.fullmatch(crawl)
    if crawl.upper().startswith("CC-NEWS"):
        return (
            "the news crawl has no list of paths a name could stand for; give its files as inputs "
            "(crawl-data/CC-NEWS/YYYY/MM/*.warc.gz)"
        )
    if re.fullmatch(r"CC-MAIN-20(08|09|12)(-20\d\d)?|CC-MAIN-20(08|09|10|11|12)-\d\d", crawl):
        return f"crawls before {FIRST_WARC_YEAR} are ARC files, not WARC"
    if not found or not 1 <= int(found[2]) <= 53:
        return "a name looks like CC-MAIN-2024-10 (year and week)"
    return f"the first WARC crawl is of {FIRST_WARC_YEAR}" if int(found[1]) < FIRST_WARC_YEAR else ""


def _read_paths(stream: IO[bytes], address: str, listing: _Listing) -> Iterator[str]:
    """Paths of a gzipped list, one a line, each checked: they become addresses."""
    try:
        with gzip.GzipFile(fileobj=stream, mode="rb") as lines:
            for number in range(1, MAX_PATHS + 1):
                line = lines.readline(MAX_LINE)
                if not line:
                    return
                path = line.decode("latin-1").strip()
                if path and (not listing.pattern.fullmatch(path) or "/../" in path):
                    raise CrawlError(f"line {number} of {address} is no path of a {listing.what}: {path[:200]!r}")
                if path:
                    yield path
    except TransportError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CrawlError(f"{address} is damaged ({error}); fetch it again") from error
    raise CrawlError(f"{address} has more than {MAX_PATHS} lines")


def _nearest(crawl: str, root: str, retry: RetryPolicy) -> str:
    """What to add to an error about a name: the nearest ones that exist. Asked for only after a failure."""
    source = COLLINFO if root in MIRRORS else f"{root}/collinfo.json"
    try:
        known = _known_crawls(source, root, replace(retry, tries=1))
    except (TransportError, ValueError) as error:
        return f"; the list of crawls could not be had either ({error})"
    key = re.sub(r"[^0-9]", "", crawl) or crawl
    digits = {re.sub(r"[^0-9]", "", name): name for name in known}
    near = [digits[match] for match in difflib.get_close_matches(key, list(digits), n=3, cutoff=0.5)]
    if near:
        return f"; the nearest names are {', '.join(near)}"
    return f"; {source} knows {', '.join(known[:3])} …" if known else f"; {root} has no crawls at all"


def _known_crawls(source: str, root: str, retry: RetryPolicy) -> list[str]:
    """Names, newest first: of collinfo.json, else of the folders below a local root."""
    try:
        listed = json.loads(read_bytes(source, MAX_COLLINFO, retry=retry))
        names = {str(item["id"]) for item in listed if isinstance(item, dict) and "id" in item}
    except NotFound:
        if scheme(root):
            raise
        folder = os.path.join(local_path(root), "crawl-data")
        names = set(os.listdir(folder)) if os.path.isdir(folder) else set()
    return sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)


def _expand(pattern: str) -> list[str]:
    kind = scheme(pattern)
    if kind in HTTP_SCHEMES and "*" in pattern:
        raise CrawlError(f"{pattern}: a web server cannot be listed; give whole addresses, or name a crawl")
    if not kind:
        found = _expand_local(local_path(pattern))
    elif kind in HTTP_SCHEMES or not any(sign in pattern for sign in "*?["):
        found = [pattern]
    else:
        found = beam_files.match(pattern)
    if not found:
        raise CrawlError(f"no WARC file matches {pattern}; check the path, and quote patterns in the shell")
    return found


def _expand_local(pattern: str) -> list[str]:
    if os.path.isdir(pattern):
        names = (name for name in os.listdir(pattern) if _WARC_FILE.search(name))
        return [os.path.join(pattern, name) for name in names]
    if os.path.isfile(pattern):
        return [pattern]  # also a file whose own name has brackets in it
    return [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
