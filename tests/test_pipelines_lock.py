"""Two launchers on one output: the second is refused, a dead one is followed, a living one never."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from builds import environment, start, write_corner

from mmc4_builder import storage
from pipelines import holder, lock
from pipelines.holder import Holder
from pipelines.lock import Lock, LockError, Seen, held, judge, look

ELSEWHERE = {"host": "elsewhere", "machine": "another/4026531836"}
HOLD = "import sys, time; from pipelines.lock import held\nwith held(sys.argv[1], sys.argv[2], print) as h:\n" \
    "    print('has it', h.taken_over, flush=True); time.sleep(float(sys.argv[3]))"  # fmt: skip


def me(command: str = "mmc4-build --crawl x") -> Holder:
    return holder.this_launcher(command)


def never(why: str) -> None:
    raise AssertionError(why)


def launcher(root: Path, command: str, seconds: float = 60) -> "subprocess.Popen[str]":
    """A process that takes the lock and holds it for a while."""
    words = [sys.executable, "-c", HOLD, str(root), command, str(seconds)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment(), stdout=pipe, stderr=pipe, text=True)


def leave(root: Path, left: Holder, age: float = 0.0) -> Path:
    """A lock that somebody left."""
    root.mkdir(exist_ok=True)
    path = root / lock.NAME
    path.write_text(json.dumps({**asdict(left), "beat": time.time() - age}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_the_lock_is_there_while_it_is_held_and_gone_after(tmp_path: Path) -> None:
    with held(str(tmp_path), "mmc4-build --crawl x", never) as mine:
        seen = look(str(tmp_path / lock.NAME))
        assert seen is not None and seen.holder == mine.mine
        assert (mine.mine.pid, mine.taken_over) == (os.getpid(), "")
    assert list(tmp_path.iterdir()) == []


def test_it_is_released_on_errors(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(str(tmp_path), "x", never):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keeps", [True, False])
def test_a_folder_that_stays_empty_goes_again(keeps: bool, tmp_path: Path) -> None:
    root = tmp_path / "out"
    with held(str(root), "x", never):
        if keeps:
            (root / "docs").mkdir()
    assert root.exists() == keeps


def test_the_second_is_told_about_the_first(tmp_path: Path) -> None:
    with held(str(tmp_path), "mmc4-build --crawl CC-MAIN-2024-10 --output out", never) as first:
        with pytest.raises(LockError) as refused:
            Lock(str(tmp_path), me()).acquire()
        for told in (first.mine.host, f"process {os.getpid()}", first.mine.since, "--crawl CC-MAIN-2024-10"):
            assert told in str(refused.value)
        assert look(first.path) is not None


def test_of_many_that_start_at_once_one_gets_it(tmp_path: Path) -> None:
    """Nobody is there, and then: a dead launcher's lock is there."""
    for dead in (None, replace(me("the dead one"), started="0")):
        if dead:
            leave(tmp_path, dead)
        started = [launcher(tmp_path, f"number {number}", 8) for number in range(4)]
        told = [process.communicate(timeout=100) for process in started]
        (winner,) = [number for number, (out, _) in enumerate(told) if "has it" in out]
        assert ("the dead one" in told[winner][0]) == bool(dead)
        assert [process.returncode for process in started].count(0) == 1
        for number, (_, err) in enumerate(told):
            assert number == winner or f"number {winner}" in err
        assert list(tmp_path.iterdir()) == []


def test_kill_9_leaves_the_lock_and_the_next_takes_over(tmp_path: Path) -> None:
    first = launcher(tmp_path, "the first")
    assert first.stdout and "has it" in first.stdout.readline()
    first.kill()
    first.communicate()
    assert (tmp_path / lock.NAME).exists()
    with held(str(tmp_path), "the second", never) as second:
        assert f"process {first.pid} on host" in second.taken_over
        assert "it has died" in second.taken_over


def test_a_stopped_launcher_is_not_a_dead_one(tmp_path: Path) -> None:
    first = launcher(tmp_path, "the first")
    assert first.stdout and "has it" in first.stdout.readline()
    first.send_signal(signal.SIGSTOP)
    os.utime(tmp_path / lock.NAME, (0, 0))
    with pytest.raises(LockError, match="the first"):
        Lock(str(tmp_path), me()).acquire()
    first.kill()
    first.communicate()


