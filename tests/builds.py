"""Small builds for tests: a corner of the sample crawl as WARC files, and the real command line to build it."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from mmc4_builder.sample.pictures import Picture, content_type, payload
from mmc4_builder.sample.web import build
from mmc4_builder.warc import Response, write_warc

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "import sys; from mmc4_builder.cli import main; sys.exit(main())"]
TIMESTAMP = "2026-04-18T06:30:00Z"
MOST_SECONDS = 900.0
WARM = multiprocessing.get_context("forkserver")  # has imported once what every command needs, and forks
WARM.set_forkserver_preload(["pipelines.command", "pipelines.inference", "open_clip"])


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
        write_warc(str(path), [*pages, *map(as_response, shown)], filename=path.name)
        paths.append(path)
    return paths


def as_response(picture: Picture) -> Response:
    """As a server of the sample's web answers."""
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
    words = ["mmc4-build", *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder, name) for name in ("out", "err")]
        process = WARM.Process(target=_command, args=(words, environment(), os.getcwd(), *outputs))
        process.start()
        process.join(MOST_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        out, err = (path.read_text() for path in outputs)
    assert process.exitcode == code, f"exit status {process.exitcode}\n{out}\n{err}"
    return subprocess.CompletedProcess(words, code, out, err)


def _command(words: list[str], environ: dict[str, str], folder: str, *outputs: Path) -> None:
    """In a forked process: what the command is from its start to its end."""
    for descriptor, path in enumerate(outputs, 1):
        with open(path, "wb") as stream:
            os.dup2(stream.fileno(), descriptor)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = words
    from mmc4_builder.cli import main

    sys.exit(main(words[1:]))


def digests(root: Path, *folders: str) -> dict[str, str]:
    """SHA-256 of every file below the folders of a build."""
    found = (path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
