"""Workers of an engine: by Beam's own worker pool, and against services of the test's own that do what engines do."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
import pytest
from apache_beam.options.pipeline_options import PortableOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import (
    beam_artifact_api_pb2 as artifacts,
)
from apache_beam.portability.api import (
    beam_artifact_api_pb2_grpc,
    beam_fn_api_pb2,
    beam_fn_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
)
from apache_beam.pvalue import PCollection
from apache_beam.runners.portability.job_server import StopOnExitJobServer
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer
from google.protobuf import json_format, struct_pb2

from mmc4_builder import commits, storage
from mmc4_builder.commits import Commit
from mmc4_builder.workspace import Unit, Workspace
from pipelines import boot, job_server, launch
from pipelines.boot import BootError, Orders
from pipelines.launch import Engine, EngineError
from pipelines.units import Run, Step, units

ROOT = Path(__file__).parents[1]
BOOT = f'#!/bin/sh\nPYTHONPATH="{ROOT}:{ROOT}/tests" exec "{sys.executable}" -m pipelines.boot "$@"\n'
CHATTER = "x" * 1000


def talk(unit: Unit, workspace: Workspace) -> None:
    """More than a pipe holds, on both streams."""
    for _ in range(100):
        print(CHATTER)
        print(CHATTER, file=sys.stderr)
    with workspace.create(f"said/{unit.name}.json") as stream:
        seen = {name: os.environ.get(name, "") for name in ("WORKER_ID", "PIPELINE_OPTIONS", "OMP_NUM_THREADS")}
        stream.write(json.dumps(seen).encode())


def refuse(unit: Unit, workspace: Workspace) -> None:
    raise storage.StorageError(f"cannot write {unit.name}: make room")


@dataclass
class Pipeline(beam.PTransform):
    """A step on three units."""

    step: Step

    def expand(self, begin: beam.pvalue.PBegin) -> PCollection[Commit]:
        return begin | beam.Create(units(3)) | Run(self.step)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "mmc4-worker"
    path.write_text(BOOT)
    path.chmod(0o755)
    return path


@pytest.fixture
def engine(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Beam's job service and its worker pool, which starts our program for each worker."""
    monkeypatch.setenv("MMC4_WORKER_DIR", str(tmp_path / "workers"))
    address, server = BeamFnExternalWorkerPoolServicer.start(use_process=True, container_executable=str(program))
    place = ("--environment_type=EXTERNAL", f"--environment_config={address}")
    yield Engine(runner="PortableRunner", options=("--job_endpoint=embed", *place, "--job_name=ours"))
    server.stop(0)


def test_a_pool_starts_workers_that_know_their_job_and_may_talk(engine: Engine, tmp_path: Path) -> None:
    root, step = str(tmp_path / "out"), partial(Step, name="talk", fingerprint="f", run=talk)
    looks: list[int] = []
    launch.run(Pipeline(step(root=root)), engine, lambda: looks.append(len(commits.done(root, "talk"))))
    assert looks[-1] == 3
    done = commits.load_all(root, "talk", ["00000", "00001", "00002"])
    _, parent, worker = done[0].by.split("/")
    assert (int(parent), int(worker) != os.getpid()) == (os.getpid(), True)
    said = json.loads((tmp_path / "out/said/00000.json").read_bytes())
    assert said["WORKER_ID"]
    assert json.loads(said["PIPELINE_OPTIONS"])["beam:option:job_name:v1"].startswith("ours-pipeline-")
    assert said["OMP_NUM_THREADS"] == "1"


def test_the_cause_of_a_failed_job_is_told(engine: Engine, tmp_path: Path) -> None:
    step = Step(name="refuse", root=str(tmp_path / "out"), fingerprint="f", run=refuse)
    with pytest.raises(EngineError, match=r"^cannot write 0000\d: make room$"):
        launch.run(Pipeline(step), engine, lambda: None)


