"""Page-level opt-out signals, picked out of headers and <meta> as found; no decision is taken here."""

from collections.abc import Iterable

# Names as their own documents write them: X-Robots-Tag, TDMRep (W3C CG report), AIPREF (Content-Usage).
HEADERS = frozenset({"x-robots-tag", "tdm-reservation", "tdm-policy", "content-usage"})
# "robots" speaks to everybody, the others to one agent; the policy decides later whose name it goes by.
METAS = frozenset(
    {
        "robots", "googlebot", "googlebot-image", "bingbot", "ccbot", "gptbot", "google-extended",
        "img2dataset", "mmc-build", "tdm-reservation", "tdm-policy",
    }
)  # fmt: skip
MAX_VALUE_CHARS = 1000
MAX_SIGNALS = 64  # of one page and source: more is an attack, and the first ones already say it

Signal = tuple[str, str]


def header_signals(headers: Iterable[tuple[str, str]]) -> tuple[Signal, ...]:
    """Opt-out headers of a stored response, each field on its own, e.g. ("header:x-robots-tag", "noai")."""
    found = ((name.strip().lower(), value) for name, value in headers)
    picked = [("header:" + name, _trim(value)) for name, value in found if name in HEADERS]
    return tuple(picked[:MAX_SIGNALS])


def meta_signal(name: str, content: str) -> Signal | None:
    """The signal of one <meta name content>, or None where the name is none of ours."""
    name = name.strip().lower()
    return ("meta:" + name, _trim(content)) if name in METAS else None


def _trim(value: str) -> str:
    return value.strip()[:MAX_VALUE_CHARS]
