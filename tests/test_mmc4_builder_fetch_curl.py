"""The last gate is at the socket: names that lead inside, and names that turn, get no connection."""

import ssl
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pycurl
import pytest
from faults import PICTURE, FaultServer, picture, redirect

from mmc4_builder import addresses
from mmc4_builder.fetch import FetchConfig, Fetched, fetch_all
from mmc4_builder.fetch_curl import find_trust


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer({"/picture.jpg": picture}) as server:
        yield server


@pytest.fixture
def config(server: FaultServer) -> FetchConfig:
    return FetchConfig(
        contact="https://crawl.example/", delay_seconds=0.0, retries=0, ports=(80, server.port), allow_private=True
    )


def fetch_one(url: str, config: FetchConfig) -> Fetched:
    (fetched,) = fetch_all([url], config)
    return fetched


def pinned(config: FetchConfig, server: FaultServer, name: str, *found: str) -> FetchConfig:
    return replace(config, resolve=(f"{name}:{server.port}:{','.join(found)}",))


def test_connects_only_to_the_good_address_of_a_name(server: FaultServer, config: FetchConfig) -> None:
    config = pinned(config, server, "mixed.example", "10.0.0.7", "[::1]", "127.0.0.1", "169.254.169.254")
    assert fetch_one(server.url("/picture.jpg", "mixed.example"), config).data == PICTURE


@pytest.mark.parametrize("address", ["10.0.0.7", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"])
def test_a_name_that_leads_inside_is_refused(server: FaultServer, config: FetchConfig, address: str) -> None:
    config = pinned(config, server, "inside.example", address)
    fetched = fetch_one(server.url("/picture.jpg", "inside.example"), config)
    assert (fetched.reason, fetched.status) == ("refused_address", 0)


@pytest.mark.parametrize("host", ["localhost", "a.localhost", "open.example"])
def test_names_of_this_machine_are_refused(server: FaultServer, config: FetchConfig, host: str) -> None:
    config = replace(pinned(config, server, "open.example", "127.0.0.1"), allow_private=False)
    before = len(server.requests)
    assert fetch_one(server.url("/picture.jpg", host), config).reason == "refused_address"
    assert len(server.requests) == before


@pytest.mark.parametrize(
    "target", ["http://localhost", "http://127.0.0.1", "http://a.localhost", "http://inside.example"]
)
def test_redirects_inside_are_refused(
    server: FaultServer, config: FetchConfig, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """127.0.0.2 alone plays the open web here, so that 127.0.0.1 is inside."""
    monkeypatch.setattr(addresses, "_LOOPBACK_V4", IPv4Network("127.0.0.2/32"))
    _forget()
    location = f"{target}:{server.port}/picture.jpg"
    before = len(server.requests)
    with FaultServer({"/": redirect(location)}, address="127.0.0.2") as outer:
        resolve = (f"open.example:{outer.port}:127.0.0.2", f"inside.example:{server.port}:127.0.0.1")
        config = replace(config, ports=(outer.port, server.port), resolve=resolve)
        fetched = fetch_one(outer.url("/", "open.example"), config)
        assert outer.hits("/") == 1
    _forget()
    assert fetched.reason == "refused_address"
    assert len(server.requests) == before


def _forget() -> None:
    addresses.refuse.cache_clear()
    addresses._check_host.cache_clear()


def test_find_trust(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ca_file must be a readable PEM file"):
        find_trust(str(tmp_path / "absent.pem"))
    found = find_trust(None)
    system = ssl.get_default_verify_paths().cafile
    assert system is None or found == (pycurl.CAINFO, system)
