"""Which address a picture really has: src, srcset, <picture>, lazy-loading attributes, <base href>."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from urllib.parse import urljoin, urlsplit

# Pictures are kept at no more than 800 pixels (MMC4 §3), so twice that is ample and spares the hosts.
MAX_WIDTH = 1600
MAX_DENSITY = 2.0
MAX_CANDIDATES = 50
MAX_URL_CHARS = 4096

LAZY_SRC = ("data-src", "data-lazy-src", "data-original", "data-lazy", "data-original-src", "data-img-src",
            "data-image", "data-url", "data-hi-res-src", "data-full-src")  # fmt: skip
LAZY_SRCSET = ("data-srcset", "data-lazy-srcset", "data-original-set")
_LAZY = frozenset(LAZY_SRC + LAZY_SRCSET)

Attributes = Mapping[str, str]
Resolve = Callable[[str], str]

_PLACEHOLDER = re.compile(
    r"(?:^|[/_.-])(?:blank|spacer|placeholder|lazy(?:[_-]?load\w*)?|loading|loader|transparent|gr[ae]y|1x1|pixel"
    r"|dummy|empty|clear|trans)(?:[_.-][\w.-]*)?\.(?:gif|png|jpe?g|svg|webp)(?:\?|$)",
    re.I,
)
_WHITE = "".join(map(chr, range(33)))  # C0 controls and space
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_PARTS = re.compile(r"((https?:)//[^/?#]+)([^?#]*)", re.I)
_ABSOLUTE = re.compile(r"https?://[^/?#]", re.I)
_BREAKS = re.compile(r"[\t\n\r]+")
_TEMPLATE = re.compile(r"\{\{|\$\{|<%|%7B%7B", re.I)
_CANDIDATE = re.compile(r"[\s,]*(\S+)")
_DESCRIPTORS = re.compile(r"[^,(]*(?:\([^)]*\)?[^,(]*)*")
_UNSAFE_TYPES = ("webp", "avif", "jxl", "svg", "heic")  # of a <source>: the plain <img> beside it is wanted


def resolver(page_url: str, base_href: str = "") -> Resolve:
    """A function from an address as written to an absolute http(s) one without fragment, or ""."""
    base = Base(absolute(Base(page_url), base_href) or page_url)
    return lambda raw: absolute(base, raw)


class Base:
    """A base address, taken apart once: joining by hand is ten times faster than urljoin."""

    __slots__ = ("folder", "origin", "scheme", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        found = _PARTS.match(url)
        plain = found if found and "/." not in url and "\\" not in url else None
        self.scheme, self.origin, path = (plain[2], plain[1], plain[3]) if plain else ("", "", "")
        self.folder = self.origin + (path.rpartition("/")[0] + "/") if plain else ""

    def join(self, url: str) -> str:
        if not self.scheme or "/." in url or url[0] in ".?" or url.startswith("///"):
            return _join(self.url, url)
        if url[0] == "/":
            return (self.scheme if url.startswith("//") else self.origin) + url
        return self.folder + url


def absolute(base: Base, raw: str) -> str:
    """One address as a browser reads it; "" for what is no web picture (data:, empty, a template...)."""
    url = _BREAKS.sub("", raw.strip(_WHITE)).partition("#")[0] if raw else ""
    if not url or len(url) > MAX_URL_CHARS or _TEMPLATE.search(url):
        return ""
    if "\\" in url:
        path, mark, query = url.partition("?")
        url = path.replace("\\", "/") + mark + query
    if not _ABSOLUTE.match(url):
        if _SCHEME.match(url):
            return ""
        url = base.join(url)
    if "[" in url or "]" in url:
        url = url if _splits(url) else ""
    return url.replace(" ", "%20") if _ABSOLUTE.match(url) else ""


def picture_url(picture: Attributes, sources: Sequence[Attributes], resolve: Resolve) -> str:
    """The address of an <img>, given the <source>s before it in its <picture>; "" if there is none.

    The widest candidate up to MAX_WIDTH, else src; lazy attributes where src is missing or a placeholder.
    """
    lazy = not _LAZY.isdisjoint(picture)
    src = resolve(picture.get("src", ""))
    if src and (lazy or "lazy" in picture.get("class", "").lower()) and _PLACEHOLDER.search(src):
        src = ""
    if url := best_candidate(picture.get("srcset", ""), resolve):
        return url
    plain = [s for s in sources if not any(name in s.get("type", "") for name in _UNSAFE_TYPES)]
    for source in plain:
        if url := best_candidate(source.get("srcset", ""), resolve, sized=bool(src)):
            return url
    return src or (_lazy_url(picture, resolve) if lazy else "") or _any_source([*plain, *sources], resolve)


def best_candidate(srcset: str, resolve: Resolve, sized: bool = False) -> str:
    """The widest candidate up to MAX_WIDTH (else the narrowest), or the densest up to MAX_DENSITY.

    With `sized`, only candidates that state their width count.
    """
    wide: list[tuple[float, str]] = []
    dense: list[tuple[float, str]] = []
    for raw, descriptor in islice(candidates(srcset), MAX_CANDIDATES) if srcset else ():
        size = _size(descriptor)
        if size and (url := resolve(raw)):
            (wide if descriptor.endswith("w") else dense).append((size, url))
    if wide or sized:
        return _largest(wide, MAX_WIDTH)
    return _largest(dense, MAX_DENSITY)


def candidates(srcset: str) -> Iterator[tuple[str, str]]:
    """(address, descriptor) pairs, parsed as the HTML standard does: addresses may hold commas."""
    at = 0
    while found := _CANDIDATE.match(srcset, at):
        at, url = found.end(), found[1]
        if url.endswith(","):
            yield url.rstrip(","), ""
        elif rest := _DESCRIPTORS.match(srcset, at):
            at = rest.end()
            words = rest[0].split()
            yield url, next((word for word in words if word[-1] in "wx"), "")


def _largest(sized: list[tuple[float, str]], limit: float) -> str:
    if not sized:
        return ""
    fitting = [one for one in sized if one[0] <= limit]
    # Ties go to the first one, as in a browser.
    return max(fitting, key=lambda one: one[0])[1] if fitting else min(sized, key=lambda one: one[0])[1]


def _size(descriptor: str) -> float:
    """Of "800w" or "2x"; 1.0 for none, 0.0 for one that makes no sense."""
    try:
        size = float(descriptor[:-1]) if descriptor else 1.0
    except ValueError:
        return 0.0
    return size if 0 < size < 1e6 else 0.0


def _lazy_url(picture: Attributes, resolve: Resolve) -> str:
    for name in LAZY_SRCSET:
        if url := best_candidate(picture.get(name, ""), resolve):
            return url
    urls = (resolve(picture.get(name, "")) for name in LAZY_SRC)
    return next(filter(None, urls), "")


def _any_source(sources: Sequence[Attributes], resolve: Resolve) -> str:
    sets = (source.get(name, "") for source in sources for name in ("srcset", *LAZY_SRCSET))
    return next(filter(None, (best_candidate(srcset, resolve) for srcset in sets)), "")


def _join(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:  # a base or an authority with broken brackets
        return ""


def _splits(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False
