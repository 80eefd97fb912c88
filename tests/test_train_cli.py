"""The command line of the trainer: from its arguments to a trained model, or to an error that says what to do."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.run import get_args_parser
from training_data import write_documents, write_pairs

from train import recipes
from train.cli import main, parser

ROOT = Path(__file__).parents[1]
MINE = """
from dataclasses import replace
from train import recipes

def small(data):
    made = recipes.tiny(data)
    datasets = tuple(replace(dataset, batch=4) for dataset in made.datasets)
    return replace(made, datasets=datasets, save_every=2, validate_every=2, log_every=1)

def unseeded(data):
    return replace(small(data), seed=7)

def nothing(data):
    return None
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("build"), [12, 12])


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "my.py").write_text(MINE)
    return f"{tmp_path / 'my.py'}:small"


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def losses(output: Path) -> dict[int, float]:
    return {line["step"]: line["loss"]["interleaved"] for line in lines(output) if "loss" in line}


def test_a_run_and_its_continuation(data: Path, mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four updates, then two more by the same command: the same as six at once."""
    pairs = write_pairs(tmp_path / "pairs", [8])
    common = ["--config", mine, "--data", str(data), "--pairs", str(pairs), "--workers", "0", "--curves", "none"]
    assert main([*common, "--output", str(tmp_path / "two"), "--steps", "4"]) == 0
    said = capsys.readouterr().err
    assert "TFLOP an update at most, 4 updates" in said and "trained: " in said
    assert main([*common, "--output", str(tmp_path / "two"), "--steps", "6"]) == 0
    assert "goes on after update 4" in capsys.readouterr().err
    assert main([*common, "--output", str(tmp_path / "one"), "--steps", "6"]) == 0
    assert losses(tmp_path / "two") == losses(tmp_path / "one")
    from safetensors.torch import load_file

    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_two_processes_by_torchrun_train_as_one_does(data: Path, mine: str, tmp_path: Path) -> None:
    """The README's command for several GPUs, on two CPUs."""
    common = ["--config", mine, "--data", str(data), "--workers", "0", "--curves", "none", "--device", "cpu"]
    assert main([*common, "--output", str(tmp_path / "one"), "--steps", "2"]) == 0
    here = Path(sys.executable).parent
    torchrun = [here / "torchrun", "--nproc-per-node", "2", "--no-python", here / "mmc4-train"]
    given = [*torchrun, *common, "--output", tmp_path / "two", "--steps", "2"]
    done = subprocess.run(given, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("trained: ") == 1 and "2 processes" in done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_a_run_that_begins_from_another(data: Path, mine: str, tmp_path: Path) -> None:
    common = ["--config", mine, "--data", str(data), "--workers", "0", "--curves", "none", "--steps", "1"]
    assert main([*common, "--output", str(tmp_path / "first")]) == 0
    trained = tmp_path / "first" / "model.safetensors"
    assert main([*common, "--output", str(tmp_path / "second"), "--init", str(trained)]) == 0
    assert losses(tmp_path / "first") != losses(tmp_path / "second")


def test_a_dry_run_says_what_it_would_do(
    data: Path, mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config", mine, "--data", str(data), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["datasets"][0]["batch"] == 4
    assert "of weights, gradients and moments" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--config": "tny"}, "neither one of tiny, openflamingo_3b"),
        ({"--config": "{mine}:nothing"}, "gives a NoneType"),
        ({"--config": "flamingo_3b"}, "name one with --lm"),
        ({"--config": "openflamingo_3b", "--vision": "no/such.pt"}, "no/such.pt"),
        ({"--lm": "no/such/model"}, "--lm no/such/model"),
        ({"--data": "no/such/folder"}, "nothing to train on there"),
        ({"--data": "s3://bucket/mmc4"}, "s3://bucket/mmc4: samples are read by their places in files: copy"),
        ({"--init": "no/such.safetensors"}, "no/such.safetensors"),
    ],
)
def test_what_cannot_be(
    changes: dict[str, str], said: str, data: Path, mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--config": mine, "--data": str(data), "--output": str(tmp_path / "out"), "--workers": "0"} | changes
    given["--config"] = given["--config"].replace("{mine}", mine.rpartition(":")[0])
    assert main([part for pair in given.items() for part in pair]) == 1
    out, err = capsys.readouterr()
    assert said in err and "Traceback" not in err and not out


def test_a_folder_of_another_run(data: Path, mine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = [
        "--data",
        str(data),
        "--output",
        str(tmp_path / "out"),
        "--workers",
        "0",
        "--curves",
        "none",
        "--steps",
        "1",
    ]
    assert main(["--config", mine, *common]) == 0
    assert main(["--config", mine.replace("small", "unseeded"), *common]) == 1
    assert "seed: 0 there, 7 asked for" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config", "tiny", "--output", "out"], "give --data, --pairs or --videos"),
        (["--config", "tiny", "--data", "x", "--output", "out", "--steps", "0"], "--steps must be at least 1, got 0"),
        (["--config", "tiny", "--data", "x", "--output", "out", "--workers", "-1"], "--workers must be at least 0"),
        (["--config", "tiny", "--data", "x"], "--output"),
        (["--config", "tiny", "--data", "x", "--output", "out", "--stpes", "1"], "--stpes"),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_torchrun_leaves_every_flag_to_us() -> None:
    """It reads beginnings of its own flags out of what follows the program: `--log` would be refused as ambiguous."""
    for flag in (flag for action in parser()._actions for flag in action.option_strings):
        given = get_args_parser().parse_args(["--no-python", "mmc4-train", flag, "x"])
        assert given.training_script_args == [flag, "x"]


def test_flags_are_few_and_none_is_added_by_accident() -> None:
    flags = {flag for action in parser()._actions for flag in action.option_strings}
    assert flags == {
        "-h", "--help", "--version", "--config", "--data", "--pairs", "--videos", "--lm", "--vision", "--init",
        "--output", "--steps", "--workers", "--device", "--curves", "--dry-run",
    }  # fmt: skip


def test_help_names_every_recipe() -> None:
    said = parser().format_help()
    assert all(name.removeprefix("openflamingo").removeprefix("flamingo") in said for name in recipes.NAMED)


@pytest.mark.parametrize("module", ("train.cli", "train.caption"))
def test_the_front_doors_are_light(module: str) -> None:
    script = (
        f"import sys, {module} as door\n"
        "try: door.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'open_clip', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'{heavy} were imported' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "example" in done.stdout
