"""Generation with caches gives what computing everything anew at each step gives."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_flamingos import FAMILIES, IMAGE, VOCABULARY, flamingo
from torch import Tensor

from model import config as configs
from model import masking
from model.flamingo import Flamingo
from model.generation import generate
from model.prefix import Prompts, VisualCache

pytest.importorskip("transformers")

PAD = 2
OPTIONS: dict[str, Any] = {"max_new_tokens": 6, "pad_token_id": PAD, "eos_token_id": 1, "suppress_tokens": [IMAGE]}
GREEDY: dict[str, Any] = {"do_sample": False}
BEAMS: dict[str, Any] = {"num_beams": 3, "length_penalty": 0.0, "do_sample": False}


def pictures(count: int, *, seed: int = 3) -> list[Tensor]:
    return list(torch.randn(count, 1, 3, 16, 16, generator=torch.Generator().manual_seed(seed)))


def prompts(model: Flamingo, images: tuple[int, ...], *, pad: int = 0, see_all: bool = False) -> Prompts:
    """A prompt for each number of images: three tokens of text, then an image and three tokens for each."""
    generator = torch.Generator().manual_seed(7)
    rows = []
    for count in images:
        ids = torch.randint(3, VOCABULARY, (3 + 4 * count,), generator=generator)
        ids[3::4] = IMAGE
        rows.append(ids.tolist())
    length = max(map(len, rows)) + pad
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    if not any(images):
        return Prompts(input_ids=ids, attention_mask=mask)
    slots = torch.full((len(images), max(images)), -1)
    for row, count in enumerate(images):
        slots[row, :count] = torch.arange(count)  # the first image of one prompt is the first of all
    phi = masking.all_previous_images(ids, IMAGE) if see_all else masking.previous_image(ids, IMAGE)
    with torch.no_grad():
        visual = model.encode_images(pictures(max(images)))
    return Prompts(input_ids=ids, attention_mask=mask, visual=visual, image_rows=slots, phi=phi)


def seeing(family: str = "llama", config: configs.FlamingoConfig | None = None) -> Flamingo:
    model: Flamingo = flamingo(family, config, gates=1.0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("blocks", "lm")) and parameter.ndim > 1:
                parameter.mul_(3)  # so that what comes next depends on what is seen
    return model


@pytest.mark.parametrize("how", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("images", [(3, 1, 0), (0, 0), (2,), (1, 1)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_is_uncached(family: str, images: tuple[int, ...], how: dict[str, Any]) -> None:
    model = seeing(family)
    given = prompts(model, images)
    cached = generate(model, given, **OPTIONS, **how)
    assert cached.shape[1] > given.input_ids.shape[1]
    assert cached.tolist() == generate(model, given, use_cache=False, **OPTIONS, **how).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_left_changes_nothing(family: str) -> None:
    model = seeing(family)
    new = [generate(model, prompts(model, (2,), pad=pad), **OPTIONS, **BEAMS)[:, 11 + pad :].tolist() for pad in (0, 5)]
    assert new[0] == new[1]


def test_a_batch_gives_what_its_rows_give() -> None:
    model = seeing()
    together = prompts(model, (3, 1, 0))
    found = generate(model, together, **OPTIONS, **BEAMS)[:, together.input_ids.shape[1] :]
    for row, count in enumerate((3, 1, 0)):
        start = together.attention_mask[row].argmax()
        alone = replace(
            together,
            input_ids=together.input_ids[row : row + 1, start:],
            attention_mask=together.attention_mask[row : row + 1, start:],
            image_rows=together.image_rows[row : row + 1, : max(count, 1)],  # type: ignore[index]
            phi=together.phi[row : row + 1, start:],  # type: ignore[index]
        )
        new = generate(model, alone, **OPTIONS, **BEAMS)[0, alone.input_ids.shape[1] :].tolist()
        assert found[row, : len(new)].tolist() == new


def test_images_matter() -> None:
    model = seeing()
    given = prompts(model, (2,))
    assert given.visual is not None
    other = replace(given, visual=given.visual.flip(0))
    assert generate(model, given, **OPTIONS).tolist() != generate(model, other, **OPTIONS).tolist()


@pytest.mark.parametrize("sequences", [1, 3])
def test_sampling_is_the_same_with_and_without_cache(sequences: int) -> None:
    model = seeing()
    given = prompts(model, (3, 1, 0))
    found = []
    for use_cache in (True, False):
        torch.manual_seed(0)
        options = {**OPTIONS, "do_sample": True, "top_k": 0, "num_return_sequences": sequences}
        found.append(generate(model, given, use_cache=use_cache, **options).tolist())
    assert found[0] == found[1]
    assert len(found[0]) == 3 * sequences


@pytest.mark.parametrize(
    "ablation",
    [configs.see_all_previous_images, configs.vanilla_cross_attention, configs.grafting, configs.single_in_the_middle],
)
def test_ablations_generate_too(ablation: Any) -> None:
    model = seeing("llama", ablation(configs.tiny()))
    given = prompts(model, (3, 1, 0), see_all=ablation is configs.see_all_previous_images)
    cached = generate(model, given, **OPTIONS, **BEAMS)
    assert cached.tolist() == generate(model, given, use_cache=False, **OPTIONS, **BEAMS).tolist()


def test_a_prompt_of_one_token() -> None:
    model = seeing()
    given = Prompts(input_ids=torch.tensor([[5], [6]]), attention_mask=torch.ones(2, 1, dtype=torch.long))
    cached = generate(model, given, **OPTIONS, **BEAMS)
    assert cached.tolist() == generate(model, given, use_cache=False, **OPTIONS, **BEAMS).tolist()


def test_keys_and_values_of_images_are_made_once_a_prompt() -> None:
    model = seeing()
    made, read = [], []
    projection = model.blocks[0].attention.to_kv  # type: ignore[union-attr]
    hooks = [
        projection.register_forward_hook(lambda *_: made.append(1)),  # type: ignore[union-attr,operator]
        model.blocks[0].attention.register_forward_pre_hook(  # type: ignore[union-attr,operator]
            lambda _, args: read.append((args[0].shape[0], args[1][0].shape[2]))
        ),
    ]
    generate(model, prompts(model, (3, 1, 0)), **{**OPTIONS, "eos_token_id": None}, **BEAMS)
    for hook in hooks:
        hook.remove()
    latents = model.config.resampler.latents
    assert len(made) == 1
    # The prompt is read for three rows with all images; each step for nine beams with one image each.
    assert read == [(3, 3 * latents)] + [(9, latents)] * 6


def test_prompts_padded_on_the_right_are_refused() -> None:
    with pytest.raises(ValueError, match="padded on the left"):
        Prompts(input_ids=torch.tensor([[5, PAD]]), attention_mask=torch.tensor([[1, 0]]))


def test_images_need_all_three_of_their_inputs() -> None:
    with pytest.raises(ValueError, match="all of visual"):
        Prompts(input_ids=torch.tensor([[5]]), attention_mask=torch.tensor([[1]]), phi=torch.tensor([[0]]))


def test_each_distinct_image_is_encoded_once() -> None:
    model = seeing()
    calls: list[int] = []
    model.vision.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    cache, images = VisualCache(model, capacity=3), pictures(4)
    expected = model.encode_images(torch.stack(images)).detach()
    calls.clear()
    found = cache.encode([images[0], images[1], images[0].clone()])
    assert calls == [2]
    torch.testing.assert_close(found, expected[[0, 1, 0]])
    cache.encode([images[1], images[2], images[3]])
    assert calls == [2, 2]
    assert len(cache) == 3
    cache.encode([images[0]])  # the least recently used one was given up
    assert calls == [2, 2, 1]


def test_visual_tokens_are_not_kept_over_a_change_of_weights() -> None:
    model = seeing()
    cache, images = VisualCache(model), pictures(1)
    before = cache.encode(images)
    with torch.no_grad():
        model.resampler.norm.weight.mul_(2)
    torch.testing.assert_close(cache.encode(images), model.encode_images(torch.stack(images)).detach())
    assert not torch.equal(before, cache.encode(images))
