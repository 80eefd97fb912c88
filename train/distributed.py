"""The processes of a run: how they find each other, and the little that they tell each other outside of gradients."""

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

MINUTES = 30  # that one process waits for another


class DivergedError(RuntimeError):
    """Processes that must hold the same weights do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this process stands."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0


@contextmanager
def joined(device: str | None = None, *, minutes: float = MINUTES) -> Iterator[Place]:
    """This process's place, from torchrun's environment; alone without it. The group always has a backend for CPUs.

    `device`: "cpu" or "cuda"; None: a GPU where there is one.
    """
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0))) if kind == "cuda" else torch.device(kind)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timedelta(minutes=minutes))
    else:
        dist.init_process_group(backend, store=cast(Any, dist).HashStore(), rank=0, world_size=1)
    try:
        yield Place(rank=dist.get_rank(), world=dist.get_world_size(), device=where)
    finally:
        dist.destroy_process_group()


def gathered_numbers(mine: Sequence[int]) -> list[list[int]]:
    """Every rank's integers, in order of rank: one small exchange between CPUs, which no GPU waits for."""
    own = torch.tensor(mine, dtype=torch.int64)
    everyone = torch.empty(dist.get_world_size(), len(mine), dtype=torch.int64)
    dist.all_gather(list(everyone.unbind()), own)
    found: list[list[int]] = everyone.tolist()
    return found


def gathered(mine: Any) -> list[Any]:
    """Every rank's value, in order of rank: small ones that JSON can hold, between CPUs."""
    own = json.dumps(mine).encode()
    sizes = [size for (size,) in gathered_numbers([len(own)])]
    padded = torch.frombuffer(bytearray(own.ljust(max(sizes))), dtype=torch.uint8)
    boxes = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(boxes, padded)
    return [json.loads(box.numpy().tobytes()) for box in boxes]


def check_agreement(parameters: Mapping[str, nn.Parameter], *, shard: int, norm: float) -> None:
    """All ranks saw the same gradient norm, and those that hold the same shard hold the same bits of it.

    A memory error, or an update that one rank made and another did not, is found at the next checkpoint rather than
    in a curve a day later.
    """
    own = [shard, _bits(parameters), struct.unpack("<q", struct.pack("<d", norm))[0]]
    everyone = gathered_numbers(own)
    norms = {row[2] for row in everyone}
    shards: dict[int, dict[int, list[int]]] = {}
    for rank, (which, bits, _) in enumerate(everyone):
        shards.setdefault(which, {}).setdefault(bits, []).append(rank)
    apart = [groups for groups in shards.values() if len(groups) > 1]
    if apart:
        sides = " and ".join(str(ranks) for ranks in apart[0].values())
        raise DivergedError(
            f"ranks {sides} hold different weights where they must hold the same. Nothing was saved: the run goes on "
            "from the last checkpoint. If it happens again on the same machine, suspect its memory"
        )
    if len(norms) > 1:
        raise DivergedError("ranks saw different gradient norms. Nothing was saved: go on from the last checkpoint")


def _bits(parameters: Mapping[str, nn.Parameter]) -> int:
    """A sum over the bits of this rank's weights: one number that any single flip changes."""
    sums = [
        local(parameter).detach().contiguous().view(torch.uint8).sum(dtype=torch.int64) * (index + 1)
        for index, parameter in enumerate(parameters.values())
    ]
    return int(torch.stack(sums).sum()) if sums else 0


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that may be sharded."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded. Every rank must ask for it."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
