"""Weights files: what is found, fetched once, verified, and refused."""

import hashlib
import socket
from pathlib import Path

import pytest
from servers import Fault, FolderServer, serve

from mmc4_builder import weights_file
from mmc4_builder.weights_file import WeightsFileError, find

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER = "ab" * 32


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMC4_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "web").mkdir()
    path = tmp_path / "web" / "head.pt"
    path.write_bytes(DATA)
    return path


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}#sha256=" + SHA256, "{}#sha256=" + SHA256.upper()])
def test_a_local_file_stays_where_it_is(form: str, path: Path, cache: Path) -> None:
    assert find(form.format(path)) == path
    assert not cache.exists()


def test_home_is_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    assert find("~/head.pt") == path


@pytest.mark.parametrize(
    ("form", "sha256", "said"),
    [
        ("{}", OTHER, f"has SHA-256 {SHA256}, expected {OTHER}.*[Ff]etch it again"),
        ("{}#sha256=" + OTHER, "", f"has SHA-256 {SHA256}, expected {OTHER}"),
        ("{}#sha256=12", "", "64 hexadecimal digits.*'12'"),
        ("{}.missing", "", "no file of weights at .*head.pt.missing: give the path"),
        ("https://models.example/head.pt", "", "head.pt has no checksum.*add #sha256=HEX"),
    ],
)
def test_what_is_refused(form: str, sha256: str, said: str, path: Path) -> None:
    with pytest.raises(WeightsFileError, match=said):
        find(form.format(path), sha256)


def test_a_url_is_fetched_once(path: Path, cache: Path) -> None:
    with serve(path.parent) as server:
        first = find(server.url("head.pt"), SHA256)
        assert find(f"{server.url('head.pt')}#sha256={SHA256}") == first
        assert len(server.asked("/head.pt")) == 1
    assert first == weights_file.cache_path(server.url("head.pt"), SHA256) and first.is_relative_to(cache)
    assert find(server.url("head.pt"), SHA256) == first  # the server is gone
    assert first.read_bytes() == DATA and files(cache) == [first]


def test_a_damaged_copy_is_fetched_again(path: Path, cache: Path) -> None:
    with serve(path.parent) as server:
        copy = find(server.url("head.pt"), SHA256)
        copy.write_bytes(DATA[:-1])
        assert find(server.url("head.pt"), SHA256).read_bytes() == DATA


def refused(server: FolderServer, cache: Path, said: str, **options: int) -> None:
    with pytest.raises(WeightsFileError, match=said):
        find(server.url("head.pt"), SHA256, **options)
    assert files(cache) == []


def test_what_is_not_as_expected_leaves_nothing(path: Path, cache: Path) -> None:
    with serve(path.parent) as server:
        server.fail("/head.pt", Fault(times=1, body=b"<html>Sign in</html>"))
        refused(server, cache, f"has SHA-256 [0-9a-f]{{64}}, expected {SHA256}")
        refused(server, cache, "has more than 100 bytes", max_bytes=100)
        server.fail("/head.pt", Fault(times=None, status=404))
        refused(server, cache, "cannot be fetched: .*copy the file to .*cache/weights/")


def test_without_a_network_the_remedy_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with socket.socket() as closed:  # bound, not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(WeightsFileError, match="copy the file to .*/weights/abababababababab-head.pt"):
            find(f"http://127.0.0.1:{closed.getsockname()[1]}/x/head.pt?download=1", OTHER)


def test_the_cache_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMC4_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert weights_file.cache_path("https://a.example/b/c.pt", OTHER).is_relative_to("/somewhere/mmc4-build")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert weights_file.cache_path("https://a.example/..", OTHER).is_relative_to("/home/someone/.cache/mmc4-build")
    assert "/" not in weights_file.cache_path("https://a.example/%2F..", OTHER).name


def test_a_cache_that_cannot_be_written_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMC4_CACHE", str(path))  # a file
    with serve(path.parent) as server, pytest.raises(WeightsFileError, match="MMC4_CACHE names another"):
        find(server.url("head.pt"), SHA256)
