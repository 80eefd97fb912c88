"""Every fault of a real server ends in its own reason, in time, while the other URLs succeed."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from faults import METADATA, PICTURE, ROUTES, FaultServer, Talk, picture, self_signed

from mmc4_builder.fetch import FetchConfig, Fetched, fetch_all
from mmc4_builder.host_files import HostFile
from mmc4_builder.signals import Statement

CONTACT = "https://crawl.example/about"

GOOD = ["/picture.jpg", "/203.jpg", "/moved", "/moved-twice", "/flapping", "/busy", "/lost-once"]
GOOD += ["/gzipped", "/deflated", "/odd-coding"]

BAD = {
    "/absent": "http_404",
    "/403": "http_403",
    "/500": "http_500",
    "/503": "http_503",
    "/429": "http_429",
    "/204": "http_204",
    "/206": "http_206",
    "/304": "http_304",
    "/loop": "too_many_redirects",
    "/nowhere": "bad_redirect",
    "/to-metadata": "refused_address",
    "/to-ipv6": "refused_address",
    "/to-private": "refused_address",
    "/to-file": "bad_redirect",
    "/to-other-port": "bad_redirect",
    "/to-number": "bad_redirect",
    "/bomb": "content_encoding",
    "/broken-gzip": "content_encoding",
    "/no-gzip": "content_encoding",
    "/brotli": "content_encoding",
    "/two-codings": "content_encoding",
    "/endless": "too_many_bytes",
    "/huge": "too_many_bytes",
    "/endless-header": "bad_response",
    "/drip": "too_slow",
    "/drip-header": "timeout",
    "/stalled-header": "timeout",
    "/stalled-body": "too_slow",
    "/short": "truncated_body",
    "/cut-chunks": "truncated_body",
    "/empty": "empty",
    "/empty-gzip": "empty",
    "/reset": "connection_reset",
    "/reset-in-body": "truncated_body",
    "/hang-up": "connection_reset",
    "/no-http": "bad_response",
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer(ROUTES) as server:
        yield server


@pytest.fixture(scope="module")
def config(server: FaultServer) -> FetchConfig:
    """Short deadlines, and this server's port and address let through."""
    return FetchConfig(
        contact=CONTACT,
        delay_seconds=0,
        max_bytes=1 << 20,
        connect_seconds=3,
        total_seconds=5,
        grace_seconds=1,
        retries=1,
        retry_seconds=0.01,
        ports=(80, server.port),
        allow_private=True,
    )


@pytest.fixture(scope="module")
def results(server: FaultServer, config: FetchConfig) -> dict[str, Fetched]:
    """All routes at once, each on a host of its own, so that each fault has good neighbours."""
    paths = [*GOOD, *BAD, "/html.jpg"]
    fetched = list(fetch_all([at(server, path) for path in paths], config))
    assert len(fetched) == len(paths)
    return {"/" + result.url.split("/", 3)[3]: result for result in fetched}


def at(server: FaultServer, path: str) -> str:
    """libcurl takes every name under .localhost for this machine."""
    return server.url(path, f"{path[1:].replace('.', '-')}.localhost")


@pytest.mark.parametrize("path", GOOD)
def test_good_urls_give_their_bytes(results: dict[str, Fetched], path: str) -> None:
    assert results[path].reason is None
    assert results[path].data == PICTURE


@pytest.mark.parametrize(("path", "reason"), BAD.items())
def test_each_fault_has_its_reason(results: dict[str, Fetched], path: str, reason: str) -> None:
    assert results[path].reason == reason
    assert results[path].data is None


def test_html_named_jpg_passes_as_bytes(results: dict[str, Fetched]) -> None:
    assert results["/html.jpg"].data == b"<html>no picture"
    assert results["/html.jpg"].headers == (("content-type", "image/jpeg"),)


def test_nothing_outlasts_its_deadline(results: dict[str, Fetched], config: FetchConfig) -> None:
    # Not a timing test: a request without a deadline would never be in the results.
    assert all(0 <= result.seconds < config.total_seconds + 1 for result in results.values())


def test_status_and_final_url(server: FaultServer, results: dict[str, Fetched]) -> None:
    assert results["/moved-twice"].final_url == server.url("/picture.jpg", "moved-twice.localhost")
    assert (results["/moved-twice"].status, results["/absent"].status, results["/reset"].status) == (
        200,
        404,
        0,
    )
    assert results["/to-metadata"].final_url == at(server, "/to-metadata")
    assert results["/to-metadata"].status == 302


