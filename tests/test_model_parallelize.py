"""A model over several processes: whatever the layout, gradients are those of one process with all the sequences."""

import inspect
from dataclasses import replace
from typing import Any

import pytest
import rank_processes
import torch
import torch.distributed.fsdp
from rank_processes import one_thread  # noqa: F401
from small_flamingos import Batch, batch, flamingo

from model import config as configs
from model.config import ConfigError
from model.flops import Batch as Shapes
from model.flops import flops_per_batch
from model.parallelize import ParallelPlan, arithmetic, bare, parallelize, reducing
from train.distributed import Place, local, whole

pytest.importorskip("transformers")

CPU = torch.device("cpu")
SHARDS = pytest.mark.skipif(
    "ignored_params" not in inspect.signature(torch.distributed.fsdp.fully_shard).parameters,
    reason="this torch shards on GPUs alone, and cannot leave parameters whole",
)
LAYOUTS = {
    "ddp": ParallelPlan(),
    "ddp recomputed": ParallelPlan(recompute=True),
    "fsdp replicate": ParallelPlan(kind="fsdp"),
    "fsdp shard": ParallelPlan(kind="fsdp", frozen="shard"),
    "fsdp shard recomputed": ParallelPlan(kind="fsdp", frozen="shard", recompute=True),
}


def one(rank: int, part: int) -> Batch:
    """A micro-batch of a rank. Ranks have unequal numbers of targets, and rank 1 has one without images."""
    data = batch(seed=10 * rank + part)
    masked = torch.arange(12) < 4 * rank + part
    data = replace(data, labels=data.labels.masked_fill(masked, -100))
    if rank == 1 and part == 0:
        data = replace(data, images=data.images[:0], image_rows=data.image_rows[:, :0], phi=data.phi * 0)
    return data


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}


def of_one_process(config: Any, world: int, total: int) -> dict[str, torch.Tensor]:
    model = flamingo("llama", config, gates=0.5).train()
    for rank in range(world):
        for part in range(2):
            (model(**one(rank, part).arguments()).loss_sum / total).backward()
    return gradients(model)


def check_gradients(place: Place, plan: ParallelPlan, config: Any, tolerance: float) -> None:
    total = sum(int((one(rank, part).labels[:, 1:] != -100).sum()) for rank in range(place.world) for part in range(2))
    expected = of_one_process(config, place.world, total)
    wrapped = parallelize(flamingo("llama", config, gates=0.5).train(), plan, place.device)
    for part in range(2):
        with reducing(wrapped, last=part == 1):
            with arithmetic(wrapped, plan, place.device):
                output = wrapped(**one(place.rank, part).arguments())
            (output.loss_sum / total).backward()
    found = gradients(bare(wrapped))
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=tolerance, rtol=tolerance, msg=f"{plan}: {name}")


def two_ranks(place: Place) -> None:
    for plan in LAYOUTS.values():
        check_gradients(place, plan, configs.tiny(), 1e-6)
    for config in (configs.vanilla_cross_attention(configs.tiny()), configs.train_vision(configs.tiny())):
        check_gradients(place, LAYOUTS["ddp"], config, 1e-6)
    for name in ("ddp", "fsdp replicate", "fsdp shard"):
        check_gradients(place, replace(LAYOUTS[name], bf16=True), configs.tiny(), 5e-3)
    check_types(place)


def check_types(place: Place) -> None:
    """What is sharded, what is whole, and in which type; operations are counted as those of the whole model."""
    shapes = Shapes(sequences=2, tokens=12, slots=3, images=3)
    expected = flops_per_batch(flamingo("llama"), shapes)
    for plan in (ParallelPlan(kind="fsdp", bf16=True), ParallelPlan(kind="fsdp", frozen="shard", bf16=True)):
        model = bare(parallelize(flamingo("llama").train(), plan, place.device))
        assert flops_per_batch(model, shapes) == expected
        for name, parameter in model.named_parameters():
            sharded = local(parameter) is not parameter
            assert sharded == (parameter.requires_grad or plan.frozen == "shard"), name
            assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name


def four_ranks(place: Place) -> None:
    check_gradients(place, ParallelPlan(kind="hsdp", replicas=2), configs.tiny(), 1e-6)
    with pytest.raises(ConfigError, match="4 processes do not make 3 replicas"):
        parallelize(flamingo("llama"), ParallelPlan(kind="hsdp", replicas=3), place.device)


@SHARDS
def test_two_ranks_have_the_gradients_of_one() -> None:
    rank_processes.ranks(2, two_ranks)


@SHARDS
def test_replicas_of_shards_have_the_gradients_of_one() -> None:
    rank_processes.ranks(4, four_ranks)


def test_one_process_is_not_wrapped() -> None:
    model = flamingo("llama")
    assert parallelize(model, ParallelPlan(kind="fsdp"), CPU) is model and bare(model) is model


def test_bf16_casts_what_is_frozen_and_only_parameters() -> None:
    model = flamingo("llama").train()
    plan = ParallelPlan(bf16=True)
    wrapped = parallelize(model, plan, CPU)
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {b.dtype for b in model.buffers() if b.is_floating_point()} == {torch.float32}  # rotary frequencies
    with arithmetic(wrapped, plan, CPU):
        output = wrapped(**batch().arguments())
    output.loss_sum.backward()
    assert output.logits.dtype == torch.bfloat16 and output.loss_sum.dtype == torch.float32


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # that torch itself looks at while it traces
def test_blocks_are_compiled_and_still_recomputed() -> None:
    model, data = flamingo("mpt", gates=0.5).train(), batch()
    model(**data.arguments()).loss.backward()
    expected = gradients(model)
    model.zero_grad()
    parallelize(model, ParallelPlan(compile=True, recompute=True, backend="eager"), CPU)
    units = [*model.blocks, *model.decoder.layers(model.lm), model.resampler, model.vision]
    assert all(unit._compiled_call_impl is not None for unit in units)
    model(**data.arguments()).loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (ParallelPlan(), [0, 0, 0, 0]),
        (ParallelPlan(kind="fsdp"), [0, 1, 2, 3]),
        (ParallelPlan(kind="hsdp", replicas=2), [0, 1, 0, 1]),
    ],
)
def test_who_holds_the_same_weights(plan: ParallelPlan, expected: list[int]) -> None:
    assert [plan.shard(rank, 4) for rank in range(4)] == expected
