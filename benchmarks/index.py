"""Requests and bytes a C4 document: looked up in the columnar index, beside reading whole WARC files.

    python benchmarks/index.py [--files 2] [--pages 3000]

A mirror with the layout of data.commoncrawl.org is made in a temporary folder and served by nginx on this machine.
Both ways run the documents stage of a build for the same released C4 documents, `--c4 DIR` with and without `--index`;
they must give the same rows.
What was asked for is counted by nginx: its access log tells each answer and its size.

The share of a crawl's pages that C4 document files name decides, so several are measured. The last table is computed
for a crawl of the size of C4's own: records of a file lie at random places, so of n records at a mean distance of s
bytes n * exp(-gap / s) follow one that is too far away for the same request; the formula is printed beside what was
measured here. The index is taken to be read in all its row groups, as it is for documents of all hosts alike; of
these the columns that are wanted, by their share of our own index, whose other columns hold less than the real ones.
"""

import argparse
import gzip
import json
import math
import os
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_web import free_ports

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from small_index import rows_of, write_index  # noqa: E402

from mmc4_builder import crawl  # noqa: E402
from mmc4_builder.columnar_index import IndexPart, IndexRules  # noqa: E402
from mmc4_builder.range_file import open_ranges  # noqa: E402
from mmc4_builder.warc import Response, write_warc  # noqa: E402
from mmc4_builder.workspace import Unit, read_rows  # noqa: E402
from pipelines.config import DocumentsConfig  # noqa: E402
from pipelines.documents import Documents  # noqa: E402
from pipelines.launch import Engine, quiet  # noqa: E402
from pipelines.units import units  # noqa: E402

CRAWL = "CC-MAIN-2024-10"
STAMP = "2024-02-20T21:10:55Z"
PAGE = 22_600  # stored bytes of a page in CC-MAIN-2019-09: 59.86 TiB, 2,914 million pages
WHOLE = {"files": 56_000, "pages": 2_497_818_607, "index": 0.26 * 2**40}  # CC-MAIN-2019-18, from which C4 was made
C4_DOCUMENTS, C4_FILES = 364_868_892, 1024
CONFIG = """
daemon off; user {user}; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log warn;
events {{ worker_connections 256; }}
http {{
  log_format sizes '$uri $status $body_bytes_sent'; access_log {folder}/access.log sizes;
  default_type application/octet-stream; root {folder}/www; keepalive_requests 1000000;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:{port}; }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the server was asked for: WARC files, and the index with its lists."""

    requests: int
    bytes: int
    index_requests: int
    index_bytes: int


@dataclass(slots=True)
class Mirror:
    """A served folder, and a log that is read from where the last look ended."""

    folder: Path
    root: str
    seen: int = 0

    def asked(self) -> Asked:
        time.sleep(0.5)  # nginx writes its log after the answer
        lines = (self.folder / "access.log").read_text().splitlines()
        new, self.seen = lines[self.seen :], len(lines)
        sizes: dict[bool, list[int]] = {True: [], False: []}
        for line in new:
            uri, _, size = line.split()
            sizes["cc-index" in uri].append(int(size))
        return Asked(
            requests=len(sizes[False]),
            bytes=sum(sizes[False]),
            index_requests=len(sizes[True]),
            index_bytes=sum(sizes[True]),
        )


