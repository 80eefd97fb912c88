"""The audit of opt-outs: every statement that was found about a page or a picture, and what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from filters import optout
from mmc4_builder.signals import Signal
from mmc4_builder.urls import host_of
from pipelines.decide import Policy, Subject

Said = Mapping[str, str]  # one row of `schemas.STATEMENTS`


def page_statements(document: Mapping[str, Any], by_host: Sequence[Said]) -> list[Said]:
    """What was said of a page: in its own headers and <meta>, and in the files of its host."""
    source = f"warc:{document['warc']}@{document['offset']}"
    own = [{**signal, "source": source, "seen": document["timestamp"]} for signal in document["signals"]]
    return [*own, *by_host]


def decisions(subject: Subject, said: Sequence[Said], policy: Policy) -> Iterator[dict[str, Any]]:
    """Rows of optout.parquet for one document: `refused` for the statement that decides, `noted` for all others."""
    yield from _rows("page", subject.url, subject.url, said, (), policy)
    for image in subject.images:
        hashes = tuple(image[name] for name in ("sha256", "original_sha256") if image[name])
        yield from _rows("image", subject.url, image["url"], image["statements"] or (), hashes, policy)


def _rows(
    kind: str, page_url: str, url: str, said: Sequence[Said], hashes: Sequence[str], policy: Policy
) -> Iterator[dict[str, Any]]:
    subject = {"subject": kind, "page_url": page_url, "url": url, "host": host_of(url)}
    if key := policy.opted_out.matches_url(url) or policy.opted_out.matches_hash(*hashes):
        listed = {"name": "list:opt-out", "value": key, "source": "", "seen": ""}
        yield {**subject, **listed, "decision": "refused", "reason": "optout_list"}
    verdict = optout.refusing([_signal(one) for one in said], rules=policy.config.optout)
    for one in said:
        refuses = verdict is not None and _signal(one) == verdict[1]
        reason = verdict[0] if verdict and refuses else None
        yield {**subject, **one, "decision": "refused" if refuses else "noted", "reason": reason}


def _signal(one: Said) -> Signal:
    return one["name"], one["value"]
