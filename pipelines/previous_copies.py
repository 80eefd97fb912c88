"""Pictures that earlier builds have: their bytes are copied out of those builds' tars, and asked for nowhere.

A picture whose address an earlier build has got is read out of that build's tar by its offset, held against its
SHA-256 and stored in the new build like one that was fetched, with the time, headers and origin of the first fetch.
Where the tar is gone, cut or damaged, the picture is got anew. All else is asked for as if there were no earlier
build: what may pass, what was refused, since consent is of today, and what failed for good, since a page of a newer
crawl still names it and one answer of 404 costs little.

Who may refuse a picture that is copied:

- Without the network: tombstones, the user's list, the host files of the new crawl (stage 4 applies these as ever), and
  everything that was said when the picture was fetched, headers and XMP included.
- With the network, where pictures come from it (`live`, `both`): robots.txt and tdmrep.json of the picture's host and
  of the host to which it was redirected are asked for today, and obeyed. That is one or two requests a host, none a
  picture. Files that cannot be had refuse nothing here, since nobody asks the host for the picture.
- Not asked again: the headers and the XMP of the picture itself. For that it would have to be fetched.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from mmc4_builder import storage
from mmc4_builder.fetch import fetch_all
from mmc4_builder.images import StoredImage
from mmc4_builder.signals import Statement
from mmc4_builder.workspace import Workspace
from pipelines.fetching import Got, Outcome, Sources, falls_back, outcomes, refusal
from pipelines.picture_tar import IMAGE_FIELDS
from pipelines.previous_images import Before, Row
from pipelines.spool import Place, Spool
from pipelines.store import Tars

KNOWN = "known"  # not a reason of anything: the host's files let pass what need not be asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Whether a picture may be copied, and what was said of it now."""

    reason: str | None
    statements: tuple[Statement, ...]


def settled(
    urls: Iterable[str], sources: Sources, before: Before, workspace: Workspace
) -> Iterator[tuple[str, Outcome]]:
    """What became of each URL, each once, in any order: copied from an earlier build, or got as ever."""
    known: list[str] = []
    new: list[str] = []
    for url in urls:
        (known if url in before else new).append(url)
    with Copies(sources, workspace) as copies:
        for url, answer in consent(known, sources, before):
            outcome = copies.copy(url, answer, before)
            if outcome is None:
                new.append(url)
            else:
                workspace.tally("previous", outcome.reason)
                yield url, outcome
    yield from outcomes(new, sources)


def consent(urls: Sequence[str], sources: Sources, before: Before) -> Iterator[tuple[str, Answer]]:
    """Whether each picture may be copied, and what is said of it now."""
    ask = _ask_hosts if sources.config.source in ("live", "both") else _ask_crawl
    wanted = [url for url in urls if sources.keep_out.url(url) is None]
    for url in urls:
        if reason := sources.keep_out.url(url):
            yield url, Answer(reason=reason, statements=())
    yield from ask(wanted, sources, before)


def _ask_crawl(urls: Sequence[str], sources: Sources, before: Before) -> Iterator[tuple[str, Answer]]:
    """Host files of the new crawl refuse nothing here: stage 4 decides on what they say."""
    for url in urls:
        yield url, Answer(reason=None, statements=sources.crawl_time.statements(url))


def _ask_hosts(urls: Sequence[str], sources: Sources, before: Before) -> Iterator[tuple[str, Answer]]:
    """By robots.txt and tdmrep.json of the hosts, of where a picture is said to be and of where it was found."""
    ends = {url: next(row["final_url"] for _, row in before.rows(url)) for url in urls}
    with Spool() as spool:
        said = dict(_said(sorted({*ends, *filter(None, ends.values())}), sources, spool))
        for url in urls:
            answers = [_answer(spool.get(said[address])) for address in dict.fromkeys((url, ends[url] or url))]
            refused = next((answer.reason for answer in answers if answer.reason), None)
            yield url, Answer(reason=refused, statements=tuple(one for answer in answers for one in answer.statements))


def _said(addresses: Sequence[str], sources: Sources, spool: Spool) -> Iterator[tuple[str, Place]]:
    """What the hosts say of each address, put aside; no address itself is asked for."""
    config = sources.config
    assert config.fetch is not None  # the configuration sees to it
    fetch = replace(config.fetch, agents=config.optout.agents)
    refuse = partial(_stop, sources=sources)
    for fetched in fetch_all(_mixed(addresses), fetch, refuse=refuse, keep_host_file=sources.keep_host_file):
        reason = fetched.reason or "internal_error"
        passes = reason == KNOWN or falls_back(reason)
        statements = [
            (said.name, said.value, said.source, said.seen)
            for said in fetched.statements
            if said.name != "robots:unreachable"
        ]
        yield fetched.url, spool.put(json.dumps([None if passes else reason, statements]).encode())


def _mixed(addresses: Iterable[str]) -> list[str]:
    """An order in which hosts are mixed."""
    return sorted(addresses, key=lambda url: hashlib.md5(url.encode("utf-8", "surrogatepass")).digest())


def _stop(statements: tuple[Statement, ...], *, sources: Sources) -> str:
    """Every URL ends before it is asked for."""
    return refusal(statements, config=sources.config) or KNOWN


def _answer(data: bytes) -> Answer:
    reason, statements = json.loads(data)
    said = (Statement(name=n, value=v, source=s, seen=t) for n, v, s, t in statements)
    return Answer(reason=reason, statements=tuple(said))


class Copies:
    """Reads pictures out of the tars of earlier builds; what cannot be read there is counted, and no error."""

    def __init__(self, sources: Sources, workspace: Workspace) -> None:
        self._keep_out = sources.keep_out
        self._workspace = workspace
        self._open = ExitStack()
        self._tars: dict[str, Tars] = {}
        self._there: dict[str, bool] = {}  # by path of a tar

    def __enter__(self) -> "Copies":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def copy(self, url: str, answer: Answer, before: Before) -> Outcome | None:
        """The picture of an earlier build, or why it is refused; None where its bytes cannot be had, counted."""
        if answer.reason:
            return Outcome(reason=answer.reason, statements=answer.statements)
        failures = []
        for root, row in before.rows(url):
            data = self._read(root, row)
            if isinstance(data, bytes):
                return self._outcome(data, row, answer)
            failures.append(data)
        self._workspace.tally("previous", failures[0])
        return None

    def _read(self, root: str, row: Row) -> bytes | str:
        path = storage.join(root, row["store"])
        if path not in self._there:
            self._there[path] = storage.exists(path)
        if not self._there[path]:
            return "tar_missing"
        if root not in self._tars:
            self._tars[root] = self._open.enter_context(Tars(Workspace(root, "images", self._workspace.unit)))
        try:
            data = self._tars[root].read(row)
        except OSError:
            return "tar_unreadable"
        return data if hashlib.sha256(data).hexdigest() == row["sha256"] else "tar_damaged"

    def _outcome(self, data: bytes, row: Row, answer: Answer) -> Outcome:
        image = StoredImage(data=data, **{name: row[name] for name in IMAGE_FIELDS})
        then = tuple(Statement(**said) for said in row["statements"] or ())
        got = Got(
            data=b"",  # nothing was transferred for it
            origin=row["origin"],
            final_url=row["final_url"],
            fetched=row["fetched"],
            headers=tuple((header["name"], header["value"]) for header in row["headers"] or ()),
            warc=row["warc"],
            warc_offset=row["warc_offset"],
        )
        reason = self._keep_out.image(image)
        said = (*answer.statements, *then)
        return Outcome(got=got, image=None if reason else image, reason=reason, statements=said)
