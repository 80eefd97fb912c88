"""Preferences on the use of content: AIPREF's Content-Usage and Cloudflare's Content-Signal values.

Both are written as a Structured Fields dictionary (RFC 9651) whose values are tokens: `train-ai=n, search=y`
(draft-ietf-aipref-vocab-07) and `ai-train=no, search=yes` (draft-romm-aipref-contentsignals). A full parser
would drop the whole field for one slip in it, and with it a refusal that is plain to read. So members are
read one by one here: what is no `key=token` is skipped, and the rest stands.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

TRAINING: Final = ("train-ai", "ai-train")  # of the two drafts, in this order
# Labels of earlier drafts, -01 to -04. No longer defined, so a refusal under them is honoured as a house rule.
EARLIER: Final = ("train-genai", "genai", "ai", "bots", "all", "tdm")

_MEMBERS = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^,"])+')  # commas inside strings do not part members
_MEMBER = re.compile(r"\s*([A-Za-z*][A-Za-z0-9_.*-]*)\s*=\s*([A-Za-z]+)\s*(?:;.*)?", re.S)
_MEANING: Final = {"y": True, "yes": True, "n": False, "no": False}


def preferences(value: str) -> dict[str, bool]:
    """{"train-ai": False} of "train-ai=n": False refuses. Other types and tokens say nothing; the last key wins.

    Members of an unknown meaning take back an earlier one of the same key, as in RFC 9651 §4.2.2.
    """
    found: dict[str, bool | None] = {}
    for text in _MEMBERS.findall(value):
        if member := _MEMBER.fullmatch(text):
            found[member[1].lower()] = _MEANING.get(member[2].lower())
    return {key: meaning for key, meaning in found.items() if meaning is not None}


def most_restrictive(stated: Iterable[Mapping[str, bool]]) -> dict[str, bool]:
    """Several statements of equal weight as one: any refusal refuses (draft-ietf-aipref-attach-05)."""
    together: dict[str, bool] = {}
    for one in stated:
        for key, allowed in one.items():
            together[key] = together.get(key, True) and allowed
    return together


def as_text(stated: Mapping[str, bool]) -> str:
    """The dictionary in Content-Usage's own words; `preferences` reads both."""
    return ", ".join(f"{key}={'y' if allowed else 'n'}" for key, allowed in stated.items())


def refused(value: str, labels: Iterable[str]) -> str | None:
    """The first of these labels that the value refuses."""
    stated = preferences(value)
    return next((label for label in labels if stated.get(label) is False), None)