@contextmanager
def nginx(folder: Path) -> Iterator[Mirror]:
    """Serve `folder`/www until the block ends."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit("nginx is not installed; apt-get install nginx-light, for one, brings it")
    port = free_ports(1)[0]
    user = pwd.getpwuid(os.getuid()).pw_name
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, user=user, port=port))
    process = subprocess.Popen([program, "-p", str(folder), "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        while not (folder / "nginx.pid").exists():
            if process.poll() is not None:
                raise SystemExit(f"nginx does not start: {(folder / 'error.log').read_text()}")
            time.sleep(0.05)
        yield Mirror(folder, f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(10)


def page(number: int) -> Response:
    """A page of PAGE stored bytes, more or less: a few lines of text, a picture, and markup that does not shrink."""
    chance = random.Random(number)
    noise = "".join(chance.choices("0123456789abcdef", k=int(chance.lognormvariate(0.0, 0.7) * PAGE * 1.35)))
    lines = "".join(f"<p>{line}</p>" for line in text(number))
    body = f"<html><!--{noise}--><body>{lines}<img src=/a.jpg></body></html>".encode()
    url = f"https://www.host{number * 7919 % 99991:05d}.example/page{number}"
    return Response(url=url, timestamp=STAMP, payload=body, headers=(("Content-Type", "text/html"),))


def text(number: int) -> list[str]:
    return [f"The keeper of mill {number} wrote line {i} about the long winter and a quiet sea." for i in range(4)]


def make(www: Path, files: int, pages: int) -> list[str]:
    """WARC files of `pages` pages each, and their index."""
    folder = f"crawl-data/{CRAWL}/segments/1707947473347.0/warc"
    (www / folder).mkdir(parents=True)
    names = [f"{folder}/CC-MAIN-20240220211055-20240221001055-{n:05d}.warc.gz" for n in range(files)]
    for number, name in enumerate(names):
        records = (page(number * pages + i) for i in range(pages))
        write_warc(str(www / name), records, filename=Path(name).name)
    write_index(www, CRAWL, rows_of(www, names), parts=2, group=1000)
    return names


def released(path: Path, numbers: Sequence[int]) -> Path:
    """C4 documents of these pages."""
    lines = [
        {"text": "\n".join(text(number)), "timestamp": STAMP, "url": page(number).url} for number in sorted(numbers)
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return path


def build(out: Path, root: str, names: Sequence[str], c4: Path, *, indexed: bool) -> list[dict[str, object]]:
    """The documents stage; its documents."""
    rules = IndexRules(parts=tuple(crawl.list_index(CRAWL, root))) if indexed else None
    stage = Documents(
        root=str(out),
        crawl_root=root,
        fingerprint="f",
        corpus_fingerprint="c",
        near_fingerprint="n",
        config=DocumentsConfig(c4=(str(c4),), index=rules),
        files=tuple(Unit(name=f"{number:05d}", inputs=(name,)) for number, name in enumerate(names)),
        buckets=units(4),
    )
    with Engine(workers=1).pipeline() as pipeline:
        pipeline | stage
    return [row for path in sorted((out / "documents").glob("*.parquet")) for row in read_rows(str(path))]


def expected(records: float, span: float, record: float, gap: int, block: int) -> tuple[float, float]:
    """Requests and bytes for so many records at random places of a file of `span` bytes."""
    between = max(1.0, span / records - record)
    far = math.exp(-gap / between)
    size = records * (record + between * (1 - far) - gap * far)
    return max(1 + (records - 1) * far, size / block, min(1.0, records)), size


def measure(mirror: Mirror, names: Sequence[str], pages: int, wanted: int) -> tuple[Asked, Asked]:
    """Whole files, and the index, for `wanted` documents a file; the same documents must come out."""
    chance = random.Random(wanted)
    numbers = [n * pages + i for n in range(len(names)) for i in chance.sample(range(pages), wanted)]
    work = mirror.folder / f"work{wanted}"
    work.mkdir()
    c4 = released(work / "c4-train.00000-of-00001.json.gz", numbers)
    mirror.asked()
    whole = build(work / "whole", mirror.root, names, c4, indexed=False)
    scan = mirror.asked()
    found = build(work / "found", mirror.root, names, c4, indexed=True)
    looked = mirror.asked()
    if whole != found or len(found) != len(numbers):
        raise SystemExit(f"{len(found)} documents by the index, {len(whole)} of the whole crawl, {len(numbers)} wanted")
    shutil.rmtree(work)
    return scan, looked


def wanted_share(paths: Sequence[Path]) -> float:
    """Of the bytes of an index, those of the columns that are read."""
    wanted = 0
    for path in paths:
        with open_ranges(str(path)) as source:
            wanted += sum(length for group in IndexPart(str(path), source).groups for _, length in group.chunks)
    return wanted / sum(path.stat().st_size for path in paths)


def tell(whole: Asked, found: Asked, documents: int, model: tuple[float, float]) -> None:
    both = found.bytes + found.index_bytes
    print(
        f"{documents:>10,}{whole.requests / documents:>10.3f}{whole.bytes / documents:>14,.0f}"
        f"{found.requests / documents:>10.3f}{found.bytes / documents:>12,.0f}{found.index_requests / documents:>10.3f}"
        f"{found.index_bytes / documents:>10,.0f}{whole.bytes / both:>8.1f}{model[0] / documents:>10.3f}"
        f"{model[1] / documents:>12,.0f}",
        file=sys.stderr,
    )


def crawl_table(share: float) -> None:
    """What a whole crawl would take, for documents of one, ten and all files of C4."""
    rules = IndexRules(parts=("x",))
    files, span = WHOLE["files"], WHOLE["pages"] * PAGE / WHOLE["files"]
    index = WHOLE["index"] * share
    print(
        f"\ncomputed for {files:,} WARC files of {span / 1e9:.2f} GB (CC-MAIN-2019-18), {share:.0%} of an index of "
        f"{WHOLE['index'] / 1e9:.0f} GB, gap {rules.gap:,}, blocks up to {rules.max_block:,} bytes",
        file=sys.stderr,
    )
    print(f"{'C4 files':>10}{'documents':>14}{'requests/doc':>14}{'GB records':>12}{'GB index':>10}{'GB whole':>10}"
          f"{'ratio':>8}", file=sys.stderr)  # fmt: skip
    for count in (1, 10, 100, C4_FILES):
        documents = C4_DOCUMENTS * count / C4_FILES
        requests, size = expected(documents / files, span, PAGE, rules.gap, rules.max_block)
        ratio = files * span / (files * size + index)
        print(
            f"{count:>10,}{documents:>14,.0f}{requests * files / documents:>14.3f}{files * size / 1e9:>12,.0f}"
            f"{index / 1e9:>10,.0f}{files * span / 1e9:>10,.0f}{ratio:>8.1f}",
            file=sys.stderr,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2)
    parser.add_argument("--pages", type=int, default=3000, help="a WARC file")
    args = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory(prefix="mirror-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        names = make(folder / "www", args.files, args.pages)
        span = (folder / "www" / names[0]).stat().st_size
        parts = sorted((folder / "www" / "cc-index").rglob("*.parquet"))
        table, share = sum(path.stat().st_size for path in parts), wanted_share(parts)
        rules = IndexRules(parts=("x",))
        print(f"{args.files} WARC files of {span:,} bytes, {args.pages:,} pages each; an index of {table:,} bytes\n"
              "             whole files                index                                           expected\n"
              f"{'documents':>10}{'req/doc':>10}{'bytes/doc':>14}{'req/doc':>10}{'bytes/doc':>12}{'index req':>10}"
              f"{'bytes':>10}{'ratio':>8}{'req/doc':>10}{'bytes/doc':>12}", file=sys.stderr)  # fmt: skip
        taken = []
        with nginx(folder) as mirror:
            for wanted in (max(1, args.pages // 1000), args.pages // 100, args.pages // 7):
                whole, found = measure(mirror, names, args.pages, wanted)
                each = expected(wanted, span, span / args.pages, rules.gap, rules.max_block)
                tell(whole, found, wanted * args.files, (each[0] * args.files, each[1] * args.files))
                taken.append((whole, found, wanted * args.files))
    crawl_table(share)
    whole, found, documents = taken[0]
    ours = (found.bytes + found.index_bytes) / documents
    line = {
        "claim": "index",
        "ratio": round(whole.bytes / documents / ours, 3),
        "ours": round(ours),
        "peer": round(whole.bytes / documents),
        "peer_name": "--c4 DIR without --index, whole WARC files",
        "unit": "bytes/document",
        "requests": round((found.requests + found.index_requests) / documents, 3),
        "requests_peer": round(whole.requests / documents, 6),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
