"""Captions: prompts of the right tokens and images, and a command that says what it lacks."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from training_runs import one_thread

from model import checkpoint
from model import flamingo as models
from train import caption
from train.recipes import SAMPLE_WEIGHTS, tiny_model

__all__ = ["one_thread"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint on the shipped models, and pictures."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = models.build(tiny_model())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate.value"):
                parameter.fill_(0.5)
    checkpoint.save(model, folder / "model.safetensors")
    for name, colour in (("red", (0, 0, 220)), ("blue", (220, 0, 0)), ("green", (0, 220, 0))):
        cv2.imwrite(str(folder / f"{name}.jpg"), np.full((48, 96, 3), colour, np.uint8))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return folder


@pytest.fixture(scope="module")
def loaded(run: Path) -> Any:
    return caption.load(run / "model.safetensors")


def pictures(run: Path, loaded: Any, *names: str) -> torch.Tensor:
    return torch.stack([caption.read(run / f"{name}.jpg", loaded[0]) for name in names])


@pytest.mark.parametrize("shots", (0, 2))
@pytest.mark.parametrize("beams", (1, 3))
def test_captions_do_not_depend_on_what_else_is_captioned(run: Path, loaded: Any, shots: int, beams: int) -> None:
    shown = pictures(run, loaded, "red", "blue", "green")
    examples = [(shown[2], "A green field."), (shown[0], "Red.")][:shots]
    writing = caption.Writing(beams=beams, tokens=12)
    together = caption.caption(*loaded, shown, examples, writing)
    assert together == [caption.caption(*loaded, one[None], examples, writing)[0] for one in shown]
    assert all(text and "<" not in text for text in together)


def test_prompts_are_openflamingos(run: Path, loaded: Any) -> None:
    model, words = loaded
    shown = pictures(run, loaded, "red", "blue", "green")
    made = caption._prompts(model, words, shown[:2], [(shown[2], "A field.")])
    text = words.encode(["A field."])[0]
    row = [words.image, *text, words.end_of_chunk, words.image]
    assert made.input_ids.tolist() == [row, row]
    assert made.image_rows.tolist() == [[0, 1], [0, 2]] and len(made.visual) == 3
    assert made.phi.tolist() == [[1] * (len(row) - 1) + [2]] * 2


def test_a_caption_ends_with_its_sentence(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, words = loaded
    asked: list[dict[str, Any]] = []
    stop = words.encode(["A cat. A dog."])[0]

    def written(model: Any, prompts: Any, **options: Any) -> torch.Tensor:
        asked.append(options)
        tail = torch.tensor([[*stop, words.end_of_chunk, 7, words.pad]])
        return torch.cat([prompts.input_ids, tail.repeat(len(prompts.input_ids), 1)], dim=1)

    monkeypatch.setattr("model.generation.generate", written)
    picture = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    assert caption.caption(model, words, picture) == ["A cat. A dog."]
    caption.caption(model, words, picture, writing=caption.Writing(whole=True))
    sentence, whole = (options["eos_token_id"] for options in asked)
    assert whole == [words.end_of_chunk, words.end]
    assert set(sentence) - set(whole) == {words.encode([mark])[0][0] for mark in ".!?"}


def test_pictures_are_fitted_as_the_encoder_was_trained(run: Path, loaded: Any, tmp_path: Path) -> None:
    wide = np.zeros((40, 120, 3), np.uint8)
    wide[:, :30] = 255  # a crop would lose it
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    model = loaded[0]
    assert caption.read(tmp_path / "wide.png", model).shape == (3, 64, 64)
    assert float(caption.read(tmp_path / "wide.png", model)[:, :, :10].float().mean()) > 250
    assert float(caption.read(tmp_path / "wide.png", model, "crop").float().mean()) < 5


def test_the_command_writes_a_line_for_each_picture(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(run / f"{name}.jpg") for name in ("red", "broken", "blue", "nowhere")]
    code = caption.main(["--checkpoint", str(run / "model.safetensors"), "--tokens", "8", "--device", "cpu", *files])
    out, err = capsys.readouterr()
    assert code == 1
    assert [line.split("\t")[0] for line in out.splitlines()] == [files[0], files[2]]
    assert "broken.jpg is no picture" in err and "nowhere.jpg cannot be read: No such file" in err


def test_frozen_parts_may_lie_elsewhere(run: Path, tmp_path: Path) -> None:
    """What the checkpoint names is not here; what is given is, and is checked against it."""
    config = tiny_model()
    elsewhere = replace(
        config,
        language=replace(config.language, name=str(tmp_path / "lm")),
        vision=replace(config.vision, name=f"local-dir:{tmp_path / 'clip'}"),
    )
    model = models.build(config)
    model.config = elsewhere
    checkpoint.save(model, tmp_path / "moved.safetensors")
    with pytest.raises((caption.CaptionError, ValueError), match="clip|lm"):
        caption.load(tmp_path / "moved.safetensors")
    found, words = caption.load(
        tmp_path / "moved.safetensors", lm=str(SAMPLE_WEIGHTS / "lm"), vision=str(SAMPLE_WEIGHTS / "tiny")
    )
    assert found.config.vision == config.vision and words.end_of_chunk == config.language.vocab_size


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint", "nowhere.safetensors"], "no such file; mmc4-train writes"),
        (["--checkpoint", "{run}/red.jpg"], "cannot be read"),
        (["--checkpoint", "{run}/model.safetensors", "--lm", "{run}/nowhere"], "--lm and --vision"),
        (["--checkpoint", "{run}/model.safetensors", "--vision", "{run}"], "no open_clip_config.json"),
    ],
)
def test_what_is_missing_is_said(
    arguments: list[str], said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(run=run) for argument in arguments]
    assert caption.main([*given, "--device", "cpu", str(run / "red.jpg")]) == 1
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_a_checkpoint_without_a_named_language_model_asks_for_it(tmp_path: Path) -> None:
    from small_flamingos import flamingo

    checkpoint.save(flamingo("llama"), tmp_path / "model.safetensors")
    with pytest.raises(caption.CaptionError, match="names no language model: give the one .* with --lm"):
        caption.load(tmp_path / "model.safetensors")


def test_bad_numbers_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        caption.main(["--checkpoint", "x", "--beams", "0", "a.jpg"])
    assert "--beams must be at least 1, got 0" in capsys.readouterr().err
    script = "import sys\nfrom train import caption\ntry: caption.main(['--help'])\nexcept SystemExit: pass\n"
    script += "print([name for name in ('torch', 'transformers', 'cv2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--checkpoint runs/tiny/model.safetensors" in done.stdout and done.stdout.endswith("[]\n")
