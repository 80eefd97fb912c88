"""A whole build in a real S3 server that fails now and then: killed, refused, gone on with, the same bytes."""

import io
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest
import s3_server
from builds import COMMAND, digests, environment, run, write_corner
from faults import FaultServer
from s3_server import Proxy, Server
from small_crawls import article, jpeg, plan, write

from mmc4_builder import commits, key_lists, s3, storage
from mmc4_builder.fetch import FetchConfig
from mmc4_builder.validate import validate
from pipelines import holder, lock, remove
from pipelines.build import build, continued
from pipelines.config import ImagesConfig, InterleaveConfig
from pipelines.launch import Engine
from pipelines.lock import Lock, LockError

pytestmark = pytest.mark.timeout(1500)  # the server may have to be built first

ROOT = "s3://bucket/out"
TIMES = ("report.html", "timing.json", "timings/", "removals/proof-")  # how long things took differs from run to run
WAIT = 480.0
ONE = Engine(workers=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server.serve_or_skip(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with s3_server.before(server, seed=11) as proxy:
        for name, value in proxy.environment.items():
            monkeypatch.setenv(name, value)
        s3._client.cache_clear()
        yield proxy
        proxy.rate, proxy.down = 0.0, False
        for name in storage.walk(ROOT):
            storage.remove(f"{ROOT}/{name}")
    s3._client.cache_clear()


@dataclass
class Launcher:
    """A build that has been started."""

    process: "subprocess.Popen[str]"

    def end(self) -> tuple[int, str]:
        """Exit status and what was said on stderr."""
        _, said = self.process.communicate(timeout=WAIT)
        return self.process.returncode, said

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT
        while not what():
            assert self.process.poll() is None and time.monotonic() < deadline, self.process.communicate()
            time.sleep(0.05)


def launch(flags: list[str], without: Iterable[str] = (), **more: str) -> Launcher:
    pipe = subprocess.PIPE
    variables = {name: value for name, value in environment().items() if name not in without}
    return Launcher(
        subprocess.Popen([*COMMAND, *flags], env={**variables, **more}, stdout=pipe, stderr=pipe, text=True)
    )


def test_a_build_with_everything_that_goes_wrong(server: Server, store: Proxy, tmp_path: Path) -> None:
    warcs = write_corner(tmp_path / "warcs", files=2, every=20)
    build = ["--input", *map(str, warcs), "--images", "archive", "--config", "sample", "--clip", "tiny"]
    run(*build, "--workers", 1, "--output", tmp_path / "local")
    there = server.bucket / "out"
    flags = [*build, "--workers", "2", "--output", ROOT]
    store.rate = 0.05

    def done() -> int:
        return len([*(there / "commits").rglob("*.json")])

    def commits_more(than: int) -> Callable[[], bool]:
        return lambda: done() > than

    first = launch(flags)  # who asks, and where, by the environment
    first.wait_for(commits_more(0))
    refused = launch(flags)
    code, said = refused.end()
    assert code == 1 and f"built by another launcher: process {first.process.pid} on host" in said
    first.process.kill()
    first.end()
    assert_committed_is_whole(there)

    before = len(store.requests)
    assert run(*flags, "--dry-run").stdout.count("to do") >= 4
    assert {request.kind for request in store.requests[before:]} <= {"GET", "HEAD", "LIST"}

    given = store.environment  # the same by Beam's options, which workers get from the engine
    options = [f"--s3_endpoint_url={given['AWS_ENDPOINT_URL']}", f"--s3_access_key_id={given['AWS_ACCESS_KEY_ID']}",
               f"--s3_secret_access_key={given['AWS_SECRET_ACCESS_KEY']}", "--s3_region_name=us-east-1"]  # fmt: skip
    second = launch([*flags, *options], without=given)
    second.wait_for(commits_more(done()))
    assert given["AWS_SECRET_ACCESS_KEY"] not in (there / lock.NAME).read_text()
    os.kill(holder.workers_of(second.process.pid)[0], signal.SIGKILL)
    code, said = second.end()
    assert code == 1 and "went on from process" in said and "a worker process died" in said

    store.rate = 0.0  # two faults in a row would end it before its time
    third = launch(flags, AWS_MAX_ATTEMPTS="2")
    third.wait_for(commits_more(done() + 2))
    store.down = True  # for longer than anybody waits
    code, said = third.end()
    store.down, store.rate = False, 0.05
    assert code == 1 and "SlowDown" in said and "run the same command again" in said.splitlines()[-1]
    assert_committed_is_whole(there)

    last = launch(flags).process
    there_lie, said = last.communicate(timeout=WAIT)
    assert last.returncode == 0, said
    assert published(tmp_path / "local") == published(there)
    assert not (there / lock.NAME).exists()
    assert storage.sweep(ROOT) == 0
    assert f"{ROOT}/shards" in there_lie and f"mmc4-build --validate {ROOT}" in there_lie
    run("--validate", ROOT)
    faults = store.faults()
    assert set(faults) == set(s3_server.FAULTS), faults


def test_a_build_there_is_mended_and_shortened_as_one_here(server: Server, store: Proxy, tmp_path: Path) -> None:
    """`--retry-failed` and `--remove`, of which each changes what earlier stages left."""
    ill = True
    first, second = jpeg(1), jpeg(2)
    with FaultServer({"/1.jpg": lambda talk: talk.reply(200, first)}) as web:
        web.routes["/2.jpg"] = lambda talk: talk.reply(503) if ill else talk.reply(200, second)
        fetch = FetchConfig(
            contact="https://example.org/", allow_private=True, ports=(web.port,), retries=0, delay_seconds=0.0
        )
        pages = [article("mill", web.url("/1.jpg"), web.url("/2.jpg")), article("barn", web.url("/1.jpg"))]
        here = plan(
            tmp_path / "out",
            write(tmp_path / "crawl", pages),
            images=ImagesConfig(source="live", fetch=fetch),
            interleave=InterleaveConfig(min_similarity=-1.0, max_nsfw=1.0),
        )
        build(here, ONE, stream=io.StringIO())
        for name in storage.walk(here.root):
            storage.write(f"{ROOT}/{name}", Path(here.root, name).read_bytes())
        ill, store.rate = False, 0.05
        for root in (here.root, ROOT):
            build(continued(root), ONE, retry_failed=True, stream=io.StringIO())
            gone = key_lists.parse("http://barn.example/", "list")
            assert remove.run(continued(root), gone, ONE, io.StringIO()) == 0
    names = [set(published(root)) for root in (server.bucket / "out", Path(here.root))]
    assert names[0] == names[1]
    # Times are told of pictures from the live web, so what is about them differs.
    for folder in ("docs", "documents"):
        assert digests(server.bucket / "out", folder) == digests(Path(here.root), folder)
    assert validate(ROOT) == validate(here.root)
    assert validate(ROOT).ok and validate(ROOT).totals["images"] == 2


def published(root: Path) -> dict[str, str]:
    """Every file of a build but those that tell of time."""
    return {name: digest for name, digest in digests(root, ".").items() if not name.startswith(TIMES)}


def assert_committed_is_whole(root: Path) -> None:
    """What records name is there, in full length: nothing is half visible."""
    for path in (root / "commits").rglob("*.json"):
        for output in commits.from_json(path.read_bytes()).outputs:
            assert (root / output.path).stat().st_size == output.size, output


def me(command: str = "mmc4-build --crawl x") -> holder.Holder:
    return holder.this_launcher(command)


def put_lock(left: holder.Holder, age: float) -> None:
    """A lock that somebody left."""
    storage.write(f"{ROOT}/{lock.NAME}", json.dumps({**asdict(left), "beat": time.time() - age}).encode())


@pytest.mark.parametrize("is_old", [False, True], ids=["conditional", "read back"])
@pytest.mark.parametrize("is_left", [False, True], ids=["none there", "a dead one there"])
def test_of_launchers_that_race_one_wins(
    store: Proxy, monkeypatch: pytest.MonkeyPatch, is_old: bool, is_left: bool
) -> None:
    """By conditional writes alone: without them, reading back must do."""
    store.is_old = is_old
    for name, seconds in (("BEAT_SECONDS", 0.1), ("SETTLE_SECONDS", 2.0 if is_old else 0.0)):
        monkeypatch.setattr(lock, name, {False: seconds})
    if is_left:
        put_lock(replace(me("left"), host="elsewhere", machine="another"), age=1e6)
    racers = [Lock(ROOT, me(f"mmc4-build --seed {number}")) for number in range(6)]
    refused: list[str] = []
    barrier = threading.Barrier(len(racers))

    def race(racer: Lock) -> None:
        barrier.wait()
        try:
            racer.acquire()
        except LockError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=race, args=(racer,)) for racer in racers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = lock.look(f"{ROOT}/{lock.NAME}")
    assert seen is not None and seen.holder is not None
    assert len(refused) == len(racers) - 1
    (winner,) = [racer for racer in racers if racer.mine == seen.holder]
    assert ("left" in winner.taken_over) == is_left
    winner.release()
    assert lock.look(f"{ROOT}/{lock.NAME}") is None


def test_a_lock_whose_writing_was_not_answered_is_ours(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store did it, the answer was lost, and to the same request once more it says no."""
    monkeypatch.setattr(lock, "SETTLE_SECONDS", {False: 0.0})
    mine = Lock(ROOT, me())
    faults = iter(["", "lost_answer"])  # of the look, of the write
    monkeypatch.setattr(store, "fault", lambda: next(faults, ""))
    mine.acquire()
    assert [request.fault for request in store.requests][:3] == ["", "lost_answer", ""]
    assert mine.beat() is None
    faults = iter(["", "lost_answer"])
    assert mine.beat() is None


def test_who_is_overtaken_learns_it_at_the_next_heartbeat(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SETTLE_SECONDS", {False: 0.0})
    mine = Lock(ROOT, me())
    mine.acquire()
    assert mine.beat() is None
    put_lock(replace(me("other"), host="elsewhere"), age=0.0)
    assert "another launcher took over" in (mine.beat() or "")
    mine.release()
    seen = lock.look(f"{ROOT}/{lock.NAME}")
    assert seen is not None and seen.holder is not None and seen.holder.command == "other"
