"""The report's section on opt-outs: which statements were found, what became of them, and who refuses most."""

from collections.abc import Sequence

from mmc4_builder.report_data import MAX_OPTOUT_ROWS, OptOuts
from mmc4_builder.report_html import Html, clip, element, join, name_of, table

MAX_REASONS = 6  # of one host


def optout_section(found: OptOuts | None) -> Html:
    """Both tables, or nothing where nobody said anything."""
    if found is None or not found.signals:
        return Html("")
    parts = [_signals(found)]
    if found.hosts:
        parts.append(_hosts(found))
    return join(parts)


def _signals(found: OptOuts) -> Html:
    rows = [
        (name_of(s.name), clip(s.value, 80), clip(s.decision, 20), name_of(s.reason), f"{s.pages:,}", f"{s.images:,}")
        for s in found.signals[:MAX_OPTOUT_ROWS]
    ]
    note = "A page, or a picture on a page, counts once for each statement. Values are shown without paths."
    return element(
        "section",
        element("h3", "Statements"),
        _note(rows, found.signals_in_all, "statements", note, found.signals_lost),
        table("Opt-out statements", ("Statement", "Value", "Decision", "Reason", "Pages", "Pictures"), rows),
        class_="card optout statements",
    )


def _hosts(found: OptOuts) -> Html:
    rows = [
        (clip(h.host, 80), _reasons(h.reasons), f"{h.pages:,}", f"{h.images:,}", f"{h.pages + h.images:,}")
        for h in found.hosts[:MAX_OPTOUT_ROWS]
    ]
    return element(
        "section",
        element("h3", "Hosts that refuse most"),
        _note(rows, found.hosts_in_all, "hosts", "", found.hosts_lost),
        table("Hosts by refusals", ("Host", "Reasons", "Pages", "Pictures", "Refusals"), rows),
        class_="card optout",
    )


def _reasons(reasons: Sequence[str]) -> Html:
    shown = [name_of(reason) for reason in reasons[:MAX_REASONS]]
    return join([*shown, "\u2026"] if len(reasons) > MAX_REASONS else shown, ", ")


def _note(rows: Sequence[object], in_all: int, noun: str, note: str, lost: int) -> Html:
    """What the table leaves out. Where there was too much to remember all of it, how far off a count may be."""
    which = f"All {in_all:,} {noun}"
    if lost:
        which = f"The first {len(rows):,} {noun}; a count may be too low by {lost:,}"
    elif len(rows) < in_all:
        which = f"The first {len(rows):,} of {in_all:,} {noun}"
    return element("p", f"{which}. {note}".rstrip(), class_="note")
