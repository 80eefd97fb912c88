"""Against what OpenFlamingo's own code answered on the same weights; see data/openflamingo/make.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openflamingo_cases import (
    BASE,
    CASES,
    ENDOFCHUNK,
    IMAGE,
    NEW_TOKENS,
    PAD,
    SETTINGS,
    TOKENS,
    VISION_WIDTH,
    Case,
    inputs,
    language_model,
    new_rows,
    pixels,
    value,
    vision_model,
)
from torch import Tensor

from model import masking
from model.config import VisionConfig
from model.flamingo import Flamingo
from model.generation import generate
from model.openflamingo import (
    OpenFlamingoError,
    load_openflamingo,
    read,
    to_openflamingo,
)
from model.prefix import Prompts
from model.vision import clip_tower

DATA = Path(__file__).parent / "data" / "openflamingo"
KEYS = json.loads((DATA / "keys.json").read_text())
VISION = VisionConfig(
    library="open_clip", name="tiny", pretrained=None, width=VISION_WIDTH, image_size=16, final_norm=False
)
PLACED = ".gated_cross_attn_layer."


def checkpoint(case: Case) -> dict[str, Tensor]:
    """The checkpoint that OpenFlamingo would have saved of this case: its own names, the rule's values."""
    lm = language_model(case.family, case.settings).state_dict()
    state = {}
    for name, shape in KEYS[case.name].items():
        own = name.removeprefix("lang_encoder.")
        if name.startswith("perceiver.") or PLACED in name:
            layer = name.split(PLACED)[0].rsplit(".", 1)[-1]
            rule = f"xattn.{layer}.{name.split(PLACED)[1]}" if PLACED in name else name
            state[name] = value(rule, tuple(shape))
        elif name.endswith("inv_freq"):
            state[name] = torch.zeros(shape)
        elif shape[0] == TOKENS:
            # Of the output tables that OpenFlamingo keeps, all but GPT-NeoX's are tied to the input's.
            table = "output" if own == "embed_out.weight" else "input"
            own = own if own in lm else "lm_head.weight"
            state[name] = torch.cat([lm[own][:BASE], new_rows(table, shape[1])])
        else:
            state[name] = lm[own]
    return state


