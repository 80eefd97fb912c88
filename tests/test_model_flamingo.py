"""What a Flamingo promises: a fresh one is its language model, and images reach exactly who may see them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_flamingos import FAMILIES, IMAGE, VOCABULARY, Batch, batch, flamingo, language_model, tower
from torch import Tensor

from model import config as configs
from model import masking
from model.config import ConfigError, FlamingoConfig
from model.flamingo import Flamingo

pytest.importorskip("transformers")

VARIANTS: dict[str, Callable[[FlamingoConfig], FlamingoConfig]] = {
    "base": lambda c: c,
    "openflamingo_places": lambda c: replace(c, cross_attention=replace(c.cross_attention, placement="last", every=2)),
    "no_tanh_gate": configs.no_tanh_gate,
    "vanilla": configs.vanilla_cross_attention,
    "grafting": lambda c: configs.grafting(c, layers=2),
    "every_2nd": lambda c: configs.every_nth(c, 2),
    "single": configs.single_in_the_middle,
    "mlp": configs.mlp_resampler,
    "transformer": configs.transformer_resampler,
    "train_language": configs.train_language,
    "train_vision": configs.train_vision,
    "zero_ff": lambda c: replace(c, cross_attention=replace(c.cross_attention, ff_on_empty_rows=False)),
}
GATED = [name for name in VARIANTS if name != "no_tanh_gate"]


def run(model: Any, data: Batch, **changes: Any) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(**{**data.arguments(), **changes}).logits
    return logits


@pytest.mark.parametrize("family", FAMILIES)
def test_zero_gates_are_the_bare_language_model_bitwise(family: str) -> None:
    data, model = batch(), flamingo(family)
    ids = data.input_ids.masked_fill(data.input_ids == IMAGE, 5)  # the bare model has no such token
    with torch.no_grad():
        bare = model.lm(input_ids=ids).logits
    ours = run(model, data, input_ids=ids)
    assert ours.shape[-1] == VOCABULARY + 2
    assert torch.equal(ours[..., :VOCABULARY], bare[..., :VOCABULARY])
    assert set(model.lm.state_dict()) == set(language_model(family).state_dict())


@pytest.mark.parametrize("variant", GATED)
@pytest.mark.parametrize("family", ("opt", "gpt_neox", "mpt", "gpt2"))
def test_so_are_the_gated_ablations(variant: str, family: str) -> None:
    data, model = batch(), flamingo(family, VARIANTS[variant](configs.tiny()))
    ids = data.input_ids.masked_fill(data.input_ids == IMAGE, 5)
    with torch.no_grad():
        bare = model.lm(input_ids=ids).logits
    assert torch.equal(run(model, data, input_ids=ids)[..., :VOCABULARY], bare[..., :VOCABULARY])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains(variant: str) -> None:
    """Finite loss and gradients, in all that is trained and in nothing else; and images matter."""
    config, data = VARIANTS[variant](configs.tiny()), batch()
    model = flamingo("llama", config, gates=0.5).train()
    model(**data.arguments()).loss.backward()
    for name, parameter in model.named_parameters():
        frozen = (name.startswith("lm.") and not config.language.train) or (
            name.startswith("vision.") and not config.vision.train
        )
        assert parameter.requires_grad is not frozen, name
        if frozen:
            assert parameter.grad is None
        elif name != "lm.model.embed_tokens.weight":
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert not torch.equal(run(model, data), run(model, data, images=data.images + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_changes_only_what_may_see_it(family: str) -> None:
    """The second image of the third sequence stands at place 3: nothing before it, and no other sequence, changes."""
    data, model = batch(), flamingo(family, gates=1.0)
    rows = data.image_rows.clone()
    rows[2, 1] = 2
    changed = (run(model, data) - run(model, data, image_rows=rows)).abs().amax(-1)
    assert changed[:2].max() == 0 and changed[2, :3].max() == 0
    assert changed[2, 3:].min() > 0  # later tokens see it through the language model


def test_directly_a_token_sees_its_own_image_only() -> None:
    """With cross-attention in the last layer alone, nothing carries an image on to later tokens."""
    cross = replace(configs.tiny().cross_attention, placement="last", every=4)
    model, data = flamingo("llama", replace(configs.tiny(), cross_attention=cross), gates=1.0), batch()
    # What one place has added is passed on by the layer's self-attention: silence it.
    torch.nn.init.zeros_(model.decoder.layers(model.lm)[-1].self_attn.o_proj.weight)
    rows = data.image_rows.clone()
    rows[2, 1] = 2
    changed = (run(model, data) - run(model, data, image_rows=rows)).abs().amax(-1)[2] > 0
    assert changed.tolist() == (data.phi[2] == 2).tolist()
    everything = masking.all_previous_images(data.input_ids, IMAGE)
    changed = (run(model, data, phi=everything) - run(model, data, phi=everything, image_rows=rows)).abs().amax(-1)[2]
    assert (changed > 0).tolist() == (data.phi[2] >= 2).tolist()


def test_images_are_encoded_once_and_padding_never() -> None:
    model, data = flamingo(gates=1.0), batch()
    calls: list[int] = []
    model.vision.trunk.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    run(model, data)
    assert calls == [3]
    run(model, data, images=None, image_rows=None, phi=None)
    run(model, data, images=data.images[:0], image_rows=data.image_rows[:, :0])
    assert calls == [3]


def test_a_batch_without_images_still_runs_every_module_in_training() -> None:
    """Ranks must not wait for each other: gradients are there, and zero for what nobody saw."""
    model, data = flamingo(gates=1.0).train(), batch()
    output = model(
        data.input_ids, images=data.images[:0], image_rows=data.image_rows[:, :0], phi=data.phi * 0, labels=data.labels
    )
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.resampler.parameters())
    assert not model.resampler.latents.grad.any() and model.blocks[0].ff.up.weight.grad.any()
    alone = run(model, data, images=None, image_rows=None, phi=None)
    torch.testing.assert_close(output.logits, alone)


def test_visual_tokens_and_keys_can_be_made_before() -> None:
    model, data = flamingo(gates=1.0), batch()
    expected = run(model, data)
    with torch.no_grad():
        visual = model.encode_images(data.images)
        keys = model.project_media(model.place(visual, data.image_rows))
    assert torch.equal(run(model, data, images=None, visual=visual), expected)
    assert torch.equal(run(model, data, images=None, media=keys), expected)


def test_images_of_different_sizes_and_lengths() -> None:
    model, data = flamingo(gates=1.0), batch()
    images = [torch.randn(1, 3, 16, 16), torch.randn(2, 3, 24, 16), torch.randn(1, 3, 16, 16)]
    together = model.encode_images(images)
    for one, image in zip(together, images, strict=True):
        torch.testing.assert_close(one, model.encode_images(image[None])[0])
    assert run(model, data, images=images).isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_changes_nothing(family: str) -> None:
    data, model = batch(), flamingo(family, gates=1.0)
    pad = 3
    ids, phi = (torch.cat([torch.full((3, pad), fill), x], dim=1) for fill, x in ((2, data.input_ids), (0, data.phi)))
    mask = torch.ones_like(ids)
    mask[:, :pad] = 0
    expected = run(model, data, attention_mask=torch.ones_like(data.input_ids))
    padded = run(model, data, input_ids=ids, phi=phi, attention_mask=mask, labels=None)
    torch.testing.assert_close(padded[:, pad:], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_steps_are_the_full_pass(family: str) -> None:
    data, model = batch(), flamingo(family, gates=1.0)
    expected, cut = run(model, data), 7
    with torch.no_grad():
        keys = model.project_media(model.place(model.encode_images(data.images), data.image_rows))
        given = {"media": keys, "image_rows": data.image_rows, "use_cache": True}
        step = model(data.input_ids[:, :cut], phi=data.phi[:, :cut], **given)
        parts = [step.logits]
        for at in range(cut, data.input_ids.shape[1]):
            mask = torch.ones_like(data.input_ids[:, : at + 1])
            now = {"phi": data.phi[:, at : at + 1], "attention_mask": mask, "past_key_values": step.past_key_values}
            step = model(data.input_ids[:, at : at + 1], **now, **given)
            parts.append(step.logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=2e-5, rtol=1e-4)


def test_only_new_rows_of_the_table_change() -> None:
    model, data = flamingo(gates=0.5).train(), batch()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2, weight_decay=0.1)
    model(**data.arguments()).loss.backward()
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {"new_tokens.weight", "new_tokens.output"} <= changed
    assert not any(name.startswith(("lm.", "vision.")) for name in changed)


@pytest.mark.parametrize("table", (VOCABULARY, 97, 100))
@pytest.mark.parametrize("family", ("opt", "gpt_neox"))  # tied and untied
def test_new_tokens_take_over_rows_that_the_table_has(family: str, table: int) -> None:
    lm = language_model(family, table=table)
    model = Flamingo(configs.tiny(), tower(configs.tiny()), lm).eval()
    old = lm.get_input_embeddings().weight
    rows = min(2, table - VOCABULARY)
    assert torch.equal(model.new_tokens.weight[:rows], old[VOCABULARY : VOCABULARY + rows])
    torch.testing.assert_close(model.new_tokens.weight[rows:], old[:VOCABULARY].mean(0).expand(2 - rows, -1))
    assert (model.new_tokens.output is None) is (family == "opt")
    with torch.no_grad():
        assert model(torch.tensor([[3, 96, 97]])).logits.shape == (1, 3, VOCABULARY + 2)


def test_loss_is_the_mean_over_labels() -> None:
    model, data = flamingo(gates=1.0), batch()
    output = model(**data.arguments())
    logits, labels = output.logits[:, :-1].transpose(1, 2), data.labels[:, 1:]
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(logits, labels))
    nothing = model(**{**data.arguments(), "labels": torch.full_like(data.labels, -100)})
    assert nothing.loss == 0


def test_parts_that_do_not_fit_are_refused() -> None:
    config = configs.tiny()
    wrong = replace(config, language=replace(config.language, width=64))
    with pytest.raises(ConfigError, match="64"):
        flamingo("llama", wrong)
    wrong = replace(config, language=replace(config.language, vocab_size=101))
    with pytest.raises(ConfigError, match="has 100 embeddings"):
        flamingo("llama", wrong)
    lm = language_model("llama")
    lm.model.forward = lm.model.forward  # what accelerate does to a model with a device_map
    with pytest.raises(ConfigError, match="device_map"):
        Flamingo(config, tower(config), lm)
    with pytest.raises(ValueError, match="image_rows"):
        flamingo()(torch.tensor([[3, 4]]), images=torch.randn(1, 1, 3, 16, 16))
