"""Every stage becomes a Dataflow job: the real runner submits it to a service on this machine, which runs nothing.

It needs `apache-beam[gcp]`, which the extra `test` installs, and neither network nor credentials.
"""

import configparser
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mmc4_builder import commits
from mmc4_builder.cli import beam_options, check_usage, parser
from mmc4_builder.commits import Commit
from pipelines import launch
from pipelines.config import ImagesConfig, sample
from pipelines.launch import Engine, EngineError
from pipelines.plan import STAGES, Crawl, Plan

pytest.importorskip(
    "google.cloud.dataflow_v1beta3", reason="Dataflow jobs are not tested here: pip install 'apache-beam[gcp]'"
)
import dataflow_service  # noqa: E402
from apache_beam.portability.api import beam_runner_api_pb2  # noqa: E402
from dataflow_service import Service  # noqa: E402

ROOT = Path(__file__).parents[1]
IMAGE = "us-docker.pkg.dev/my-project/mmc4/worker:1"
GPU = "type:nvidia-tesla-t4;count:1;install-nvidia-driver"
ACCELERATOR = "beam:resources:accelerator:v1"
FILES = 40
OPTIONS = (
    "--project=my-project",
    "--region=us-east1",
    "--temp_location=gs://my-bucket/tmp",
    f"--sdk_container_image={IMAGE}",
    "--sdk_location=container",
)
LARGEST = 200_000  # bytes of one transform: configuration, not data

LIST_OF_PACKAGES = "submission_environment_dependencies.txt"  # what the launcher has installed, for the record

Proto = Any  # a pipeline as it was staged


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with dataflow_service.running() as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", service.url)
        yield service


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Of a crawl that nobody reads; only that documents were written is there, for the stage that must know."""
    root = str(tmp_path_factory.mktemp("build"))
    warcs = tuple((f"crawl-data/{number}.warc.gz",) for number in range(FILES))
    made = Plan(
        build=sample(ImagesConfig(source="archive")), crawl=Crawl(name="small", root=root, warcs=warcs), root=root
    )
    for unit in made.files:
        done = Commit(step="interleave", unit=unit.name, fingerprint="f", counts={"documents.written": 30})
        commits.write(root, done)
    return made


def dataflow(service: Service, *more: str, gpu: str | None = None) -> Engine:
    """The engine behind the service."""
    own = ("--no_auth", f"--dataflow_endpoint={service.url}")
    return Engine(runner="DataflowRunner", options=(*OPTIONS, *own, *more), accelerator=gpu)


def submitted(plan: Plan, stage: str, service: Service, *more: str, gpu: str | None = None) -> tuple[Any, Proto]:
    """What the service got for a stage: the job, and its pipeline."""
    launch.run(plan.stage(stage).transform, dataflow(service, *more, gpu=gpu), lambda: None)
    job = service.jobs[-1]
    (staged,) = (url for url in re.findall(r"gs://[^\"]+pipeline\.pb", str(job).replace("'", '"')))
    pipeline = beam_runner_api_pb2.Pipeline.FromString(service.objects[staged.removeprefix("gs://")])
    return job, pipeline


def environments(pipeline: Proto) -> list[Any]:
    """Those that some transform runs in."""
    used = {t.environment_id for t in pipeline.components.transforms.values() if t.environment_id}
    return [pipeline.components.environments[name] for name in sorted(used)]


def staged(environment: Any) -> set[str]:
    """Names of the files that workers get."""
    parse = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString
    return {parse(file.role_payload).staged_name for file in environment.dependencies}


def steps(pipeline: Proto) -> set[str]:
    """The names of all transforms, each without those around it."""
    return {transform.unique_name.rpartition("/")[2] for transform in pipeline.components.transforms.values()}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_becomes_a_job(stage: str, plan: Plan, service: Service) -> None:
    job, pipeline = submitted(plan, stage, service)
    assert job["type"] in (1, "JOB_TYPE_BATCH")
    assert {work.step for work in plan.stage(stage).work} <= steps(pipeline)
    for environment in environments(pipeline):
        assert environment.urn == "beam:env:docker:v1"
        assert beam_runner_api_pb2.DockerPayload.FromString(environment.payload).container_image == IMAGE
        assert staged(environment) <= {LIST_OF_PACKAGES}, "workers would install something at each start"
        assert not environment.resource_hints
    assert max(len(transform.spec.payload) for transform in pipeline.components.transforms.values()) < LARGEST
    assert "pickled_main_session" not in " ".join(service.objects)
    assert "LOOPBACK" not in str(job)


def test_a_launcher_that_must_end_cancels_its_job(
    plan: Plan, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "ends_at_once", False)
    monkeypatch.setattr(launch, "_running", [])
    monkeypatch.setitem(launch.POLL_SECONDS, False, 0.1)

    def end() -> None:
        if launch._running[0].result is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch.run(plan.stage("images").transform, dataflow(service), end)
    (job,) = launch._running
    launch.cancel()
    assert service.jobs[-1]["name"] == job.name
    assert re.fullmatch("mmc4-images-[0-9a-f]{8}", job.name)
    assert service.jobs[-1]["currentState"] in (5, "JOB_STATE_CANCELLED")
    assert job.ended.wait(30)


def test_a_job_that_is_being_submitted_may_go_on(plan: Plan, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is said: nobody knows by what id to cancel it."""
    engine = dataflow(service)
    job = launch._Job(plan.stage("images").transform, engine, engine.pipeline())
    monkeypatch.setattr(launch, "_running", [job])
    with pytest.raises(EngineError, match=f"{job.name} was being submitted"):
        launch.cancel()
    job.ended.set()  # it never arrived
    launch.cancel()


