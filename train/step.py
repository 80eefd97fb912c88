"""One update: forward and backward of every micro-batch, one exchange of gradients, one clip, one step.

The loss of a dataset is lambda times the sum of its tokens' losses over the number of its targets in the update, on
all ranks together: what one process would have with all the sequences in one batch. A mean of ranks' means is another
number wherever ranks have unequal numbers of targets, and with masked labels they do.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.parallelize import ParallelPlan, arithmetic, bare, reducing
from model.targets import target_places
from train.batch import Batch, normalised
from train.config import OptimizerConfig
from train.distributed import gathered, gathered_numbers, whole
from train.optimizer import rate, set_rate, trained

Batches = Mapping[str, Sequence[Batch]]
"""This rank's micro-batches of one update, by dataset."""

NAMED_KEYS = 40  # samples that an error names


class NonFiniteError(RuntimeError):
    """A loss or a gradient norm that is no number. The update was not applied."""


class RankError(RuntimeError):
    """A rank that has nothing to take part with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What an update works on. `model` is what `parallelize` gave."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    config: OptimizerConfig
    weights: Mapping[str, float]  # lambda of each dataset
    plan: ParallelPlan
    device: torch.device


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one dataset in one update, over all ranks."""

    targets: int
    tokens: int  # without padding
    images: int
    sequences: int
    micro_batches: int  # of the rank that has most


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What came of it."""

    step: int
    losses: Mapping[str, float]  # mean over a dataset's targets; a dataset without any is not here
    counts: Mapping[str, Counts]
    norm: float  # of the gradients, before they are clipped
    rate: float


def count(batches: Batches, *, signal: int = 0) -> tuple[dict[str, Counts], list[int]]:
    """What all ranks bring to this update, and every rank's signal: the one exchange before the first forward."""
    mine = [signal]
    for parts in batches.values():
        mine += [sum(batch.targets for batch in parts), sum(batch.real_tokens for batch in parts)]
        mine += [sum(len(batch.images) for batch in parts), sum(len(batch.input_ids) for batch in parts), len(parts)]
    ranks = gathered_numbers(mine)
    columns = list(zip(*ranks, strict=True))
    counts = {}
    for index, name in enumerate(batches):
        targets, tokens, images, sequences, micro = columns[1 + 5 * index : 6 + 5 * index]
        counts[name] = Counts(
            targets=sum(targets),
            tokens=sum(tokens),
            images=sum(images),
            sequences=sum(sequences),
            micro_batches=max(micro),
        )
    return counts, list(columns[0])


def update(engine: Engine, batches: Batches, counts: Mapping[str, Counts], step: int) -> Update:
    """Apply one update, or raise and leave weights and optimizer as they were."""
    work = _work(batches, counts)
    engine.optimizer.zero_grad(set_to_none=True)
    losses = []
    for number, (name, batch) in enumerate(work, 1):
        with reducing(engine.model, last=number == len(work)):
            loss = _loss_sum(engine, batch)
            torch.autograd.backward(loss * (engine.weights[name] / max(1, counts[name].targets)))
        losses.append(loss.detach().double())
    norm = _clipped_norm(engine)
    mine, sums, found = _read(engine, [name for name, _ in work], losses, norm)
    means = {name: sums[name] / counts[name].targets for name in sums if counts[name].targets}
    if not all(map(math.isfinite, [*sums.values(), found])):
        _refuse(step, work, mine, means, found)
    now = rate(step, engine.config)
    set_rate(engine.optimizer, now)
    engine.optimizer.step()
    return Update(step=step, losses=means, counts=counts, norm=found, rate=now)


def _work(batches: Batches, counts: Mapping[str, Counts]) -> list[tuple[str, Batch]]:
    """In order; as many micro-batches of each dataset as the rank with most has, since a collective needs all ranks.

    What is filled up with has no targets: its loss is zero, and so are its gradients.
    """
    some = next(chain.from_iterable(batches.values()), None)
    if some is None:
        raise RankError("this rank has no batch at all: a dataset's batch must be at least the number of processes")
    work = []
    for name, parts in batches.items():
        template = parts[-1] if parts else some
        idle = replace(template, labels=torch.full_like(template.labels, -100), keys=())
        work += [(name, batch) for batch in parts]
        work += [(name, idle)] * (counts[name].micro_batches - len(parts))
    return work


def _loss_sum(engine: Engine, batch: Batch) -> Tensor:
    tower = bare(engine.model).vision
    places = target_places(batch.labels).to(engine.device, non_blocking=True)  # before: on a GPU this would wait
    batch = batch.to(engine.device)
    dtype = next(tower.parameters()).dtype
    with arithmetic(engine.model, engine.plan, engine.device):
        output = engine.model(
            batch.input_ids,
            images=normalised(batch.images, tower.mean, tower.std, dtype),
            image_rows=batch.image_rows,
            phi=batch.phi,
            attention_mask=batch.attention_mask,
            labels=batch.labels,
            places=places,
        )
    loss: Tensor = output.loss_sum
    return loss


def _clipped_norm(engine: Engine) -> Tensor:
    parameters = [p for p in trained(bare(engine.model)).values() if p.grad is not None]
    limit = engine.config.clip if engine.config.clip > 0 else math.inf
    return whole(torch.nn.utils.clip_grad_norm_(parameters, limit))


def _read(
    engine: Engine, names: Sequence[str], losses: Sequence[Tensor], norm: Tensor
) -> tuple[list[float], dict[str, float], float]:
    """This rank's losses, the sums over all ranks by dataset, and the norm: the update's only wait for the device."""
    mine = torch.stack(list(losses))
    datasets = list(dict.fromkeys(names))
    index = torch.tensor([datasets.index(name) for name in names], device=mine.device)
    sums = mine.new_zeros(len(datasets)).index_add_(0, index, mine)
    if dist.get_world_size() > 1:
        dist.all_reduce(sums)
    read: list[float] = torch.cat([mine, sums, norm.double().reshape(1)]).tolist()
    return read[: len(names)], dict(zip(datasets, read[len(names) : -1], strict=True)), read[-1]


def _refuse(
    step: int, work: Sequence[tuple[str, Batch]], mine: Sequence[float], means: Mapping[str, float], norm: float
) -> None:
    """Say where it came from. All ranks are here, as all saw the same sums."""
    bad = [[name, _keys(batch)] for (name, batch), loss in zip(work, mine, strict=True) if not math.isfinite(loss)]
    found = [pair for rank in gathered(bad) for pair in rank]
    figures = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items())
    where = "the losses are finite and a gradient is not"
    if found:
        where = "; ".join(f"{name}, samples {', '.join(keys[:NAMED_KEYS]) or 'unnamed'}" for name, keys in found)
    raise NonFiniteError(
        f"update {step}: losses {figures}; gradient norm {norm:.4g}: {where}. The update was not applied, and the last "
        "checkpoint is whole. Leave those samples out, or lower the rate, and run the same command again"
    )


def _keys(batch: Batch) -> list[str]:
    return [key for row in batch.keys for key in row]
