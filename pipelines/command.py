"""From the command line to a build, and from its end to what a person reads."""

import argparse
import contextlib
import getpass
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmc4_builder import clip, crawl, storage, transport
from mmc4_builder.cli import UsageError
from mmc4_builder.fetch import FetchConfig
from mmc4_builder.funnel import format_table
from pipelines.build import BuildError, build
from pipelines.config import BUILDS, Build, ImagesConfig, ImageSource
from pipelines.launch import Engine, EngineError, quiet
from pipelines.plan import STAGES, Crawl, Plan

MAX_WORD_LIST = 10_000_000  # bytes
FAILURES = (
    BuildError,
    EngineError,
    crawl.CrawlError,
    clip.WeightsError,
    storage.StorageError,
    transport.TransportError,
)


def run(args: argparse.Namespace, beam_options: Sequence[str]) -> int:
    """Build what the arguments ask for; 0, or 1 with the cause on stderr."""
    log = os.devnull
    try:
        stages = choose_stages(args.stages)
        made = configure(args)
        if "scores" in stages:
            clip.find(made.scores.clip)  # missing weights are said now, not after a day of fetching
        plan = Plan(build=made, crawl=find_crawl(args), root=args.output.rstrip("/"))
        if args.runner is None:
            quiet()
            log = log_path(args.output)
        engine = Engine(runner=args.runner, workers=args.workers, options=tuple(beam_options), log=log)
        outcome = build(plan, engine, stages=stages, reconfigure=args.reconfigure)
    except KeyboardInterrupt:
        print("\nmmc4-build: interrupted; the same command goes on from here", file=sys.stderr, flush=True)
        os._exit(130)
    except FAILURES as error:
        print(f"mmc4-build: {error}{keep_details(log, error)}", file=sys.stderr, flush=True)
        return leave(1, error)
    if log != os.devnull:
        Path(log).unlink(missing_ok=True)
    print(format_table(outcome.funnel))
    print(next_steps(plan, outcome.ran))
    return 0


def log_path(output: str) -> str:
    """Where the workers of a local run write; empty and removed again when all goes well."""
    if not storage.is_local(output):
        return os.devnull
    Path(output).mkdir(parents=True, exist_ok=True)
    path = Path(output, "error.log").absolute()
    path.unlink(missing_ok=True)
    return str(path)


def keep_details(path: str, error: Exception) -> str:
    """Add the tracebacks of a failed pipeline to the log; where that is, for the end of the message."""
    if not isinstance(error, EngineError) or path == os.devnull:
        return ""
    with contextlib.suppress(OSError), open(path, "a") as log:  # on a full disk the message must do
        log.write("".join(traceback.format_exception(error)))
    return f" (details: {path})"


def leave(code: int, error: Exception) -> int:
    """After a dead worker Beam's own threads wait for ever, and the interpreter would wait for them.

    The same goes for an interruption. Workers end with their launcher.
    """
    if isinstance(error, EngineError):
        sys.stdout.flush()
        os._exit(code)
    return code


def choose_stages(asked: str | None) -> tuple[str, ...]:
    """The stages to run, in their order."""
    if asked is None:
        return STAGES
    named = [name.strip() for name in asked.split(",")]
    for name in named:
        if name not in STAGES:
            raise UsageError(f"unknown stage {name!r} in --stages; there are {', '.join(STAGES)}")
    return tuple(name for name in STAGES if name in named)


def configure(args: argparse.Namespace) -> Build:
    """The named configuration with what the flags change of it."""
    is_sample = args.crawl == "sample"
    source: ImageSource = args.images or ("archive" if is_sample else "live")
    fetch = None if source == "archive" else FetchConfig(contact=args.contact or default_contact())
    made = BUILDS[args.config or ("sample" if is_sample else "mmc4")](ImagesConfig(source=source, fetch=fetch))
    documents = replace(made.documents, c4=find_c4(args.c4), bad_words=bad_words(args.bad_words, is_sample))
    scores = replace(made.scores, clip=args.clip or ("tiny" if is_sample else made.scores.clip))
    shards = replace(made.shards, format=args.shard_format)
    interleave = made.interleave
    if scores.clip == clip.TINY and not is_sample and made.name != "sample":
        print(
            "the tiny CLIP knows only the sample: rules on similarity are off, and matches mean nothing",
            file=sys.stderr,
        )
        interleave = replace(interleave, min_similarity=-1.0, min_core_fraction=0.0)
    return replace(made, documents=documents, scores=scores, interleave=interleave, shards=shards)


def default_contact() -> str:
    """Somebody must answer for the requests; without a page of theirs, it is the user of this machine."""
    contact = f"mailto:{getpass.getuser()}@{socket.getfqdn()}"
    print(f"no --contact given: hosts will see {contact}", file=sys.stderr)
    return contact


def find_c4(asked: str) -> tuple[str, ...]:
    """The files of released C4, or none for its rules."""
    return () if asked == "rules" else tuple(crawl.expand_inputs([storage.join(asked, "*.json.gz")]))


def bad_words(path: str | None, is_sample: bool) -> tuple[str, ...]:
    """The words themselves travel in the configuration: workers need not reach the file."""
    if path is None:
        from mmc4_builder.sample.special import BAD_WORDS

        return BAD_WORDS if is_sample else ()
    text = transport.read_bytes(path, MAX_WORD_LIST).decode("utf-8")
    return tuple(sorted({line.strip().lower() for line in text.splitlines() if line.strip()}))


def find_crawl(args: argparse.Namespace) -> Crawl:
    """The WARC files to read."""
    if args.input:
        paths = crawl.expand_inputs(args.input, args.limit)
        return Crawl(name="input", root="", warcs=tuple((path, *_size(path)) for path in paths))
    if args.crawl == "sample":
        return sample_crawl(args.output)
    root = args.crawl_root.rstrip("/")
    paths = crawl.list_crawl(args.crawl, root, limit=args.limit)
    warcs = tuple((path.removeprefix(f"{root}/"), *_size(path)) for path in paths)
    return Crawl(name=args.crawl, root=root, warcs=warcs)


def _size(path: str) -> tuple[str, ...]:
    """A local file that changed is another file."""
    return (str(os.path.getsize(path)),) if storage.is_local(path) else ()


def sample_crawl(output: str) -> Crawl:
    """The sample crawl, written beside what is built of it, once."""
    from mmc4_builder.sample import pack

    if not storage.is_local(output):
        raise UsageError(f"the sample crawl is written beside its build: --output must be a folder, not {output!r}")
    root = Path(output, "crawl")
    names = [pack.warc_path(number) for number in range(pack.WARC_FILES)]
    if not (root / "crawl-data" / pack.CRAWL / "warc.paths.gz").exists():  # written last
        print("writing the sample crawl", file=sys.stderr)
        pack.write_crawl(root)
    return Crawl(name=pack.CRAWL, root=str(root), warcs=tuple((name, *_size(str(root / name))) for name in names))


def next_steps(plan: Plan, ran: Sequence[str]) -> str:
    """Where the results lie."""
    done = f"ran {', '.join(ran)}" if ran else "nothing to do: everything was done before"
    places = (
        ("docs", "MMC4's own format, one zip a WARC file"),
        ("shards", "WebDataset tars, pictures included"),
        ("report.html", "open it in a browser"),
    )
    there = [f"  {plan.root}/{name:<12} {what}" for name, what in places if storage.exists(f"{plan.root}/{name}")]
    return "\n".join((f"{done}.", *there, f"  check it with: mmc4-build --validate {plan.root}"))
