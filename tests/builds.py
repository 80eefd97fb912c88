"""Small builds for tests: a corner of the sample crawl as WARC files, and the real command line to build it."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from mmc4_builder.sample.pictures import Picture, content_type, payload
from mmc4_builder.sample.web import build
from mmc4_builder.warc import Response, write_warc

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "import sys; from mmc4_builder.cli import main; sys.exit(main())"]
TIMESTAMP = "2026-04-18T06:30:00Z"


def write_corner(folder: Path, *, files: int = 3, every: int = 8) -> list[Path]:
    """WARC files with every n-th page of the sample and the pictures of its host, a few dozen pages in all."""
    web = build()
    documents = web.documents[::every]
    named = {mention.url for document in documents for mention in document.truth.mentions}
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(files):
        pages = [
            Response(url=d.truth.url, timestamp=d.truth.timestamp, payload=d.body, headers=d.headers)
            for d in documents[number::files]
        ]
        shown = [picture for picture in web.pictures if picture.url in named][number::files]
        path = folder / f"{number:05d}.warc.gz"
        write_warc(str(path), [*pages, *map(_response, shown)], filename=path.name)
        paths.append(path)
    return paths


def _response(picture: Picture) -> Response:
    headers = (("Content-Type", content_type(picture)), *picture.headers)
    return Response(
        url=picture.url, timestamp=TIMESTAMP, payload=payload(picture), status=picture.status, headers=headers
    )


def environment() -> dict[str, str]:
    """Of a command that runs from the checkout, installed or not."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Start mmc4-build."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_mind_interrupts,
    )


def _mind_interrupts() -> None:
    """Workers of pytest-xdist ignore SIGINT, and what they start inherits it; nobody's terminal does."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def run(*arguments: object, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run mmc4-build to its end, which must be `code`."""
    with start(*arguments) as process:
        out, err = process.communicate(timeout=900)
    assert process.returncode == code, f"exit status {process.returncode}\n{out}\n{err}"
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def digests(root: Path, *folders: str) -> dict[str, str]:
    """SHA-256 of every file below the folders of a build."""
    found = (path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