@dataclass
class Services(
    beam_provision_api_pb2_grpc.ProvisionServiceServicer,
    beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceServicer,
    beam_fn_api_pb2_grpc.BeamFnControlServicer,
    beam_fn_api_pb2_grpc.BeamFnLoggingServicer,
):
    """An engine as a worker sees it, which has a job and no work."""

    files: dict[str, bytes] = field(default_factory=dict)
    address: str = ""
    callers: list[dict[str, str]] = field(default_factory=list)
    connected: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def GetProvisionInfo(self, request: Any, context: Any) -> Any:
        self.callers.append(dict(context.invocation_metadata()))
        options = struct_pb2.Struct()
        json_format.ParseDict({"beam:option:job_name:v1": 'a "job"'}, options)
        info = beam_provision_api_pb2.ProvisionInfo(
            pipeline_options=options, runner_capabilities=["a", "b"], dependencies=list(map(artifact, self.files))
        )
        for endpoint in (info.control_endpoint, info.logging_endpoint, info.artifact_endpoint):
            endpoint.url = self.address
        return beam_provision_api_pb2.GetProvisionInfoResponse(info=info)

    def ResolveArtifacts(self, request: Any, context: Any) -> Any:
        return artifacts.ResolveArtifactsResponse(replacements=request.artifacts)

    def GetArtifact(self, request: Any, context: Any) -> Any:
        data = self.files[request.artifact.type_payload.decode()]
        for start in range(0, len(data), 1000):
            yield artifacts.GetArtifactResponse(data=data[start : start + 1000])

    def Control(self, request_iterator: Any, context: Any) -> Any:
        self.connected.set()
        self.closing.wait()
        yield from ()

    def Logging(self, request_iterator: Any, context: Any) -> Any:
        for _ in request_iterator:
            pass
        yield beam_fn_api_pb2.LogControl()


def artifact(name: str) -> Any:
    """A file that the launcher staged."""
    payload = beam_runner_api_pb2.ArtifactStagingToRolePayload(staged_name=name)
    return beam_runner_api_pb2.ArtifactInformation(
        type_payload=name.encode(),
        role_urn=common_urns.artifact_roles.STAGING_TO.urn,
        role_payload=payload.SerializeToString(),
    )


@contextmanager
def serving(services: Services) -> Iterator[Services]:
    """The services, on one port."""
    server = grpc.server(ThreadPoolExecutor(8))
    beam_provision_api_pb2_grpc.add_ProvisionServiceServicer_to_server(services, server)
    beam_artifact_api_pb2_grpc.add_ArtifactRetrievalServiceServicer_to_server(services, server)
    beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(services, server)
    beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(services, server)
    services.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield services
    finally:
        services.closing.set()
        server.stop(0).wait()


def test_a_worker_asks_by_its_name_and_takes_its_files(tmp_path: Path) -> None:
    files = {"pickled_main_session": bytes(range(256)) * 20, "empty": b""}
    with serving(Services(files)) as services:
        orders = boot.parse(["--id=1-1", f"--provision_endpoint={services.address}", "--later_flag=x"])
        info = boot.ask(orders)
        boot.fetch(orders, info, tmp_path / "staged")
    assert services.callers[0]["worker_id"] == "1-1"
    assert {path.name: path.read_bytes() for path in (tmp_path / "staged").iterdir()} == files
    seen = boot.environment(orders, info, tmp_path)
    assert json.loads(seen["PIPELINE_OPTIONS"]) == {"beam:option:job_name:v1": 'a "job"'}
    assert seen["CONTROL_API_SERVICE_DESCRIPTOR"] == f'url: "{services.address}"'
    assert seen["RUNNER_CAPABILITIES"] == "a b"
    assert "STATUS_API_SERVICE_DESCRIPTOR" not in seen


@pytest.mark.parametrize(
    ("name", "why"), [("../x", "a plain name"), ("..", "a plain name"), ("requirements.txt", "install them beside it")]
)
def test_files_that_are_not_for_a_worker_are_refused(name: str, why: str, tmp_path: Path) -> None:
    with serving(Services({name: b"x"})) as services:
        orders = boot.parse(["--id=1", f"--provision_endpoint={services.address}"])
        with pytest.raises(BootError, match=why):
            boot.fetch(orders, boot.ask(orders), tmp_path / "staged")
    assert not list((tmp_path / "staged").iterdir())


def test_command_line_addresses_serve_where_the_engine_names_none(tmp_path: Path) -> None:
    flags = ["--id=1", "--provision_endpoint=p:1", "--logging_endpoint=l:1", "--control_endpoint=c:1"]
    orders = boot.parse([*flags, "--artifact_endpoint=a:1", "--semi_persist_dir=/x"])
    assert orders == Orders(worker="1", provision="p:1", logging="l:1", artifact="a:1", control="c:1", folder="/x")
    seen = boot.environment(orders, beam_provision_api_pb2.ProvisionInfo(), tmp_path)
    assert seen["CONTROL_API_SERVICE_DESCRIPTOR"] == 'url: "c:1"'
    assert seen["LOGGING_API_SERVICE_DESCRIPTOR"] == 'url: "l:1"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workers"


