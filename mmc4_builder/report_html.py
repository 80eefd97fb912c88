"""Markup that page text cannot break out of: every plain string is escaped, only `Html` passes as it is."""

import re
from collections.abc import Iterable
from html import escape

VOID = ("img", "link", "meta", "wbr")
MAX_LINK = 2_000  # characters of an address that is still worth following

# Bytes that no HTML file may hold, and the marks by which text pretends to run the other way.
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_WEB = re.compile(r"https?://[^\s/?#\\]+(?:[/?#][^\s]*)?", re.IGNORECASE)


class Html(str):
    """Text that is markup already: made here, or of characters that cannot be markup, as base64."""

    __slots__ = ()


def text(value: str) -> Html:
    """Any string as it is to be read, never as markup."""
    return value if isinstance(value, Html) else Html(escape(_UNSHOWABLE.sub("\ufffd", value), quote=True))


def join(parts: Iterable[str], between: str = "") -> Html:
    """Parts one after another, the plain ones escaped."""
    return Html(text(between).join(text(part) for part in parts))


def element(name: str, /, *children: str, **attributes: str | float | None) -> Html:
    """One element. `class_` and `aria_label` stand for `class` and `aria-label`; None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value if isinstance(value, str) else str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>" if name in VOID else f"<{name}{written}>{join(children)}</{name}>")


def clip(value: str, most: int) -> str:
    """At most `most` characters, with an ellipsis where something is missing."""
    return value if len(value) <= most else value[: most - 1].rstrip() + "\u2026"


def name_of(counter: str) -> Html:
    """A counter's name, which a narrow column may break after an underscore."""
    return join(clip(counter, 80).split("_"), Html("_<wbr>"))


def link(url: str, label: str = "") -> Html:
    """A link to a web page that learns nothing of the reader. What is no web address is shown, not linked."""
    shown = element("bdi", label or clip(url, 120))
    if len(url) > MAX_LINK or not _WEB.fullmatch(url):
        return element("span", shown, class_="url", title=clip(url, 400))
    return element("a", shown, class_="url", href=url, title=clip(url, 400), rel="noreferrer noopener nofollow")


def table(caption: str, head: Iterable[str], rows: Iterable[Iterable[str]], foot: Iterable[str] = ()) -> Html:
    """A table whose first column names its rows. `caption` is for those who do not see the heading above."""
    columns = join(element("th", cell, scope="col") for cell in head)
    body = join(_row(row) for row in rows)
    feet = tuple(foot)
    return element(
        "div",
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", columns)),
            element("tbody", body),
            element("tfoot", _row(feet)) if feet else "",
        ),
        class_="scroll",
        # a region that scrolls must be reachable by keyboard
        tabindex=0,
        role="region",
        aria_label=caption,
    )


def _row(cells: Iterable[str]) -> Html:
    name, *values = cells
    return element("tr", element("th", name, scope="row"), join(element("td", cell) for cell in values))
