"""Opt-out statements of pages, pictures and hosts, picked out as found; no decision is taken here."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

# Names as their own documents write them: X-Robots-Tag, TDMRep (W3C CG report), AIPREF (Content-Usage),
# Content Signals (draft-romm-aipref-contentsignals).
HEADERS = frozenset({"x-robots-tag", "tdm-reservation", "tdm-policy", "content-usage", "content-signal"})
# "robots" speaks to everybody, the others to one agent; the policy decides later whose name it goes by.
_META_AGENTS = frozenset(
    {
        "ai2bot", "ai2bot-dolma", "amazonbot", "anthropic-ai", "applebot-extended", "bingbot", "bytespider",
        "ccbot", "claude-web", "claudebot", "cohere-ai", "cohere-training-data-crawler", "cotoyogi",
        "deepseekbot", "diffbot", "facebookbot", "friendlycrawler", "google-extended", "googlebot",
        "googlebot-image", "googleother-image", "gptbot", "icc-crawler", "imagesiftbot", "imagespider",
        "img2dataset", "laion-huggingface-processor", "laiondownloader", "meta-externalagent", "mmc-build",
        "mmc4-build", "omgili", "omgilibot", "pangubot", "petalbot", "sbintuitionsbot", "tiktokspider",
        "timpibot", "velenpublicwebcrawler", "webzio-extended", "yandexadditional",
    }
)  # fmt: skip
METAS = _META_AGENTS | {"robots", "tdm-reservation", "tdm-policy"}
_META_NAME = re.compile(r"name\s*=[\s\"']*([a-z0-9-]+)")
MAX_VALUE_CHARS = 1000
MAX_SIGNALS = 64  # of one page and source: more is an attack, and the first ones already say it

Signal = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One thing that was said of a URL, by whom and when: a Signal with its evidence."""

    name: str  # "header:<field>", "meta:<name>", "robots:<agent or preference>", "tdmrep:...", "xmp:datamining"
    value: str  # as found, e.g. "noai", or the deciding rule: "Disallow: /img/private/"
    source: str  # URL of the file or of the response that said it, or "warc:<file>@<offset>"
    seen: str  # ISO time, "2026-11-21T10:00:00Z"

    @property
    def signal(self) -> Signal:
        return self.name, self.value


def header_signals(headers: Iterable[tuple[str, str]]) -> tuple[Signal, ...]:
    """Opt-out headers of a stored response, each field on its own, e.g. ("header:x-robots-tag", "noai")."""
    found = ((name.strip().lower(), value) for name, value in headers)
    picked = [("header:" + name, trim(value)) for name, value in found if name in HEADERS]
    return tuple(picked[:MAX_SIGNALS])


def header_statements(headers: Iterable[tuple[str, str]], source: str, seen: str) -> tuple[Statement, ...]:
    """The same with its evidence: `source` is the URL of the response, `seen` the time of it."""
    return tuple(Statement(name=name, value=value, source=source, seen=seen) for name, value in header_signals(headers))


def may_signal(tag: str) -> bool:
    """Whether a <meta> tag, in lower case, may hold a signal: a quick look before its attributes are read."""
    return not METAS.isdisjoint(_META_NAME.findall(tag))


def meta_signal(name: str, content: str) -> Signal | None:
    """The signal of one <meta name content>, or None where the name is none of ours."""
    name = name.strip().lower()
    return ("meta:" + name, trim(content)) if name in METAS else None


def trim(value: str) -> str:
    return value.strip()[:MAX_VALUE_CHARS]
