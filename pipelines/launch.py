"""Run one pipeline on an engine, and never wait for a worker that is dead."""

import json
import logging
import os
import re
import shlex
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.runner import PipelineResult, PipelineState
from apache_beam.transforms.environments import SubprocessSDKEnvironment
from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]

from mmc4_builder.metrics_out import Sink
from pipelines import flink, job_server
from pipelines.accelerator import contradiction

POLL_SECONDS = {True: 0.5, False: 10.0}  # between looks at a local run, and at one that may list an object store
KEEP_WORKER_MILLIS = "600000"  # an engine's worker without work stays so long
OURS = ("mmc4_builder", "filters", "pipelines")
_CAUSE = re.compile(r"^(?:(\w[\w.]*)\.)?(\w+): (.+)$", re.MULTILINE)
_WHERE = re.compile(r" \[while running '[^']*'\]")
_running: "list[_Job]" = []  # what an engine does for this launcher: one at most


class EngineError(Exception):
    """The engine or one of its workers failed; the message says what to do, `__cause__` holds every traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Where a build runs. Without a runner: this machine, one process a worker."""

    runner: str | None = None
    workers: int = 0  # 0: as many as there are cores
    options: tuple[str, ...] = ()  # of Beam, verbatim
    accelerator: str | None = None  # GPU of the steps that run a model, where the engine gives machines by step
    log: str = os.devnull  # what local worker processes write to stderr; the launcher tells what matters of it
    told: tuple[Sink, ...] = ()  # who else is told how each stage goes

    @property
    def is_local(self) -> bool:
        return self.runner is None

    def pipeline(self) -> beam.Pipeline:
        """An empty pipeline. Local runs name the FnApiRunner: Beam's default first tries to download another."""
        if self.runner is not None:
            gpu = (f"--model_accelerator={self.accelerator}",) if self.accelerator else ()
            return beam.Pipeline(options=_engine_options(self.runner, (*self.options, *gpu)))
        workers = self.workers or os.cpu_count() or 1
        # `exec`: no shell between us and the worker, or its death and ours would go unnoticed.
        command = f"exec {shlex.quote(sys.executable)} -m pipelines.worker {os.getpid()} 2>>{shlex.quote(self.log)}"
        environment = SubprocessSDKEnvironment.from_command_string(command) if workers > 1 else None
        options = PipelineOptions([f"--direct_num_workers={workers}", *self.options])
        local = FnApiRunner(default_environment=environment, provision_info=_for_workers(options))
        return beam.Pipeline(runner=local, options=options)


def _for_workers(options: PipelineOptions) -> ExtendedProvisionInfo:
    """What local workers hear of the options, which would be nothing: where objects are, and who asks for them."""
    told = Struct()
    told.update({k: v for k, v in options.get_all_options(drop_default=True).items() if k.startswith("s3_")})
    return ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=told))


def _engine_options(runner: str, given: tuple[str, ...]) -> PipelineOptions:
    """What was given, and what Beam's defaults get wrong for worker processes: they are `mmc4-worker` unless a program
    is named, and they stay, as one for each task would load its models again."""
    options = PipelineOptions([f"--runner={runner}", *given])
    if (said := contradiction(options)) is not None:
        raise EngineError(said)
    portable = options.view_as(PortableOptions)
    if portable.environment_type == "PROCESS":
        if not (portable.environment_config or portable.environment_options):
            portable.environment_config = json.dumps({"command": _worker_program()})
        if not any(option.startswith("--environment_cache_millis") for option in given):
            portable.environment_cache_millis = KEEP_WORKER_MILLIS
    return options


def _worker_program() -> str:
    """Where `mmc4-worker` lies here, and so on every machine."""
    beside = Path(sys.executable).with_name("mmc4-worker")
    return str(beside) if beside.exists() else shutil.which("mmc4-worker") or "mmc4-worker"


def quiet() -> None:
    """Keep Beam's chatter about local runs off the terminal; it tells each error several times over."""
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)


def run(transform: beam.PTransform, engine: Engine, while_waiting: Callable[[], None]) -> None:
    """Run a pipeline to its end, calling `while_waiting` now and then. EngineError if it does not succeed.

    Where it does not, or `while_waiting` raises, an engine may go on with it until `cancel`.
    """
    try:
        pipeline = engine.pipeline()
    except Exception as error:  # a runner that nobody knows
        raise EngineError(explain(error)) from error
    try:
        job_server.start(pipeline)
    except Exception as error:
        raise EngineError(f"the runner's job server does not start: {explain(error)}") from error
    job = _Job(transform, engine, pipeline)
    previous = threading.excepthook
    threading.excepthook = job.note_thread_death(previous)
    _running.append(job)
    try:
        job.start()
        while not job.ended.wait(POLL_SECONDS[engine.is_local]):
            while_waiting()
        while_waiting()
    finally:
        threading.excepthook = previous
    if job.error is not None:  # which may be that nobody tells how the job goes: it may go on
        raise EngineError(explain(job.error)) from job.error
    _running.remove(job)


def cancel() -> None:
    """Ask the engine to stop what it runs for this launcher: it would go on. A local run ends with its workers.

    EngineError for a job on its way to the engine: whether it arrives is not known.
    """
    for job in _running:
        if job.engine.is_local or job.flink is not None:
            continue
        if job.result is None and not job.ended.is_set():
            raise EngineError(f"{job.name} was being submitted")
        if job.result is not None and not PipelineState.is_terminal(job.result.state):
            job.result.cancel()


def cancel_at_flink() -> None:
    """The same on Flink, once no job server is left to submit a job."""
    for job in _running:
        if job.flink is not None:
            flink.cancel(job.flink, job.name)


def _name(options: PipelineOptions, transform: beam.PTransform) -> str:
    """What the engine shall call the job, from now on: --job_name, the stage, and what no other job has."""
    cloud = options.view_as(GoogleCloudOptions)
    stage = re.sub("[^a-z0-9]+", "-", transform.label.lower())  # as Dataflow wants names
    cloud.job_name = f"{cloud.job_name or 'mmc4'}-{stage}-{uuid4().hex[:8]}"
    return str(cloud.job_name)


class _Job:
    """A pipeline in a thread of its own: the local runner blocks until it is done, and for ever if a worker dies."""

    def __init__(self, transform: beam.PTransform, engine: Engine, pipeline: beam.Pipeline) -> None:
        self.transform = transform
        self.engine = engine
        self.pipeline = pipeline
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self.result: PipelineResult | None = None  # from when the engine has the job
        self.name = _name(pipeline.options, transform)
        self.flink = flink.address(pipeline.options) if isinstance(pipeline.runner, FlinkRunner) else None

    def start(self) -> None:
        threading.Thread(target=self._run, name="pipeline", daemon=True).start()

    def _run(self) -> None:
        try:
            self.pipeline | self.transform
            self.result = self.pipeline.run()
            state = self.result.wait_until_finish()
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
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return (
            f"the job server is gone ({error.code().name}: {error.details()}). Everything that was committed is kept: "
            "run the same command again to go on."
        )
    text = str(error)
    module, name, message = type(error).__module__, type(error).__name__, text
    if not module.startswith(OURS) and (found := _CAUSE.findall(text)):
        module, name, message = found[-1]
    return _WHERE.sub("", message if module.startswith(OURS) else f"{name}: {message}")
