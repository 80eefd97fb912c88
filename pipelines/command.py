"""From the command line to a build, and from its end to what a person reads."""

import argparse
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filters import ads, near_text
from mmc4_builder import (
    beam_files,
    clip,
    columnar_index,
    crawl,
    face_labels,
    key_lists,
    metrics_out,
    storage,
    transport,
    weights_file,
)
from mmc4_builder.funnel import format_table
from pipelines import (
    configure,
    disk_errors,
    dry_run,
    endings,
    fit_faces,
    image_store,
    launch,
    lock,
    remove,
    shared_paths,
    url_list,
)
from pipelines.build import BuildError, build, continued
from pipelines.fit_faces import Fit
from pipelines.launch import Engine, EngineError, quiet
from pipelines.lock import LockError
from pipelines.plan import Plan
from pipelines.previous import PreviousError
from pipelines.url_list import UrlLists

FAILURES = (
    BuildError,
    EngineError,
    LockError,
    PreviousError,
    ads.AdListError,
    image_store.StoreError,
    near_text.NearTextError,
    clip.WeightsError,
    columnar_index.ColumnarIndexError,
    crawl.CrawlError,
    face_labels.FitError,
    key_lists.KeyListError,
    metrics_out.MetricsError,
    storage.StorageError,
    transport.TransportError,
    weights_file.WeightsFileError,
)

MAX_COMMAND = 1000  # characters, of what a person reads


def run(args: argparse.Namespace, beam_options: Sequence[str]) -> int:
    """Do what the arguments ask for; 0, or 1 with the cause on stderr."""
    log = os.devnull
    if args.runner is not None:
        shared_paths.make_absolute(args)
    try:
        beam_files.use(beam_options)
        if args.dry_run:
            return show_plan(args)
        figures = metrics_out.opened(args.metrics, args.metrics_seconds, args.metrics_port)
        with figures as told, lock.held(args.output, command_line(), endings.lost) as held:
            endings.mind_signals(held)
            if held.taken_over:
                print(f"went on from {held.taken_over}", file=sys.stderr)
            plan = make_plan(args)
            if args.runner is None:
                quiet()
                log = log_path(args.output)
            engine = Engine(
                runner=args.runner,
                workers=args.workers,
                options=tuple(beam_options),
                accelerator=args.accelerator,
                log=log,
                told=told,
            )
            with endings.nothing_left_running():
                code = act(args, plan, engine)
            if log != os.devnull:
                Path(log).unlink(missing_ok=True)
            return code
    except (*FAILURES, OSError) as error:
        if not isinstance(error, FAILURES) and not disk_errors.is_of_disk(error):
            raise
        remedy = disk_errors.remedy(error, args.output)
        print(f"mmc4-build: {error}{remedy}{keep_details(log, error)}", file=sys.stderr, flush=True)
        return leave(1, error)


def show_plan(args: argparse.Namespace) -> int:
    """What the same command without --dry-run would do. The sample crawl is not written for it."""
    root = args.output.rstrip("/")
    stages = configure.choose_stages(args.stages)
    if args.crawl == "sample" and not Path(root, "crawl").exists():
        plan = Plan(build=configure.configure(args), crawl=dry_run.sample_to_be(root), root=root)
    else:
        plan = make_plan(args)
    print(dry_run.report(plan, stages, args.reconfigure))
    return 0


def command_line() -> str:
    """What was typed, for those who find the output taken. Without the secrets that it may hold."""
    words = " ".join(["mmc4-build", shlex.join(sys.argv[1:])])
    return re.sub(r"(--s3_(?:secret_access_key|session_token)[= ])('[^']*'|\S+)", r"\1...", words)[:MAX_COMMAND]


def make_plan(args: argparse.Namespace) -> Plan:
    """The build that the flags ask for, or the one that lies in --output where they name no crawl."""
    root = args.output.rstrip("/")
    if not (args.crawl or args.input):
        return continued(root)
    build, found = configure.configure(args), configure.find_crawl(args)
    return Plan(build=configure.with_index(build, args, found), crawl=found, root=root)


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
    people = sys.stderr if args.metrics == "-" else sys.stdout
    print(format_table(outcome.funnel), file=people)
    print(next_steps(plan, outcome.ran), file=people)
    return 0


def write_url_list(plan: Plan, folder: str, engine: Engine, reconfigure: bool) -> int:
    """Documents as far as they are not there yet, then the addresses of their pictures."""
    build(plan, engine, stages=("documents",), reconfigure=reconfigure)
    fingerprint = plan.fingerprints()["images"]
    before = plan.build.previous.builds
    lists = UrlLists(plan.root, fingerprint, folder, plan.build.images, plan.files, plan.buckets, before)
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
    with suppress(OSError), open(path, "a") as log:  # on a full disk the message must do
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
    paths = [(f"{plan.root}/{name}", f"  {plan.root}/{name:<12} {what}") for name, what in places]
    there = [line for path, line in paths if storage.has_folder(path) or storage.exists(path)]
    return "\n".join((f"{done}.", *there, f"  check it with: mmc4-build --validate {plan.root}"))
