"""The sections of the report, in reading order; each is empty where there is nothing to show."""

from collections import defaultdict
from collections.abc import Iterator

from mmc4_builder.funnel import Funnel, Step, share
from mmc4_builder.report_chart import bar, chart
from mmc4_builder.report_data import DroppedImage, ReportData
from mmc4_builder.report_html import Html, clip, element, join, name_of, table
from mmc4_builder.report_optout import optout_section
from mmc4_builder.report_pictures import document_card, dropped_tile, fit, gallery, kept_tile
from mmc4_builder.report_timing import timing_section

MEGABYTE = 1_000_000
DOCUMENT_BYTES, KEPT_BYTES, DROPPED_BYTES = 4 * MEGABYTE, 1 * MEGABYTE, 2 * MEGABYTE
MAX_DOCUMENTS, MAX_KEPT, MAX_DROPPED = 24, 60, 12  # the last is for each reason
MAX_REASONS, MAX_FACTS, MAX_TOTALS, MAX_CHARTS = 40, 60, 8, 8
SHADES = 4  # neighbouring segments of a bar must differ


def sections(data: ReportData) -> Iterator[tuple[str, str, Html]]:
    """Anchor, heading and body of each section that has something to show."""
    for anchor, heading, body in (
        ("funnel", "Funnel", _funnel(data.funnel)),
        ("distributions", "Distributions", _distributions(data)),
        ("documents", "Documents", _documents(data)),
        ("kept", "Kept pictures", _kept(data)),
        ("dropped", "Dropped pictures", _dropped(data)),
        ("optouts", "Opt-outs", optout_section(data.optouts)),
        ("time", "Time", timing_section(data.times)),
    ):
        if body:
            yield anchor, heading, body


def header(data: ReportData) -> Html:
    facts = (
        element("div", element("dt", clip(name, 80)), element("dd", clip(value, 300)))
        for name, value in data.facts[:MAX_FACTS]
    )
    totals = (
        element("li", element("strong", f"{count:,}"), element("span", clip(name, 80)))
        for name, count in data.totals[:MAX_TOTALS]
    )
    return element(
        "header",
        element("h1", clip(data.title, 200)),
        element("p", clip(data.subtitle, 400), class_="subtitle") if data.subtitle else "",
        element("ul", *totals, class_="totals") if data.totals else "",
        element("dl", *facts, class_="facts") if data.facts else "",
    )


def _funnel(funnel: Funnel) -> Html:
    if not funnel.steps:
        return Html("")
    cards = (_step_card(step) for step in funnel.steps)
    return join([_overview(funnel), element("div", *cards, class_="grid")])


def _overview(funnel: Funnel) -> Html:
    """One row a step. A bar is scaled to the largest step of its unit: pages and lines do not compare."""
    widest: dict[str, int] = defaultdict(int)
    for step in funnel.steps:
        widest[step.unit] = max(widest[step.unit], step.entered)
    rows = [
        (
            name_of(step.stage),
            name_of(step.unit),
            f"{step.entered:,}",
            f"{step.kept:,}",
            share(step.kept, step.entered),
            bar([("kept", step.kept), ("lost s0", step.dropped)], widest[step.unit], ""),
        )
        for step in funnel.steps
    ]
    head = ("Stage", "Unit", "Entered", "Kept", "Share", "Kept and dropped")
    return element("div", table("Funnel, one row a step", head, rows), class_="card overview")


def _step_card(step: Step) -> Html:
    """What became of everything that entered a step; the rows add up to the last one."""
    parts = [("kept", step.kept)]
    parts += [(f"lost s{i % SHADES}", count) for i, (_, count) in enumerate(step.reasons)]
    label = f"{share(step.kept, step.entered)} of {step.entered:,} {step.unit} kept"
    rows = [("kept", step.kept, "kept")]
    rows += [(name_of(name), n, f"lost s{i % SHADES}") for i, (name, n) in enumerate(step.reasons[:MAX_REASONS])]
    rest = step.reasons[MAX_REASONS:]
    if rest:
        rows.append((f"{len(rest)} more reasons", sum(count for _, count in rest), "lost s0"))
    cells = [
        (name, f"{count:,}", share(count, step.entered), bar([(class_, count)], step.entered, ""))
        for name, count, class_ in rows
    ]
    return element(
        "section",
        element("h3", f"{step.stage}: {step.unit}"),
        bar(parts, step.entered, label),
        table(
            f"{step.stage}, {step.unit}: outcomes",
            ("Outcome", "Count", "Share", ""),
            cells,
            ("entered", f"{step.entered:,}", share(step.entered, step.entered), ""),
        ),
        class_="card step",
    )


def _distributions(data: ReportData) -> Html:
    charts = [chart(histogram) for histogram in data.histograms[:MAX_CHARTS]]
    return element("div", *charts, class_="grid") if charts else Html("")


def _documents(data: ReportData) -> Html:
    cards = fit(map(document_card, data.documents), DOCUMENT_BYTES, MAX_DOCUMENTS)
    total = max(_last_kept(data.funnel, "document"), len(data.documents))
    note = (
        "Each picture stands beside the sentence that it was matched with. "
        "A dashed line marks where the page had a picture that was matched elsewhere."
    )
    return join([_shown(len(cards), total, "documents", note), *cards]) if data.documents else Html("")


def _kept(data: ReportData) -> Html:
    tiles = fit(map(kept_tile, data.kept), KEPT_BYTES, MAX_KEPT)
    total = max(_last_kept(data.funnel, "image"), len(data.kept))
    return join([_shown(len(tiles), total, "pictures"), gallery(tiles)]) if data.kept else Html("")


def _dropped(data: ReportData) -> Html:
    groups: dict[str, list[DroppedImage]] = defaultdict(list)
    for dropped in data.dropped:
        groups[dropped.reason].append(dropped)
    counts = {reason: max(_dropped_for(data.funnel, reason), len(group)) for reason, group in groups.items()}
    order = sorted(groups, key=lambda reason: (-counts[reason], reason))
    budget = DROPPED_BYTES // max(1, min(len(order), MAX_REASONS))
    chips, bodies = [], []
    for i, reason in enumerate(order[:MAX_REASONS]):
        tiles = fit(map(dropped_tile, groups[reason]), budget, MAX_DROPPED)
        name, count = clip(reason, 80), element("span", f"{counts[reason]:,}", class_="count")
        chips.append(element("li", element("a", name, " ", count, href=f"#dropped-{i}")))
        heading = element("h3", name, " ", count, id=f"dropped-{i}")
        bodies += [heading, _shown(len(tiles), counts[reason], "pictures"), gallery(tiles)]
    if len(order) > MAX_REASONS:
        bodies.append(element("p", f"{len(order) - MAX_REASONS} more reasons not shown", class_="note"))
    return join([element("ul", *chips, class_="chips"), *bodies]) if groups else Html("")


def _shown(shown: int, total: int, noun: str, note: str = "") -> Html:
    which = f"{shown:,} of {total:,} {noun}" if shown < total else f"All {total:,} {noun}"
    return element("p", f"{which}. {note}".rstrip(), class_="note")


def _last_kept(funnel: Funnel, noun: str) -> int:
    return next((step.kept for step in reversed(funnel.steps) if noun in step.unit), 0)


def _dropped_for(funnel: Funnel, reason: str) -> int:
    """Pictures are counted as images or as image_urls. Pages may be dropped for a reason of the same name."""
    return sum(dict(step.reasons).get(reason, 0) for step in funnel.steps if "image" in step.unit)
