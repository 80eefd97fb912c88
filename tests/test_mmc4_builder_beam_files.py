"""Object stores through Beam's own file systems, here one of its classes with a scheme of its own."""

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from apache_beam.io.filesystem import FileMetadata, MatchResult
from apache_beam.io.localfilesystem import LocalFileSystem

from mmc4_builder.crawl import CrawlError, expand_inputs, list_crawl
from mmc4_builder.transport import NotFound, TransportError, Unreachable, open_stream, read_bytes, read_range

CRAWL = "CC-MAIN-2024-10"
PATH = f"crawl-data/{CRAWL}/segments/1.1/warc/CC-MAIN-1-2-00000.warc.gz"


class FolderStore(LocalFileSystem):
    """`folderstore://<absolute path>`: found by Beam through its base class, as gs and s3 are."""

    @classmethod
    def scheme(cls) -> str:
        return "folderstore"

    def open(self, path: str, mime_type: str = "", compression_type: str = "auto") -> Any:
        name = path.removeprefix("folderstore://")
        if name.endswith("/denied"):
            raise PermissionError("denied")
        if name.endswith("/no-client"):
            raise AssertionError("Missing client requirement")
        if name.endswith("/breaks"):
            return Breaking()
        return super().open(name, mime_type, compression_type)

    def match(self, patterns: list[str], limits: Any = None) -> list[MatchResult]:
        store: Any = super()  # Beam leaves it without types
        (found,) = store.match([pattern.removeprefix("folderstore://") for pattern in patterns])
        files = [FileMetadata(f"folderstore://{item.path}", 0) for item in found.metadata_list]
        return [MatchResult(patterns[0], files)]


class Breaking(io.BytesIO):
    """A file whose client fails in its own way."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise KeyError("client internals")


@pytest.fixture
def store(tmp_path: Path) -> str:
    for name in ("a.warc.gz", "b.warc.gz", PATH):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(gzip.compress(b"0123456789" * 9))
    paths = tmp_path / "crawl-data" / CRAWL / "warc.paths.gz"
    paths.write_bytes(gzip.compress(PATH.encode()))
    return f"folderstore://{tmp_path}"


def test_stored_bytes_are_not_unpacked(store: str) -> None:
    whole = gzip.compress(b"0123456789" * 9)
    assert read_bytes(f"{store}/a.warc.gz", 1000) == whole
    assert read_range(f"{store}/a.warc.gz", 5, 7) == whole[5:12]
    with open_stream(f"{store}/a.warc.gz", offset=3) as stream:
        assert stream.tell() == 3
        assert stream.read(4) == whole[3:7]
        assert stream.tell() == 7


def test_globs_and_crawls(store: str) -> None:
    assert expand_inputs([f"{store}/*.warc.gz"]) == [f"{store}/a.warc.gz", f"{store}/b.warc.gz"]
    assert list_crawl(CRAWL, store) == [f"{store}/{PATH}"]
    with pytest.raises(CrawlError, match="no WARC file matches"):
        expand_inputs([f"{store}/*.zip"])
    with pytest.raises(CrawlError, match="is missing"):
        list_crawl("CC-MAIN-2024-11", store)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("missing", NotFound, "no such file"),
        ("denied", Unreachable, "PermissionError: denied"),
        ("no-client", TransportError, "use a local path"),
        ("breaks", Unreachable, "KeyError"),
    ],
)
def test_errors_are_typed(store: str, name: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        read_bytes(f"{store}/{name}", 10)


@pytest.mark.filterwarnings("ignore")  # the clients' own
@pytest.mark.parametrize(("path", "extra"), [("gs://bucket/x", "gcp"), ("s3://bucket/x", "aws")])
def test_a_missing_client_names_its_extra(path: str, extra: str) -> None:
    pytest.importorskip("apache_beam")
    client = {"gcp": "google.cloud.storage", "aws": "boto3"}[extra]
    try:
        __import__(client)
    except ImportError:
        with pytest.raises(TransportError, match=rf"mmc4-build\[{extra}\]"):
            open_stream(path)
    else:
        pytest.skip(f"{client} is installed")
