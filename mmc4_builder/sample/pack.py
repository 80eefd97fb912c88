"""The sample as a crawl: WARC files and path lists in Common Crawl's layout."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from mmc4_builder.sample.compose import NOTICES_SEEN, PICTURES_SEEN, timestamp
from mmc4_builder.sample.pictures import Picture, content_type, payload
from mmc4_builder.sample.refusals import Notice
from mmc4_builder.sample.web import Web, build
from mmc4_builder.warc import Response, write_warc

CRAWL = "CC-MAIN-SAMPLE"
SEGMENTS = ("1776470400.11", "1776470400.12")
WARC_FILES = 4


def write_crawl(root: Path) -> list[Path]:
    """Write the sample below `root`; return its WARC files, in the order of `warc.paths.gz`.

    Pages go to the files in turn and pictures by their URL, so that most pictures lie in another file than
    the pages that show them. The same version of the code and of Pillow gives the same bytes.
    """
    web = build()
    paths = [warc_path(number) for number in range(WARC_FILES)]
    for number, path in enumerate(paths):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_warc(str(target), responses(web, number), filename=target.name)
    listing = root / "crawl-data" / CRAWL / "warc.paths.gz"
    listing.write_bytes(gzip.compress("".join(f"{path}\n" for path in paths).encode(), mtime=0))
    return [root / path for path in paths]


def warc_path(number: int) -> str:
    """As in `warc.paths.gz`: relative to the root, without a leading slash."""
    segment = SEGMENTS[number * len(SEGMENTS) // WARC_FILES]
    name = f"CC-MAIN-20260418060000-20260418120000-{number:05d}.warc.gz"
    return f"crawl-data/{CRAWL}/segments/{segment}/warc/{name}"


def responses(web: Web, number: int) -> Iterator[Response]:
    """What WARC file `number` holds. Pictures are drawn one at a time, when they are asked for."""
    for index, notice in enumerate(web.notices):
        if index % WARC_FILES == number:
            yield _published(notice)
    for index, document in enumerate(web.documents):
        if index % WARC_FILES == number:
            truth = document.truth
            yield Response(url=truth.url, timestamp=truth.timestamp, payload=document.body, headers=document.headers)
    for picture in web.pictures:
        if crc32(picture.url.encode()) % WARC_FILES == number:
            yield _response(picture)


def _response(picture: Picture) -> Response:
    kind = "text/html" if picture.status >= 400 else content_type(picture)
    return Response(
        url=picture.url,
        timestamp=timestamp(PICTURES_SEEN),
        payload=payload(picture),
        status=picture.status,
        headers=(("Content-Type", kind), *picture.headers),
    )


def _published(notice: Notice) -> Response:
    return Response(
        url=notice.url,
        timestamp=timestamp(NOTICES_SEEN),
        payload=notice.body.encode(),
        headers=(("Content-Type", notice.content_type),),
    )
