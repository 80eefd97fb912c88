"""What the Dataflow runner talks to when it submits a job, on this machine: Cloud Storage's and Dataflow's REST."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


@dataclass(slots=True)
class Service:
    """The objects that were staged, and the jobs that were created. None is run; where they do not end at once, they
    are as good as running."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    ends_at_once: bool = True

    def bucket(self, name: str) -> dict[str, Any]:
        """As Storage describes a bucket."""
        return {"kind": "storage#bucket", "id": name, "name": name, "softDeletePolicy": {}}

    def put(self, name: str, data: bytes) -> dict[str, Any]:
        """Keep an object `bucket/path`."""
        self.objects[name] = data
        bucket, _, path = name.partition("/")
        checksum = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        return {"kind": "storage#object", "bucket": bucket, "name": path, "size": str(len(data)), "crc32c": checksum}

    def create(self, job: dict[str, Any]) -> dict[str, Any]:
        """As Dataflow answers to a job."""
        self.jobs.append(job)
        state = "JOB_STATE_DONE" if self.ends_at_once else "JOB_STATE_RUNNING"
        job |= {"id": f"job-{len(self.jobs)}", "currentState": state}
        return job

    def update(self, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """A job whose state somebody wants to be another."""
        job = self.job(name)
        job["currentState"] = wanted["requestedState"]
        return job

    def job(self, name: str) -> dict[str, Any]:
        """As Dataflow answers to who asks how a job goes."""
        return next(job for job in self.jobs if job["id"] == name)


@contextmanager
def running() -> Iterator[Service]:
    """The service, for the time of a block."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.split("/")]
            if parts[1:4] == ["storage", "v1", "b"] and len(parts) == 5:
                self._answer(200, service.bucket(parts[4]))
            elif parts[-2] == "jobs":
                self._answer(200, service.job(parts[-1]))
            elif parts[-1] == "messages":
                self._answer(200, {})
            else:
                self._answer(404, {"error": {"code": 404, "message": f"{self.path} is not here"}})

        def do_POST(self) -> None:
            body = self._body()
            place = urlsplit(self.path)
            if place.path.endswith("/jobs"):
                self._answer(200, service.create(json.loads(body)))
            elif "/upload/storage/v1/b/" in place.path:
                bucket = place.path.split("/b/")[1].split("/")[0]
                name = json.loads(body).get("name") or parse_qs(place.query)["name"][0]
                self._answer(200, {}, Location=f"{service.url}/session/{bucket}/{name}")
            else:
                self._answer(404, {})

        def do_PUT(self) -> None:
            if "/jobs/" in self.path:
                name = urlsplit(self.path).path.rpartition("/")[2]
                return self._answer(200, service.update(name, json.loads(self._body())))
            self._answer(200, service.put(unquote(self.path.removeprefix("/session/")), self._body()))

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data

        def _answer(self, status: int, content: dict[str, Any], **headers: str) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
