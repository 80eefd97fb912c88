"""The README's captioning code runs as it stands, with small random files in the place of what it downloads."""

import re
from pathlib import Path

import pytest
import torch
from openflamingo_cases import BASE, CASES, ENDOFCHUNK, IMAGE, PAD, language_model, vision_model
from PIL import Image
from test_model_openflamingo import VISION, checkpoint
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from model import openflamingo
from model.vision import clip_tower

README = (Path(__file__).parents[1] / "README.md").read_text()
CASE = next(case for case in CASES if case.family == "gpt_neox")


def words() -> PreTrainedTokenizerFast:
    """A tokenizer of as many words as the language model knows, to which the README adds its three."""
    known = ["[unk]", "A", "dog", "in", "the", "snow", "cat", "asleep", ".", *(f"word{i}" for i in range(BASE - 9))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_it_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(checkpoint(CASE), tmp_path / "checkpoint.pt")
    for name in ("dog", "cat", "bird"):
        Image.new("RGB", (40, 30), "red").save(tmp_path / f"{name}.jpg")
    tower = clip_tower(vision_model().visual, VISION, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    tokenizer = words()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name: tokenizer)
    lm = language_model(CASE.family, CASE.settings)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda name: lm)
    monkeypatch.setattr(openflamingo, "clip_vit_l14", lambda **options: VISION)
    monkeypatch.setattr(openflamingo.towers, "build", lambda config: tower)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()
    names = ("<|endofchunk|>", "<image>", "<PAD>")
    assert tokenizer.convert_tokens_to_ids(list(names)) == [ENDOFCHUNK, IMAGE, PAD]


def test_ablations_that_it_names_are_there() -> None:
    from model import config

    named = re.search(r"An ablation of the paper.*?\n\n", README, re.DOTALL)
    assert named is not None
    functions = [name for name in re.findall(r"`(\w+)`", named[0]) if name != "flamingo"]
    assert len(functions) >= 8 and all(callable(getattr(config, name)) for name in functions)
