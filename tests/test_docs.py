"""README and CHANGELOG say what is there: commands, flags, files, versions."""

import re
import shlex
from pathlib import Path

import pytest

from mmc4_builder import __version__
from mmc4_builder.cli import parser
from train.caption import parser as caption_parser
from train.cli import parser as train_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HELPERS = (
    "timing", "children", "local_web", "model_work", "openflamingo_peer", "loader_work", "loader_peer", "train_work",
    "openflamingo_train_peer", "scale_plan",
)  # fmt: skip
APART = ("c4_parity", "model", "loader", "train", "closed_loop")  # with a peer's environment, or behind a long run
TORCHRUN = {"--nproc-per-node", "--no-python"}
BEAM = {"--project", "--region", "--temp_location"}


def commands(program: str = "mmc4-build") -> list[str]:
    """Every command line of the README's blocks that runs a program, continuation lines joined."""
    blocks = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line[line.index(f"{program} ") :] for line in lines if f"{program} " in line.split("  #")[0]]


def test_there_are_commands() -> None:
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    _, unknown = parser().parse_known_args(shlex.split(command)[1:])
    assert {flag for flag in unknown if flag.startswith("--")} <= BEAM


@pytest.mark.parametrize("command", commands("mmc4-train"))
def test_commands_of_the_trainer_are_understood(command: str) -> None:
    train_parser().parse_args(shlex.split(command, comments=True)[1:])


def test_every_flag_is_known() -> None:
    parsers = (parser(), train_parser(), caption_parser())
    own = {flag for one in parsers for action in one._actions for flag in action.option_strings}
    for script in (ROOT / "benchmarks").glob("*.py"):
        own.update(re.findall(r'add_argument\("(--[a-z][\w-]+)"', script.read_text()))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", README))
    assert named <= own | BEAM | TORCHRUN


@pytest.mark.parametrize("path", sorted(set(re.findall(r"[\w/]+/\w+\.(?:py|png)", README))))
def test_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([\w-]+)", README))))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_benchmarks_are_in_the_readme_and_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        if path.stem not in HELPERS:
            assert f"benchmarks/{path.name}" in README
            assert path.stem in APART or path.stem in makefile


def test_changelog_has_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
