"""Every special network is refused at both of its ends, and disguised hosts do not pass."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmc4_builder.addresses import check_url, follow, parse_url, refuse

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:800::200e",
    "2001:200::1",
    "2001:4860:4860::8888",
]

REFUSED = [
    ("0.0.0.0/8", "private_address"),
    ("10.0.0.0/8", "private_address"),
    ("100.64.0.0/10", "private_address"),
    ("127.0.0.0/8", "private_address"),
    ("169.254.0.0/16", "private_address"),
    ("172.16.0.0/12", "private_address"),
    ("192.168.0.0/16", "private_address"),
    ("168.63.129.16/32", "private_address"),
    ("192.0.0.0/24", "reserved_address"),
    ("192.0.2.0/24", "reserved_address"),
    ("192.31.196.0/24", "reserved_address"),
    ("192.52.193.0/24", "reserved_address"),
    ("192.88.99.0/24", "reserved_address"),
    ("192.175.48.0/24", "reserved_address"),
    ("198.18.0.0/15", "reserved_address"),
    ("198.51.100.0/24", "reserved_address"),
    ("203.0.113.0/24", "reserved_address"),
    ("224.0.0.0/4", "multicast_address"),
    ("240.0.0.0/4", "reserved_address"),
    ("::/128", "private_address"),
    ("::1/128", "private_address"),
    ("fc00::/7", "private_address"),
    ("fe80::/10", "private_address"),
    ("fec0::/10", "private_address"),
    ("::ffff:0:0/96", "embedded_address"),
    ("::ffff:0:0:0/96", "embedded_address"),
    ("64:ff9b::/96", "embedded_address"),
    ("64:ff9b:1::/48", "embedded_address"),
    ("2001::/32", "embedded_address"),
    ("2002::/16", "embedded_address"),
    ("ff00::/8", "multicast_address"),
    ("2001:2::/48", "reserved_address"),
    ("2001:10::/28", "reserved_address"),
    ("2001:20::/28", "reserved_address"),
    ("2001:30::/28", "reserved_address"),
    ("2001:db8::/32", "reserved_address"),
    ("2620:4f:8000::/48", "reserved_address"),
    ("3fff::/20", "reserved_address"),
    ("100::/64", "reserved_address"),
    ("100:0:0:1::/64", "reserved_address"),
    ("5f00::/16", "reserved_address"),
    ("4000::/2", "reserved_address"),
]

DISGUISED = [
    ("::127.0.0.1", "embedded_address"),
    ("::ffff:127.0.0.1", "embedded_address"),
    ("::ffff:8.8.8.8", "embedded_address"),
    ("64:ff9b::7f00:1", "embedded_address"),
    ("2002:7f00:1::", "embedded_address"),
    ("2001:0:7f00:1::", "embedded_address"),
    ("fd00:ec2::254", "private_address"),
    ("fe80::1%eth0", "zone_id"),
    ("2606:4700:4700::1111%1", "zone_id"),
    ("2130706433", "invalid_address"),
    ("0x7f.1", "invalid_address"),
    ("0177.0.0.1", "invalid_address"),
    ("127.1", "invalid_address"),
    ("127.0.0.1.", "invalid_address"),
    ("１２７.0.0.1", "invalid_address"),
    (" 8.8.8.8", "invalid_address"),
    ("localhost", "invalid_address"),
    ("", "invalid_address"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert refuse(address) is None


@pytest.mark.parametrize(("network", "reason"), REFUSED)
def test_both_ends_of_a_special_network_are_refused(network: str, reason: str) -> None:
    parsed = ip_network(network)
    assert refuse(str(parsed[0])) == reason
    assert refuse(str(parsed[-1])) == reason


@pytest.mark.parametrize(("address", "reason"), DISGUISED)
def test_disguised_addresses_are_refused(address: str, reason: str) -> None:
    assert refuse(address) == reason


@given(st.ip_addresses(v=4))
def test_no_ipv4_passes_inside_ipv6(address: IPv4Address) -> None:
    number = int(address)
    compatible, mapped, nat64 = number, (0xFFFF << 32) + number, (0x64FF9B << 96) + number
    sixtofour = (0x2002 << 112) + (number << 80)
    for value in (compatible, mapped, nat64, sixtofour):
        assert refuse(str(IPv6Address(value))) is not None


@given(st.ip_addresses())
def test_what_python_calls_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert refuse(str(address)) is not None


@given(st.text())
def test_any_text_gets_a_verdict(text: str) -> None:
    assert refuse(text) is not None or "." in text or ":" in text
    check_url(text)
    check_url(f"http://{text}/a.jpg")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.com/a.jpg", None),
        ("HTTPS://Example.COM/a.jpg?x=%7E#top", None),
        ("http://example.com", None),
        ("http://example.com.:80/a.jpg", None),
        ("http://example.com:443/a.jpg", None),
        ("http://bücher.example/ü b.jpg", None),
        ("http://my_shop.-x-.example/a.jpg", None),
        ("http://8.8.8.8/a.jpg", None),
        ("http://[2606:4700:4700::1111]/a.jpg", None),
        ("http://7up.example/a.jpg", None),
        ("http://0xcafe.example/a.jpg", None),
        ("ftp://example.com/a.jpg", "bad_scheme"),
        ("file:///etc/passwd", "bad_scheme"),
        ("data:image/gif;base64,R0lGODlhAQABAAAAACw=", "bad_scheme"),
        ("//example.com/a.jpg", "bad_scheme"),
        ("httpx://example.com/", "bad_scheme"),
        (" http://example.com/", "bad_scheme"),
        ("", "bad_scheme"),
        ("http://", "invalid_url"),
        ("http:///a.jpg", "invalid_url"),
        ("http:example.com/a.jpg", "invalid_url"),
        ("http://example.com/\r\nX-Evil: 1", "invalid_url"),
        ("http://exa\tmple.com/", "invalid_url"),
        ("http://example.com/" + "a" * 9000, "invalid_url"),
        ("http://example.com:99999/", "invalid_url"),
        ("http://[::1/", "invalid_url"),
        ("http://good.example\\@127.0.0.1/", "invalid_url"),
        ("http://xn--a/", "invalid_url"),
        ("http://exam\ud800ple.com/", "invalid_url"),
        ("http://user:word@example.com/", "has_userinfo"),
        ("http://user@example.com/", "has_userinfo"),
        ("http://:word@example.com/", "has_userinfo"),
        ("http://example.com:8080/", "bad_port"),
        ("http://example.com:22/", "bad_port"),
        ("http://example.com:0/", "bad_port"),
        ("http://a..example/", "bad_host"),
        ("http://exa mple.com/", "bad_host"),
        ("http://a%00b.example/", "bad_host"),
        ("http://%31%32%37.0.0.1/", "bad_host"),
        ("http://" + "a" * 64 + ".example/", "bad_host"),
        ("http://" + "a." * 130 + "example/", "bad_host"),
        ("http://2130706433/", "bad_host"),
        ("http://0x7f000001/", "bad_host"),
        ("http://0x7f.1/", "bad_host"),
        ("http://0177.0.0.1/", "bad_host"),
        ("http://127.1/", "bad_host"),
        ("http://127.0.0.1./", "bad_host"),
        ("http://8.8.8.8./", "bad_host"),
        ("http://evil.0x1/", "bad_host"),
        ("http://127.0.0.1/", "refused_address"),
        ("http://１２７.0.0.1/", "refused_address"),
        ("http://127。0。0。1/", "refused_address"),
        ("http://①②⑦.0.0.1/", "refused_address"),
        ("http://169.254.169.254/latest/meta-data/", "refused_address"),
        ("http://168.63.129.16/", "refused_address"),
        ("http://[::1]/", "refused_address"),
        ("http://[::ffff:127.0.0.1]/", "refused_address"),
        ("http://[fe80::1%25eth0]/", "refused_address"),
        ("http://[fe80::1%eth0]/", "refused_address"),
    ],
)
def test_check_url(url: str, reason: str | None) -> None:
    assert check_url(url) == reason


@pytest.mark.parametrize(("network", "reason"), REFUSED)
def test_only_loopback_is_opened_for_tests(network: str, reason: str) -> None:
    assert refuse(network.split("/")[0], allow_private=True) == (reason if network != "127.0.0.0/8" else None)


def test_ports_and_loopback_can_be_opened() -> None:
    assert check_url("http://127.0.0.1:8080/", ports=(8080,), allow_private=True) is None
    assert check_url("http://127.0.0.1/", ports=(8080,), allow_private=True) == "bad_port"
    assert check_url("http://2130706433/", allow_private=True) == "bad_host"


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("http://a.example/%7Ex%2c?s=%2F+%20&t=a,b", "/%7Ex%2c?s=%2F+%20&t=a,b"),
        ("http://a.example/a b/ü.jpg", "/a%20b/%C3%BC.jpg"),
        ("http://a.example/a/../b.jpg#part", "/b.jpg"),
        ("http://a.example/100%.jpg", "/100%25.jpg"),
        ("http://a.example?q", "/?q"),
    ],
)
def test_a_valid_url_is_sent_to_the_letter(text: str, sent: str) -> None:
    assert parse_url(text).raw_path_qs == sent


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/b.jpg", "https://a.example/b.jpg"),
        ("b.jpg?%7E", "https://a.example/x/b.jpg?%7E"),
        ("//b.example/b.jpg", "https://b.example/b.jpg"),
        ("http://b.example/b.jpg", "http://b.example/b.jpg"),
        (" https://b.example/ü ", "https://b.example/%C3%BC"),
        ("?page=2", "https://a.example/x/y.jpg?page=2"),
        (None, "bad_redirect"),
        ("", "bad_redirect"),
        (" ", "bad_redirect"),
        ("ftp://b.example/b.jpg", "bad_redirect"),
        ("javascript:alert(1)", "bad_redirect"),
        ("https://b.example:8443/", "bad_redirect"),
        ("https://user@b.example/", "bad_redirect"),
        ("https://2130706433/", "bad_redirect"),
        ("https://[::1/", "bad_redirect"),
        ("/" + "a" * 9000, "bad_redirect"),
        ("http://169.254.169.254/latest/", "refused_address"),
        ("//127.0.0.1/", "refused_address"),
    ],
)
def test_follow(location: str | None, target: str) -> None:
    assert str(follow(parse_url("https://a.example/x/y.jpg"), location)) == target
