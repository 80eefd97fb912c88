"""What can be read off a URL without fetching it: C4's normal form, the host, a picture's file extension."""

import re
from urllib.parse import urlsplit

_SCHEME = re.compile(r"https?:\/\/(www\.)?")
_TRACKING = re.compile(r"\?(utm_|ref|feed).*")
_EXTENSION = re.compile(r"\.([0-9A-Za-z]{1,8})$")


def normalize_url(url: str) -> str:
    """C4's key for a page: pages with the same normal form are one page, and one of them is kept.

    As in TFDS `c4_utils`: every `http(s)://` goes, with a `www.` after it, also inside the path; then a query
    that starts with utm_, ref or feed; then slashes at the end. Case, other queries and fragments stay.
    """
    return _TRACKING.sub("", _SCHEME.sub("", url)).rstrip("/")


def host_of(url: str) -> str:
    """The host in lower case, without port, user or final dot; "" where there is none to be found."""
    try:
        return (urlsplit(url.strip()).hostname or "").lower().rstrip(".")
    except ValueError:
        return ""


def image_extension(url: str) -> str:
    """The extension of the file in the URL's path, lower-case and without its dot (`jpg`), or "" for none."""
    try:
        path = urlsplit(url.strip()).path
    except ValueError:
        return ""
    found = _EXTENSION.search(path.rpartition("/")[2])
    return found.group(1).lower() if found else ""
