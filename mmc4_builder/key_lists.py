"""A user's list of what to leave out or take out: domains, URLs and hashes of pictures, one key a line.

`example.org` (also `.example.org` or `*.example.org`) covers the domain and all below it. A URL covers itself:
its scheme, a `www.`, the default port, the case of its host, slashes at its end and the fragment do not
matter, all else does. 64 hex digits are the sha256 of a picture's bytes. `#` starts a comment.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

import idna

from mmc4_builder.path_patterns import normal

_COMMENT = re.compile(r"(?:^|\s)#.*")  # "a.org/#x" is no comment
_HASH = re.compile(r"[0-9a-f]{64}", re.I)
_URL = re.compile(r"https?://(?:[^/?#@]*@)?(\[[^\]/?#]*\]|[^/?#:@\[\]]+)(?::([0-9]*))?(?=[/?#]|$)([^#]*)", re.I)
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?=[a-z0-9-]*[a-z]){_LABEL}")  # the last label is no number
_DEFAULT_PORTS = ("", "80", "443")


class KeyListError(ValueError):
    """A line that is no key: which file, which line, what it holds, and what it may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyList:
    """The keys of one list, or of several as one."""

    name: str = ""  # of its file, for messages and as evidence
    domains: frozenset[str] = frozenset()  # lower-case, in ASCII
    urls: Mapping[str, str] = field(default_factory=dict)  # from the comparable form to the URL as written
    hashes: frozenset[str] = frozenset()  # lower-case

    def __len__(self) -> int:
        return len(self.domains) + len(self.urls) + len(self.hashes)

    def __iter__(self) -> Iterator[str]:
        """All keys, in an order that depends on nothing else."""
        yield from sorted(self.domains)
        yield from sorted(self.urls.values())
        yield from sorted(self.hashes)

    def matches_url(self, url: str) -> str | None:
        """The key that covers the URL of a page or picture: the URL itself, else the longest of its domains."""
        if not (self.urls or self.domains) or not (found := _URL.match(url.strip())):
            return None
        host = ascii_host(found[1])
        if self.urls and (written := self.urls.get(_comparable(host, found))):
            return written
        domain = host if self.domains else ""
        while domain and domain not in self.domains:
            domain = domain.partition(".")[2]
        return domain or None

    def matches_hash(self, *hashes: str) -> str | None:
        """The first of these sha256, in lower-case hex, that is a key."""
        return next((one for one in hashes if one in self.hashes), None)

    def merge(self, other: "KeyList") -> "KeyList":
        """Both as one, under this one's name. The order of merging makes no difference to the keys."""
        urls = dict(other.urls)
        for key, written in self.urls.items():
            urls[key] = min(written, urls.get(key, written))
        return KeyList(
            name=self.name, domains=self.domains | other.domains, urls=urls, hashes=self.hashes | other.hashes
        )

    def to_text(self) -> str:
        """A file of this list: equal lists give equal bytes, and `parse` reads it back."""
        return "".join(f"{key}\n" for key in self)


def parse(text: str, name: str) -> KeyList:
    """The list in this text; KeyListError for the first line that is no key."""
    domains: set[str] = set()
    urls: dict[str, str] = {}
    hashes: set[str] = set()
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        value = _COMMENT.sub("", line).strip()
        if not value:
            continue
        if _HASH.fullmatch(value):
            hashes.add(value.lower())
        elif key := url_key(value):
            urls[key] = min(value, urls.get(key, value))
        elif domain := _domain(value):
            domains.add(domain)
        else:
            raise KeyListError(
                f"{name}, line {number}: {value[:200]!r} is no key; give a domain (example.org), a URL that starts "
                "with http:// or https://, or a sha256 of 64 hex digits"
            )
    return KeyList(name=name, domains=frozenset(domains), urls=urls, hashes=frozenset(hashes))


def url_key(url: str) -> str | None:
    """The form in which two URLs are compared; None for what is no http(s) URL."""
    found = _URL.match(url.strip())
    if not found or any(char.isspace() for char in url.strip()):
        return None
    return _comparable(ascii_host(found[1]), found)


def _comparable(host: str, found: re.Match[str]) -> str:
    port = "" if (found[2] or "") in _DEFAULT_PORTS else f":{found[2]}"
    return host.removeprefix("www.") + port + normal_path(found[3])


def normal_path(path: str) -> str:
    """Path and query in one spelling of percent-encoding, without slashes at the end."""
    path, mark, query = path.partition("?")
    return normal(path).rstrip("/") + mark + normal(query)


def ascii_host(host: str) -> str:
    """A host name in lower case, IDNs in their ASCII form, without the final dot."""
    host = host.lower().rstrip(".")
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode("ascii").rstrip(".")
    except idna.IDNAError:  # a name that no registry gives out may still be equal to itself
        return host


def _domain(value: str) -> str | None:
    domain = ascii_host(value.removeprefix("*").removeprefix("."))
    if _DOMAIN.fullmatch(domain):
        return domain
    try:
        return str(ip_address(domain)) if ":" not in domain else None
    except ValueError:
        return None