@pytest.mark.parametrize("stage", STAGES)
def test_only_models_ask_for_a_gpu(stage: str, plan: Plan, service: Service) -> None:
    _, pipeline = submitted(plan, stage, service, gpu=GPU)
    hints = {
        name: environment.resource_hints.get(ACCELERATOR)
        for name, environment in pipeline.components.environments.items()
    }
    asking = {
        transform.unique_name
        for transform in pipeline.components.transforms.values()
        if transform.environment_id and hints[transform.environment_id] == GPU.encode()
    }
    models = {name.split("/")[1] for name in asking}
    assert models == ({"embed", "scores"} if stage == "scores" else set())
    assert all("/embed/" in f"{name}/" or "/scores/" in f"{name}/" for name in asking)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--flexrs_goal=COST_OPTIMIZED", "FlexRS has no GPUs"),
        ("--dataflow_service_options=worker_accelerator=x", "all"),
    ],
)
def test_gpus_that_contradict(option: str, said: str, plan: Plan, service: Service) -> None:
    with pytest.raises(EngineError, match=said):
        submitted(plan, "scores", service, option, gpu=GPU)


def test_the_container_has_the_beam_of_this_package() -> None:
    """Boot program, package and launcher must be of one version."""
    recipe = (ROOT / "docker/Dockerfile").read_text()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    (lower,) = re.findall(r"apache-beam>=([\d.]+),", setup["options"]["install_requires"])
    (pinned,) = re.findall(r"^ARG BEAM=([\d.]+)$", recipe, re.MULTILINE)
    assert pinned.startswith(f"{lower}.")


def test_the_commands_of_the_docs_are_understood() -> None:
    blocks = re.findall(r"(?:^    .*\n)+", (ROOT / "docs/dataflow.md").read_text(), re.MULTILINE)
    found = [shlex.split(block.replace("\\\n", " ")) for block in blocks if block.lstrip().startswith("mmc4-build")]
    assert found
    for command in found:
        top = parser()
        args, unknown = top.parse_known_args(command[1:])
        check_usage(args)
        assert "--sdk_container_image" in beam_options(unknown, [], top)
