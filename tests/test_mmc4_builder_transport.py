"""Bytes arrive whole and from one version of the file, or not at all."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import Fault, FolderServer, serve

from mmc4_builder.transport import (
    Changed,
    Forbidden,
    NoRange,
    NotFound,
    RetryPolicy,
    TooLarge,
    TransportError,
    Unreachable,
    local_path,
    open_stream,
    read_bytes,
    read_range,
    scheme,
)

DATA = random.Random(7).randbytes(5 << 20)


class Sleeper:
    """Remembers the waits that the policy asked for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
def retry(sleeper: Sleeper) -> RetryPolicy:
    return RetryPolicy(tries=4, sleep=sleeper, connect_timeout=5, read_timeout=5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "big.bin").write_bytes(DATA)
    (folder / "small.txt").write_bytes(b"0123456789")
    (folder / "empty").write_bytes(b"")
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[FolderServer]:
    with serve(folder) as server:
        yield server


def read_all(path: str, retry: RetryPolicy, offset: int = 0, size: int = 65536) -> bytes:
    with open_stream(path, offset=offset, retry=retry) as stream:
        parts = []
        while data := stream.read(size):
            parts.append(data)
            assert len(data) <= size
        assert stream.tell() == offset + sum(map(len, parts))
    return b"".join(parts)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/b.warc.gz", ""),
        ("/a/b", ""),
        ("file:///a/b", ""),
        ("C:\\a", ""),
        ("HTTPS://x/y", "https"),
        ("gs://b/o", "gs"),
        ("s3://b/o", "s3"),
    ],
)
def test_scheme(path: str, kind: str) -> None:
    assert scheme(path) == kind


def test_a_local_file_is_read_from_an_offset(folder: Path, retry: RetryPolicy) -> None:
    for path in (str(folder / "small.txt"), f"file://{folder}/small.txt"):
        assert read_all(path, retry) == b"0123456789"
        assert read_all(path, retry, offset=4) == b"456789"
        assert read_range(path, 2, 3) == b"234"
        assert local_path(path) == str(folder / "small.txt")


def test_a_whole_download(server: FolderServer, retry: RetryPolicy, sleeper: Sleeper) -> None:
    assert read_all(server.url("big.bin"), retry) == DATA
    with open_stream(server.url("big.bin"), retry=retry) as stream:
        assert stream.read() == DATA
    asked = server.asked("big.bin")[0]
    assert asked.headers["user-agent"].startswith("mmc4-build/")
    assert asked.headers["accept-encoding"] == "identity"
    assert "range" not in asked.headers
    assert sleeper.waits == []


def test_the_contact_is_told(server: FolderServer) -> None:
    read_all(server.url("small.txt"), RetryPolicy(contact="mailto:me@example.org"))
    assert server.requests[-1].headers["user-agent"].endswith(" (+mailto:me@example.org)")


@pytest.mark.parametrize("offset", [1, 5_000_000, len(DATA), len(DATA) + 10])
def test_a_download_from_an_offset(server: FolderServer, retry: RetryPolicy, offset: int) -> None:
    assert read_all(server.url("big.bin"), retry, offset=offset) == DATA[offset:]


def test_an_empty_file(server: FolderServer, retry: RetryPolicy) -> None:
    assert read_all(server.url("empty"), retry) == b""


def test_many_broken_connections_give_the_same_bytes(
    server: FolderServer, retry: RetryPolicy, sleeper: Sleeper
) -> None:
    server.fail("big.bin", Fault(times=None, cut_after=300_000))
    assert read_all(server.url("big.bin"), retry) == DATA
    asked = server.asked("big.bin")
    assert len(asked) == -(-len(DATA) // 300_000)
    assert [request.headers.get("range") for request in asked[:3]] == [None, "bytes=300000-", "bytes=600000-"]
    assert len(sleeper.waits) == len(asked) - 1
    assert min(sleeper.waits) >= 1


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, 400_000), max_size=6), size=st.sampled_from([1000, 65536, 1 << 20]))
def test_wherever_it_breaks(server: FolderServer, cuts: list[int], size: int) -> None:
    server.fail("big.bin", *(Fault(cut_after=cut) for cut in cuts))
    assert read_all(server.url("big.bin"), RetryPolicy(sleep=lambda _: None), size=size) == DATA


