"""What became of each picture's URL: found in the crawl, in a folder of img2dataset's tars, or on the live web."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from filters import optout
from mmc4_builder import key_lists, tombstones, transport, warc, xmp
from mmc4_builder.fetch import Fetched, fetch_all
from mmc4_builder.fetch_rules import may_pass
from mmc4_builder.host_files import HostFile
from mmc4_builder.images import ImageError, StoredImage, normalise
from mmc4_builder.key_lists import KeyList
from mmc4_builder.signals import Statement, header_statements
from pipelines import image_store
from pipelines.config import ImagesConfig
from pipelines.host_files import CrawlTime, origin_of

MAX_ARCHIVED_HEADERS = 64
# Failures of the live web that another copy makes up for, beside those that may pass: the picture is not there any
# more. Not among them is what a server or its owner refuses: 401, 403, 451, and every opt-out.
DEAD = frozenset(
    {"http_404", "http_410", "too_many_redirects", "bad_redirect", "tls_failed", "bad_response"}
    | {"empty", "not_an_image", "truncated", "corrupt"}
)

Row = Mapping[str, Any]
Reader = Callable[[Row], "Got | str"]  # bytes that may be a picture, or the reason why there are none


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """Bytes that may be a picture, and where they came from."""

    data: bytes
    origin: str  # archive, live or store
    final_url: str
    fetched: str  # ISO time at which the bytes were seen
    headers: tuple[tuple[str, str], ...] = ()
    warc: str | None = None
    warc_offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one URL. `reason` is None exactly where there is a picture."""

    got: Got | None = None
    image: StoredImage | None = None
    reason: str | None
    statements: tuple[Statement, ...] = ()
    asked: bool = False  # whether a request for it was answered


