"""The Java program that some runners need between them and their engine: one for all stages of a launcher."""

import copy
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import apache_beam as beam
from apache_beam.options.pipeline_options import JobServerOptions, PipelineOptions, PortableOptions
from apache_beam.runners.portability.job_server import StopOnExitJobServer
from apache_beam.runners.portability.portable_runner import PortableRunner

ENDINGS = (signal.SIGINT, signal.SIGTERM)  # signals that end a launcher: Ctrl-C, and what clusters send

_servers: list[StopOnExitJobServer] = []  # one at most


def start(pipeline: beam.Pipeline) -> None:
    """Start the one that a pipeline needs, unless it runs; nothing where none is needed, or it is somebody else's.

    Beam would do so itself, but of Flink's there would be another for each pipeline, and only the main thread may: Beam
    wants to stop it by a signal handler.
    """
    runner = pipeline.runner
    if not isinstance(runner, PortableRunner) or pipeline.options.view_as(PortableOptions).job_endpoint:
        return
    if not _servers:
        made = runner.default_job_server(_own_session(pipeline.options))
        if not isinstance(made, StopOnExitJobServer):
            return
        _servers.append(made)
    (server,) = _servers
    with _own_signals():
        server.start()
    runner.default_job_server = lambda options: server  # type: ignore[method-assign]


def stop() -> None:
    """Stop it, if it runs. The engine hears of nothing more through it."""
    for server in _servers:
        server.stop()


def _own_session(options: PipelineOptions) -> PipelineOptions:
    """Options with which it gets no Ctrl-C from a terminal, upon which it would end before the engine is told."""
    own = copy.deepcopy(options).view_as(JobServerOptions)
    if shutil.which("setsid"):
        own.job_server_jvm_properties = [own.job_server_java_launcher, *own.job_server_jvm_properties]
        own.job_server_java_launcher = "setsid"
    return own


@contextmanager
def _own_signals() -> Iterator[None]:
    """The handlers of signals stay as they are. Beam's would stop the job server before the engine is told.

    Within, a signal is an exception, upon which Beam removes what it has half started; it counts afterwards.
    """
    handlers = {number: signal.signal(number, _raise) for number in ENDINGS}
    caught = None
    try:
        yield
    except _Signal as error:
        caught = error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if caught is not None:
        signal.raise_signal(caught.args[0])


class _Signal(BaseException):
    """Its number."""


def _raise(number: int, frame: FrameType | None) -> None:
    raise _Signal(number)
