"""`mmc4-worker`: the worker that an engine starts on its machines, without a container.

Engines start a worker by the contract of Beam's containers: a program named `boot` gets five flags, asks the engine for
the job's options and files, and becomes the harness. Beam's own is a Go program that only its images hold. This one
needs what the build needs anyway: this package, installed on every machine. It serves `--environment_type=PROCESS` and,
as `--container_executable`, Beam's worker pool (`EXTERNAL`).

What the contract says is in the sources of `sdks/python/container/boot.go`; what the harness reads of the environment,
in `apache_beam/runners/worker/sdk_worker_main.py`.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_artifact_api_pb2 as artifacts
from apache_beam.portability.api import (
    beam_artifact_api_pb2_grpc,
    beam_provision_api_pb2,
    beam_provision_api_pb2_grpc,
    beam_runner_api_pb2,
    endpoints_pb2,
)
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]

from mmc4_builder.workspace import WORKER
from pipelines import worker

ANSWER_SECONDS = 120.0  # the engine that started this process a moment ago is there, but may be busy
CHANNEL = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
TO_INSTALL = ("requirements.txt", "extra_packages.txt", "workflow.tar.gz")  # names that Beam's launcher gives them


class BootError(Exception):
    """This worker cannot serve the job; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What the engine says to the worker on its command line."""

    worker: str
    provision: str
    logging: str
    artifact: str
    control: str
    folder: str  # below which the worker may write

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """By which the engine knows who calls."""
        return (("worker_id", self.worker),)


def parse(arguments: Sequence[str]) -> Orders:
    """The contract's flags. Those of a later contract are not for us to refuse."""
    flags = argparse.ArgumentParser(
        prog="mmc4-worker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--id", required=True, help="name of this worker")
    for service in ("provision", "logging", "artifact", "control"):
        flags.add_argument(f"--{service}_endpoint", required=service == "provision", default="", metavar="HOST:PORT")
    flags.add_argument("--semi_persist_dir", help="where to write (default: $MMC4_WORKER_DIR, or the temporary folder)")
    known, _ = flags.parse_known_args(arguments)
    return Orders(
        worker=known.id,
        provision=known.provision_endpoint,
        logging=known.logging_endpoint,
        artifact=known.artifact_endpoint,
        control=known.control_endpoint,
        folder=known.semi_persist_dir or os.environ.get("MMC4_WORKER_DIR") or tempfile.gettempdir(),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Never returns: Beam's threads would keep a worker alive whose engine is gone.

    Commit records tell who did their unit: host, process that started the worker (an executor of Spark's), worker.
    """
    parent = os.getppid()
    orders = parse(sys.argv[1:] if arguments is None else arguments)
    home = make_home(orders)
    signal.signal(signal.SIGTERM, lambda number, frame: leave(home, 0))
    speak_into(home / "log")
    try:
        info = ask(orders)
        fetch(orders, info, home / "staged")
        os.environ.update(environment(orders, info, home))
        os.environ[WORKER] = f"{socket.gethostname()}/{parent}/{os.getpid()}"
        worker.serve(parent, lambda code: leave(home, 0))
    except BaseException:
        traceback.print_exc()
        leave(home, 1)
    leave(home, 0)


def make_home(orders: Orders) -> Path:
    """A folder of this worker alone: the same name may be given on one machine by several executors."""
    name = re.sub(r"[^\w.-]", "_", orders.worker)[:80]
    Path(orders.folder).mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"mmc4-worker-{name}-", dir=orders.folder))


def speak_into(path: Path) -> None:
    """Output goes to a file. Engines give workers pipes that nobody reads: after 64 KiB a worker would stand still."""
    with open(path, "ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)


def leave(home: Path, code: int) -> None:
    """End now. What a worker that failed has said is kept; nothing is kept of others."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if code == 0:
        shutil.rmtree(home, ignore_errors=True)
    os._exit(code)


def ask(orders: Orders) -> Any:
    """The job as the engine provides it to its workers: a `ProvisionInfo`."""
    with grpc.insecure_channel(orders.provision, options=CHANNEL) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(channel)
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        answer = service.GetProvisionInfo(
            request, metadata=orders.metadata, timeout=ANSWER_SECONDS, wait_for_ready=True
        )
    return answer.info


def fetch(orders: Orders, info: Any, folder: Path) -> None:
    """Copy the files that the launcher staged for workers, such as a pickled main session."""
    if not info.dependencies:
        return
    folder.mkdir()
    with grpc.insecure_channel(info.artifact_endpoint.url or orders.artifact, options=CHANNEL) as channel:
        service = beam_artifact_api_pb2_grpc.ArtifactRetrievalServiceStub(channel)
        asked = artifacts.ResolveArtifactsRequest(artifacts=info.dependencies)
        found = service.ResolveArtifacts(asked, metadata=orders.metadata, timeout=ANSWER_SECONDS).replacements
        named = [(artifact, name) for artifact in found if (name := staged_name(artifact))]
        refuse_packages(name for _, name in named)
        for artifact, name in named:
            chunks = service.GetArtifact(artifacts.GetArtifactRequest(artifact=artifact), metadata=orders.metadata)
            with open(folder / name, "wb") as stream:
                stream.writelines(chunk.data for chunk in chunks)


def staged_name(artifact: Any) -> str | None:
    """The file name that the launcher chose; None for what is not to be staged."""
    if artifact.role_urn != common_urns.artifact_roles.STAGING_TO.urn:
        return None
    name = beam_runner_api_pb2.ArtifactStagingToRolePayload.FromString(artifact.role_payload).staged_name
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise BootError(f"the job stages a file as {name!r}: a plain name was expected")
    return name


def refuse_packages(names: Iterable[str]) -> None:
    """Workers that each install packages at their start would be slow, and would differ from one another."""
    found = sorted(set(names) & set(TO_INSTALL))
    if found:
        raise BootError(
            f"the job wants packages installed on workers ({', '.join(found)}), which mmc4-worker does not do: install "
            "them beside it on every machine, and start the job without --requirements_file, --setup_file and "
            "--extra_package"
        )


def environment(orders: Orders, info: Any, home: Path) -> dict[str, str]:
    """What the harness reads. Where the engine's answer names an address, it counts more than the command line."""
    named = {
        "WORKER_ID": orders.worker,
        "PIPELINE_OPTIONS": json.dumps(json_format.MessageToDict(info.pipeline_options)),
        "SEMI_PERSISTENT_DIRECTORY": str(home),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    addresses = {
        "LOGGING": info.logging_endpoint.url or orders.logging,
        "CONTROL": info.control_endpoint.url or orders.control,
        "STATUS": info.status_endpoint.url,
    }
    described = {f"{name}_API_SERVICE_DESCRIPTOR": describe(url) for name, url in addresses.items() if url}
    return named | described


def describe(url: str) -> str:
    """An address in the text form of its protocol buffer."""
    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=url), as_one_line=True))


if __name__ == "__main__":
    main()
