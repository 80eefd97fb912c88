"""A side of a comparison that is a process of its own: it is asked for work on stdin, and answers a line of JSON."""

import json
import os
import subprocess
import sys
from typing import Any


class Child:
    """Never do two children work at once: each waits to be asked."""

    def __init__(self, arguments: list[str], path: str | None = None, threads: int = 1) -> None:
        """`path`: where a peer is importable with what it works with; None: as here."""
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), TRANSFORMERS_VERBOSITY="error")
        environment["TOKENIZERS_PARALLELISM"] = "false"
        if path is not None:
            environment["PYTHONPATH"] = path
        self.process = subprocess.Popen(
            [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.read()

    def read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a side of the benchmark ended with {self.process.wait()}")
        return line

    def run(self, work: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(work, file=self.process.stdin, flush=True)
        answer: dict[str, Any] = json.loads(self.read())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