def test_no_progress_ends_the_tries(server: FolderServer, retry: RetryPolicy, sleeper: Sleeper) -> None:
    server.fail("big.bin", Fault(times=None, cut_after=10))
    with pytest.raises(Unreachable, match=r"big\.bin after 4 tries"):
        read_all(server.url("big.bin"), retry)
    assert len(server.requests) == 4


def test_a_chunked_transfer_that_breaks_goes_on(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("big.bin", Fault(chunked=True, cut_after=100_000))
    assert read_all(server.url("big.bin"), retry) == DATA


def test_without_a_length_closing_is_the_end(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("small.txt", Fault(close_delimited=True))
    assert read_all(server.url("small.txt"), retry) == b"0123456789"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_server_is_waited_for(server: FolderServer, retry: RetryPolicy, sleeper: Sleeper, status: int) -> None:
    server.fail("small.txt", Fault(status=status, times=3))
    assert read_all(server.url("small.txt"), retry) == b"0123456789"
    first, second, third = sleeper.waits
    assert 1 <= first <= 1.5 and 2 <= second <= 3 and 4 <= third <= 6


def test_waits_are_seeded(server: FolderServer, folder: Path) -> None:
    def waits(seed: int) -> list[float]:
        sleeper = Sleeper()
        server.fail("small.txt", Fault(status=503, times=3))
        read_all(server.url("small.txt"), RetryPolicy(seed=seed, sleep=sleeper))
        return sleeper.waits

    assert waits(1) == waits(1) != waits(2)


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 10.5),
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30, 45),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 1, 1.5),
        ("soon", 1, 1.5),
        ("-4", 1, 1.5),
    ],
)
def test_retry_after(
    server: FolderServer, retry: RetryPolicy, sleeper: Sleeper, value: str, least: float, most: float
) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("servers._Handler.date_time_string", lambda self, timestamp=None: date)
        server.fail("small.txt", Fault(status=503, headers={"Retry-After": value}))
        assert read_all(server.url("small.txt"), retry) == b"0123456789"
    assert least <= sleeper.waits[0] <= most


def test_a_server_that_wants_hours_is_given_up(server: FolderServer, retry: RetryPolicy, sleeper: Sleeper) -> None:
    server.fail("small.txt", Fault(status=503, headers={"Retry-After": "7200"}))
    with pytest.raises(Unreachable, match="7200 s"):
        read_all(server.url("small.txt"), retry)
    assert sleeper.waits == []


