"""A worker process: Beam's own harness, which here ends with the process that started it."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

PARENT_SECONDS = 1.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """The worker of a local run; the argument is the process id of its launcher."""
    logging.disable(logging.ERROR)  # the harness tells each of its steps, and the launcher tells what went wrong
    serve(int(sys.argv[1]))


def serve(parent: int, end: Callable[[int], object] = os._exit) -> None:
    """Run the harness. Parallel work comes from several processes, so that each sums in one fixed order."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    threading.Thread(target=_end_with, args=(parent, end), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])


def _end_with(parent: int, end: Callable[[int], object]) -> None:
    """A parent that was killed cannot stop its workers, and Beam's harness would try to reach it for ever.

    Its id is from before this process had any work: one that is dead before this process has come so far is no
    parent any more, and who then is says nothing.
    """
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    end(1)


if __name__ == "__main__":
    main()
