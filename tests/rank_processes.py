"""Processes that train together, or that a test kills: forked from one that has imported everything."""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from train.distributed import joined

PRELOADED = [
    "training_runs",
    "transformers.models.llama.modeling_llama",
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint.hf_storage",
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose most of their time where threads meet."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ranks(world: int, job: Callable[..., Any], *arguments: Any, seconds: float = 90) -> None:
    """Run `job(place, *arguments)` on so many processes; what fails in one fails here.

    They are forked from a server that has imported everything once: that is most of what a process costs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    texts = context.Queue()
    started = [context.Process(target=_rank, args=(rank, world, port, texts, job, arguments)) for rank in range(world)]
    for process in started:
        process.start()
    for process in started:
        process.join(seconds)
    alive = [process for process in started if process.is_alive()]
    for process in alive:
        process.kill()
    failed = [process.exitcode for process in started if process.exitcode]
    assert not alive and not failed, texts.get(timeout=5) if failed and not texts.empty() else "a process hung or died"


def _rank(rank: int, world: int, port: int, texts: Any, job: Callable[..., Any], arguments: Any) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    try:
        with joined("cpu", minutes=1) as place:
            job(place, *arguments)
    except BaseException:
        texts.put(traceback.format_exc())
        texts.close()
        texts.join_thread()
        sys.exit(1)


def start(job: Callable[..., Any], *arguments: Any) -> Any:
    """A process of its own, to be killed or waited for."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_alone, args=(job, arguments))
    process.start()
    return process


def _alone(job: Callable[..., Any], arguments: Any) -> None:
    torch.set_num_threads(1)
    sys.exit(job(*arguments))