def test_a_storm_of_503_ends(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("small.txt", Fault(status=503, times=None))
    with pytest.raises(Unreachable, match="503"):
        read_all(server.url("small.txt"), retry)
    assert len(server.requests) == retry.tries


@pytest.mark.parametrize(
    ("status", "error", "text"),
    [
        (401, Forbidden, "answer 401"),
        (403, Forbidden, "Common Crawl blocks"),
        (404, NotFound, "no such file"),
        (410, NotFound, "no such file"),
        (400, TransportError, "unexpected answer 400"),
        (204, TransportError, "unexpected answer 204"),
    ],
)
def test_a_refusal_is_final(
    server: FolderServer, retry: RetryPolicy, status: int, error: type[Exception], text: str
) -> None:
    server.fail("small.txt", Fault(status=status, times=None))
    with pytest.raises(error, match=text):
        open_stream(server.url("small.txt"), retry=retry)
    assert len(server.requests) == 1


def test_a_refusal_in_the_middle_is_final(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("big.bin", Fault(cut_after=200_000), Fault(status=403))
    with pytest.raises(Forbidden):
        read_all(server.url("big.bin"), retry)


@pytest.mark.parametrize(
    "second",
    [
        Fault(headers={"ETag": '"other"'}),
        Fault(body=DATA[:-1]),
        Fault(body=DATA + b"x", headers={"ETag": f'"{len(DATA)}"'}),
        Fault(headers={"ETag": '"other"'}, ignore_range=True),
        Fault(headers={"ETag": "", "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}),
    ],
)
def test_two_versions_are_never_spliced(server: FolderServer, retry: RetryPolicy, second: Fault) -> None:
    modified = {"Last-Modified": "Wed, 21 Oct 2015 07:00:00 GMT"}
    server.fail("big.bin", Fault(cut_after=200_000, headers=modified), second)
    with pytest.raises(Changed, match="changed while it was read"):
        read_all(server.url("big.bin"), retry)


def test_a_weak_etag_is_the_same_version(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("big.bin", Fault(cut_after=200_000), Fault(headers={"ETag": f'W/"{len(DATA)}"'}))
    assert read_all(server.url("big.bin"), retry) == DATA


def test_a_content_length_that_is_too_large_is_noticed(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("big.bin", Fault(length_error=100))
    with pytest.raises(Changed, match="size was"):
        read_all(server.url("big.bin"), retry)


def test_a_server_without_range_starts_over(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail(
        "big.bin",
        Fault(cut_after=2_000_000),
        Fault(ignore_range=True, cut_after=1000),
        Fault(ignore_range=True),
    )
    assert read_all(server.url("big.bin"), retry) == DATA


def test_a_wrong_range_is_refused(server: FolderServer, retry: RetryPolicy) -> None:
    wrong = {"Content-Range": f"bytes 0-9/{len(DATA)}"}
    server.fail("big.bin", Fault(cut_after=200_000), Fault(headers=wrong))
    with pytest.raises(TransportError, match="sent from 0"):
        read_all(server.url("big.bin"), retry)


def test_nobody_listens(retry: RetryPolicy, sleeper: Sleeper) -> None:
    with pytest.raises(Unreachable, match="after 4 tries"):
        open_stream("http://127.0.0.1:9/x", retry=retry)
    assert len(sleeper.waits) == 3


def test_a_silent_server_times_out(server: FolderServer, sleeper: Sleeper) -> None:
    server.fail("small.txt", Fault(delay=1.0))
    patience = RetryPolicy(read_timeout=0.1, sleep=sleeper)
    assert read_all(server.url("small.txt"), patience) == b"0123456789"
    assert len(sleeper.waits) == 1


@pytest.mark.parametrize("path", ["http://", "https://[bad/x"])
def test_an_address_that_is_none(path: str, retry: RetryPolicy) -> None:
    with pytest.raises(TransportError, match="cannot ask"):
        open_stream(path, retry=retry)


def test_a_range_is_read_alone(server: FolderServer, retry: RetryPolicy) -> None:
    assert read_range(server.url("big.bin"), 1_000_000, 5000, retry=retry) == DATA[1_000_000:1_005_000]
    assert server.requests[-1].headers["range"] == "bytes=1000000-1004999"
    assert server.requests[-1].status == 206
    assert read_range(server.url("big.bin"), 0, 10, retry=retry) == DATA[:10]
    assert read_range(server.url("big.bin"), 5, 0, retry=retry) == b""


def test_a_broken_range_goes_on(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("big.bin", Fault(cut_after=1000))
    assert read_range(server.url("big.bin"), 10, 5000, retry=retry) == DATA[10:5010]
    assert server.requests[-1].headers["range"] == "bytes=1010-5009"


def test_a_range_wants_206(server: FolderServer, retry: RetryPolicy) -> None:
    server.fail("big.bin", Fault(ignore_range=True))
    with pytest.raises(NoRange, match="ignores Range"):
        read_range(server.url("big.bin"), 10, 5000, retry=retry)


@pytest.mark.parametrize("offset", [len(DATA) - 5, len(DATA), len(DATA) + 5])
def test_a_range_behind_the_end(server: FolderServer, folder: Path, retry: RetryPolicy, offset: int) -> None:
    for path in (server.url("big.bin"), str(folder / "big.bin")):
        with pytest.raises(TransportError, match="of the 10 bytes"):
            read_range(path, offset, 10, retry=retry)


def test_a_negative_range_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="-1"):
        read_range("x", -1, 5)


def test_small_files(server: FolderServer, folder: Path, retry: RetryPolicy) -> None:
    for path in (server.url("small.txt"), str(folder / "small.txt")):
        assert read_bytes(path, 10, retry=retry) == b"0123456789"
        with pytest.raises(TooLarge, match="9 bytes"):
            read_bytes(path, 9, retry=retry)


@pytest.mark.parametrize("path", ["nowhere/x.warc.gz", "servers.py/x"])
def test_no_local_file(path: str) -> None:
    with pytest.raises(NotFound, match="no such file"):
        open_stream(str(Path(__file__).parent / path))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="cannot open"):
        open_stream(str(tmp_path))


@pytest.mark.parametrize(("path", "remedy"), [("nosuch://a/b", "https:// address"), ("mem9://x", "local path")])
def test_a_scheme_without_file_system(path: str, remedy: str) -> None:
    with pytest.raises(TransportError, match=remedy):
        open_stream(path)


def test_a_policy_is_validated() -> None:
    with pytest.raises(ValueError, match="tries=0"):
        RetryPolicy(tries=0)
