"""From the command line to a build, and from its end to what a person reads."""

import argparse
import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from filters import ads, near_text
from mmc4_builder import clip, crawl, face_labels, key_lists, storage, transport, weights_file
from mmc4_builder.funnel import format_table
from pipelines import configure, fit_faces, image_store, launch, remove, url_list
from pipelines.build import BuildError, build, continued
from pipelines.fit_faces import Fit
from pipelines.launch import Engine, EngineError, quiet
from pipelines.plan import Plan
from pipelines.url_list import UrlLists

FAILURES = (
    BuildError,
    EngineError,
    ads.AdListError,
    image_store.StoreError,
    near_text.NearTextError,
    clip.WeightsError,
    crawl.CrawlError,
    face_labels.FitError,
    key_lists.KeyListError,
    storage.StorageError,
    transport.TransportError,
    weights_file.WeightsFileError,
)


def run(args: argparse.Namespace, beam_options: Sequence[str]) -> int:
    """Do what the arguments ask for; 0, or 1 with the cause on stderr."""
    log = os.devnull
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, interrupted)
    try:
        plan = make_plan(args)
        if args.runner is None:
            quiet()
            log = log_path(args.output)
        engine = Engine(runner=args.runner, workers=args.workers, options=tuple(beam_options), log=log)
        code = act(args, plan, engine)
    except FAILURES as error:
        print(f"mmc4-build: {error}{keep_details(log, error)}", file=sys.stderr, flush=True)
        return leave(1, error)
    if log != os.devnull:
        Path(log).unlink(missing_ok=True)
    return code


def interrupted(number: int, frame: object) -> None:
    """Ends at once. An exception could be lost in a callback of Beam's, which would go on; workers end with us."""
    os.write(2, b"\nmmc4-build: interrupted; the same command goes on from here\n")
    os._exit(130)


def make_plan(args: argparse.Namespace) -> Plan:
    """The build that the flags ask for, or the one that lies in --output where they name no crawl."""
    root = args.output.rstrip("/")
    if not (args.crawl or args.input):
        return continued(root)
    return Plan(build=configure.configure(args), crawl=configure.find_crawl(args), root=root)


def act(args: argparse.Namespace, plan: Plan, engine: Engine) -> int:
    """One of the actions on a build that is there, or the build itself."""
    if args.remove:
        return remove.run(plan, configure.read_list(args.remove), engine)
    if args.url_list:
        return write_url_list(plan, args.url_list, engine, args.reconfigure)
    if args.fit_faces:
        fit = Fit(path=args.fit_faces, detector=args.face_detector, sample=args.face_sample, recall=args.face_recall)
        return fit_faces.run(plan, fit, engine)
    stages = configure.choose_stages(args.stages)
    if "scores" in stages:
        configure.find_weights(plan.build.scores)
    outcome = build(plan, engine, stages=stages, reconfigure=args.reconfigure, retry_failed=args.retry_failed)
    print(format_table(outcome.funnel))
    print(next_steps(plan, outcome.ran))
    return 0


def write_url_list(plan: Plan, folder: str, engine: Engine, reconfigure: bool) -> int:
    """Documents as far as they are not there yet, then the addresses of their pictures."""
    build(plan, engine, stages=("documents",), reconfigure=reconfigure)
    fingerprint = plan.fingerprints()["images"]
    lists = UrlLists(plan.root, fingerprint, folder, plan.build.images, plan.files, plan.buckets)
    launch.run(lists, engine, lambda: None)
    print(f"{folder}: {url_list.total(folder):,} URLs. Next:\n  img2dataset --url_list {folder} --input_format parquet")
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
