"""A worker process of a local run: Beam's own harness, which here ends with its launcher."""

import logging
import os
import sys
import threading
import time

PARENT_SECONDS = 1.0
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Run the harness. Parallel work comes from several processes, so that each sums in one fixed order."""
    for name in ONE_THREAD:
        os.environ.setdefault(name, "1")
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    from apache_beam.runners.worker import sdk_worker_main

    logging.disable(logging.ERROR)  # the harness tells each of its steps, and the launcher tells what went wrong

    sdk_worker_main.main([])


def _end_with(launcher: int) -> None:
    """A launcher that was killed cannot stop its workers, and Beam's harness would try to reach it for ever.

    It names itself: one that is dead before this process has come so far is no parent any more, and who then is says
    nothing.
    """
    while os.getppid() == launcher:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main()
