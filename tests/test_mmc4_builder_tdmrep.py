"""tdmrep.json: the report's own examples, and files that say nothing."""

import json

import pytest

from mmc4_builder.path_patterns import target_of
from mmc4_builder.tdmrep import MAX_ENTRIES, find, parse

POLICY = "https://provider.com/policies/policy.json"
REPORT = json.dumps(
    [
        {"location": "/directory-a/", "tdm-reservation": 1, "tdm-policy": POLICY},
        {"location": "/directory-b/images/*.jpg", "tdm-reservation": 0},
        {"location": "/directory-b/*.svg$", "tdm-reservation": 0, "tdm-policy": POLICY},
        {"location": "/directory-b/", "tdm-reservation": 1},
    ]
).encode()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/directory-a/a.html", "1 policy " + POLICY),
        ("/directory-b/images/1.jpg", "0"),  # the first one that fits, not the longest
        ("/directory-b/x.svg", "0"),  # a policy means nothing where nothing is reserved
        ("/directory-b/x.svg?y", "1"),
        ("/directory-b/", "1"),
        ("/Directory-a/", None),
        ("/", None),
    ],
)
def test_first_match_wins(path: str, expected: str | None) -> None:
    found = find(parse(REPORT), target_of("https://provider.com" + path))
    assert (found.value if found else None) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"location": "/", "tdm-reservation": 1}',
        b"[" * 400_000,
        b"\xff\xfe[",
        b'[1, null, [], "x"]',
        b'[{"location": "/", "tdm-reservation": 2}]',
        b'[{"location": "/", "tdm-reservation": "1"}]',
        b'[{"location": "/", "tdm-reservation": true}]',
        b'[{"location": 1, "tdm-reservation": 1}]',
        b'[{"tdm-reservation": 1}]',
        b" " * 512_000 + b'[{"location": "/", "tdm-reservation": 1}]',
    ],
)
def test_errors_are_as_if_unset(body: bytes) -> None:
    assert parse(body) == ()


def test_one_bad_entry_leaves_the_others() -> None:
    (one,) = parse(b'[{"location": "/", "tdm-reservation": 7}, {"location": "/", "tdm-reservation": 1}]')
    assert one.value == "1"


def test_the_number_of_entries_is_bounded() -> None:
    assert len(parse(json.dumps([{"location": "/", "tdm-reservation": 1}] * (MAX_ENTRIES + 1)).encode())) == MAX_ENTRIES
