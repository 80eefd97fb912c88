"""A job is cancelled at Flink itself, over its REST interface."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import flink

STATES = {"a": "RUNNING", "b": "RESTARTING", "c": "FINISHED", "d": "RUNNING"}
NAMES = {"a": "ours", "b": "ours", "c": "ours", "d": "somebody else's"}


@pytest.fixture
def cluster() -> Iterator[tuple[str, list[str]]]:
    """Where it answers, and what it was asked to change. A job with a name of its own is refused."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            jobs = [{"jid": jid, "name": NAMES[jid], "state": state} for jid, state in STATES.items()]
            self.answer(200 if self.path == "/jobs/overview" else 404, {"jobs": jobs})

        def do_PATCH(self) -> None:
            asked.append(self.path)
            self.answer(409 if "/d" in self.path else 202, {})

        def answer(self, status: int, content: object) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def test_only_jobs_of_the_name_that_are_not_over_are_cancelled(cluster: tuple[str, list[str]]) -> None:
    address, asked = cluster
    flink.cancel(address, "ours")
    assert asked == ["/jobs/a?mode=cancel", "/jobs/b?mode=cancel"]


def test_a_refusal_and_silence_are_errors(cluster: tuple[str, list[str]]) -> None:
    with pytest.raises(requests.HTTPError, match="409"):
        flink.cancel(cluster[0], "somebody else's")
    with pytest.raises(requests.ConnectionError):
        flink.cancel("http://127.0.0.1:1", "ours")


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ([], None),
        (["--flink_master=[local]"], None),
        (["--flink_master=jobmanager:8081"], "http://jobmanager:8081"),
        (["--flink_master=https://flink.example/"], "https://flink.example"),
    ],
)
def test_where_a_cluster_is_asked(given: list[str], address: str | None) -> None:
    assert flink.address(PipelineOptions(given)) == address
