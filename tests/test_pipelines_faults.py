"""Outputs that fill up, cannot be written, or vanish: a clear message, nothing half visible, and the next run goes on.

Mounts are made in a mount namespace of their own and end with it; where that is not allowed, the tests that need one
are skipped and say so.
"""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builds import COMMAND, digests, environment, run, start, write_corner

from pipelines import disk_errors

pytestmark = pytest.mark.timeout(900)

RESULTS = ("docs", "shards", "images", "documents", "scores", "interleave", "commits")
NAMESPACE = ["unshare", "--mount", "--propagation", "private"] + ([] if os.geteuid() == 0 else ["--map-root-user"])


def can_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    words = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(words, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not can_mount(), reason="mounts are not allowed here, not even in a namespace")


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    corner = write_corner(tmp_path_factory.mktemp("corner"), files=1, every=24)
    return ["--input", *corner, "--images", "archive", "--clip", "tiny", "--config", "sample", "--workers", 1]


@pytest.fixture(scope="module")
def built(flags: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built") / "out"
    run(*flags, "--output", root)
    return root


def in_namespace(script: str, flags: list[object], root: Path) -> "subprocess.CompletedProcess[str]":
    """A shell script in a mount namespace; `"$@"` is the build."""
    words = [*NAMESPACE, "bash", "-c", script, "bash", *COMMAND, *map(str, flags), "--output", str(root)]
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=600)


def temporaries(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.endswith(".tmp")]


@needs_mounts
def test_a_disk_that_fills_up(flags: list[object], built: Path, tmp_path: Path) -> None:
    """A real file system of 150 kB. What lies on it is kept and looked at, then the next run has room."""
    root, kept = tmp_path / "out", tmp_path / "kept"
    script = f"""
        mkdir {shlex.quote(str(root))} && mount -t tmpfs -o size=150k tmpfs {shlex.quote(str(root))}
        "$@"; code=$?
        cp -a {shlex.quote(str(root))} {shlex.quote(str(kept))}; exit $code"""
    full = in_namespace(script, flags, root)
    assert full.returncode == 1, full.stderr
    assert "No space left on device" in full.stderr and "make room" in full.stderr
    assert "Traceback" not in full.stderr
    whole = digests(built, *RESULTS)
    there = digests(kept, *RESULTS)
    assert there and {path: digest for path, digest in there.items() if whole.get(path) != digest} == {}
    shutil.copytree(kept, root, dirs_exist_ok=True)
    run(*flags, "--output", root)
    assert digests(root, *RESULTS) == whole
    assert not temporaries(root)


@needs_mounts
def test_an_output_that_is_mounted_read_only(flags: list[object], built: Path, tmp_path: Path) -> None:
    root = tmp_path / "out"
    shutil.copytree(built, root)
    shutil.rmtree(root / "commits/shards")
    place = shlex.quote(str(root))
    script = f'mount --bind {place} {place} && mount -o remount,ro,bind {place} && "$@"'
    refused = in_namespace(script, flags, root)
    assert refused.returncode == 1
    assert f"cannot write {root}" in refused.stderr and "Read-only file system" in refused.stderr
    assert "another --output" in refused.stderr and "Traceback" not in refused.stderr
    run(*flags, "--output", root)
    assert digests(root, *RESULTS) == digests(built, *RESULTS)


@pytest.mark.parametrize("folder", ["documents", "exchange", "images"])
def test_a_folder_that_vanishes_in_the_middle(folder: str, flags: list[object], built: Path, tmp_path: Path) -> None:
    """Whether the run notices or not, it never ends well with a part missing, and the next one makes it again."""
    root = tmp_path / "out"
    process = start(*flags, "--output", root)
    while not list((root / folder).rglob("[0-9]*.*")):
        assert process.poll() is None
        time.sleep(0.002)
    trash = tmp_path / "trash"
    (root / folder).rename(trash)
    _, err = process.communicate(timeout=600)
    if process.returncode:
        assert process.returncode == 1
        assert f"{root}/{folder}" in err and "run the same command again" in err
        assert "Traceback" not in err
    run(*flags, "--output", root)
    assert digests(root, *RESULTS) == digests(built, *RESULTS)
    assert not temporaries(root)


def test_an_output_that_vanishes_as_a_whole(flags: list[object], built: Path, tmp_path: Path) -> None:
    """Moved away, as an unmounted disk is: the run ends and says so; put back, the next goes on where it was."""
    root, away = tmp_path / "out", tmp_path / "away"
    process = start(*flags, "--output", root)
    while not list((root / "commits").rglob("[0-9]*.json")):
        assert process.poll() is None
        time.sleep(0.002)
    root.rename(away)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert str(root) in err and "run the same command again" in err
    assert "Traceback" not in err
    shutil.rmtree(root, ignore_errors=True)
    away.rename(root)
    run(*flags, "--output", root)
    assert digests(root, *RESULTS) == digests(built, *RESULTS)
    assert not temporaries(root)


@needs_mounts
def test_a_disk_that_is_unmounted(flags: list[object], tmp_path: Path) -> None:
    """Lazily, as a network disk that goes: nothing of the build stays below the empty mount point as if it were one."""
    root = tmp_path / "out"
    place = shlex.quote(str(root))
    script = f"""
        mkdir {place} && mount -t tmpfs tmpfs {place}
        "$@" & while [ -z "$(ls {place}/commits 2>/dev/null)" ]; do sleep 0.01; kill -0 $! || exit 9; done
        umount -l {place}; wait $!"""
    gone = in_namespace(script, flags, root)
    assert gone.returncode == 1, gone.stderr
    assert str(root) in gone.stderr and "unmounted" in gone.stderr
    assert "Traceback" not in gone.stderr


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("FileNotFoundError: [Errno 2] No such file or directory: '/out/documents/0.parquet'", "Mount it again"),
        ("OSError: [Errno 28] No space left on device: '/out/x'", "make room"),
        ("OSError: [Errno 30] Read-only file system: '/out/x'", "Mount it writable"),
        ("OSError: [Errno 116] Stale file handle: '/out/x'", "went away"),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/crawl/0.warc.gz'", ""),
        ("FileNotFoundError: [Errno 2] No such file or directory: '/outer/x'", ""),
        ("KeyError: 'x'", ""),
    ],
)
def test_remedies(said: str, remedy: str) -> None:
    told = disk_errors.remedy(RuntimeError(said), "/out")
    assert remedy in told and bool(told) == bool(remedy)


def test_errors_of_connections_are_not_of_disks() -> None:
    assert not disk_errors.is_of_disk(ConnectionResetError(104, "reset"))
    assert disk_errors.is_of_disk(FileNotFoundError(2, "none", "/out/x"))


def test_the_kill_suite_in_short() -> None:
    """One of the seeds of `make kill-test`."""
    script = Path(__file__).with_name("kill_suite.py")
    words = [sys.executable, str(script), "--seeds", "1"]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same bytes each time, nothing left over" in done.stdout
