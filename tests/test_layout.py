"""The house: packages as setup.cfg lists them, arrows that point one way, and nothing heavy behind the front door."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("mmc4_builder", "filters", "pipelines", "model", "train")
ALLOWED = {
    "mmc4_builder": {"mmc4_builder"},
    "filters": {"filters", "mmc4_builder"},
    "pipelines": {"pipelines", "filters", "mmc4_builder"},
    "model": {"model"},
    "train": {"train", "model", "mmc4_builder"},
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(tree: ast.AST, *, top_only: bool = False) -> Iterator[str]:
    """Names of imported modules; those inside functions only where asked for."""
    nodes = tree.body if top_only and isinstance(tree, ast.Module) else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_setup_cfg_lists_every_package() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts) for package in OURS for path in modules(package)
        if path.name == "__init__.py"
    }  # fmt: skip
    assert listed == found


@pytest.mark.parametrize("package", OURS)
def test_arrows_point_one_way(package: str) -> None:
    for path in modules(package):
        top_only = path.name == "cli.py"  # the command line opens the other packages' doors when they are needed
        for name in imports(ast.parse(path.read_text()), top_only=top_only):
            owner = name.split(".")[0]
            assert owner not in OURS or owner in ALLOWED[package], f"{path}: {name}"


@pytest.mark.parametrize("package", ("mmc4_builder", "filters", "model", "train"))
def test_only_pipelines_imports_beam_at_the_top(package: str) -> None:
    for path in modules(package):
        names = set(imports(ast.parse(path.read_text()), top_only=True))
        assert not any(name.split(".")[0] == "apache_beam" for name in names), path


def test_beam_modules_keep_their_type_checks() -> None:
    """`from __future__ import annotations` turns Beam's construction-time checks off without a word."""
    for path in modules("pipelines"):
        assert "__future__" not in set(imports(ast.parse(path.read_text()))), path


@pytest.mark.parametrize("arguments", (["--help"], ["--version"], ["--crwl", "sample"], ["--crawl", "x"]))
def test_the_front_door_is_light(arguments: list[str]) -> None:
    script = (
        "import sys, runpy\n"
        "from mmc4_builder import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'apache_beam', 'torch', 'open_clip', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} were imported' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ("mmc4_builder", "filters"))
def test_the_core_imports_without_beam_and_torch(package: str) -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules(package)
        if path.name not in ("__init__.py", "train_clip.py")
    ]
    script = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "heavy = {'apache_beam', 'torch', 'open_clip'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} were imported' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_file_is_too_long_to_read() -> None:
    for package in OURS:
        for path in modules(package):
            assert path.read_text().count("\n") <= 400, path