@pytest.mark.parametrize(
    ("path", "hits"),
    [("/flapping", 2), ("/busy", 2), ("/lost-once", 2), ("/500", 2), ("/reset", 2), ("/hang-up", 2)]
    + [("/503", 1), ("/429", 1), ("/absent", 1), ("/403", 1), ("/loop", 6), ("/empty", 1)],
)
def test_one_retry_and_only_where_it_helps(
    server: FaultServer, results: dict[str, Fetched], path: str, hits: int
) -> None:
    assert results  # fetched by now
    assert server.hits(path) == hits


def test_request_says_who_asks(server: FaultServer, results: dict[str, Fetched]) -> None:
    assert results
    for request in server.requests:
        agent = request.headers["user-agent"]
        assert agent.startswith("mmc4-build/")
        assert agent.endswith(f" (+{CONTACT}; mmc-build)")
        assert request.headers["accept-encoding"] == "identity"
        assert "cookie" not in request.headers


def fetch_one(url: str, config: FetchConfig) -> Fetched:
    (fetched,) = fetch_all([url], config)
    return fetched


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://no-such-host.invalid/a.jpg", "dns_failure"),
        ("ftp://example.com/a.jpg", "bad_scheme"),
        ("http://", "invalid_url"),
        ("http://u:p@example.com/", "has_userinfo"),
        ("http://example.com:22/", "bad_port"),
        ("http://0x7f.1/", "bad_host"),
        ("http://10.1.2.3/", "refused_address"),
        (METADATA, "refused_address"),
        ("http://ex\ud800ample/", "invalid_url"),
        ("", "bad_scheme"),
    ],
)
def test_urls_that_are_not_requested(config: FetchConfig, url: str, reason: str) -> None:
    fetched = fetch_one(url, config)
    assert (fetched.url, fetched.reason, fetched.status, fetched.data) == (url, reason, 0, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1.", "2130706433", "[::ffff:127.0.0.1]"])
def test_this_machine_is_closed_by_default(server: FaultServer, config: FetchConfig, host: str) -> None:
    before = len(server.requests)
    fetched = fetch_one(server.url("/picture.jpg", host), replace(config, allow_private=False))
    assert fetched.reason in ("refused_address", "bad_host")
    assert len(server.requests) == before


def test_connect_failed(config: FetchConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert fetch_one(f"http://127.0.0.1:{port}/", replace(config, ports=(port,))).reason == "connect_failed"


def test_proxies_of_the_environment_are_ignored(
    server: FaultServer, config: FetchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    assert fetch_one(server.url("/picture.jpg"), config).data == PICTURE


def test_certificates_are_checked(config: FetchConfig, tmp_path: Path) -> None:
    tls, pem = self_signed(tmp_path, "localhost")
    with FaultServer(ROUTES, tls) as server:
        config = replace(config, ports=(server.port,))
        good, other_name = server.url("/picture.jpg", "localhost"), server.url("/picture.jpg", "127.0.0.1")
        assert fetch_one(good, config).reason == "tls_failed"
        assert server.requests == []
        trusting = replace(config, ca_file=str(pem))
        assert fetch_one(other_name, trusting).reason == "tls_failed"
        assert fetch_one(good, trusting).data == PICTURE


def test_ca_file_must_be_readable(config: FetchConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ca_file must be a readable PEM file"):
        list(fetch_all([], replace(config, ca_file=str(tmp_path / "absent.pem"))))


def test_opt_out_headers_stop_before_the_body(config: FetchConfig) -> None:
    def reserved(talk: Talk) -> None:
        talk.send(b"HTTP/1.1 200 OK\r\nX-Robots-Tag: noindex\r\nX-Robots-Tag: all\r\nContent-Length: 9\r\n\r\n")
        talk.stall()

    def refuse(statements: tuple[Statement, ...]) -> str | None:
        return "opt_out" if ("header:x-robots-tag", "noindex") in {each.signal for each in statements} else None

    with FaultServer({"/reserved": reserved, "/picture.jpg": picture}) as server:
        config = replace(config, ports=(server.port,))
        urls = [server.url("/reserved"), server.url("/picture.jpg")]
        fetched = {result.url: result for result in fetch_all(urls, config, refuse=refuse)}
    assert fetched[urls[0]].reason == "opt_out"
    assert fetched[urls[0]].headers == (("x-robots-tag", "noindex"), ("x-robots-tag", "all"))
    assert [each.source for each in fetched[urls[0]].statements] == [urls[0]] * 2
    assert fetched[urls[1]].data == PICTURE


def test_a_fault_of_the_policy_is_counted(config: FetchConfig, server: FaultServer) -> None:
    def broken(statements: tuple[Statement, ...]) -> str | None:
        raise ZeroDivisionError

    (fetched,) = fetch_all([server.url("/picture.jpg")], config, refuse=broken)
    assert fetched.reason == "internal_error"


def test_host_files_are_kept_once(config: FetchConfig, server: FaultServer) -> None:
    kept: list[HostFile] = []
    list(fetch_all([server.url("/picture.jpg")] * 3, config, keep_host_file=kept.append))
    assert [(file.url, file.status, file.reason) for file in kept] == [
        (server.url("/robots.txt"), 404, None),
        (server.url("/.well-known/tdmrep.json"), 404, None),
    ]


@pytest.mark.parametrize(("concurrency", "per_host"), [(3, 9), (9, 2)])
def test_limits_of_concurrency(config: FetchConfig, concurrency: int, per_host: int) -> None:
    # A place is freed before the reply: the client cannot know of it earlier, so no slot may be missing.
    places = threading.Semaphore(min(concurrency, per_host))
    too_many = threading.Event()

    def slow(talk: Talk) -> None:
        if not places.acquire(blocking=False):
            too_many.set()
        talk.closing.wait(0.05)
        places.release()
        picture(talk)

    with FaultServer({"/slow": slow}) as server:
        tight = replace(config, ports=(server.port,), concurrency=concurrency, per_host=per_host)
        fetched = list(fetch_all([server.url("/slow")] * 12, tight))
    assert [result.reason for result in fetched] == [None] * 12
    assert not too_many.is_set()


def test_input_is_read_no_further_than_the_window(server: FaultServer, config: FetchConfig) -> None:
    taken = 0

    def urls() -> Iterator[str]:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield server.url("/picture.jpg")

    given_back = 0
    for _ in fetch_all(urls(), replace(config, window=4)):
        given_back += 1
        assert taken <= given_back + 4
    assert given_back == 50


def test_no_request_starts_while_too_many_bytes_wait(config: FetchConfig) -> None:
    too_many = threading.Event()

    def watched(talk: Talk) -> None:
        picture(talk)
        if talk.hits > 2:
            too_many.set()

    with FaultServer({"/a": watched}) as server:
        tight = replace(config, ports=(server.port,), max_ready_bytes=1)
        results = fetch_all([server.url("/a")] * 8, tight)
        next(results)
        assert not too_many.wait(0.3)
        assert [result.data for result in results] == [PICTURE] * 7


def test_caller_may_stop_early(server: FaultServer, config: FetchConfig) -> None:
    urls = [server.url("/picture.jpg"), *[server.url("/stalled-body", "other.localhost")] * 3]
    results = fetch_all(urls, config)
    assert next(results).data == PICTURE
    results.close()  # type: ignore[attr-defined]


def test_no_urls(config: FetchConfig) -> None:
    assert list(fetch_all([], config)) == []


def test_same_results_in_any_order(server: FaultServer, config: FetchConfig) -> None:
    paths = ["/picture.jpg", "/absent", "/moved", "/bomb", "/short", "/gzipped", "/empty"]
    urls = [server.url(path) for path in paths]
    runs = [
        {replace(result, seconds=0.0) for result in fetch_all(order, replace(config, concurrency=width))}
        for order, width in ((urls, 1), (urls[::-1], 8))
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("contact", ""),
        ("contact", "me"),
        ("contact", "https://a.example/ \r\nX: y"),
        ("contact", "https://a.example/(x)"),
        ("concurrency", 0),
        ("max_bytes", -1),
        ("total_seconds", 0.0),
        ("retries", -1),
    ],
)
def test_config_names_the_bad_value(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} must be"):
        FetchConfig(**{"contact": CONTACT, field: value})  # type: ignore[arg-type]
