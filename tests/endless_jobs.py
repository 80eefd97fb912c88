"""What the launcher takes for a Java job server, and starts as `java -jar x.jar ... --job-port N`: its jobs never end.

    python tests/endless_jobs.py LOG MOOD ... --job-port N

LOG gets a line for all that happens. MOOD says how it answers to a cancelled job: well, or `mute` not at all; one that
is `slow` never listens.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.portability.abstract_job_service import (
    AbstractBeamJob,
    AbstractJobServiceServicer,
    StateEvent,
)


def main() -> None:
    log, mood, *flags = sys.argv[1:]
    note(log, f"started {os.getpid()}")
    if mood != "slow":
        server = grpc.server(ThreadPoolExecutor(8))
        beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(Service(log, mood), server)
        server.add_insecure_port(f"localhost:{flags[flags.index('--job-port') + 1]}")
        server.start()
    time.sleep(600)


def note(log: str, line: str) -> None:
    """Append a line."""
    with open(log, "a") as stream:
        stream.write(f"{line}\n")


class Service(AbstractJobServiceServicer):
    """Beam's own, with jobs of ours."""

    def __init__(self, log: str, mood: str) -> None:
        super().__init__()
        self.log, self.mood = log, mood

    def create_beam_job(self, preparation_id: str, job_name: str, pipeline: object, options: object) -> "Job":
        job = Job(preparation_id, job_name, pipeline, options)
        job.log, job.mood = self.log, self.mood
        return job


class Job(AbstractBeamJob):
    """Runs until it is cancelled."""

    log = mood = ""

    def prepare(self) -> None:
        self.over = threading.Event()

    def artifact_staging_endpoint(self) -> None:
        """Nothing is wanted."""

    def run(self) -> None:
        self.set_state(beam_job_api_pb2.JobState.RUNNING)
        threading.Timer(1.0, note, (self.log, "runs")).start()  # when the launcher has its answer

    def cancel(self) -> None:
        note(self.log, "cancelled")
        if self.mood == "mute":
            time.sleep(600)
        self.set_state(beam_job_api_pb2.JobState.CANCELLED)
        self.over.set()

    def get_state_stream(self) -> Iterator[StateEvent]:
        yield self.get_state()
        self.over.wait()
        yield self.get_state()

    def get_message_stream(self) -> Iterator[StateEvent]:
        return self.get_state_stream()


if __name__ == "__main__":
    main()