def test_workers_of_a_killed_launcher_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could still write: nobody takes over before they have ended."""
    dead = replace(me(), started="0", pid=4_194_000)
    script = "import time; time.sleep(100)"
    worker = subprocess.Popen([sys.executable, "-c", script, "pipelines.worker", str(dead.pid)])
    try:
        while not holder.workers_of(dead.pid):
            time.sleep(0.01)
        leave(tmp_path, dead)
        monkeypatch.setattr(lock, "ORPHAN_SECONDS", 0.3)
        with pytest.raises(LockError, match=rf"workers \[{worker.pid}\] still run"):
            Lock(str(tmp_path), me()).acquire()
        monkeypatch.setattr(lock, "ORPHAN_SECONDS", 60)
        threading.Timer(0.5, worker.kill).start()
        with held(str(tmp_path), "x", never) as mine:
            assert worker.poll() is not None or not holder.workers_of(dead.pid)
            assert "it has died" in mine.taken_over
    finally:
        worker.kill()
        worker.wait()


@pytest.mark.parametrize(
    ("change", "age", "said"),
    [
        ({}, 0.0, None),
        ({}, 1e6, None),  # stopped, or the machine slept: it runs
        ({"started": "0"}, 0.0, "it has died"),  # its number is another process's now
        (ELSEWHERE, 0.0, None),
        (ELSEWHERE, 59.0, None),
        (ELSEWHERE, 65.0, "no sign of life for 65 s"),
        ({"machine": "before the restart/4026531836"}, 10.0, None),  # perhaps another machine of that name
        ({"machine": "before the restart/4026531836"}, 70.0, "no sign of life for 70 s"),
    ],
)
def test_who_may_be_overtaken(change: dict[str, str], age: float, said: str | None) -> None:
    told = judge(Seen(replace(me(), **change), time.time() - age), me(), 60.0)
    assert (told or "").endswith(said or "") and bool(told) == bool(said)


def test_one_on_another_machine_is_given_up_when_it_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", {True: 0.1})
    leave(tmp_path, replace(me(), **ELSEWHERE), age=10)
    with pytest.raises(LockError, match="given up after 60 s"):
        Lock(str(tmp_path), me()).acquire()
    leave(tmp_path, replace(me(), **ELSEWHERE), age=100)
    with held(str(tmp_path), "x", never) as mine:
        assert "no sign of life for 100 s" in mine.taken_over


def test_one_whose_clock_is_wrong_is_not_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its heartbeat looks old and goes on all the same."""
    monkeypatch.setattr(lock, "BEAT_SECONDS", {True: 0.3})
    path = leave(tmp_path, replace(me(), **ELSEWHERE), age=1000)
    threading.Timer(0.4, os.utime, (path, (1000.0, 1000.0))).start()
    with pytest.raises(LockError, match="host elsewhere"):
        Lock(str(tmp_path), me()).acquire()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"beat": 1}', "null"])
def test_what_is_no_lock_is_taken_over_once_it_is_old(content: str, tmp_path: Path) -> None:
    (tmp_path / lock.NAME).write_text(content)
    with held(str(tmp_path), "x", never) as mine:
        assert "its lock was never written" in mine.taken_over


def remove(path: Path) -> None:
    path.unlink()


def overtake(path: Path) -> None:
    leave(path.parent, replace(me("the other one"), **ELSEWHERE))


@pytest.mark.parametrize(("damage", "said"), [(remove, "is gone: the output"), (overtake, "the other one")])
def test_the_heartbeat_notices(
    damage: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", {True: 0.05})
    told: list[str] = []
    noticed = threading.Event()
    with held(str(tmp_path), "x", lambda why: (told.append(why), noticed.set())):
        damage(tmp_path / lock.NAME)
        assert noticed.wait(30)
    assert said in told[0]
    assert (tmp_path / lock.NAME).exists() == (damage is overtake)


def test_the_heartbeat_renews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", {True: 0.05})
    with held(str(tmp_path), "x", never):
        os.utime(tmp_path / lock.NAME, (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / lock.NAME).stat().st_mtime < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("root", ["/proc/version/out", "/proc/1/out", "/sys/out"])
def test_an_output_that_cannot_be_written(root: str) -> None:
    with pytest.raises(storage.StorageError, match=r"cannot write /.*choose another --output"):
        Lock(root, me()).acquire()


@pytest.mark.timeout(600)
def test_the_command_line_minds_the_lock(tmp_path: Path) -> None:
    """Refused at once, with the other's words, and without a mark on what it does; free again after it was killed."""
    corner = write_corner(tmp_path / "crawl", files=1, every=40)
    flags = ["--input", *corner, "--images", "archive", "--clip", "tiny", "--output", tmp_path / "out"]
    first = start(*flags, "--workers", 1)
    while not (tmp_path / "out" / "commits").exists():
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # or it might be through before the second has come so far
    second = start(*flags, "--workers", 1)
    _, err = second.communicate(timeout=200)
    first.kill()
    first.communicate()
    assert second.returncode == 1
    assert f"process {first.pid} on host" in err and "--images archive" in err
    third = start(*flags, "--stages", "documents", "--workers", 1)
    _, err = third.communicate(timeout=200)
    assert third.returncode == 0, err
    assert f"went on from process {first.pid}" in err
    assert not (tmp_path / "out" / lock.NAME).exists()
