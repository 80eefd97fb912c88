"""Processes that make updates ahead of the trainer, each those of its own streams.

Each is a DataLoader of one process: a DataLoader of several hands out its workers' batches in turns, and so could not
have a number of workers that does not divide the streams.
"""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from train.lanes import STREAMS
from train.updates import Maker, Update

GRACE = 30  # seconds that a worker goes on after SIGTERM
PREFETCH = 2  # updates that each worker has ready
_log = logging.getLogger(__name__)


@dataclass
class _Work(IterableDataset[Update]):
    """What one worker does."""

    maker: Maker
    first: int
    positions: Tensor
    worker: int
    workers: int

    def __iter__(self) -> Iterator[Update]:
        return self.maker.updates(self.first, self.positions, self.worker, self.workers)


def start(maker: Maker, first: int, positions: Tensor, workers: int) -> list[Iterator[Update]]:
    """Iterator w gives the updates of the streams s with s % their number == w, in order."""
    if workers > STREAMS:
        _log.warning("%s: %d workers, of whom only %d have something to do", maker.lanes.name, workers, STREAMS)
    workers = min(workers, STREAMS)
    if not workers:
        return [maker.updates(first, positions)]
    context = _context(type(maker.recipe.vocabulary.tokenizer).__module__)
    return [
        iter(
            DataLoader(
                _Work(maker, first, positions, worker, workers),
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=1,
                prefetch_factor=PREFETCH,
                worker_init_fn=_settle,
                multiprocessing_context=context,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # its own: the process's random numbers are the model's, and go on
            )
        )
        for worker in range(workers)
    ]


def _context(tokenizer: str) -> BaseContext:
    """Workers fork from a small process that has imported what they need, and nothing else: no threads, no GPU.

    It starts with SIGTERM blocked: clusters send that to all processes, and the trainer must be able to finish its
    update. Workers bear it for GRACE seconds, and end with the trainer.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, tokenizer])
    resource_tracker.ensure_running()  # which would unblock it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _settle(worker: int) -> None:
    """In the worker: one thread that works; Ctrl-C is the trainer's to handle, and SIGTERM for a while too."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A trainer that is killed says no farewell, and the process that forked this one waits for its children."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _as_it_is(update: Any) -> Any:
    return update
