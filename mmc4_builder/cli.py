"""The command line of `mmc4-build`. Nothing heavy is imported before it is needed: `--help` is instant."""

import argparse
import difflib
import logging
import re
import sys
from collections.abc import Sequence
from typing import Any

from mmc4_builder import __version__
from mmc4_builder.usage_error import UsageError

DEFAULT_ROOT = "https://data.commoncrawl.org"
EXAMPLES = """
examples:
  mmc4-build --crawl sample --output build/sample
      the embedded sample crawl: no network, no weights
  mmc4-build --crawl CC-MAIN-2024-10 --limit 4 --output out/ --contact https://example.org/crawl
      the first 4 WARC files of a crawl, pictures from the live web
  mmc4-build --input 'warcs/*.warc.gz' --images archive --clip tiny --output out/
      WARC files at hand, with the pictures inside them
  mmc4-build --crawl CC-MAIN-2024-10 --output gs://bucket/mmc4 --runner DataflowRunner \\
      --project my-project --region us-east1 --temp_location gs://bucket/tmp
      the same on an engine; options that mmc4-build does not know are Beam's
  mmc4-build --input 'warcs/*.warc.gz' --output out/ --metrics progress.jsonl --metrics-port 9464
      figures while it runs: JSON lines in a file, and http://127.0.0.1:9464/metrics for Prometheus
  mmc4-build --validate out/
      check what a build left against MMC4's format
  mmc4-build --remove takedown.txt --output out/
      erase pages, pictures, whole domains from a build, and prove it
"""
ACTIONS = ("remove", "retry_failed", "url_list", "fit_faces")  # that work on what --output holds
ACCELERATOR = re.compile(r"type:[\w-]+;count:[1-9]\d*(;.+)?")


