"""How a launcher ends before its time, by a signal or a failure, and takes along what runs for it."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

from pipelines import holder, job_server, launch
from pipelines.lock import Lock

PATIENCE_SECONDS = 10.0  # with whom is asked to stop something. Beam stops a job server in five, by force


def mind_signals(held: Lock) -> None:
    """Let Ctrl-C, and SIGTERM, end a run at once, and let others in."""
    if threading.current_thread() is threading.main_thread():
        for number in job_server.ENDINGS:
            signal.signal(number, partial(interrupted, held.release))


def interrupted(release: Callable[[], None], number: int, frame: FrameType | None) -> None:
    """Ends at once. An exception could be lost in a callback of Beam's, which would go on; workers end with us."""
    os.write(2, b"\nmmc4-build: interrupted; the same command goes on from here\n")
    holder.end_workers()
    end_job(release)
    os._exit(128 + number)


def lost(why: str) -> None:
    """Ends at once: the output is another launcher's now, or gone. Called by the heartbeat."""
    os.write(2, f"\nmmc4-build: {why}\n".encode())
    end_job()
    os._exit(1)


@contextmanager
def nothing_left_running() -> Iterator[None]:
    """After a failure Beam leaves worker processes, and an engine its job: they must not write any more when others may
    have the output."""
    try:
        yield
    except Exception:
        threading.excepthook = lambda args: None  # Beam's threads tell of the workers' deaths
        holder.end_workers()
        end_job()
        raise


def end_job(*calls: Callable[[], None]) -> None:
    """Have the engine stop what it does for us, and make other calls meanwhile."""
    answered = in_time(launch.cancel, *calls)
    in_time(job_server.stop)
    if not (in_time(launch.cancel_at_flink) and answered):
        os.write(2, b"mmc4-build: no answer from the engine, or from --output: look whether a job goes on\n")


def in_time(*calls: Callable[[], None]) -> bool:
    """Make calls side by side, for some seconds at most; whether all succeeded.

    In plain threads: a signal may have come while this very thread held the locks of a pool.
    """
    made: list[Callable[[], None]] = []

    def make(call: Callable[[], None]) -> None:
        with suppress(Exception):  # whoever asks tells of it
            call()
            made.append(call)

    threads = [threading.Thread(target=make, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return len(made) == len(calls)
