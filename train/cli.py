"""The command line of `mmc4-train`. Nothing heavy is imported before it is needed: `--help` is instant."""

import argparse
import sys
from collections.abc import Sequence

from mmc4_builder import __version__

EXAMPLES = """
examples:
  mmc4-train --config tiny --data build/sample --output runs/tiny
      the sample build, on a laptop: minutes
  torchrun --nproc-per-node 8 --no-python mmc4-train --config openflamingo_3b \\
      --data out/ --pairs 'laion/*.tar' --output runs/of3b
      eight GPUs; the same command goes on where it was stopped
  mmc4-train --config my.py:mine --data out/ --output runs/mine --dry-run
      a recipe of your own: what it resolves to, and what it will take
"""
CURVES = ("tensorboard", "wandb", "none")


def parser() -> argparse.ArgumentParser:
    """Flags say where and how much; what is trained is a configuration in Python (`train/recipes.py`)."""
    top = argparse.ArgumentParser(
        prog="mmc4-train",
        description="Train Flamingo on what mmc4-build wrote, on image-text pairs and on video-text pairs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"mmc4-train {__version__}")
    _add_what(top.add_argument_group("what to train"))
    _add_where(top.add_argument_group("where, and how fast"))
    return top


def _add_what(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--config",
        metavar="NAME",
        required=True,
        help="tiny, openflamingo_3b, _4b, _9b, flamingo_3b, _9b, or FILE.py:FUNCTION",
    )
    group.add_argument(
        "--data", metavar="PATH", help="interleaved documents: a build's folder, tars, or docs zips beside pictures"
    )
    group.add_argument("--pairs", metavar="PATH", help="image-text pairs: tars as img2dataset writes them")
    group.add_argument("--videos", metavar="PATH", help="video-text pairs: tars of key.mp4 and key.txt")
    group.add_argument("--lm", metavar="NAME", help="another language model: a hub's name or a local folder")
    group.add_argument("--vision", metavar="FILE", help="weights of the recipe's vision encoder, from a file")
    group.add_argument("--init", metavar="FILE", help="begin from a checkpoint's model.safetensors")


def _add_where(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--output", metavar="DIR", required=True, help="the run's folder; what is there is gone on with")
    group.add_argument("--steps", metavar="N", type=int, help="updates; the recipe's number otherwise")
    group.add_argument("--workers", metavar="N", type=int, default=1, help="loading processes a dataset (%(default)s)")
    group.add_argument("--device", choices=("cpu", "cuda"), help="by default a GPU where there is one")
    group.add_argument("--curves", choices=CURVES, default="tensorboard", help="beside metrics.jsonl (%(default)s)")
    group.add_argument("--dry-run", action="store_true", help="say what would be trained and what it takes, and end")


def main(arguments: Sequence[str] | None = None) -> int:
    top = parser()
    args = top.parse_args(arguments)
    if not (args.data or args.pairs or args.videos):
        top.error("there is nothing to train on: give --data, --pairs or --videos")
    for name, least in (("steps", 1), ("workers", 0)):
        value = getattr(args, name)
        if value is not None and value < least:
            top.error(f"--{name} must be at least {least}, got {value}")
    from train import command

    return command.run(args)


if __name__ == "__main__":
    sys.exit(main())
