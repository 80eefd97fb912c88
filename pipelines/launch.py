"""Run one pipeline on an engine, and never wait for a worker that is dead."""

import logging
import os
import re
import shlex
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.runner import PipelineState
from apache_beam.transforms.environments import SubprocessSDKEnvironment

POLL_SECONDS = {True: 0.5, False: 10.0}  # between looks at a local run, and at one that may list an object store
OURS = ("mmc4_builder", "filters", "pipelines")
_CAUSE = re.compile(r"^(?:(\w[\w.]*)\.)?(\w+): (.+)$", re.MULTILINE)
_WHERE = re.compile(r" \[while running '[^']*'\]")


class EngineError(Exception):
    """The engine or one of its workers failed; the message says what to do, `__cause__` holds every traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where a build runs. Without a runner: this machine, one process a worker."""

    runner: str | None = None
    workers: int = 0  # 0: as many as there are cores
    options: tuple[str, ...] = ()  # of Beam, verbatim
    log: str = os.devnull  # what local worker processes write to stderr; the launcher tells what matters of it

    @property
    def is_local(self) -> bool:
        return self.runner is None

    def pipeline(self) -> beam.Pipeline:
        """An empty pipeline. Local runs name the FnApiRunner: Beam's default first tries to download another."""
        if self.runner is not None:
            return beam.Pipeline(options=PipelineOptions([f"--runner={self.runner}", *self.options]))
        workers = self.workers or os.cpu_count() or 1
        # `exec`: no shell between us and the worker, or its death and ours would go unnoticed.
        command = f"exec {shlex.quote(sys.executable)} -m pipelines.worker {os.getpid()} 2>>{shlex.quote(self.log)}"
        environment = SubprocessSDKEnvironment.from_command_string(command) if workers > 1 else None
        options = PipelineOptions([f"--direct_num_workers={workers}", *self.options])
        return beam.Pipeline(runner=FnApiRunner(default_environment=environment), options=options)


def quiet() -> None:
    """Keep Beam's chatter about local runs off the terminal; it tells each error several times over."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def run(transform: beam.PTransform, engine: Engine, while_waiting: Callable[[], None]) -> None:
    """Run a pipeline to its end, calling `while_waiting` now and then. EngineError if it does not succeed."""
    job = _Job(transform, engine)
    previous = threading.excepthook
    threading.excepthook = job.note_thread_death(previous)
    try:
        job.start()
        while not job.ended.wait(POLL_SECONDS[engine.is_local]):
            while_waiting()
        while_waiting()
    finally:
        threading.excepthook = previous
    if job.error is not None:
        raise EngineError(explain(job.error)) from job.error


class _Job:
    """A pipeline in a thread of its own: the local runner blocks until it is done, and for ever if a worker dies."""

    def __init__(self, transform: beam.PTransform, engine: Engine) -> None:
        self.transform = transform
        self.engine = engine
        self.error: BaseException | None = None
        self.ended = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, name="pipeline", daemon=True).start()

    def _run(self) -> None:
        try:
            pipeline = self.engine.pipeline()
            pipeline | self.transform
            result = pipeline.run()
            state = result.wait_until_finish()
            if state not in (PipelineState.DONE, None):
                raise EngineError(f"the {self.engine.runner} job ended as {state}; its own log says why")
        except BaseException as error:  # it is raised again in the launcher's thread
            self.error = self.error or error
        finally:
            self.ended.set()

    def note_thread_death(
        self, previous: Callable[[threading.ExceptHookArgs], object]
    ) -> Callable[[threading.ExceptHookArgs], object]:
        """The local runner's thread that waits for a worker process raises when the process dies; nothing else
        notices, and the pipeline would hang."""

        def hook(args: threading.ExceptHookArgs) -> object:
            if self.error is not None or isinstance(args.exc_value, grpc.RpcError):
                return None  # threads that talked to the dead worker
            if "Worker subprocess exited" not in str(args.exc_value):
                return previous(args)
            code = str(args.exc_value).rsplit(" ", 1)[-1]
            self.error = EngineError(
                f"a worker process died (exit status {code}): killed, or out of memory. Everything that was "
                "committed is kept: run the same command again to go on, with fewer --workers if memory was short."
            )
            self.ended.set()
            return None

        return hook


def explain(error: BaseException) -> str:
    """The cause of a failed pipeline in one line: the last exception that the workers' tracebacks name.

    Our own errors say what to do, so their text is enough; of others the type is told too.
    """
    text = str(error)
    module, name, message = type(error).__module__, type(error).__name__, text
    if not module.startswith(OURS) and (found := _CAUSE.findall(text)):
        module, name, message = found[-1]
    return _WHERE.sub("", message if module.startswith(OURS) else f"{name}: {message}")
