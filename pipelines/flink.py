"""What Beam does not do on Flink: a job whose cancelling its job server has confirmed goes on (Beam 2.54), as does one
whose job server has ended. Flink itself is asked instead."""

from typing import Any

import requests
from apache_beam.options.pipeline_options import FlinkRunnerOptions, PipelineOptions
from apache_beam.runners.portability.flink_runner import MAGIC_HOST_NAMES, FlinkRunner

ANSWER_SECONDS = 5.0
OVER = {"CANCELLING", "CANCELED", "FAILED", "FINISHED"}


def address(options: PipelineOptions) -> str | None:
    """Of the REST interface of the cluster that jobs run on; None if they run inside the job server."""
    master = options.view_as(FlinkRunnerOptions).flink_master
    return None if master in MAGIC_HOST_NAMES else str(FlinkRunner.add_http_scheme(master)).rstrip("/")


def cancel(address: str, name: str) -> None:
    """Cancel the jobs of a name. RequestException if the cluster does not do it."""
    for job in _ask("GET", f"{address}/jobs/overview").json()["jobs"]:
        if job["name"] == name and job["state"] not in OVER:
            _ask("PATCH", f"{address}/jobs/{job['jid']}", params={"mode": "cancel"})


def _ask(method: str, url: str, **more: Any) -> requests.Response:
    answer = requests.request(method, url, timeout=ANSWER_SECONDS, **more)
    answer.raise_for_status()
    return answer