def command(program: Path, services: Services, folder: Path) -> list[str]:
    return [str(program), "--id=a/b", f"--provision_endpoint={services.address}", f"--semi_persist_dir={folder}"]


def test_a_worker_that_cannot_serve_says_why_in_its_log(program: Path, folder: Path) -> None:
    with serving(Services({"requirements.txt": b"x"})) as services:
        ended = subprocess.run(command(program, services, folder), capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (1, b"")
    (log,) = folder.glob("mmc4-worker-a_b-*/log")
    assert "BootError: the job wants packages installed on workers (requirements.txt)" in log.read_text()


def test_a_worker_ends_when_it_is_told_to(program: Path, folder: Path) -> None:
    with serving(Services()) as services:
        process = subprocess.Popen(command(program, services, folder))
        assert services.connected.wait(60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not list(folder.iterdir())


def test_a_worker_ends_with_a_killed_executor(program: Path, folder: Path) -> None:
    """An executor that was killed can tell nobody; here it is a shell that waits for its child."""
    with serving(Services()) as services:
        words = ["sh", "-c", '"$@" & echo $!; wait', "sh", *command(program, services, folder)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as executor:
            assert executor.stdout is not None
            worker = int(executor.stdout.readline())
            assert services.connected.wait(60)
            executor.kill()
        deadline = time.monotonic() + 20
        while Path(f"/proc/{worker}").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert not list(folder.iterdir())


def test_a_worker_ends_when_its_engine_ends_the_control_stream(program: Path, folder: Path) -> None:
    with serving(Services()) as services:
        process = subprocess.Popen(command(program, services, folder))
        assert services.connected.wait(60)
        services.closing.set()
        assert process.wait(30) == 0
    assert not list(folder.iterdir())


def test_process_workers_are_ours_and_stay_unless_told_otherwise() -> None:
    def options(*given: str) -> PortableOptions:
        engine = Engine(runner="PortableRunner", options=given)
        return engine.pipeline().options.view_as(PortableOptions)

    ours = options("--environment_type=PROCESS")
    assert json.loads(ours.environment_config)["command"].endswith("mmc4-worker")
    assert int(ours.environment_cache_millis) > 60_000
    other = options(
        "--environment_type=PROCESS", '--environment_config={"command":"/x"}', "--environment_cache_millis=0"
    )
    assert (other.environment_config, other.environment_cache_millis) == ('{"command":"/x"}', "0")
    assert options().environment_config is None


def test_a_job_server_that_cannot_start_is_an_error_with_its_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_server, "_servers", [])
    engine = Engine(runner="SparkRunner", options=("--spark_job_server_jar=nowhere.jar", "--environment_type=PROCESS"))
    step = Step(name="talk", root=str(tmp_path), fingerprint="f", run=talk)
    with pytest.raises(EngineError, match=r"job server does not start: .*nowhere\.jar"):
        launch.run(Pipeline(step), engine, lambda: None)


@pytest.mark.parametrize("runner", ["SparkRunner", "FlinkRunner"])
def test_all_stages_have_one_job_server(runner: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the main thread may start it, and pipelines run in others."""
    started: list[object] = []
    monkeypatch.setattr(StopOnExitJobServer, "start", lambda server: started.append(server))
    monkeypatch.setattr(job_server, "_servers", [])
    engine = Engine(runner=runner, options=("--environment_type=PROCESS",))
    used = []
    for _ in range(2):
        pipeline = engine.pipeline()
        job_server.start(pipeline)
        used.append(pipeline.runner.default_job_server(pipeline.options))
    assert used == started == job_server._servers * 2
    assert len(job_server._servers) == 1


def test_a_job_server_that_is_gone_is_told_in_one_line() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel, pytest.raises(grpc.RpcError) as caught:
        beam_provision_api_pb2_grpc.ProvisionServiceStub(channel).GetProvisionInfo(
            beam_provision_api_pb2.GetProvisionInfoRequest(), timeout=20
        )
    told = launch.explain(caught.value)
    assert told.startswith("the job server is gone (UNAVAILABLE: ")
    assert told.endswith("run the same command again to go on.")
