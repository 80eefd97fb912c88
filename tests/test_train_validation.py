"""Validation: four losses on the same tokens, each against its definition, alone and on two ranks."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_flamingos import IMAGE, VOCABULARY, flamingo
from torch import Tensor
from training_runs import batch_of, one_thread, ranks

from model import config as configs
from model.layers import Gate
from train.batch import Batch, normalised
from train.distributed import Place
from train.validation import Validation, closed_gates, counted, derangement, evaluate

EOC = VOCABULARY  # the first new token
FIELDS = ("images", "shuffled", "blind", "language")

__all__ = ["one_thread"]


def documents(*keys: str) -> Batch:
    """Rows of 12 tokens with up to two images; the last but one token ends a chunk, the last is padding."""
    made = batch_of(keys)
    ids, labels, mask = made.input_ids.clone(), made.labels.clone(), made.attention_mask.clone()
    ids[:, -2], labels[:, -2], labels[:, -1], mask[:, -1] = EOC, EOC, -100, 0
    return replace(made, input_ids=ids, labels=labels, attention_mask=mask)


BATCHES = [documents("a", "b", "c", "e"), documents("f", "g", "h")]


@pytest.fixture
def model() -> Any:
    return flamingo("llama", gates=0.7)


def token_losses(model: Any, ids: list[int], **seen: Any) -> Tensor:
    """[L]: of each token by those before it; nan for the first."""
    with torch.no_grad():
        logits = model(torch.tensor([ids]), **seen).logits[0, :-1].float()
    return torch.cat([torch.tensor([math.nan]), F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")])


def by_definition(model: Any, batches: list[Batch]) -> dict[str, float]:
    """Row by row and token by token."""
    sums, tokens = dict.fromkeys(FIELDS, 0.0), 0
    for batch in batches:
        pixels = normalised(batch.images, model.vision.mean, model.vision.std, torch.float32)
        others = pixels[derangement(batch.image_rows, len(pixels))]
        for index in range(len(batch.input_ids)):
            length = int(batch.attention_mask[index].sum())
            ids, labels = batch.input_ids[index, :length].tolist(), batch.labels[index, :length].tolist()
            wanted = [t for t in range(1, length) if 0 <= labels[t] < EOC and ids[t - 1] < EOC]
            seen = {"image_rows": batch.image_rows[index : index + 1], "phi": batch.phi[index : index + 1, :length]}
            text = [t for t, token in enumerate(ids) if token < EOC]
            with torch.no_grad():
                logits = model.lm(torch.tensor([[ids[t] for t in text]])).logits[0, :, :EOC].log_softmax(-1)
            found = {
                "images": token_losses(model, ids, images=pixels, **seen),
                "shuffled": token_losses(model, ids, images=others, **seen),
                "blind": token_losses(model, ids),
            }
            for name, losses in found.items():
                sums[name] += float(losses[wanted].sum())
            sums["language"] -= sum(float(logits[text.index(t) - 1, ids[t]]) for t in wanted)
            tokens += len(wanted)
    return {name: value / tokens for name, value in sums.items()} | {"tokens": tokens}


def test_each_number_is_what_it_is_said_to_be(model: Any) -> None:
    found, wanted = evaluate(model, BATCHES), by_definition(model, BATCHES)
    for name in (*FIELDS, "tokens"):
        assert getattr(found, name) == pytest.approx(wanted[name], rel=1e-5), name
    assert len({round(getattr(found, name), 4) for name in FIELDS}) == 4
    assert found.targets == sum(batch.targets for batch in BATCHES) > found.tokens


def test_the_loss_is_that_of_training(model: Any) -> None:
    total = targets = 0.0
    for batch in BATCHES:
        with torch.no_grad():
            out = model(
                batch.input_ids, images=normalised(batch.images, model.vision.mean, model.vision.std, torch.float32),
                image_rows=batch.image_rows, phi=batch.phi, attention_mask=batch.attention_mask, labels=batch.labels,
            )  # fmt: skip
        total, targets = total + float(out.loss_sum), targets + float(out.loss_tokens)
    found = evaluate(model, BATCHES)
    assert (found.loss, found.targets) == (pytest.approx(total / targets, rel=1e-5), targets)


def test_a_fresh_model_is_blind() -> None:
    found = evaluate(flamingo("llama"), BATCHES)
    assert found.images == found.shuffled == pytest.approx(found.blind, rel=1e-6)


@pytest.mark.parametrize(
    "ablation", (configs.grafting, configs.vanilla_cross_attention, configs.see_all_previous_images)
)
def test_closed_gates_leave_the_language_model_alone(ablation: Any) -> None:
    options = {"layers": 2} if ablation is configs.grafting else {}
    model = flamingo("gpt_neox", ablation(configs.tiny(), **options), gates=0.7)
    ids = torch.randint(3, VOCABULARY, (2, 9))
    with torch.no_grad(), closed_gates(model) as closed:
        torch.testing.assert_close(model(ids).logits[..., :EOC], model.lm(ids).logits[..., :EOC])
    assert closed
    assert all(float(m.value.detach()) == pytest.approx(0.7) for m in model.modules() if isinstance(m, Gate))


def test_without_gates_there_is_no_figure_of_the_language_model() -> None:
    found = evaluate(flamingo("llama", configs.no_tanh_gate(configs.tiny())), BATCHES)
    assert math.isnan(found.language) and found.images > 0
    line = found.metrics("pages")
    assert "pages/language" not in line and line["pages/images"] == found.images
    assert json.loads(json.dumps(line, allow_nan=False)) == line


def test_gates_and_mode_are_as_before_also_after_an_error(model: Any) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def broken() -> Any:
        yield BATCHES[0]
        raise OSError("gone")

    model.train()
    with pytest.raises(OSError, match="gone"):
        evaluate(model, broken())
    assert model.training and not model.lm.training
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_has_no_other_image_counts_in_the_loss_alone(model: Any) -> None:
    text = batch_of(["x"])
    ids = torch.full_like(text.input_ids, 5)
    none = torch.zeros(0, 1, 3, 16, 16, dtype=torch.uint8)
    text = replace(
        text, input_ids=ids, labels=ids, phi=torch.zeros_like(ids), images=none, image_rows=torch.zeros(1, 0).long()
    )
    alone, both = evaluate(model, [text]), evaluate(model, [*BATCHES, text])
    assert (alone.tokens, alone.targets) == (0, 11) and math.isnan(alone.images) and alone.loss > 0
    without = evaluate(model, BATCHES)
    assert all(getattr(both, name) == getattr(without, name) for name in (*FIELDS, "tokens"))
    assert evaluate(model, []).targets == 0


def test_tags_and_what_follows_them_do_not_count() -> None:
    ids = torch.tensor([[7, EOC, IMAGE, 8, 9, EOC, 1, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 0]])
    batch = replace(batch_of(["a"]), input_ids=ids, labels=ids, attention_mask=mask)
    assert counted(batch, EOC).tolist() == [[False, False, False, True, False, False, False]]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_shuffled_images_are_others_and_of_other_sequences(counts: list[int], rng: Any) -> None:
    total = sum(counts)
    numbers = list(range(total))
    rng.shuffle(numbers)
    rows = torch.full((len(counts), max(1, *counts, 1)), -1)
    owner = {}
    for row, count in enumerate(counts):
        for slot in range(count):
            owner[numbers[-1]] = row
            rows[row, slot] = numbers.pop()
    if total < 2:
        return
    found = derangement(rows, total).tolist()
    assert sorted(found) == list(range(total)) and all(image != other for image, other in enumerate(found))
    if 2 * max(counts) <= total:
        assert all(owner[image] != owner[other] for image, other in enumerate(found))


def same_on_two_ranks(place: Place, expected: Validation, sharded: bool) -> None:
    from model.parallelize import ParallelPlan, parallelize

    model = flamingo("llama", gates=0.7)
    plan = ParallelPlan(kind="fsdp" if sharded else "ddp", frozen="shard")
    parallelize(model, plan, place.device)
    batches = [*BATCHES, documents("i", "j", "k")]
    split = 1 if sharded else len(batches)
    found = evaluate(model, batches[:split] if place.rank == 0 else batches[split:])
    for name in (*FIELDS, "loss"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-5), name
    assert (found.tokens, found.targets) == (expected.tokens, expected.targets)


@pytest.mark.parametrize("sharded", (False, True))
def test_ranks_may_have_unequal_numbers_of_batches(model: Any, sharded: bool) -> None:
    expected = evaluate(model, [*BATCHES, documents("i", "j", "k")])
    ranks(2, same_on_two_ranks, expected, sharded)
