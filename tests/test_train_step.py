"""One update: what is divided by what, what is clipped and when, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import training_runs
from small_flamingos import flamingo
from training_runs import batch_of, one_thread  # noqa: F401

from model.flamingo import Flamingo
from model.parallelize import ParallelPlan, bare, parallelize
from train import optimizer as optimizers
from train.batch import Batch, normalised
from train.config import OptimizerConfig
from train.distributed import DivergedError, Place, check_agreement, joined, local, whole
from train.step import Engine, NonFiniteError, RankError, Update, count, update

pytest.importorskip("transformers")

CPU = torch.device("cpu")
WEIGHTS = {"documents": 1.0, "pairs": 0.2}
KEYS = {"documents": ["d0", "d1", "d2", "d3"], "pairs": ["p0", "p1", "p2", "p3", "p4", "p5"]}


@pytest.fixture(autouse=True)
def group(request: pytest.FixtureRequest) -> Any:
    """A group of one, but not where a test starts processes of its own."""
    if request.node.name.startswith("test_two"):
        yield
    else:
        with joined("cpu"):
            yield


def engine_of(plan: ParallelPlan | None = None, *, clip: float = 0.0, family: str = "llama") -> Engine:
    plan = plan or ParallelPlan()
    wrapped = parallelize(flamingo(family, gates=0.5).train(), plan, CPU)
    config = OptimizerConfig(rate=1e-2, warmup=4, clip=clip)
    built = optimizers.build(bare(wrapped), config)
    return Engine(model=wrapped, optimizer=built, config=config, weights=WEIGHTS, plan=plan, device=CPU)


def parts(keys: list[str], size: int) -> tuple[Batch, ...]:
    return tuple(batch_of(keys[start : start + size]) for start in range(0, len(keys), size))


def step_of(engine: Engine, batches: dict[str, tuple[Batch, ...]], step: int = 0) -> Update:
    counts, _ = count(batches)
    return update(engine, batches, counts, step)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: whole(p.grad).clone() for name, p in model.named_parameters() if p.grad is not None}


def loss_sum(model: Any, batch: Batch) -> torch.Tensor:
    images = normalised(batch.images, model.vision.mean, model.vision.std, torch.float32)
    found: torch.Tensor = model(
        batch.input_ids, images=images, image_rows=batch.image_rows, phi=batch.phi, labels=batch.labels
    ).loss_sum
    return found


def one_weighted_loss(keys: dict[str, list[str]]) -> dict[str, torch.Tensor]:
    """Gradients of the sum over datasets of lambda times the mean loss, from one batch of each."""
    model = flamingo("llama", gates=0.5).train()
    whole_batches = {name: batch_of(names) for name, names in keys.items()}
    losses = [WEIGHTS[name] * loss_sum(model, batch) / batch.targets for name, batch in whole_batches.items()]
    torch.stack(losses).sum().backward()
    return gradients(model)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("size", (1, 2, 3, 6))
def test_accumulation_is_one_weighted_loss_whatever_the_micro_batch(size: int) -> None:
    engine = engine_of()
    done = step_of(engine, {name: parts(keys, size) for name, keys in KEYS.items()})
    expected = one_weighted_loss(KEYS)
    assert_same(gradients(engine.model), expected)
    norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert done.norm == pytest.approx(float(norm), rel=1e-5)
    batches = {name: batch_of(keys) for name, keys in KEYS.items()}
    assert {name: found.targets for name, found in done.counts.items()} == {n: b.targets for n, b in batches.items()}
    assert {name: found.images for name, found in done.counts.items()} == {n: len(b.images) for n, b in batches.items()}
    fresh = flamingo("llama", gates=0.5).train()
    for name, batch in batches.items():
        assert done.losses[name] == pytest.approx(float(loss_sum(fresh, batch).detach()) / batch.targets, rel=1e-6)


def test_clips_once_after_all_gradients_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, clip = [], torch.nn.utils.clip_grad_norm_

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        return clip(*args, **kwargs)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", counted)
    engine = engine_of(clip=0.05)
    done = step_of(engine, {name: parts(keys, 1) for name, keys in KEYS.items()})
    expected = one_weighted_loss(KEYS)
    assert len(calls) == 1 and done.norm > 0.05
    assert_same(gradients(engine.model), {name: g * (0.05 / done.norm) for name, g in expected.items()})


def test_only_what_is_trained_changes() -> None:
    engine = engine_of(family="gpt2")
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    step_of(engine, {"documents": (batch_of(["d0", "d1"]),)})
    for name, parameter in engine.model.named_parameters():
        assert torch.equal(parameter, before[name]) == (not parameter.requires_grad), name
    changed = {name.split(".")[0] for name, p in engine.model.named_parameters() if p.requires_grad}
    assert changed == {"resampler", "blocks", "new_tokens"}


def test_rate_is_that_of_the_update() -> None:
    engine = engine_of()
    rates = [step_of(engine, {"pairs": (batch_of(["p0"]),)}, step).rate for step in (0, 1, 9)]
    assert rates == pytest.approx([0.0025, 0.005, 0.01])


def test_a_dataset_without_targets_has_no_loss() -> None:
    silent = replace(batch := batch_of(["d0"]), labels=torch.full_like(batch.labels, -100))
    done = step_of(engine_of(), {"documents": (silent,), "pairs": (batch_of(["p0"]),)})
    assert done.losses.keys() == {"pairs"} and math.isfinite(done.norm)


def spoilt_loss(model: Flamingo) -> None:
    """The second forward pass gives a NaN."""
    calls = []

    def spoil(_: Any, args: Any, output: Any) -> Any:
        calls.append(1)
        return replace(output, loss_sum=output.loss_sum * float("nan")) if len(calls) == 2 else output

    model.register_forward_hook(spoil)


def spoilt_gradient(model: Flamingo) -> None:
    model.blocks[0].ff_gate.value.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (spoilt_loss, r"update 3: losses documents \S+, pairs nan; .*: pairs, samples p0, p1\. The update was not"),
        (spoilt_gradient, r"update 3: .*gradient norm (inf|nan): the losses are finite and a gradient is not"),
    ],
)
def test_what_is_no_number_is_not_applied(spoil: Callable[[Flamingo], None], expected: str) -> None:
    engine = engine_of(clip=1.0)
    step_of(engine, {"pairs": (batch_of(["p0"]),)}, 2)
    spoil(bare(engine.model))
    before = {name: p.detach().clone() for name, p in engine.model.named_parameters()}
    moments = [state["exp_avg"].clone() for state in engine.optimizer.state.values()]
    with pytest.raises(NonFiniteError, match=expected):
        step_of(engine, {"documents": (batch_of(["d0"]),), "pairs": (batch_of(["p0", "p1"]),)}, 3)
    assert all(torch.equal(p, before[name]) for name, p in engine.model.named_parameters())
    assert all(map(torch.equal, moments, (state["exp_avg"] for state in engine.optimizer.state.values())))


def test_no_batch_at_all() -> None:
    with pytest.raises(RankError, match="at least the number of processes"):
        step_of(engine_of(), {"pairs": ()})


# Two ranks


def split(place: Place, size: int) -> dict[str, tuple[Batch, ...]]:
    """Rank 1 has three of four documents, in more micro-batches than rank 0, and pairs are rank 0's alone."""
    documents = KEYS["documents"][:1] if place.first else KEYS["documents"][1:]
    return {"documents": parts(documents, size), "pairs": parts(KEYS["pairs"], size) if place.first else ()}