@dataclass(frozen=True, slots=True)
class KeepOut:
    """Pictures that must not be fetched or kept: removed from this build before, or on a list that the user gave."""

    lists: tuple[tuple[str, KeyList], ...]  # reason and keys

    @classmethod
    def of(cls, root: str, config: ImagesConfig) -> "KeepOut":
        """The tombstones come first: they say more."""
        listed = key_lists.parse("\n".join(config.optout_keys), "the opt-out list")
        return cls((("removed", tombstones.load(root)), ("optout_list", listed)))

    def url(self, url: str) -> str | None:
        """Why nothing may be asked for at this URL, or None."""
        return next((reason for reason, keys in self.lists if keys.matches_url(url)), None)

    def image(self, image: StoredImage) -> str | None:
        """Why this picture may not be kept, or None; as it came, and as it would be stored."""
        hashes = (image.sha256, image.original_sha256)
        return next((reason for reason, keys in self.lists if keys.matches_hash(*hashes)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where pictures may come from, and what decides on them."""

    config: ImagesConfig
    keep_out: KeepOut
    at_rest: Mapping[str, Row]  # url -> where the crawl, or the store, holds it
    crawl_time: CrawlTime
    keep_host_file: Callable[[HostFile], None]
    note_fetched: Callable[[Fetched], object] = id  # told of each URL of the live web; nobody is, unless somebody asks


def outcomes(urls: Iterable[str], sources: Sources) -> Iterator[tuple[str, Outcome]]:
    """What became of each URL, each once, in any order. `urls` had better mix the hosts."""
    wanted = []
    for url in urls:
        reason = sources.keep_out.url(url)
        if reason is None:
            wanted.append(url)
        else:
            yield url, Outcome(reason=reason)
    if sources.config.source in ("live", "both"):
        yield from _live(wanted, sources)
    else:
        for url in sorted(wanted, key=lambda url: (origin_of(url), url)):  # rules of a host are parsed once
            yield url, held(url, sources)


def held(url: str, sources: Sources) -> Outcome:
    """The picture that the crawl or the store holds. Nothing is refused: what was said is data here."""
    is_store = sources.config.source == "store"
    said = sources.crawl_time.statements(url)
    if url not in sources.at_rest:
        return Outcome(reason="not_in_store" if is_store else "missing", statements=said)
    read: Reader = read_store if is_store else read_archived
    return settle(read(sources.at_rest[url]), said, sources)


def _live(urls: list[str], sources: Sources) -> Iterator[tuple[str, Outcome]]:
    config = sources.config
    assert config.fetch is not None  # the configuration sees to it
    refuse = partial(refusal, config=config)
    fetch = replace(config.fetch, agents=config.optout.agents)
    for fetched in fetch_all(urls, fetch, refuse=refuse, keep_host_file=sources.keep_host_file):
        sources.note_fetched(fetched)
        asked = fetched.status > 0
        outcome = replace(settle(_fetched(fetched), fetched.statements, sources), asked=asked)
        if config.source == "both" and outcome.reason and falls_back(outcome.reason):
            outcome = _or_archived(fetched.url, outcome, sources)
        yield fetched.url, outcome


def _or_archived(url: str, outcome: Outcome, sources: Sources) -> Outcome:
    """The crawl's copy in place of a dead link, with what was said then and now.

    That robots.txt cannot be had forbids to ask the host, and nobody asks it for this copy.
    """
    if url not in sources.at_rest:
        return outcome
    copy = held(url, sources)
    if copy.image is None:
        return outcome
    now = [said for said in outcome.statements if said.name != "robots:unreachable"]
    return replace(copy, statements=(*now, *copy.statements), asked=outcome.asked)


def refusal(statements: tuple[Statement, ...], *, config: ImagesConfig) -> str | None:
    """Why a picture is not asked for, by what was said before the request; None to go on."""
    return optout.reject((said.signal for said in statements), rules=config.optout)


def falls_back(reason: str) -> bool:
    """Whether a copy of the crawl may stand in for a live picture that failed so. Never for a refusal."""
    return may_pass(reason) or reason in DEAD


def read_archived(row: Row) -> Got | str:
    """The picture that a WARC file holds at an offset."""
    try:
        record = warc.read_record(row["path"], row["offset"], row["length"])
    except warc.WarcError as error:
        return error.reason
    return Got(
        data=record.payload,
        origin="archive",
        final_url=record.url,
        fetched=record.timestamp,
        headers=record.headers[:MAX_ARCHIVED_HEADERS],
        warc=row["warc"],
        warc_offset=row["offset"],
    )


def read_store(row: Row) -> Got | str:
    """The picture that a tar of img2dataset holds."""
    if row["reason"] is not None:
        return str(row["reason"])
    try:
        data, seen = image_store.read(row["tar"], row["offset"], row["length"])
    except transport.TransportError:
        return "store_unreadable"
    return Got(data=data, origin="store", final_url=row["url"], fetched=seen)


def _fetched(fetched: Fetched) -> Got | str:
    if fetched.data is None:
        return fetched.reason or "internal_error"
    return Got(
        data=fetched.data,
        origin="live",
        final_url=fetched.final_url,
        fetched=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        headers=fetched.headers,
    )


def settle(got: Got | str, said: tuple[Statement, ...], sources: Sources) -> Outcome:
    """What the bytes become."""
    if isinstance(got, str):
        return Outcome(reason=got, statements=said)
    said = (*said, *own_statements(got))
    try:
        image = normalise(got.data, sources.config.rules)
    except ImageError as error:
        return Outcome(got=got, reason=error.reason, statements=said)
    reason = sources.keep_out.image(image)
    return Outcome(got=got, image=None if reason else image, reason=reason, statements=said)


def own_statements(got: Got) -> tuple[Statement, ...]:
    """What a picture says of itself: in its XMP, and in the headers of an archived response.

    Those of a live one are among the fetcher's statements already.
    """
    where = got.final_url if got.warc is None else f"warc:{got.warc}@{got.warc_offset}"
    headers = header_statements(got.headers, where, got.fetched) if got.origin == "archive" else ()
    code = xmp.data_mining(got.data)
    inside = (Statement(name="xmp:datamining", value=code, source=where, seen=got.fetched),) if code else ()
    return (*headers, *inside)
