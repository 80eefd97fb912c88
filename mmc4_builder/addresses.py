"""Which network addresses and URLs a crawler must never open: private, special and disguised ones.

Server-side request forgery is the hazard: a page names a picture at an address that only our machine can
reach. `ipaddress.is_global` alone is not safe (it passes multicast, NAT64 and 6to4 forms of loopback), so the
networks are listed, after the IANA IPv4 and IPv6 special-purpose address registries.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from yarl import URL

_PRIVATE_V4: Final = (
    "0.0.0.0/8",  # this network (RFC 1122)
    "10.0.0.0/8",
    "100.64.0.0/10",  # shared by carriers (RFC 6598)
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local, and the metadata service of most clouds
    "172.16.0.0/12",
    "192.168.0.0/16",
    "168.63.129.16/32",  # Azure's platform service: looks public, answers only inside
)
_RESERVED_V4: Final = (
    "192.0.0.0/24",
    "192.0.2.0/24",  # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",  # 6to4 relays
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",  # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",  # documentation
    "240.0.0.0/4",  # includes broadcast
)
_PRIVATE_V6: Final = ("::/128", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10")
# Forms that carry an IPv4 address. They are refused, not unwrapped: no honest host needs them, and every
# unwrapping is one more place to be wrong.
_EMBEDDED_V6: Final = (
    "::/96",  # IPv4-compatible
    "::ffff:0:0/96",  # IPv4-mapped
    "::ffff:0:0:0/96",  # IPv4-translated
    "64:ff9b::/96",  # NAT64
    "64:ff9b:1::/48",  # local NAT64 (RFC 8215)
    "2001::/32",  # Teredo
    "2002::/16",  # 6to4
)
_RESERVED_V6: Final = (
    "2001::/23",  # IETF protocols
    "2001:db8::/32",  # documentation
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",  # documentation (RFC 9637)
)

_V4: Final = tuple(
    (IPv4Network(network), reason)
    for reason, networks in (
        ("private_address", _PRIVATE_V4),
        ("multicast_address", ("224.0.0.0/4",)),
        ("reserved_address", _RESERVED_V4),
    )
    for network in networks
)
_V6: Final = tuple(
    (IPv6Network(network), reason)
    for reason, networks in (
        ("private_address", _PRIVATE_V6),
        ("embedded_address", _EMBEDDED_V6),
        ("multicast_address", ("ff00::/8",)),
        ("reserved_address", _RESERVED_V6),
    )
    for network in networks
)
_LOOPBACK_V4: Final = IPv4Network("127.0.0.0/8")
_UNICAST_V6: Final = IPv6Network("2000::/3")  # the only part of IPv6 that is given out to hosts

MAX_URL: Final = 8192  # characters; longer ones are data in disguise, and servers refuse them anyway
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PLAIN = r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]*"
_VERBATIM = re.compile(f"{_PLAIN}(?:%[0-9A-Fa-f]{{2}}{_PLAIN})*")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


@lru_cache(4096)  # of many connections to one address
def refuse(address: str, *, allow_private: bool = False) -> str | None:
    """Why this IP address must not be connected to, or None. Text that is no plain address is refused too.

    `allow_private` is for tests: it lets 127.0.0.0/8 through and nothing else.
    """
    if "%" in address:
        return "zone_id"
    try:
        parsed = ip_address(address)
    except ValueError:
        return "invalid_address"
    if isinstance(parsed, IPv6Address):
        return _refuse_v6(parsed)
    if allow_private and parsed in _LOOPBACK_V4:
        return None
    return next((reason for network, reason in _V4 if parsed in network), None)


def _refuse_v6(address: IPv6Address) -> str | None:
    for network, reason in _V6:
        if address in network:
            return reason
    return None if address in _UNICAST_V6 else "reserved_address"


def parse_url(text: str) -> URL:
    """The URL that is requested for this text; ValueError if it is none.

    A URL that is valid as it stands is kept to the letter, because signed URLs break when re-quoted; anything
    else (blanks, other scripts, dot segments) is brought into form as browsers do.
    """
    if len(text) > MAX_URL or _CONTROL.search(text):
        raise ValueError(f"not a URL (over {MAX_URL} characters, or control characters): {text[:80]!r}")
    verbatim = "/." not in text and _VERBATIM.fullmatch(text) is not None
    return URL(text, encoded=verbatim)


def check_url(url: str | URL, ports: tuple[int, ...] = (80, 443), *, allow_private: bool = False) -> str | None:
    """Why this URL must not be requested, or None. Pure: names are not resolved, only literals are judged.

    A `URL` is judged as it stands, so that what is checked is what is sent. `allow_private` as in `refuse`.
    """
    checked = checked_url(url, ports, allow_private=allow_private)
    return checked if isinstance(checked, str) else None


def checked_url(url: str | URL, ports: tuple[int, ...] = (80, 443), *, allow_private: bool = False) -> URL | str:
    """The URL to request, or the reason of check_url."""
    if not str(url)[:6].lower().startswith(("http:", "https:")):
        return "bad_scheme"
    try:
        parsed = parse_url(url) if isinstance(url, str) else url
        host, port = parsed.raw_host, parsed.port
        str(parsed.host)  # decodes IDNA: a broken label fails here and not in the client
    except ValueError:
        return "invalid_url"
    if parsed.raw_user is not None or parsed.raw_password is not None:
        return "has_userinfo"
    if port not in ports:
        return "bad_port"
    return _check_host(host or "", allow_private) or parsed


@lru_cache(4096)  # of many URLs on one host
def _check_host(host: str, allow_private: bool) -> str | None:
    """Judges a host as it goes on the wire: IDNA is done, so that full-width digits are plain digits here."""
    if not host:
        return "invalid_url"
    if ":" not in host:
        labels = host.removesuffix(".").split(".")
        if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
            return "bad_host"
        if not _NUMERIC_LABEL.fullmatch(labels[-1]):
            return None
        # getaddrinfo takes 2130706433, 0x7f.1 and 0177.0.0.1 for 127.0.0.1: only a plain quad may pass.
        if refuse(host) == "invalid_address":
            return "bad_host"
    return "refused_address" if refuse(host, allow_private=allow_private) else None


def follow(
    current: URL, location: str | None, ports: tuple[int, ...] = (80, 443), *, allow_private: bool = False
) -> URL | str:
    """Where a redirect leads, or the reason why it must not be followed.

    From https to http is allowed: the request carries no cookie and no credential that could leak, and the
    page could have named the http URL itself.
    """
    text = (location or "").strip()
    if not text:
        return "bad_redirect"
    try:
        target = current.join(parse_url(text))
    except ValueError:
        return "bad_redirect"
    reason = check_url(target, ports, allow_private=allow_private)
    return target if reason is None else reason if reason == "refused_address" else "bad_redirect"
