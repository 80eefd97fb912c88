"""How a Flamingo lies on devices: the only place that compiles, recomputes, casts, wraps or shards it.

Gradients are sums over processes, never means: the caller divides its loss by what all of them have together.
"""

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.config import ConfigError
from model.flamingo import Flamingo


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelPlan:
    """With one process there is nothing to wrap, whatever `kind` says."""

    kind: Literal["ddp", "fsdp", "hsdp"] = "ddp"
    frozen: Literal["replicate", "shard"] = "replicate"  # fsdp and hsdp; replicated parts are never gathered
    replicas: int = 1  # hsdp: groups that each hold the whole model
    bf16: bool = False  # frozen weights and arithmetic; what is trained keeps fp32 masters
    recompute: bool = False  # each layer's activations in the backward pass
    compile: bool = False  # torch.compile for each block
    backend: str = "inductor"

    def shard(self, rank: int, world: int) -> int:
        """Which part of the trained weights a rank holds; ranks with the same number hold the same bits."""
        return {"ddp": 0, "fsdp": rank, "hsdp": rank % max(1, world // self.replicas)}[self.kind]


def parallelize(model: Flamingo, plan: ParallelPlan, device: torch.device) -> nn.Module:
    """What to call in training: the model itself, or DDP around it. `bare` gives the Flamingo again.

    The order is that in which they compose: a block is compiled, its recomputation encloses the compiled block, and
    its shards are gathered around both. Only FSDP moves weights unit by unit, so a model may be larger than a device.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    if plan.bf16:
        _cast_frozen(model)
    if plan.compile:
        for block in _blocks(model):
            block.compile(backend=plan.backend)
    model.checkpointing = plan.recompute
    if world == 1:
        return model.to(device)
    if plan.kind == "ddp":
        return _data_parallel(model.to(device), device)
    return _sharded(model, plan, _mesh(plan, world, device), device)


def bare(module: nn.Module) -> Flamingo:
    return cast(Flamingo, module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module)


def arithmetic(module: nn.Module, plan: ParallelPlan, device: torch.device) -> AbstractContextManager[None]:
    """What forward passes run in. FSDP casts at its own borders, everything else by autocast."""
    from torch.distributed.fsdp import FSDPModule

    if not plan.bf16 or isinstance(module, FSDPModule):
        return nullcontext()
    return cast(AbstractContextManager[None], torch.autocast(device.type, torch.bfloat16))


@contextmanager
def reducing(module: nn.Module, last: bool) -> Iterator[None]:
    """Around forward and backward of a micro-batch: gradients travel after the last one of an update alone."""
    from torch.distributed.fsdp import FSDPModule

    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(last)
        module.set_is_last_backward(last)
    silent = isinstance(module, nn.parallel.DistributedDataParallel) and not last
    with cast(Any, module).no_sync() if silent else nullcontext():
        yield


def _cast_frozen(model: Flamingo) -> None:
    """Once, not at every call. Buffers stay: rotary frequencies in bf16 would be wrong."""
    for part in (model.vision, model.lm):
        for parameter in part.parameters():
            if not parameter.requires_grad and parameter.is_floating_point():
                parameter.data = parameter.data.to(torch.bfloat16)


def _layers(model: Flamingo) -> list[nn.Module]:
    return list(model.decoder.layers(model.lm))


def _blocks(model: Flamingo) -> list[nn.Module]:
    return [*model.blocks, model.resampler, *_layers(model), model.vision]


# DDP


def _data_parallel(model: Flamingo, device: torch.device) -> nn.Module:
    known = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    # Renamed in torch 2.15. Our buffers are constants: there is nothing to broadcast at each call.
    constant: Any = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
    wrapped = nn.parallel.DistributedDataParallel(
        model,
        device_ids=[device] if device.type == "cuda" else None,
        **constant,
        gradient_as_bucket_view=True,
        # All that is new takes part in every call; an encoder may have a pooling head that nobody asks.
        find_unused_parameters=model.config.vision.train,
    )
    wrapped.register_comm_hook(None, _summed)
    return wrapped


def _summed(state: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    """DDP's own way would divide by the number of processes."""
    work: Any = dist.all_reduce(bucket.buffer(), async_op=True)

    def value(done: torch.futures.Future[list[Tensor]]) -> Tensor:
        return done.value()[0]

    return cast("torch.futures.Future[Tensor]", work.get_future().then(value))


# FSDP


def _mesh(plan: ParallelPlan, world: int, device: torch.device) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    if plan.kind == "fsdp":
        return init_device_mesh(device.type, (world,), mesh_dim_names=("shard",))
    if plan.replicas < 1 or world % plan.replicas:
        raise ConfigError(f"hsdp: {world} processes do not make {plan.replicas} replicas of equal size")
    shape = (plan.replicas, world // plan.replicas)
    return init_device_mesh(device.type, shape, mesh_dim_names=("replicate", "shard"))


def _sharded(model: Flamingo, plan: ParallelPlan, mesh: Any, device: torch.device) -> nn.Module:
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise ConfigError(f"kind {plan.kind!r} needs a newer torch than {torch.__version__}; 'ddp' works with it")
    _ = model.vision.frame  # what it costs is counted while it is whole
    whole = set[nn.Parameter]()
    if plan.frozen == "replicate":
        whole = {parameter for parameter in model.parameters() if not parameter.requires_grad}
        for parameter in whole:
            parameter.data = parameter.data.to(device)
    precision = MixedPrecisionPolicy()
    if plan.bf16:
        precision = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for unit in (*_units(model, whole), model):
        fully_shard(unit, mesh=mesh, mp_policy=precision, ignored_params=whole)
    model.to(device)  # buffers, and what is left
    for module in model.modules():
        if isinstance(module, FSDPModule):
            # A sum, by an operation that every backend has.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


def _units(model: Flamingo, whole: set[nn.Parameter]) -> list[nn.Module]:
    """What is gathered together: each block and each layer, the tables, the vision encoder at once.

    Tied tables are one parameter in two modules, which only their common parent may hold: they stay with the root.
    """
    table: Any = cast(Any, model.lm).get_input_embeddings()
    head: Any = cast(Any, model.lm).get_output_embeddings()
    tables = [] if table.weight is head.weight else [table, head]
    candidates = [*_blocks(model), *tables]
    return [unit for unit in candidates if any(parameter not in whole for parameter in unit.parameters())]