def parser() -> argparse.ArgumentParser:
    """Flags say where and how much; what is built is a configuration in Python (`pipelines/config.py`)."""
    top = argparse.ArgumentParser(
        prog="mmc4-build",
        description="Rebuild Multimodal C4 from Common Crawl: documents, images, scores, interleaving, shards.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"mmc4-build {__version__}")
    _add_input(top.add_argument_group("what to build"))
    _add_pictures(top.add_argument_group("pictures, and who may refuse them"))
    _add_models(top.add_argument_group("models, and what they sort out"))
    _add_output(top.add_argument_group("where, and how fast"))
    _add_metrics(top.add_argument_group("how it goes"))
    _add_actions(top.add_argument_group("on a build that is there"))
    return top


def _add_input(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--crawl", metavar="NAME", help="`sample`, or a crawl such as CC-MAIN-2024-10")
    group.add_argument(
        "--crawl-root",
        metavar="URL",
        default=DEFAULT_ROOT,
        help="where crawl-data/ lies: https://, s3://, or a folder (default: %(default)s)",
    )
    group.add_argument("--input", metavar="WARC", nargs="+", help="WARC files instead of a crawl; globs work")
    group.add_argument("--limit", metavar="N", type=int, help="only the first N WARC files")
    group.add_argument(
        "--previous",
        metavar="DIR",
        nargs="+",
        help="finished builds of earlier crawls: their pages, lines and pictures are theirs, only what is new is "
        "built, and no picture is fetched twice",
    )
    group.add_argument(
        "--config",
        choices=("mmc4", "mmc4_ff", "mmc4_core", "mmc4_core_ff", "sample", "sample_ff"),
        help="the rules; `_ff` is fewer faces (default: mmc4; for the sample crawl: sample)",
    )
    group.add_argument(
        "--c4",
        metavar="rules|DIR",
        default="rules",
        help="`rules` makes documents of the pages by C4's rules; a folder of released "
        "c4-train.*.json.gz keeps exactly those documents (default: %(default)s)",
    )
    group.add_argument(
        "--index",
        action="store_true",
        help="find the pages of --c4 DIR in the crawl's columnar index, and read those records alone",
    )
    group.add_argument(
        "--bad-words",
        metavar="FILE",
        help="path or URL of a list, one word a line; pages with one of them are dropped, as in C4",
    )
    group.add_argument(
        "--shard-format",
        choices=("mmc4", "openflamingo"),
        default="mmc4",
        help="pictures as members of the tar, or base64 inside the JSON (default: %(default)s)",
    )


def _add_pictures(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--images",
        choices=("archive", "live", "both"),
        help="pictures from the WARC files, from the web, or from the web with the files for dead links "
        "(default: live; for the sample crawl: archive)",
    )
    group.add_argument(
        "--image-store", metavar="DIR", help="folder of tars of img2dataset: its pictures in place of fetching"
    )
    group.add_argument(
        "--contact",
        metavar="URL",
        default="",
        help="where site owners reach you: part of the User-Agent of live fetching "
        "(default: mailto: your user and host name)",
    )
    group.add_argument(
        "--opt-out",
        metavar="FILE",
        help="domains, URLs and SHA-256 of pictures that must not be used, one a line, beside what sites say",
    )
    group.add_argument(
        "--crawl-robots",
        action="store_true",
        help="read Common Crawl's robotstxt files too: what sites said when they were crawled",
    )
    group.add_argument(
        "--ad-list", metavar="FILE", help="path or URL of rules in EasyList's format; pictures that match are dropped"
    )


def _add_models(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--clip",
        metavar="MODEL:WEIGHTS",
        help="a model of open_clip with a tag or a local checkpoint, or `tiny`, which is shipped and "
        "knows only the sample (default: ViT-L-14:openai; for the sample crawl: tiny)",
    )
    group.add_argument(
        "--nsfw",
        metavar="WEIGHTS",
        help="classifier on CLIP vectors: `released` (MMC4's), `tiny`, a path, a URL with #sha256=, or `none` "
        "(default: released; with the tiny CLIP: tiny)",
    )
    group.add_argument("--faces", metavar="FILE", help="face classifier on CLIP vectors, as --fit-faces wrote it")
    group.add_argument(
        "--face-detector",
        metavar="WEIGHTS",
        help="look for faces on every picture by RetinaFace: `released`, a path, or a URL with "
        "#sha256=; boxes go into face_detections",
    )
    group.add_argument(
        "--decontaminate", metavar="DIR", help="folder of evaluation pictures; the same or nearly the same are dropped"
    )
    group.add_argument(
        "--near-text", action="store_true", help="keep one of several documents that say nearly the same (MinHash)"
    )


def _add_actions(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--validate", metavar="DIR", help="build nothing; check what lies there")
    group.add_argument(
        "--remove",
        metavar="FILE",
        help="erase from --output what the file names (URLs, domains, SHA-256 of pictures), prove it, and remember it",
    )
    group.add_argument(
        "--retry-failed",
        action="store_true",
        help="ask again for pictures that failed in a way that may pass, never for those that were refused",
    )
    group.add_argument(
        "--url-list", metavar="DIR", help="write the pictures' URLs as img2dataset's input, and stop there"
    )
    group.add_argument(
        "--fit-faces",
        metavar="FILE",
        help="label a sample of the pictures in --output by --face-detector, fit the classifier for --faces, report",
    )
    group.add_argument(
        "--face-sample", metavar="N", type=int, default=60_000, help="pictures that --fit-faces labels (%(default)s)"
    )
    group.add_argument(
        "--face-recall",
        metavar="SHARE",
        type=float,
        default=0.95,
        help="of the pictures with a face, how many --fit-faces must find (%(default)s)",
    )


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output", metavar="DIR", help="folder or object-store prefix; an unfinished build goes on")
    group.add_argument(
        "--stages",
        metavar="S,S",
        help="run only these of documents,images,scores,interleave,shards (default: all)",
    )
    group.add_argument(
        "--workers", metavar="N", type=int, default=0, help="processes of a local run (default: one a core)"
    )
    group.add_argument(
        "--runner",
        metavar="RUNNER",
        help="Beam runner, such as SparkRunner, FlinkRunner or DataflowRunner (default: this machine)",
    )
    group.add_argument(
        "--accelerator",
        metavar="GPU",
        help="on Dataflow, the GPU of the machines that run models, and of no others: "
        "'type:nvidia-tesla-t4;count:1;install-nvidia-driver'",
    )
    group.add_argument(
        "--reconfigure",
        action="store_true",
        help="let a changed configuration redo, in place, the stages that depend on it",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="say which units are done, which are to be done, and why; write and start nothing",
    )


def _add_metrics(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--metrics",
        metavar="FILE",
        help="add a JSON line on the running stage to a local file now and then; `-` is stdout",
    )
    group.add_argument(
        "--metrics-seconds",
        metavar="N",
        type=float,
        default=30.0,
        help="between two lines of a stage; its first and its last come in any case (default: %(default)g)",
    )
    group.add_argument(
        "--metrics-port",
        metavar="[HOST:]PORT",
        help="serve the same to Prometheus at /metrics, to this machine alone unless a HOST is named; "
        "port 0 is any that is free",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; 0 if everything went well, 1 if the build failed, 2 if the command line is wrong."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    own, verbatim = _split(arguments)
    top = parser()
    args, unknown = top.parse_known_args(own)
    # Beam says at each import that a package is missing which only BigQuery needs.
    logging.getLogger().addFilter(lambda record: "apitools not found" not in record.getMessage())
    try:
        options = beam_options(unknown, verbatim, top)
        check_usage(args)
        if args.validate:
            return _validate(args.validate, options)
        from pipelines.command import run  # Beam and all that it drags in

        return run(args, options)
    except UsageError as error:
        print(f"mmc4-build: {error}", file=sys.stderr)
        return 2


def check_usage(args: argparse.Namespace) -> None:
    """UsageError for flags that contradict each other or lack one another."""
    if args.validate:
        return
    actions = [flag for flag in ACTIONS if getattr(args, flag)]
    if len(actions) > 1:
        raise UsageError(f"one at a time: --{' and --'.join(flag.replace('_', '-') for flag in actions)}")
    if args.dry_run and actions:
        raise UsageError(f"--dry-run tells the plan of a build, not of --{actions[0].replace('_', '-')}")
    if args.crawl and args.input or not (args.crawl or args.input or actions or args.dry_run):
        raise UsageError("give either --crawl NAME or --input WARC ... (try: --crawl sample --output build/sample)")
    if args.previous and not (args.crawl or args.input):
        raise UsageError("--previous belongs to a build that names its --crawl or --input; one that is there knows it")
    if not args.output:
        raise UsageError("where to? give --output DIR, or --output gs://bucket/prefix")
    if args.crawl == "sample" and "://" in args.output:
        raise UsageError(
            f"the sample crawl is written beside its build: --output must be a folder, not {args.output!r}"
        )
    if args.index and (args.c4 == "rules" or not args.crawl or args.crawl == "sample"):
        raise UsageError("--index finds the pages of released C4 in a crawl: give --c4 DIR and --crawl CC-MAIN-...")
    if args.index and args.images in ("archive", "both"):
        raise UsageError("--index reads pages and no pictures: they come from --images live or from --image-store")
    if args.image_store and args.images:
        raise UsageError("pictures come from --images or from --image-store, not from both")
    for flag in ("limit", "workers", "face_sample"):
        value = getattr(args, flag)
        if value is not None and value < (flag != "workers"):
            raise UsageError(f"--{flag.replace('_', '-')} must be positive, got {value}")
    if args.accelerator and args.runner != "DataflowRunner":
        raise UsageError("--accelerator is for --runner DataflowRunner: elsewhere models use the GPU that a worker has")
    if args.accelerator and not ACCELERATOR.fullmatch(args.accelerator):
        raise UsageError(f"--accelerator must be like 'type:nvidia-tesla-t4;count:1', got {args.accelerator!r}")
    if not args.metrics_seconds > 0:
        raise UsageError(f"--metrics-seconds must be positive, got {args.metrics_seconds:g}")
    if args.metrics and "://" in args.metrics:
        raise UsageError(f"--metrics writes to a local file, or to stdout for `-`, not to {args.metrics!r}")
    if not 0 < args.face_recall <= 1:
        raise UsageError(f"--face-recall must be above 0 and at most 1, got {args.face_recall}")


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands behind `--` is Beam's, verbatim."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at + 1 :]


def beam_options(unknown: list[str], verbatim: list[str], top: argparse.ArgumentParser) -> tuple[str, ...]:
    """Flags that are not ours must be Beam's: its own parser is asked, so that no typing error passes silently."""
    if strange := unknown[:1]:
        name = strange[0].split("=")[0]
        ours = [flag for action in top._actions for flag in action.option_strings]
        near = difflib.get_close_matches(name, ours, 1, cutoff=0.8)
        if not near:
            theirs, strange = _ask_beam(unknown)
            near = difflib.get_close_matches(name, theirs, 1)
        if strange:
            hint = f"did you mean {near[0]}?" if near else "options that only an engine knows go behind `--`"
            raise UsageError(f"unknown argument {strange[0]!r}; {hint}")
    return (*unknown, *verbatim)


def _ask_beam(flags: list[str]) -> tuple[list[str], list[str]]:
    """All of Beam's flags, and those of `flags` that it does not know."""
    from apache_beam.options.pipeline_options import PipelineOptions

    beam: Any = argparse.ArgumentParser(add_help=False, allow_abbrev=False, conflict_handler="resolve")
    for options in PipelineOptions.__subclasses__():
        options._add_argparse_args(beam)
    known = [flag for action in beam._actions for flag in action.option_strings]
    return known, beam.parse_known_args(flags)[1]


def _validate(folder: str, options: Sequence[str]) -> int:
    from mmc4_builder import beam_files, storage
    from mmc4_builder.validate import format_report, validate

    try:
        if not storage.is_local(folder):
            beam_files.use(options)
        if not storage.has_folder(folder):
            raise UsageError(f"--validate {folder}: there is no such folder")
        report = validate(folder, watched=True)
    except (OSError, storage.StorageError) as error:
        print(f"mmc4-build: {error}", file=sys.stderr)
        return 1
    print(format_report(report))
    return 1 if report.problems else 0