def uneven_ranks(place: Place) -> None:
    expected = one_weighted_loss(KEYS)
    for plan in (ParallelPlan(), ParallelPlan(kind="fsdp", frozen="shard")):
        engine = engine_of(plan)
        done = step_of(engine, split(place, 2))
        assert_same(gradients(bare(engine.model)), expected)
        norm = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
        assert done.norm == pytest.approx(float(norm), rel=1e-5)
        assert done.counts["documents"].targets == batch_of(KEYS["documents"]).targets
        one_rank_spoils(place, engine)
        diverge(place, engine)


def one_rank_spoils(place: Place, engine: Engine) -> None:
    """All ranks stop, and all name the sample."""
    if place.rank == 1:
        spoilt_loss(bare(engine.model))
    with pytest.raises(NonFiniteError, match="documents, samples d3"):
        step_of(engine, split(place, 2), 1)


def diverge(place: Place, engine: Engine) -> None:
    weights = optimizers.trained(bare(engine.model))
    shard = engine.plan.shard(place.rank, place.world)
    check_agreement(weights, shard=shard, norm=0.5)
    with pytest.raises(DivergedError, match="different gradient norms"):
        check_agreement(weights, shard=shard, norm=0.5 + 1e-9 * place.rank)
    if place.rank == 1:
        local(next(iter(weights.values()))).data.flatten()[:1] += 1e-3
    if engine.plan.kind == "ddp":
        with pytest.raises(DivergedError, match=r"ranks \[0\] and \[1\] hold different weights"):
            check_agreement(weights, shard=shard, norm=0.5)


def test_two_uneven_ranks_make_the_update_of_one_process() -> None:
    training_runs.ranks(2, uneven_ranks)
