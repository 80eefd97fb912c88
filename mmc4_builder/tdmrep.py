"""/.well-known/tdmrep.json: a host's reservation of text and data mining rights (TDMRep, W3C CG final report).

An array of {"location": pattern, "tdm-reservation": 0 or 1, "tdm-policy": URL}. The first entry whose pattern
covers a URL speaks for it. What is wrong in the file is as if it were not there, which is the report's rule.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mmc4_builder.path_patterns import PathPattern

MAX_BYTES: Final = 512_000  # ours, as for robots.txt; the report has no limit
MAX_ENTRIES: Final = 1000  # ours: the first ones win anyway, and real files have a handful
MAX_LOCATION_CHARS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """One entry."""

    location: PathPattern
    reserved: bool
    policy: str  # URL of the terms, "" for none; of no meaning where nothing is reserved

    @property
    def value(self) -> str:
        """As a statement says it: "0", "1" or "1 policy <url>"."""
        return "0" if not self.reserved else f"1 policy {self.policy}" if self.policy else "1"


def parse(body: bytes) -> tuple[Reservation, ...]:
    """The valid entries of a file, in its order; none at all for what is no JSON array."""
    try:
        entries = json.loads(body) if len(body) <= MAX_BYTES else None
    except (ValueError, RecursionError):  # no JSON, no Unicode, or brackets nested to exhaust the stack
        return ()
    return tuple(_reservations(entries)) if isinstance(entries, list) else ()


def find(reservations: tuple[Reservation, ...], target: str) -> Reservation | None:
    """The first one whose pattern covers this target, as `target_of` gives it; None leaves its status open."""
    return next((one for one in reservations if one.location.matches(target)), None)


def _reservations(entries: list[object]) -> Iterator[Reservation]:
    for entry in entries[:MAX_ENTRIES]:
        if not isinstance(entry, dict):
            continue
        location, reserved, policy = (entry.get(key) for key in ("location", "tdm-reservation", "tdm-policy"))
        if not isinstance(location, str) or len(location) > MAX_LOCATION_CHARS:
            continue
        if type(reserved) is int and reserved in (0, 1):  # `true` and "1" are errors
            yield Reservation(
                location=PathPattern.of(location),
                reserved=reserved == 1,
                policy=policy if isinstance(policy, str) else "",
            )
