"""Logits of the tokens that are asked about alone: the same numbers, and the output layer reads nothing else."""

from typing import Any

import pytest
import torch
from small_flamingos import FAMILIES, batch, flamingo
from test_model_generation import GREEDY, OPTIONS, prompts, seeing
from torch import Tensor

from model import config as configs
from model.flops import Batch, flops_per_batch
from model.generation import generate
from model.ranking import log_likelihoods
from model.targets import last_places, target_places, token_loss


def read_by_head(model: Any) -> list[tuple[int, ...]]:
    """Shapes that the output layer is called with from now on; the norm's, where there is no such layer."""
    shapes: list[tuple[int, ...]] = []
    head = model.lm.get_submodule(model.decoder.last_path)
    head.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape[:2])))
    return shapes


def trained(model: Any, **arguments: Any) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = model(**arguments).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_places() -> None:
    labels = torch.tensor([[7, -100, 5, 6], [-100, 8, -100, -100]])
    assert target_places(labels).tolist() == [1, 2, 4]  # the first token of a sequence is nobody's next one
    assert last_places(labels).tolist() == [3, 7]
    assert last_places(labels, 2).tolist() == [2, 3, 6, 7]


@pytest.mark.parametrize("variant", (configs.tiny(), configs.grafting(configs.tiny(), layers=2)), ids=("base", "graft"))
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_all_logits(family: str, variant: configs.FlamingoConfig) -> None:
    model, data = flamingo(family, variant, gates=0.5).train(), batch()
    arguments = data.arguments() | {"labels": data.labels.masked_fill(torch.arange(12) < 5, -100)}
    expected, gradients = trained(model, **arguments)
    places = target_places(arguments["labels"])
    loss, found = trained(model, **arguments, places=places)
    torch.testing.assert_close(loss, expected)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4, msg=name)
    with torch.no_grad():
        everything = model(**arguments).logits.flatten(0, 1)
        torch.testing.assert_close(model(**arguments, places=places).logits, everything[places])


@pytest.mark.parametrize("family", ("llama", "first_mpt"))
def test_a_batch_without_targets_has_gradients_of_zero(family: str) -> None:
    """All ranks must run the same modules, also the one that has nothing to predict."""
    model, data = flamingo(family, gates=0.5).train(), batch()
    nothing = torch.full_like(data.labels, -100)
    loss, gradients = trained(model, **data.arguments() | {"labels": nothing}, places=target_places(nothing))
    assert loss == 0 and gradients.keys() >= {"new_tokens.weight", "resampler.latents"}
    assert not any(gradient.any() for gradient in gradients.values())


def test_a_sequences_last_token_predicts_nothing_of_the_next_sequence() -> None:
    labels = torch.tensor([[1, 2, 3], [4, 5, 6]])
    _, count = token_loss(torch.zeros(6, 8), labels, torch.arange(6))
    assert count == 4


def test_the_output_layer_reads_the_places_alone() -> None:
    model, data = flamingo("mpt"), batch()
    shapes = read_by_head(model)
    model(**data.arguments(), places=target_places(data.labels))
    assert shapes == [(1, int((data.labels[:, 1:] != -100).sum()))]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "first_mpt"])
def test_generation_asks_for_one_token_a_row(family: str) -> None:
    model = seeing(family)
    given, shapes = prompts(model, (3, 1, 0)), read_by_head(model)
    options = {**OPTIONS, **GREEDY, "eos_token_id": None}
    cached = generate(model, given, **options)
    assert shapes == [(1, 0)] + [(1, 3)] * 6
    shapes.clear()
    assert cached.tolist() == generate(model, given, use_cache=False, **options).tolist()
    assert shapes == [(1, 3)] * 6


def test_so_does_ranking_of_the_prompt() -> None:
    model = seeing("mpt")
    given, shapes = prompts(model, (2, 1)), read_by_head(model)
    log_likelihoods(model, given, [[5], [6, 7, 8]])
    assert shapes == [(1, 2), (4, 2)]


def test_operations_are_fewer() -> None:
    model, sizes = flamingo("mpt"), {"sequences": 3, "tokens": 12, "slots": 3, "images": 3}
    saved = flops_per_batch(model, Batch(**sizes)).forward - flops_per_batch(model, Batch(**sizes, places=20)).forward
    rows = model.decoder.head_weight(model.lm).shape[0] + 2
    assert saved == 2 * 16 * rows * model.config.language.width
