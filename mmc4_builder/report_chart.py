"""Charts as inline SVG, drawn with attributes alone so that no inline style needs to be allowed."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from mmc4_builder.report_data import Histogram
from mmc4_builder.report_html import Html, clip, element, join, table, text

WIDTH, HEIGHT = 360, 150  # of the plot area, in the SVG's own units
LEFT, TOP, BOTTOM = 8, 20, 24  # margins
MAX_MARKS = 4
LABEL = 14  # height of one mark's label, above the plot so that it hides no bin


def bar(parts: Iterable[tuple[str, int]], whole: int, label: str) -> Html:
    """A bar of `whole`, with one segment for each (class, count)."""
    segments, start = [], 0.0
    for class_, count in parts:
        width = 1000 * count / whole if whole else 0.0
        segments.append(element("rect", x=_n(start), y=0, width=_n(width), height=10, class_=class_))
        start += width
    return element(
        "svg",
        element("rect", x=0, y=0, width=1000, height=10, class_="track"),
        *segments,
        class_="bar",
        viewBox="0 0 1000 10",
        preserveAspectRatio="none",
        role="img" if label else None,
        aria_label=label or None,
        aria_hidden=None if label else "true",
    )


def chart(histogram: Histogram) -> Html:
    """A histogram as a figure, with its numbers as a table for those who want to read them."""
    histogram = replace(histogram, name=clip(histogram.name, 80), unit=clip(histogram.unit, 20))
    total = sum(histogram.counts)
    parts = [f"{total:,} values"]
    if histogram.median is not None:
        parts.append(f"median {_n(histogram.median)}{_unit(histogram)}")
    if histogram.outside:
        parts.append(f"{histogram.outside:,} outside the chart")
    note = ", ".join(parts)
    rows = [(_range(histogram, i), f"{count:,}") for i, count in enumerate(histogram.counts)]
    return element(
        "figure",
        element("h3", histogram.name),
        element("p", note, class_="note"),
        _svg(histogram, f"Histogram of {histogram.name}: {note}"),
        element(
            "details",
            element("summary", "Numbers"),
            table(histogram.name, (histogram.unit or "from \u2013 to", "count"), rows),
        ),
        class_="card chart",
    )


def _svg(histogram: Histogram, label: str) -> Html:
    top = TOP + LABEL * min(len(histogram.marks), MAX_MARKS)
    return element(
        "svg",
        _grid(max(histogram.counts, default=0)),
        join(_columns(histogram)),
        join(_marks(histogram)),
        join(_ticks(histogram)),
        class_="plot",
        viewBox=f"0 {TOP - top} {WIDTH + 2 * LEFT} {HEIGHT + top + BOTTOM}",
        role="img",
        aria_label=label,
    )


def _grid(most: int) -> Html:
    """The base line, and one line at the height of the tallest bin with its count."""
    base, top = TOP + HEIGHT, TOP
    return join(
        [
            element("line", x1=LEFT, x2=LEFT + WIDTH, y1=top, y2=top, class_="grid"),
            element("line", x1=LEFT, x2=LEFT + WIDTH, y1=base, y2=base, class_="axis"),
            element("text", f"{most:,}", x=LEFT + WIDTH, y=top - 5, class_="tick", text_anchor="end"),
        ]
    )


def _columns(histogram: Histogram) -> Iterator[Html]:
    most = max(histogram.counts, default=0) or 1
    for i, count in enumerate(histogram.counts):
        left, right = _x(histogram, histogram.edges[i]), _x(histogram, histogram.edges[i + 1])
        # what is there at all must be seen
        height = max(1.0, HEIGHT * count / most) if count else 0.0
        title = element("title", f"{_range(histogram, i)}{_unit(histogram)}: {count:,}")
        gap = 1.5 if right - left > 4 else 0.0
        yield element(
            "rect",
            title,
            x=_n(left + gap / 2),
            y=_n(TOP + HEIGHT - height),
            width=_n(max(0.5, right - left - gap)),
            height=_n(height),
            rx=1.5 if gap else 0,
            class_="column",
        )


def _marks(histogram: Histogram) -> Iterator[Html]:
    for i, (label, value) in enumerate(histogram.marks[:MAX_MARKS]):
        if histogram.edges[0] <= value <= histogram.edges[-1]:
            x, y = _x(histogram, value), TOP - 4 - LABEL * (i + 1)
            left = x > LEFT + WIDTH * 0.6  # its label goes to the left, or it would leave the chart
            yield element("line", x1=_n(x), x2=_n(x), y1=y - 9, y2=TOP + HEIGHT, class_="mark")
            anchor = "end" if left else "start"
            x += -5 if left else 5
            yield element("text", clip(label, 40), x=_n(x), y=y, class_="marked", text_anchor=anchor)


def _ticks(histogram: Histogram) -> Iterator[Html]:
    """About five edges named below the axis, the outermost always."""
    last = len(histogram.edges) - 1
    for i in sorted({round(last * k / 4) for k in range(5)}):
        anchor = "start" if i == 0 else "end" if i == last else "middle"
        unit = _unit(histogram) if i == last and len(histogram.unit) < 4 else ""  # a long one would not fit
        x = _n(_x(histogram, histogram.edges[i]))
        name = _n(histogram.edges[i]) + unit
        yield element("text", name, x=x, y=TOP + HEIGHT + 16, class_="tick", text_anchor=anchor)


def _x(histogram: Histogram, value: float) -> float:
    low, high = histogram.edges[0], histogram.edges[-1]
    # halves, because the difference of two floats may be infinite
    return LEFT + WIDTH * (value / 2 - low / 2) / (high / 2 - low / 2)


def _range(histogram: Histogram, i: int) -> str:
    return f"{_n(histogram.edges[i])} \u2013 {_n(histogram.edges[i + 1])}"


def _unit(histogram: Histogram) -> str:
    return f" {histogram.unit}" if histogram.unit else ""


def _n(value: float) -> str:
    """A number short enough for an axis or a coordinate."""
    return text(f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}")
