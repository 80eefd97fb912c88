"""What training does to a model: compile it, recompute it, shard it, call it from several threads."""

import multiprocessing
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from small_flamingos import FAMILIES, batch, flamingo

from model import config as configs

pytest.importorskip("transformers")

OLDEST = torch.__version__.startswith("2.6.")


def gradients(model: Any, data: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**data.arguments()).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("variant", (configs.tiny(), configs.vanilla_cross_attention(configs.tiny())))
@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_gradients_are_the_same(family: str, variant: configs.FlamingoConfig) -> None:
    """The second call is made between forward and backward of the first: recomputation must see the first's images."""
    model, data = flamingo(family, variant, gates=0.5).train(), batch()
    expected = gradients(model, data)
    model.checkpointing = True
    model.zero_grad()
    loss = model(**data.arguments()).loss
    with torch.no_grad():
        model(**batch(seed=9).arguments())
    loss.backward()
    for name, gradient in expected.items():
        assert torch.equal(model.get_parameter(name).grad, gradient), name


@pytest.mark.skipif(OLDEST, reason="torch 2.6 does not trace how a module is copied; it compiles blocks")
def test_compiles_as_one_graph() -> None:
    """MPT, which hands nothing down to its layers that it does not know. One compilation serves every batch."""
    torch._dynamo.reset()
    model = flamingo("mpt", gates=0.5).train()
    graphs = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    for seed in (5, 6):  # the second batch must not find the first one's images in the graph
        data = batch(seed=seed)
        expected = gradients(model, data)
        model.zero_grad()
        compiled(**data.arguments()).loss.backward()
        for name, gradient in expected.items():
            torch.testing.assert_close(model.get_parameter(name).grad, gradient, atol=1e-5, rtol=1e-3)
    assert graphs.frame_count == 1


def test_calls_do_not_meet_in_threads() -> None:
    model, batches = flamingo(gates=1.0), [batch(seed=seed) for seed in range(4)]

    def logits(data: Any) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = model(**data.arguments()).logits
        return found

    alone = [logits(data) for data in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, expected in zip(pool.map(logits, batches), alone, strict=True):
                torch.testing.assert_close(one, expected)


def test_autocast_keeps_the_stream_in_the_language_models_type() -> None:
    model, data = flamingo(gates=0.5).train(), batch()
    model.lm.bfloat16()
    types = []
    model.decoder.layers(model.lm)[2].register_forward_pre_hook(lambda _, given: types.append(given[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**data.arguments())
    output.loss.backward()
    assert types == [torch.bfloat16] and output.loss.dtype == torch.float32
    assert model.blocks[0].ff.up.weight.grad.dtype == torch.float32


@pytest.mark.skipif(OLDEST, reason="FSDP2 of torch 2.6 needs a GPU")
@pytest.mark.timeout(110)
def test_sharded_over_two_processes() -> None:
    """FSDP2 around every block and every frozen layer: the same gradients as one process has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = multiprocessing.get_context("spawn").Process(target=_shard, args=(1, port))
    other.start()
    threads = torch.get_num_threads()
    try:
        _shard(0, port)
        other.join(60)
        assert other.exitcode == 0
    finally:
        other.kill()
        torch.set_num_threads(threads)


def _shard(rank: int, port: int) -> None:
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2, timeout=timedelta(seconds=90)
    )
    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for config in (configs.tiny(), configs.vanilla_cross_attention(configs.tiny())):
        _check_shards(flamingo("llama", config, gates=0.5).train(), rank, mesh)
    dist.destroy_process_group()


def _check_shards(model: Any, rank: int, mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    data = batch()
    expected = gradients(model, data)
    model.zero_grad()
    for unit in (*model.blocks, *model.decoder.layers(model.lm), model.resampler, model.vision):
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.checkpointing = True
    model(**data.arguments()).loss.backward()
    for name, gradient in expected.items():
        found = model.get_parameter(name).grad.full_tensor()
        torch.testing.assert_close(found, gradient, atol=1e-6, rtol=1e-4, msg=name)
    if rank == 0:  # one rank without images must not keep the other waiting
        data = batch(images=data.images[:0], image_rows=data.image_rows[:, :0], phi=data.phi * 0)
    model(**data.arguments()).loss.backward()
