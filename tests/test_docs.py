"""README and CHANGELOG say what is there: commands, flags, files, versions."""

import re
import shlex
from pathlib import Path

import pytest

from mmc4_builder import __version__
from mmc4_builder.cli import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HELPERS = ("timing", "local_web", "model_work", "openflamingo_peer")
WITH_A_PEER_APART = ("c4_parity", "model")  # that needs an environment of its own
BEAM = {"--project", "--region", "--temp_location"}


def commands() -> list[str]:
    """Every mmc4-build command line of the README's blocks, continuation lines joined."""
    blocks = re.findall(r"```\n(.*?)```", README, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line.startswith("mmc4-build ")]


def test_there_are_commands() -> None:
    assert len(commands()) >= 4


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    _, unknown = parser().parse_known_args(shlex.split(command)[1:])
    assert {flag for flag in unknown if flag.startswith("--")} <= BEAM


def test_every_flag_is_known() -> None:
    own = {flag for action in parser()._actions for flag in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", README))
    assert named <= own | BEAM


@pytest.mark.parametrize("path", sorted(set(re.findall(r"[\w/]+/\w+\.(?:py|png)", README))))
def test_files_exist(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make (\w+)", README))))
def test_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_benchmarks_are_in_the_readme_and_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        if path.stem not in HELPERS:
            assert f"benchmarks/{path.name}" in README
            assert path.stem in WITH_A_PEER_APART or path.stem in makefile


def test_changelog_has_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
