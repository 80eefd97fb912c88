"""Opt-out: a keep case and a case for each reason, the order of reasons, and what a policy may switch off."""

from dataclasses import replace

import pytest

from filters.optout import AI_AGENTS, DEFAULT, OptOutRules, refusing, reject
from mmc4_builder.signals import METAS, Signal

TDM = "tdm-reservation"
REFUSALS: dict[str, Signal] = {  # in the order in which they are reported
    "optout_list": ("list:keys.txt", "example.org"),
    "optout_robots": ("robots:mmc-build", "Disallow: /img/"),
    "optout_robots_agent": ("robots:GPTBot", "Disallow: /"),
    "optout_content_usage": ("robots:content-usage", "train-ai=n"),
    "optout_header": ("header:x-robots-tag", "noai"),
    "optout_meta": ("meta:robots", "noai, noimageai"),
    "optout_tdm": ("header:" + TDM, "1"),
    "optout_metadata": ("xmp:datamining", "DMI-PROHIBITED-AIMLTRAINING"),
    "robots_unreachable": ("robots:unreachable", "http_503"),
}


@pytest.mark.parametrize(
    ("signal", "expected"),
    [
        *((signal, reason) for reason, signal in REFUSALS.items()),
        (("robots:mmc4-build", "Disallow: /"), "optout_robots"),
        (("robots:img2dataset", "Disallow: /"), "optout_robots_agent"),
        (("robots:Googlebot", "Disallow: /"), None),
        (("robots:content-usage", "train-ai=y, search=n"), None),
        (("robots:content-signal", "search=yes, ai-train=no"), "optout_content_usage"),
        (("header:content-usage", "genai=n"), "optout_content_usage"),
        (("header:content-signal", "ai-input=no"), None),
        (("header:x-robots-tag", "all"), None),
        (("header:x-robots-tag", "nofollow, noarchive"), None),
        (("header:x-robots-tag", "NONE"), "optout_header"),
        (("header:x-robots-tag", "noml"), "optout_header"),
        (("header:x-robots-tag", "mmc-build: noindex"), "optout_header"),
        (("header:x-robots-tag", "ccbot: noai"), "optout_header"),
        (("header:x-robots-tag", "googlebot: noindex, noai"), None),
        (("header:x-robots-tag", "googlebot: noindex, gptbot: noai"), "optout_header"),
        (("header:x-robots-tag", "unavailable_after: 1 Jan 2027 00:00:00 GMT, noimageai"), "optout_header"),
        (("meta:robots", "index, follow"), None),
        (("meta:robots", "noindex"), "optout_meta"),
        (("meta:claudebot", "noai"), "optout_meta"),
        (("meta:googlebot", "noindex"), None),
        (("meta:description", "noai"), None),
        (("meta:" + TDM, "1"), "optout_tdm"),
        (("header:" + TDM, "0"), None),
        (("header:" + TDM, "yes"), None),
        (("header:tdm-policy", "https://a.org/p"), None),
        (("tdmrep:" + TDM, "1 policy https://a.org/p"), "optout_tdm"),
        (("xmp:datamining", "DMI-PROHIBITED"), "optout_metadata"),
        (("xmp:datamining", "DMI-ALLOWED"), None),
        (("truncated", "max_chars"), None),
    ],
)
def test_one_signal(signal: Signal, expected: str | None) -> None:
    assert refusing([signal]) == ((expected, signal) if expected else None)
    assert reject([signal]) == expected


def test_nothing_said_keeps() -> None:
    assert reject([]) is None and refusing(iter(())) is None


def test_reasons_have_a_fixed_order() -> None:
    left = list(reversed(REFUSALS.items()))
    for reason, signal in REFUSALS.items():
        assert refusing([one for _, one in left]) == (reason, signal)
        left.remove((reason, signal))


def test_a_scope_does_not_leak_into_the_next_field() -> None:
    fields = [("header:x-robots-tag", "googlebot: nofollow"), ("header:x-robots-tag", "noai")]
    assert refusing(fields) == ("optout_header", fields[1])


@pytest.mark.parametrize(
    ("meta", "header", "file", "expected"),
    [
        ("", "", "1", "tdmrep"),
        ("", "0", "1", None),  # a 0 lifts the 1 of a lower level
        ("0", "1", "1", None),
        ("1", "0", "0", "meta"),
        ("", "1", "0", "header"),
        ("x", "", "1", "tdmrep"),  # an error is as if unset, and that resets nothing
        ("", "2", "1", "tdmrep"),
        ("", "1, 1", "", "header"),
        ("", "", "0", None),
    ],
)
def test_reservations_have_levels(meta: str, header: str, file: str, expected: str | None) -> None:
    said = {"tdmrep": file, "header": header, "meta": meta}
    found = refusing((f"{level}:{TDM}", value) for level, value in said.items() if value)
    assert (found[1][0].partition(":")[0] if found else None) == expected


def test_on_one_level_a_reservation_wins() -> None:
    assert reject([("meta:" + TDM, "0"), ("meta:" + TDM, "1")]) == "optout_tdm"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"agents": ()}, "optout_robots_agent"),
        ({"usage": ()}, "optout_content_usage"),
        ({"directives": ()}, "optout_header"),
        ({"directives": ("noindex",)}, "optout_meta"),
        ({"tdm": False}, "optout_tdm"),
        ({"metadata": False}, "optout_metadata"),
        ({"unreachable": False}, "robots_unreachable"),
    ],
)
def test_a_policy_may_let_a_kind_pass(change: dict[str, object], reason: str) -> None:
    assert reject([REFUSALS[reason]], rules=replace(DEFAULT, **change)) is None  # type: ignore[arg-type]


def test_what_is_said_to_us_holds_under_any_policy() -> None:
    nothing = OptOutRules(directives=(), agents=(), usage=(), tdm=False, metadata=False, unreachable=False)
    kept = [reason for reason, signal in REFUSALS.items() if reject([signal], rules=nothing)]
    assert kept == ["optout_list", "optout_robots"]


@pytest.mark.parametrize("change", [{"agents": ("",)}, {"directives": ("NoAI",)}, {"usage": (" ai",)}])
def test_rules_that_could_never_match_are_refused(change: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        OptOutRules(**change)  # type: ignore[arg-type]


def test_pages_may_speak_to_every_agent_by_name() -> None:
    assert {agent.lower() for agent in AI_AGENTS} <= METAS
