"""Objects in a real S3 server: whole or not there, read by ranges, through refusals and connections that break."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import s3_server
from builds import environment
from mmc4_corpus import document, write_corpus
from s3_server import Proxy, Server

from mmc4_builder import beam_files, s3, storage
from mmc4_builder.cli import main
from mmc4_builder.crawl import CrawlError, expand_inputs
from mmc4_builder.transport import NotFound, Unreachable, open_stream, read_range
from mmc4_builder.validate import validate

pytestmark = pytest.mark.timeout(900)  # the server may have to be built first

ROOT = "s3://bucket/out"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with s3_server.serve_or_skip(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def store(server: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """A store that fails now and then where a test asks for it (`rate`, by a mark's argument)."""
    rate = getattr(request, "param", 0.0)
    with s3_server.before(server, seed=5, rate=rate) as proxy:
        for name, value in {**proxy.environment, "AWS_MAX_ATTEMPTS": "8"}.items():
            monkeypatch.setenv(name, value)
        s3._client.cache_clear()
        yield proxy
        proxy.rate, proxy.down = 0.0, False
        for name in storage.walk(ROOT):
            storage.remove(f"{ROOT}/{name}")
    s3._client.cache_clear()


def visible(server: Server) -> list[str]:
    """What somebody else sees in the bucket."""
    found = (path for path in (server.bucket / "out").rglob("*") if path.is_file())
    return sorted(str(path.relative_to(server.bucket / "out")) for path in found)


FAULTY = pytest.mark.parametrize("store", [0.0, 0.25], indirect=True, ids=["sound", "faulty"])


@FAULTY
def test_what_is_written_is_read(store: Proxy) -> None:
    data = os.urandom(100_000)
    written = {"a": data, "empty": b"", "sub/é b+c.json": b"{}", ".hidden": b"x"}
    for name, content in written.items():
        with storage.write_atomic(f"{ROOT}/{name}") as stream:
            stream.write(content)
    for name, content in written.items():
        path = f"{ROOT}/{name}"
        assert (storage.read(path), storage.find(path), storage.size(path)) == (content, content, len(content))
        with storage.open_read(path) as stream:
            assert stream.read() == content
        assert storage.exists(path)
    assert (storage.names(ROOT), storage.names(f"{ROOT}/sub")) == (["a", "empty"], ["é b+c.json"])
    assert storage.walk(ROOT) == sorted(written)
    for name in (*written, "never"):
        storage.remove(f"{ROOT}/{name}")
    assert storage.walk(ROOT) == storage.names("s3://bucket/none") == []


def test_what_is_not_there(store: Proxy) -> None:
    path = f"{ROOT}/none"
    assert (storage.size(path), storage.find(path), storage.exists(path)) == (None, None, False)
    with pytest.raises(FileNotFoundError):
        storage.read(path)
    with pytest.raises(FileNotFoundError), storage.open_read(path) as stream:
        stream.read(1)


def test_a_writer_that_fails_leaves_nothing(server: Server, store: Proxy) -> None:
    with pytest.raises(ZeroDivisionError), storage.write_atomic(f"{ROOT}/half") as stream:
        stream.write(b"x" * 20_000_000)
        raise ZeroDivisionError
    assert visible(server) == [] and store.kinds() == {}


def test_a_large_object_is_uploaded_in_parts(server: Server, store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    data = os.urandom(12 << 20)
    with storage.write_atomic(f"{ROOT}/large") as stream:
        stream.write(data)
    assert store.kinds() == {"CREATE UPLOAD": 1, "PART": 3, "COMPLETE": 1}
    assert storage.read(f"{ROOT}/large") == data
    store.down, store.down_for = True, "PART"
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3._client.cache_clear()
    with pytest.raises(storage.StorageError, match="cannot write s3://bucket/out/other"):
        storage.write(f"{ROOT}/other", data)
    assert store.kinds()["ABORT"] == 1 and visible(server) == ["large"]
    assert storage.sweep(ROOT) == 0


def test_an_upload_whose_last_answer_is_lost(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART", 5 << 20)
    faults = iter(["", "", "", "lost_answer"])
    monkeypatch.setattr(store, "fault", lambda: next(faults, ""))
    data = os.urandom(6 << 20)
    storage.write(f"{ROOT}/large", data)
    assert store.kinds() == {"CREATE UPLOAD": 1, "PART": 2, "COMPLETE": 2}
    assert storage.read(f"{ROOT}/large") == data


def test_a_killed_writer_s_parts_are_swept(server: Server, store: Proxy) -> None:
    for root in (ROOT, "s3://bucket/outer"):
        upload = s3._call("create_multipart_upload", f"{root}/left")["UploadId"]
        s3._call("upload_part", f"{root}/left", UploadId=upload, PartNumber=1, Body=b"x")
    assert visible(server) == []
    assert (storage.sweep(ROOT), storage.sweep(ROOT), storage.sweep("s3://bucket/outer")) == (1, 0, 1)


def test_a_storm_that_lasts_is_told_with_its_remedy(
    server: Server, store: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3._client.cache_clear()
    store.down = True
    for act in (lambda: storage.write(f"{ROOT}/a", b"x"), lambda: storage.names(ROOT), lambda: storage.sweep(ROOT)):
        with pytest.raises(storage.StorageError, match=r"s3://bucket/out.*SlowDown.*run the same command again"):
            act()
    assert visible(server) == []
    store.down = False
    storage.write(f"{ROOT}/a", b"x")
    assert visible(server) == ["a"]


@pytest.mark.parametrize("fault", ["reset", "half_request", "half_answer", "lost_answer"])
def test_a_connection_that_always_breaks(store: Proxy, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    monkeypatch.setattr(s3, "READS", 2)
    s3._client.cache_clear()
    storage.write(f"{ROOT}/a", b"x" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(store, "fault", lambda: fault)
        with pytest.raises(storage.StorageError, match="cannot read s3://bucket/out/a .*run the same command again"):
            storage.read(f"{ROOT}/a")


def test_an_answer_that_nothing_is_there_breaks_off_too(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of an error is read elsewhere than that of an object."""
    faults = iter(["half_answer"] * 3)
    monkeypatch.setattr(store, "fault", lambda: next(faults, ""))
    assert storage.find(f"{ROOT}/none") is None
    assert store.kinds() == {"GET": 4}


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [("AWS_SECRET_ACCESS_KEY", "wrong", "AWS_SECRET_ACCESS_KEY"), ("AWS_ACCESS_KEY_ID", "nobody", "AWS_ACCESS_KEY_ID")],
)
def test_who_is_not_let_in_is_told_why(
    store: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, value: str, remedy: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(name, value)
        s3._client.cache_clear()
        with pytest.raises(storage.StorageError, match=f"check {remedy}"):
            storage.write(f"{ROOT}/a", b"x")
    s3._client.cache_clear()


def test_a_bucket_that_is_missing(store: Proxy) -> None:
    with pytest.raises(storage.StorageError, match="create the bucket"):
        storage.write("s3://no-such-bucket/a", b"x")
    with pytest.raises(storage.StorageError, match="names no bucket"):
        storage.write("s3:///a", b"x")


@FAULTY
def test_one_picture_is_one_request_for_its_bytes(store: Proxy) -> None:
    tar = os.urandom(8 << 20)
    storage.write(f"{ROOT}/tar", tar)
    before = len(store.requests)
    with storage.open_read(f"{ROOT}/tar") as stream:
        for offset in (5_000_000, 123, 7_000_000):
            stream.seek(offset)
            assert stream.read(60_000) == tar[offset : offset + 60_000]
    asked = store.requests[before:]
    if not store.rate:
        assert [(r.kind, r.answered) for r in asked] == [("GET", 60_000)] * 3
    assert sum(r.answered for r in asked) <= 60_000 * len(asked)


def test_who_reads_on_asks_for_more_at_a_time(store: Proxy) -> None:
    data = os.urandom(6 << 20)
    storage.write(f"{ROOT}/data", data)
    with storage.open_read(f"{ROOT}/data") as stream:
        assert b"".join(iter(lambda: stream.read(5000), b"")) == data
    assert store.kinds()["GET"] <= 10
    assert sum(r.answered for r in store.requests if r.kind == "GET") == len(data)


def test_the_end_of_a_file_comes_with_its_size(store: Proxy) -> None:
    data = os.urandom(1 << 20)
    storage.write(f"{ROOT}/parquet", data)
    with storage.open_read(f"{ROOT}/parquet") as stream:
        assert stream.seek(0, io.SEEK_END) == len(data)
        stream.seek(-60_000, io.SEEK_END)
        assert stream.read() == data[-60_000:]
    assert store.kinds() == {"PUT": 1, "GET": 1}


def test_lines(store: Proxy) -> None:
    lines = [b"%d\n" % number for number in range(20_000)]
    storage.write(f"{ROOT}/lines", b"".join(lines))
    with storage.open_read(f"{ROOT}/lines") as stream:
        assert list(stream) == lines
    assert store.kinds()["GET"] <= 6


def test_an_object_that_changes_while_it_is_read(store: Proxy) -> None:
    storage.write(f"{ROOT}/a", b"1" * 1_000_000)
    with storage.open_read(f"{ROOT}/a") as stream:
        stream.read(10)
        storage.write(f"{ROOT}/a", b"2" * 1_000_000)
        with pytest.raises(storage.StorageError, match="was changed"):
            stream.read(900_000)


@FAULTY
def test_conditional_writes(store: Proxy) -> None:
    """One that the store has done, but whose answer was lost, is refused when it is tried again: the reader knows."""

    def put(content: bytes, version: str | None) -> bool:
        done = s3.put_if(f"{ROOT}/lock", content, version)
        found = s3.look(f"{ROOT}/lock")
        return done or bool(found and found[0] == content)

    assert put(b"1", None) and not put(b"2", None)
    found = s3.look(f"{ROOT}/lock")
    assert found is not None and found[0] == b"1"
    assert put(b"3", found[1]) and not put(b"4", found[1])
    storage.remove(f"{ROOT}/lock")
    assert not put(b"5", found[1]) and s3.look(f"{ROOT}/lock") is None


@FAULTY
def test_inputs(store: Proxy) -> None:
    data = os.urandom(3 << 20)
    for name in ("b.warc.gz", "a.warc.gz", "deep/c.warc.gz", "note.txt"):
        storage.write(f"{ROOT}/{name}", data)
    assert expand_inputs([f"{ROOT}/*.warc.gz"]) == [f"{ROOT}/a.warc.gz", f"{ROOT}/b.warc.gz"]
    assert expand_inputs([f"{ROOT}/[ad]*.gz", f"{ROOT}/**/c.w?rc.gz"]) == [
        f"{ROOT}/a.warc.gz",
        f"{ROOT}/deep/c.warc.gz",
    ]
    with open_stream(f"{ROOT}/a.warc.gz", offset=1000) as stream:
        assert b"".join(iter(lambda: stream.read(1 << 16), b"")) == data[1000:]
    assert read_range(f"{ROOT}/a.warc.gz", 77, 5000) == data[77:5077]
    with pytest.raises(CrawlError, match="no WARC file matches"):
        expand_inputs([f"{ROOT}/*.arc"])
    with pytest.raises(NotFound):
        read_range(f"{ROOT}/none", 0, 1)


def test_an_input_that_cannot_be_had(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3._client.cache_clear()
    store.down = True
    with pytest.raises(Unreachable, match="SlowDown"):
        read_range(f"{ROOT}/a.warc.gz", 0, 10)


def test_beam_s_own_options_name_the_store(store: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count in the launcher before there is a pipeline."""
    from apache_beam.io.filesystems import FileSystems

    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    given = {name: os.environ[name] for name in store.environment}
    for name in given:
        monkeypatch.delenv(name)
    words = {"endpoint_url": "AWS_ENDPOINT_URL", "access_key_id": "AWS_ACCESS_KEY_ID",
             "secret_access_key": "AWS_SECRET_ACCESS_KEY", "region_name": "AWS_DEFAULT_REGION"}  # fmt: skip
    beam_files.use([f"--s3_{flag}={given[name]}" for flag, name in words.items()])
    storage.write(f"{ROOT}/a", b"x")
    assert storage.read(f"{ROOT}/a") == b"x"
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@FAULTY
def test_what_lies_there_is_checked_as_on_a_disk(
    store: Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = write_corpus(tmp_path, [[document(seed) for seed in range(3)], [document(3)]])
    for whole in (True, False):
        if not whole:
            (here / "docs" / "docs_shard_1_v2.jsonl.zip").write_bytes(b"PK")
            (here / "shards" / "00001.tar").write_bytes((here / "shards" / "00001.tar").read_bytes()[:2000])
            (here / "shards" / "sizes.json").unlink()
            storage.remove(f"{ROOT}/shards/sizes.json")
        for name in storage.walk(str(here)):
            storage.write(f"{ROOT}/{name}", (here / name).read_bytes())
        assert validate(ROOT) == validate(here)
        assert main(["--validate", ROOT]) == (0 if whole else 1)
        assert ("no problems" if whole else "\nunreadable: 2\n") in capsys.readouterr().out
    assert main(["--validate", f"{ROOT}/none"]) == 2
    assert "s3://bucket/out/none: there is no such folder" in capsys.readouterr().err


def test_what_cannot_be_read_ends_a_check(
    store: Proxy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3._client.cache_clear()
    store.down = True
    assert main(["--validate", ROOT]) == 1
    assert f"mmc4-build: cannot read {ROOT}" in capsys.readouterr().err


def test_a_client_that_is_not_installed_is_named() -> None:
    code = "import sys; sys.modules['boto3'] = None\nfrom mmc4_builder import storage\nstorage.read('s3://b/a')"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'mmc4-build[aws]'" in done.stderr.splitlines()[-1]


def test_it_is_a_real_server(server: Server, store: Proxy) -> None:
    """What is read through the proxy lies in the server's folder."""
    storage.write(f"{ROOT}/a", b"x")
    assert Path(server.bucket, "out", "a").read_bytes() == b"x"


def test_an_output_where_half_a_file_would_be_seen_is_refused() -> None:
    with pytest.raises(storage.StorageError, match="gs:// or s3://"):
        storage.write("hdfs://host/out/a", b"x")
