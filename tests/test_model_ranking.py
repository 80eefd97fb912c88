"""Likelihoods with a shared prompt are those of whole sequences."""

import pytest
import torch
from small_flamingos import FAMILIES
from test_model_generation import prompts, seeing
from torch import Tensor

from model import config as configs
from model.flamingo import Flamingo
from model.prefix import Prompts
from model.ranking import log_likelihoods

pytest.importorskip("transformers")

CANDIDATES = [[5], [6, 7, 8, 9], [10, 11], [5, 12, 13], [14, 15, 16, 17]]


def naive(model: Flamingo, given: Prompts) -> Tensor:
    """Every prompt with every candidate, one whole sequence at a time, without its padding."""
    total = torch.empty(len(given.input_ids), len(CANDIDATES))
    for row, ids in enumerate(given.input_ids):
        start = int(given.attention_mask[row].argmax())
        for column, candidate in enumerate(CANDIDATES):
            sequence = torch.cat([ids[start:], torch.tensor(candidate)])[None]
            seen = {}
            if given.phi is not None and given.image_rows is not None:
                phi = given.phi[row : row + 1, start:]
                phi = torch.cat([phi, phi[:, -1:].expand(-1, len(candidate))], dim=1)
                seen = {"visual": given.visual, "image_rows": given.image_rows[row : row + 1], "phi": phi}
            with torch.no_grad():
                found = model(sequence, **seen).logits[0].log_softmax(-1)
            predicted = found[-len(candidate) - 1 : -1]
            total[row, column] = predicted[range(len(candidate)), candidate].sum()
    return total


@pytest.mark.parametrize("images", [(3, 1, 0), (0, 0), (2,)], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_prompt_gives_what_whole_sequences_give(family: str, images: tuple[int, ...]) -> None:
    model = seeing(family)
    given = prompts(model, images)
    found = log_likelihoods(model, given, CANDIDATES)
    torch.testing.assert_close(found.total, naive(model, given), atol=1e-4, rtol=1e-5)
    assert found.tokens.tolist() == [1, 4, 2, 3, 4]
    torch.testing.assert_close(found.mean, found.total / found.tokens)


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_how_many_go_together_changes_nothing(rows: int) -> None:
    model = seeing()
    given = prompts(model, (3, 1, 0))
    torch.testing.assert_close(
        log_likelihoods(model, given, CANDIDATES, rows=rows).total, naive(model, given), atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_the_left_changes_nothing(family: str) -> None:
    model = seeing(family)
    found = [log_likelihoods(model, prompts(model, (2, 1), pad=pad), CANDIDATES).total for pad in (0, 7)]
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-5)


def test_the_prompt_is_read_once() -> None:
    model = seeing()
    given, read = prompts(model, (2, 1)), []
    layer = model.decoder.layers(model.lm)[0]
    hook = layer.register_forward_pre_hook(lambda _, args: read.append(tuple(args[0].shape[:2])))
    log_likelihoods(model, given, CANDIDATES)
    hook.remove()
    # Of the longest candidate the last token is predicted and not read.
    assert read == [(2, given.input_ids.shape[1]), (2 * len(CANDIDATES), 3)]


@pytest.mark.parametrize("candidates", [[], [[5], []]])
def test_empty_candidates_are_refused(candidates: list[list[int]]) -> None:
    model = seeing()
    with pytest.raises(ValueError, match="candidates"):
        log_likelihoods(model, prompts(model, (1,)), candidates)


def test_grafted_layers_cannot_rank() -> None:
    model = seeing("llama", configs.grafting(configs.tiny()))
    with pytest.raises(ValueError, match="no cache"):
        log_likelihoods(model, prompts(model, (1,)), CANDIDATES)
