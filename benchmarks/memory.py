"""Peak memory of a local build, for a corpus and for four times as many WARC files of the same size.

    python benchmarks/memory.py [--times N] [--workers N]

The corpus is the sample crawl; its copies have hosts and sentences of their own, so that nothing of them is a
duplicate. What is measured is the resident memory of the launcher and its workers together, sampled ten times
a second. The ratio is peak for 1x over peak for Nx: 1 means that memory does not grow with the corpus.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from timing import report

from mmc4_builder import sample, transport
from mmc4_builder.funnel import Funnel
from mmc4_builder.warc import Record, Response, read_records, write_warc

PAGE_KB = 4


def copies(sources: list[Path], folder: Path, times: int) -> list[Path]:
    """Each WARC file, and `times` - 1 variants of it that share neither URL nor sentence with it."""
    written = []
    for number in range(times):
        for source in sources:
            target = folder / f"{number}-{source.name}"
            write_warc(str(target), variants(source, number), filename=target.name)
            written.append(target)
    return written


def variants(source: Path, number: int) -> Iterator[Response]:
    """The responses of a file as another web would give them; variant 0 is the original."""
    with transport.open_stream(str(source)) as stream:
        for record in read_records(stream, str(source)):
            if isinstance(record, Record):
                yield Response(
                    url=record.url.replace(".example", f"{number}.example"),
                    timestamp=record.timestamp,
                    status=record.status,
                    headers=tuple(
                        (name, value.replace(".example", f"{number}.example")) for name, value in record.headers
                    ),
                    payload=varied(record, number),
                )


def varied(record: Record, number: int) -> bytes:
    """HTML with the variant's hosts, and a word of the variant in every sentence that has an article."""
    if record.content_type != "text/html":
        return record.payload
    own = record.payload.replace(b".example", b"%d.example" % number)
    for article in (b" the ", b" a ", b" A ", b"The "):
        own = own.replace(article, article.rstrip() + b" number%d " % number)
    return own


def peak_megabytes(command: list[str]) -> tuple[float, float]:
    """Run a command; peak resident memory of its process tree, and seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(resident(pid) for pid in tree(process.pid)))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(process.stderr.read().decode() if process.stderr else "the build failed")
    return peak * PAGE_KB / 1024, time.perf_counter() - started


def tree(root: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def resident(pid: int) -> int:
    """Resident pages of a process; none if it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=4, help="how many times the corpus (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = sample.write_crawl(folder / "crawl")
        (folder / "warcs").mkdir()
        files = copies(sources, folder / "warcs", args.times)
        peaks = []
        for times in (1, args.times):
            some = [str(path) for path in files[: len(sources) * times]]
            command = [
                sys.executable,
                "-c",
                "import sys; from mmc4_builder.cli import main; sys.exit(main())",
            ]
            command += [
                "--input",
                *some,
                "--images",
                "archive",
                "--clip",
                "tiny",
                "--output",
                f"{folder}/{times}x",
            ]
            peak, seconds = peak_megabytes([*command, "--workers", str(args.workers)])
            peaks.append(peak)
            funnel = Funnel.from_json((folder / f"{times}x" / "funnel.json").read_text())
            print(
                f"{times}x: {len(some)} WARC files, {funnel.steps[-1].kept} documents, "
                f"peak {peak:.0f} MB, {seconds:.0f} s",
                file=sys.stderr,
            )
    report(
        claim="memory",
        ours=peaks[1],
        peer=peaks[0],
        peer_name=f"ours on 1/{args.times} of the corpus",
        unit="MB peak of the process tree",
        lower_is_better=True,
    )


if __name__ == "__main__":
    main()
