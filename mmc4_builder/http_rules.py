"""What an HTTP answer means to a download: try again, give up, or which bytes of which version."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from email.utils import parsedate_to_datetime

import requests

from mmc4_builder import __version__

RETRY_STATUSES = frozenset({408, 425, 429})  # besides every 5xx


class TransportError(OSError):
    """Bytes could not be had. The text names the path and, where there is one, the remedy."""


class NotFound(TransportError):
    """The path does not exist."""


class Forbidden(TransportError):
    """The server refuses (401, 403). Common Crawl says so to a client that asked too much: never retried."""


class Unreachable(TransportError):
    """All tries are used up."""


class Changed(TransportError):
    """The file on the server is no longer the one whose first part was read."""


class NoRange(TransportError):
    """The server ignores Range, so a part of a file cannot be had from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How a server is asked, and asked again. Waits and limits are in seconds.

    Common Crawl wants one try a second at most and Retry-After honoured. `tries` counts failures in a row
    without progress. `contact` goes into the User-Agent, so that an operator can reach whoever runs this.
    """

    tries: int = 8
    first_wait: float = 1.0
    max_wait: float = 120.0
    max_retry_after: float = 3600.0
    connect_timeout: float = 30.0
    read_timeout: float = 120.0
    contact: str = ""
    seed: int = 0
    sleep: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if self.tries < 1 or not 0 < self.first_wait <= self.max_wait:
            raise ValueError(f"a retry policy wants tries >= 1 and 0 < first_wait <= max_wait, got {self}")


DEFAULT_RETRY = RetryPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What tells one version of a file from another; None where the server does not say."""

    size: int | None
    etag: str | None
    modified: str | None

    def differs(self, other: "Version") -> str:
        """Which mark differs, with both values; "" when none does."""
        for name in (field.name for field in fields(self)):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours is not None and theirs is not None and ours != theirs:
                return f"{name} was {ours}, is {theirs}"
        return ""


def user_agent(contact: str = "") -> str:
    """`mmc4-build/<version>`, with the contact that the user gave."""
    name = f"mmc4-build/{__version__}"
    return f"{name} (+{contact})" if contact else name


def wants_retry(status: int) -> bool:
    """Whether the same question may be answered later."""
    return status in RETRY_STATUSES or status >= 500


def retry_after(response: requests.Response) -> float:
    """Seconds that the server asks for (RFC 9110 §10.2.3: a number, or a date seen from its own clock)."""
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        date, now = (parsedate_to_datetime(text) for text in (value, response.headers.get("Date", "")))
        return max(0.0, (date - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def describe(response: requests.Response) -> tuple[int | None, Version]:
    """First byte that the answer holds, and the version of the file that it belongs to."""
    headers = response.headers
    start, size = None, None
    found = re.match(r"bytes (?:([0-9]{1,19})-[0-9]{1,19}|\*)/([0-9]{1,19})?", headers.get("Content-Range", ""))
    if response.status_code == 200:
        length = headers.get("Content-Length", "")
        start, size = 0, int(length) if re.fullmatch("[0-9]{1,19}", length) else None
    elif found:
        start, size = (int(group) if group else None for group in found.groups())
    etag = headers.get("ETag")
    etag = etag.removeprefix("W/") if etag else None
    return start, Version(size=size, etag=etag, modified=headers.get("Last-Modified"))


def refusal(url: str, response: requests.Response) -> TransportError:
    """The typed error for an answer that is final."""
    status = response.status_code
    if status in (404, 410):
        return NotFound(f"no such file: {url} (answer {status})")
    if status in (401, 403):
        return Forbidden(
            f"{url} is refused (answer {status}). Common Crawl blocks clients that ask too often: stop, "
            "ask less, and see https://status.commoncrawl.org; elsewhere, check the address and your rights"
        )
    return TransportError(f"{url}: unexpected answer {status} {response.reason}")
