"""CPU time a page of the documents stage, beside a straightforward implementation of the same output.

    python benchmarks/documents.py [--warc FILE] [--rounds N]

The peer streams with warcio, walks BeautifulSoup's lxml tree, splits sentences with NLTK's Punkt and asks
langdetect, as C4's own code does, whether a page is English; C4's rules for lines are ours on both sides. The
limit is selectolax's parse alone. One comparison runs our functions through Beam, to show what the engine costs.
"""

import argparse
import io
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import apache_beam as beam
import fastwarc
import pyarrow as pa
import pyarrow.parquet as pq
from bs4 import BeautifulSoup, NavigableString, Tag, XMLParsedAsHTMLWarning
from langdetect import detector_factory as detect
from nltk.tokenize.punkt import PunktParameters, PunktSentenceTokenizer
from selectolax.lexbor import LexborHTMLParser
from timing import compare, report, show
from warcio.archiveiterator import ArchiveIterator

from filters import language, text
from mmc4_builder.workspace import Unit, Workspace
from pipelines.config import DocumentsConfig
from pipelines.documents import extract, finish
from pipelines.launch import Engine
from pipelines.units import Run, Step

BLOCKS = frozenset(
    """address article aside blockquote body br button caption center dd div dl dt fieldset figcaption figure footer
    form h1 h2 h3 h4 h5 h6 header hr li noscript ol p pre section table tbody tfoot thead title tr ul""".split()  # noqa: SIM905
)
ABBREVIATIONS = {
    "dr",
    "mr",
    "mrs",
    "ms",
    "prof",
    "st",
    "vs",
    "etc",
    "e.g",
    "i.e",
    "jr",
    "sr",
    "inc",
    "fig",
    "no",
}


def ours(warc: Path) -> int:
    """Extraction and finish of one WARC file, with the files that they write; documents."""
    with tempfile.TemporaryDirectory() as root:
        unit = Unit(name="00000", inputs=(str(warc),))
        workspace = Workspace(root, "extract", unit)
        extract(unit, workspace, config=DocumentsConfig(), crawl_root="", buckets=8)
        last = Workspace(root, "documents", unit)
        finish(unit, last, config=DocumentsConfig())
        return last.counts["pages.kept"]


def through_beam(warc: Path) -> None:
    """The same two functions as steps of a pipeline on the local runner."""
    with tempfile.TemporaryDirectory() as root:
        step = partial(Step, root=root, fingerprint="f")
        first = step(name="extract", run=partial(extract, config=DocumentsConfig(), crawl_root="", buckets=8))
        last = step(name="documents", run=partial(finish, config=DocumentsConfig()))
        with Engine(workers=1).pipeline() as pipeline:
            units = pipeline | beam.Create([Unit(name="00000", inputs=(str(warc),))])
            units | Run(first) | beam.Map(partial(_again, str(warc))) | Run(last)


def _again(warc: str, commit: object) -> Unit:
    return Unit(name="00000", inputs=(warc,))


def peer(warc: Path, *, langdetect: bool = True) -> int:
    """What ours keeps, written the usual way, with C4's own language detector or with ours; documents."""
    punkt = PunktSentenceTokenizer(_parameters())
    rows = []
    with warc.open("rb") as stream:
        for record in ArchiveIterator(stream):
            kind = record.http_headers.get_header("content-type") if record.rec_type == "response" else ""
            if "html" not in (kind or ""):
                continue
            url = record.rec_headers.get_header("WARC-Target-URI")
            lines, images = walk(record.content_stream().read(), url)
            page = text.clean_lines(lines, sentences=lambda line: len(punkt.tokenize(line)))
            if isinstance(page, str) or not images:
                continue
            whole = "\n".join(page.lines)
            if is_english(whole) if langdetect else language.score(whole) >= 0.99:
                rows.append({"url": url, "sentences": punkt.tokenize(whole), "images": images})
    pq.write_table(pa.Table.from_pylist(rows), io.BytesIO(), compression="zstd")
    return len(rows)


def is_english(whole: str) -> bool:
    """As C4 asks langdetect."""
    detect.DetectorFactory.seed = 0
    best = detect.detect_langs(whole)[0]
    return bool(best.lang == "en" and best.prob >= 0.99)


def _parameters() -> PunktParameters:
    parameters = PunktParameters()
    parameters.abbrev_types = ABBREVIATIONS
    return parameters


def walk(html: bytes, url: str) -> tuple[list[str], list[str]]:
    """Text lines and absolute image URLs of a page by BeautifulSoup."""
    soup = BeautifulSoup(html, "lxml")
    for tag in soup(["script", "style"]):
        tag.decompose()
    parts: list[str] = []
    images: list[str] = []
    for node in soup.descendants:
        if isinstance(node, Tag):
            if node.name in BLOCKS:
                parts.append("\n")
            if node.name == "img" and node.get("src"):
                images.append(urljoin(url, str(node["src"])))
        elif type(node) is NavigableString:
            parts.append(" ".join(str(node).split()) + " ")
    return [line for part in "".join(parts).split("\n") if (line := part.strip())], images


def pages_of(warc: Path) -> list[bytes]:
    """The HTML of a WARC file."""
    with warc.open("rb") as stream:
        records = fastwarc.ArchiveIterator(stream, record_types=fastwarc.WarcRecordType.response, parse_http=True)
        return [r.reader.read() for r in records if "html" in (r.http_content_type or "")]


def parse_only(pages: list[bytes]) -> None:
    for page in pages:
        LexborHTMLParser(page)


def corpus(folder: Path) -> Path:
    """The real pages where they are at hand, else a file of the sample crawl."""
    real = Path(__file__).parents[2] / "shared" / "corpora" / "manuals.warc.gz"
    if real.exists():
        return real
    from mmc4_builder import sample

    return Path(sample.write_crawl(folder)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warc", type=Path, help="a WARC file of pages")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore", XMLParsedAsHTMLWarning)  # pages that say they are XHTML
    with tempfile.TemporaryDirectory() as folder:
        warc = args.warc or corpus(Path(folder))
        pages = pages_of(warc)
        print(
            f"{warc.name}: {len(pages)} pages; ours keeps {ours(warc)}, the peer {peer(warc)}",
            file=sys.stderr,
        )
        times = compare(
            {
                "ours": lambda: ours(warc),
                "ours through Beam": lambda: through_beam(warc),
                "selectolax parse only": lambda: parse_only(pages),
                "the usual way": lambda: peer(warc),
                "the usual way, with our language detector": lambda: peer(warc, langdetect=False),
            },
            rounds=args.rounds,
        )
    show(times, items=len(pages), label="documents stage")
    overhead = times["ours through Beam"].cpu / times["ours"].cpu - 1
    print(f"Beam costs {100 * overhead:.1f} % on top", file=sys.stderr)
    report(
        claim="documents",
        ours=1e6 * times["ours"].cpu / len(pages),
        peer=1e6 * times["the usual way"].cpu / len(pages),
        peer_name="beautifulsoup4 (lxml) with warcio, Punkt and langdetect",
        unit="CPU us/page",
        lower_is_better=True,
    )


if __name__ == "__main__":
    main()
