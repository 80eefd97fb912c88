"""The command line: what it refuses, and that it says why and what to do."""

from pathlib import Path

import pytest

from mmc4_builder import __version__
from mmc4_builder.cli import main, parser


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--crawl sample --output build/sample"),
        (["--crawl", "sample", "--input", "x.warc.gz", "--output", "out"], "either --crawl NAME or --input"),
        (["--crawl", "sample"], "give --output DIR"),
        (["--crwl", "sample", "--output", "out"], "did you mean --crawl?"),
        (["--crawl", "sample", "--output", "out", "--shards-format", "mmc4"], "did you mean --shard-format?"),
        (["--crawl", "sample", "--output", "out", "--num_wrkers=3"], "did you mean --num_workers?"),
        (["--crawl", "sample", "--output", "out", "--qqq"], "options that only an engine knows go behind `--`"),
        (["--crawl", "sample", "--output", "out", "--limit", "0"], "--limit must be positive, got 0"),
        (["--crawl", "sample", "--output", "out", "--workers", "-1"], "--workers must be positive, got -1"),
        (["--crawl", "sample", "--output", "out", "--stages", "documents,imges"], "unknown stage 'imges'"),
        (["--crawl", "sample", "--output", "gs://bucket/x"], "--output must be a folder"),
        (["--crawl", "sample", "--output", "out", "--accelerator", "type:x;count:1"], "for --runner DataflowRunner"),
        (
            ["--crawl", "CC-MAIN-2024-10", "--output", "out", "--runner", "DataflowRunner", "--accelerator", "t4"],
            "--accelerator must be like",
        ),
        (["--validate", "no/such/folder"], "no/such/folder"),
        (["--crawl", "sample", "--output", "out", "--metrics-seconds", "0"], "--metrics-seconds must be positive"),
        (["--crawl", "sample", "--output", "out", "--metrics", "s3://b/m"], "a local file, or to stdout for `-`"),
        (["--crawl", "sample", "--output", "out", "--metrics", "no/such/folder/m"], "cannot write --metrics no"),
        (["--crawl", "sample", "--output", "out", "--metrics-port", "x"], "--metrics-port x is no port"),
        (["--crawl", "sample", "--output", "out", "--metrics-port", "65536"], "65536 is no port"),
        (["--fit-faces", "f.json", "--output", "out", "--face-recall", "1.1"], "--face-recall must be above 0"),
        (["--fit-faces", "f.json", "--output", "out", "--face-sample", "0"], "--face-sample must be positive, got 0"),
        (["--remove", "f", "--retry-failed", "--output", "out"], "one at a time: --remove and --retry-failed"),
        (["--remove", "f", "--dry-run", "--output", "out"], "--dry-run tells the plan of a build, not of --remove"),
        (["--crawl", "CC-MAIN-2024-10", "--index", "--output", "out"], "--index finds the pages of released C4"),
        (["--crawl", "sample", "--c4", "d", "--index", "--output", "out"], "--index finds the pages of released C4"),
        (["--input", "x.warc.gz", "--c4", "d", "--index", "--output", "out"], "--crawl CC-MAIN-"),
        (
            ["--crawl", "CC-MAIN-2024-10", "--c4", "d", "--index", "--images", "both", "--output", "out"],
            "--index reads pages and no pictures",
        ),
        (["--crawl", "sample", "--image-store", "s", "--images", "live", "--output", "out"], "not from both"),
    ],
)
def test_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = [str(tmp_path / "out") if argument == "out" else argument for argument in arguments]
    assert main(arguments) != 0
    captured = capsys.readouterr()
    assert said in captured.err + captured.out


@pytest.fixture(scope="module")
def unbuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output that no build gets as far as; the sample crawl is written there once."""
    return tmp_path_factory.mktemp("cli") / "out"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "no/such/*.warc.gz", "--images", "archive", "--clip", "tiny"], "no/such/*.warc.gz"),
        (["--crawl", "CC-MAIN-2024-1", "--crawl-root", ".", "--clip", "tiny"], "CC-MAIN-2024-10"),
        (["--crawl", "sample", "--clip", "ViT-B-32:no/such/file.pt"], "no/such/file.pt"),
        (["--crawl", "sample", "--c4", "no/such/folder"], "no/such/folder"),
        (["--crawl", "sample", "--bad-words", "no/such/list"], "no/such/list"),
        (["--crawl", "sample", "--opt-out", "no/such/list"], "no/such/list"),
        (["--crawl", "sample", "--ad-list", "no/such/list"], "no/such/list"),
        (["--crawl", "sample", "--nsfw", "no/such/head.pt"], "no/such/head.pt"),
        (["--crawl", "sample", "--faces", "no/such/head.json"], "no/such/head.json"),
        (["--crawl", "sample", "--face-detector", "no/such/detector"], "no/such/detector"),
        (["--crawl", "sample", "--image-store", "no/such/store"], "no/such/store"),
        (["--remove", "no/such/list"], "there is no build in"),
        (["--retry-failed"], "there is no build in"),
        (["--dry-run"], "there is no build in"),
        (["--fit-faces", "faces.json", "--face-detector", "released"], "there is no build in"),
    ],
)
def test_what_is_not_there(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], unbuilt: Path) -> None:
    assert main([*arguments, "--output", str(unbuilt)]) == 1
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message


def test_help_ends_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0
    assert "mmc4-build --crawl sample --output build/sample" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"mmc4-build {__version__}"


def test_flags_are_few_and_none_is_added_by_accident() -> None:
    """Flags say where and how much; what is built is configuration in Python."""
    flags = {flag for action in parser()._actions for flag in action.option_strings if flag.startswith("--")}
    assert flags == {
        "--help", "--version", "--crawl", "--crawl-root", "--input", "--limit", "--config", "--c4", "--bad-words",
        "--images", "--clip", "--shard-format", "--output", "--stages", "--workers", "--runner", "--contact",
        "--reconfigure", "--validate", "--image-store", "--opt-out", "--crawl-robots", "--ad-list", "--nsfw", "--faces",
        "--face-detector", "--decontaminate", "--near-text", "--remove", "--retry-failed", "--url-list", "--fit-faces",
        "--face-sample", "--face-recall", "--index", "--dry-run", "--accelerator",
        "--metrics", "--metrics-seconds", "--metrics-port", "--previous",
    }  # fmt: skip
