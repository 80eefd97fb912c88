"""Opt-out: whether what was said of a page or a picture is a refusal, and which one is reported.

Any explicit refusal refuses. The rules can name fewer; what is said to our own token always holds. Signals of
one page or of one picture go in together, and not both in one: a page's reservation is not its pictures'.

Reasons are reported in this order: optout_list, optout_robots, optout_robots_agent, optout_content_usage,
optout_header, optout_meta, optout_tdm, optout_metadata, and last robots_unreachable, which alone may pass.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from mmc4_builder import usage
from mmc4_builder.robots import OWN_TOKENS
from mmc4_builder.robots_tag import directives
from mmc4_builder.signals import Signal
from mmc4_builder.xmp import PROHIBITED

# Crawlers and control tokens that gather for training or for data sets. Digits are no part of RFC 9309's
# tokens, but sites write these names as their owners do, and equal names are all that is needed.
AI_AGENTS: Final = (
    "CCBot", "img2dataset", "LAIONDownloader", "laion-huggingface-processor", "GPTBot", "Google-Extended",
    "Applebot-Extended", "ClaudeBot", "anthropic-ai", "Claude-Web", "Bytespider", "Meta-ExternalAgent", "FacebookBot",
    "Amazonbot", "cohere-ai", "cohere-training-data-crawler", "Diffbot", "omgili", "omgilibot", "Webzio-Extended",
    "ImagesiftBot", "imageSpider", "AI2Bot", "Ai2Bot-Dolma", "PetalBot", "PanguBot", "Timpibot",
    "VelenPublicWebCrawler", "ICC-Crawler", "SBIntuitionsBot", "GoogleOther-Image", "TikTokSpider",
    "YandexAdditional", "DeepSeekBot", "Cotoyogi", "FriendlyCrawler",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OptOutRules:
    """Which statements refuse; the defaults take every one that is known. Empty or False: that kind does not."""

    # Of X-Robots-Tag and meta robots: DeviantArt's, noml.info's, and those against (image) indexing.
    directives: tuple[str, ...] = ("noai", "noimageai", "noml", "noimageindex", "noindex", "none")
    agents: tuple[str, ...] = AI_AGENTS  # whose refusal is taken for one of ours, as written in robots.txt
    usage: tuple[str, ...] = (*usage.TRAINING, *usage.EARLIER)  # of Content-Usage and Content-Signal
    tdm: bool = True
    metadata: bool = True  # plus:DataMining inside the picture
    unreachable: bool = True  # robots.txt that cannot be had; the fetcher stays away whatever is said here

    def __post_init__(self) -> None:
        for name, words in ((entry.name, getattr(self, entry.name)) for entry in fields(self)):
            if isinstance(words, bool):
                continue
            for word in words:
                if not word or word != word.strip() or (name != "agents" and word != word.lower()):
                    raise ValueError(f"{name} takes words without spaces around them, lower-case, not {word!r}")

    def speaks_for_us(self, agent: str) -> bool:
        """Whether a refusal said to this agent is one to us."""
        agent = agent.lower()
        return agent in OWN_TOKENS or any(agent == one.lower() for one in self.agents)


DEFAULT: Final = OptOutRules()


def reject(signals: Iterable[Signal], *, rules: OptOutRules = DEFAULT) -> str | None:
    """Why not to take the page or picture of which all this was said."""
    refusal = refusing(signals, rules)
    return refusal[0] if refusal else None


def refusing(signals: Iterable[Signal], rules: OptOutRules = DEFAULT) -> tuple[str, Signal] | None:
    """The reason and the signal that refuses: the first of _REASONS, and of its signals the first."""
    said = tuple(signals)
    if not said:
        return None
    for reason, find in _REASONS:
        if signal := find(said, rules):
            return reason, signal
    return None


def _listed(said: Sequence[Signal], _: OptOutRules) -> Signal | None:
    return next((signal for signal in said if signal[0].startswith("list:")), None)


def _robots(said: Sequence[Signal], _: OptOutRules) -> Signal | None:
    ours = {"robots:" + token for token in OWN_TOKENS}
    return next((signal for signal in said if signal[0] in ours), None)


def _robots_agent(said: Sequence[Signal], rules: OptOutRules) -> Signal | None:
    return next((signal for signal in said if _is_agent(signal[0]) and rules.speaks_for_us(signal[0][7:])), None)


def _is_agent(name: str) -> bool:
    return name.startswith("robots:") and name not in _USAGE


_USAGE: Final = frozenset(
    f"{source}:{name}" for source in ("robots", "header") for name in ("content-usage", "content-signal")
)


def _content_usage(said: Sequence[Signal], rules: OptOutRules) -> Signal | None:
    return next((signal for signal in said if signal[0] in _USAGE and usage.refused(signal[1], rules.usage)), None)


def _header(said: Sequence[Signal], rules: OptOutRules) -> Signal | None:
    return next((one for one in said if one[0] == "header:x-robots-tag" and _directs(one[1], rules)), None)


def _meta(said: Sequence[Signal], rules: OptOutRules) -> Signal | None:
    return next((one for one in said if _is_for_us(one[0], rules) and _directs(one[1], rules)), None)


def _is_for_us(name: str, rules: OptOutRules) -> bool:
    return name == "meta:robots" or (name.startswith("meta:") and rules.speaks_for_us(name[5:]))


def _directs(value: str, rules: OptOutRules) -> bool:
    return any(
        word in rules.directives and (agent is None or rules.speaks_for_us(agent)) for agent, word in directives(value)
    )


def _tdm(said: Sequence[Signal], rules: OptOutRules) -> Signal | None:
    """TDMRep: content metadata before header before file. No word on one level leaves it to the next."""
    for level in ("meta:", "header:", "tdmrep:") if rules.tdm else ():
        stated = [signal for signal in said if signal[0] == level + "tdm-reservation"]
        values = [signal[1].replace(",", " ").split()[:1] for signal in stated]
        if ["1"] in values:
            return stated[values.index(["1"])]
        if ["0"] in values:
            return None
    return None


def _metadata(said: Sequence[Signal], rules: OptOutRules) -> Signal | None:
    found = (one for one in said if one[0] == "xmp:datamining" and one[1].startswith(PROHIBITED))
    return next(found, None) if rules.metadata else None


def _unreachable(said: Sequence[Signal], rules: OptOutRules) -> Signal | None:
    found = (one for one in said if one[0] == "robots:unreachable")
    return next(found, None) if rules.unreachable else None


_REASONS: Final[tuple[tuple[str, Callable[[Sequence[Signal], OptOutRules], Signal | None]], ...]] = (
    ("optout_list", _listed),
    ("optout_robots", _robots),
    ("optout_robots_agent", _robots_agent),
    ("optout_content_usage", _content_usage),
    ("optout_header", _header),
    ("optout_meta", _meta),
    ("optout_tdm", _tdm),
    ("optout_metadata", _metadata),
    ("robots_unreachable", _unreachable),
)