def load(case: Case, state: Any = None) -> Flamingo:
    visual = vision_model().visual
    tower = clip_tower(visual, VISION, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    lm = language_model(case.family, case.settings)
    model = load_openflamingo(checkpoint(case) if state is None else state, lm, VISION, tower=tower)
    if model.new_tokens.output is not None and case.family == "llama":
        # LLaMA's output table is not in OpenFlamingo's checkpoints.
        model.new_tokens.output.data.copy_(new_rows("output", 32))
    return model.eval()


@pytest.fixture(scope="module")
def models() -> dict[str, Flamingo]:
    return {case.name: load(case) for case in CASES}


def batch_images(case: Case) -> tuple[Tensor, Tensor]:
    """Images [M, T, 3, H, W] without padding, and which slot of a row each is in."""
    padded = pixels(case)
    rows = torch.full(padded.shape[:2], -1)
    images: list[Tensor] = []
    for row, count in enumerate(case.images):
        for slot in range(count):
            rows[row, slot] = len(images)
            images.append(padded[row, slot])
    return (torch.stack(images) if images else padded[0, :0]), rows


def stored(case: Case) -> dict[str, Any]:
    with np.load(DATA / f"{case.name}.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_and_loss_are_openflamingos(case: Case, models: dict[str, Flamingo]) -> None:
    batch, expected = inputs(case), stored(case)
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    images, rows = batch_images(case)
    with torch.no_grad():
        found = models[case.name](
            **batch, images=images, image_rows=rows, phi=masking.previous_image(batch["input_ids"], IMAGE)
        )
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(found.logits[real], expected["logits"][real], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.loss, expected["loss"].view(()), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["greedy", "beams", "stopped"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_generated_text_is_openflamingos(case: Case, kind: str, models: dict[str, Flamingo]) -> None:
    batch, expected = inputs(case, finished=False), stored(case)
    images, rows = batch_images(case)
    model = models[case.name]
    prompts = Prompts(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        visual=model.encode_images(images) if len(images) else None,
        image_rows=rows if len(images) else None,
        phi=masking.previous_image(batch["input_ids"], IMAGE) if len(images) else None,
    )
    end = int(expected["stop"]) if kind == "stopped" else ENDOFCHUNK
    beams = {} if kind == "greedy" else {"num_beams": 3, "length_penalty": 0.0}
    options = {"max_new_tokens": NEW_TOKENS, "pad_token_id": PAD, "suppress_tokens": [IMAGE, PAD]}
    found = generate(model, prompts, eos_token_id=end, **options, **beams)
    assert found.tolist() == expected[kind].tolist()


ONE_OF_EACH = [next(case for case in CASES if case.family == family) for family in SETTINGS]


@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.name)
def test_round_trip_is_exact(case: Case, models: dict[str, Flamingo]) -> None:
    there = {name: tensor for name, tensor in checkpoint(case).items() if not name.endswith("inv_freq")}
    back = to_openflamingo(models[case.name])
    assert sorted(back) == sorted(there)
    assert all(torch.equal(back[name], there[name]) for name in there)


def test_a_training_checkpoint_loads_like_a_released_one(tmp_path: Path) -> None:
    case = CASES[0]
    state = checkpoint(case)
    torch.save(state, tmp_path / "released.pt")
    wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save({"epoch": 3, "model_state_dict": wrapped, "optimizer_state_dict": {}}, tmp_path / "training.pt")
    released, training = read(tmp_path / "released.pt"), read(tmp_path / "training.pt")
    assert released.keys() == training.keys() == state.keys()
    model = load(case, tmp_path / "training.pt")
    assert torch.equal(model.resampler.latents, state["perceiver.latents"])  # type: ignore[arg-type]


def test_a_whole_state_dict_loads_too() -> None:
    state = checkpoint(CASES[0])
    extra = {
        name.replace("lang_encoder.model.decoder.layers", "lang_encoder.gated_cross_attn_layers"): tensor
        for name, tensor in state.items()
    }
    load(CASES[0], {**extra, **state, "vision_encoder.proj": torch.zeros(2)})


def test_unexpected_and_missing_keys_are_listed() -> None:
    state = checkpoint(CASES[0])
    del state["perceiver.norm.weight"]
    state["perceiver.media_time_embs"] = torch.zeros(1)
    with pytest.raises(OpenFlamingoError, match=r"(?s)missing \(1\).*norm.weight.*unexpected \(1\).*media_time_embs"):
        load(CASES[0], state)


def _wider(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([t, t], -1) if "embed_tokens" in name else t for name, t in state.items()}


def _other_rows(state: dict[str, Tensor]) -> dict[str, Tensor]:
    name = "lang_encoder.model.decoder.embed_tokens.weight"
    return {**state, name: state[name] + 1}


def _fewer_blocks(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in state.items() if f"layers.3{PLACED}" not in name}


def _other_shape(state: dict[str, Tensor]) -> dict[str, Tensor]:
    name = "perceiver.layers.1.0.to_q.weight"
    return {**state, name: state[name][:256]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_wider, "has width 64"),
        (_other_rows, "another language model of the same shape"),
        (_fewer_blocks, "not every 1 of the 4"),
        (_other_shape, r"to_q.weight: \[256, 32\] in the checkpoint, \[512, 32\] in the model"),
        (lambda state: {"a": torch.zeros(1)}, "perceiver.latents"),
    ],
)
def test_what_does_not_fit_is_refused(change: Any, message: str) -> None:
    with pytest.raises(OpenFlamingoError, match=message):
        load(CASES[0], change(checkpoint(CASES[0])))


def test_another_family_of_language_models_is_named() -> None:
    case, other = ONE_OF_EACH[0], ONE_OF_EACH[1]
    with pytest.raises(OpenFlamingoError, match=r"model.decoder.layers, GPTNeoXForCausalLM at gpt_neox.layers"):
        load(other, checkpoint(case))


def test_another_vision_encoder_is_named() -> None:
    with pytest.raises(OpenFlamingoError, match="width 32, ViT-L-14 has 1024"):
        load_openflamingo(checkpoint(CASES[0]), language_model("opt", SETTINGS["opt"]))
