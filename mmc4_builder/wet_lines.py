"""Lines as Common Crawl's WET has them: which tags break them, and how text and white space become lines."""

import html
import re

# Marks that the lexer leaves in the text. NUL cannot come from a page: it is removed before, and
# character references never yield it. So a NUL is always ours, and the character after it is its kind.
BREAK = "\0 "
IMAGE = "\0i"
PRE_OPEN, PRE_CLOSE = "\0v", "\0w"
_KEPT_SPACE, _KEPT_TAB = "\0s", "\0t"

# ia-web-commons, ExtractingParseObserver (rules of 2025: center, noframes and title break as well).
_BLOCK = (
    "address article aside blockquote body br button canvas caption center col colgroup dd div dl dt embed "
    "fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr li map noframes noscript "
    "object ol output p pre progress section table tbody textarea tfoot th thead title tr ul video"
)
_SPACED = "address cite details datalist iframe img input label legend optgroup q select summary tbody td time"

MARKS: dict[str, str] = {side + name: " " for name in _SPACED.split() for side in ("", "/")}
MARKS.update({side + name: BREAK for name in _BLOCK.split() for side in ("", "/")})
MARKS["pre"] = BREAK + PRE_OPEN
MARKS["/pre"] = PRE_CLOSE + BREAK
MARKS["img"] = MARKS["image"] = IMAGE

_PRE = re.compile(f"({PRE_OPEN}|{PRE_CLOSE})")
_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f\u2028\u2029]")
_RUN = re.compile("  +")
_KIND = re.compile("\0.?", re.S)
# int() of a page's million digits would raise or take minutes; no character has a number this long.
_LONG_NUMBER = re.compile(r"&#(?:[0-9]{16,}|[xX][0-9a-fA-F]{16,});?")


def unescape(text: str) -> str:
    """Character references of running text, by the HTML rules."""
    if "&" not in text:
        return text
    return html.unescape(_LONG_NUMBER.sub("\ufffd", text) if "&#" in text else text)


def squash(text: str) -> str:
    """Marked text as one line: for captions."""
    return " ".join(_KIND.sub(" ", unescape(text)).split())


def split_lines(text: str, max_chars: int) -> tuple[list[str], list[int], bool]:
    """Lines of marked text, for each picture the lines completed before it, and whether a line was cut.

    A picture inside a line counts the lines before that line. No line is empty, none holds a line break.
    """
    text = unescape(text)
    verbatim = PRE_OPEN in text
    text = _keep_verbatim(text) if verbatim else text.replace(PRE_CLOSE, "")
    text = text.replace("\n", " ").replace("\t", " ").replace("\r", " ").replace("\xa0", " ")
    if _CONTROL.search(text):
        text = _CONTROL.sub(" ", text)
    lines, positions = _cut(text)
    lines = [_squeeze(line) if "  " in line else line for line in lines]
    if verbatim:
        lines = [_show_space(line) if "\0" in line else line for line in lines]
    if max(map(len, lines), default=0) <= max_chars:
        return lines, positions, False
    return [line[:max_chars].rstrip() for line in lines], positions, True


def _cut(text: str) -> tuple[list[str], list[int]]:
    lines: list[str] = []
    positions: list[int] = []
    held: list[str] = []  # of the line that is not complete yet
    for number, segment in enumerate((text + BREAK).split(IMAGE)):
        if number:
            positions.append(len(lines))
        pieces = segment.split(BREAK)
        held.append(pieces[0])
        if len(pieces) > 1:
            pieces[0] = " ".join(held)
            if len(held) > 1 and not _show_space(pieces[0]):
                pieces[0] = ""  # only hidden spaces around pictures
            held = [pieces.pop()]
            lines += [line for line in map(str.strip, pieces) if line]
    return lines, positions


def _squeeze(line: str) -> str:
    # split() is faster, but knows white space that WET keeps, such as the ideographic space.
    return " ".join(line.split()) if line.isascii() else _RUN.sub(" ", line)


def _show_space(line: str) -> str:
    return line.replace(_KEPT_SPACE, " ").replace(_KEPT_TAB, "\t").strip()


def _keep_verbatim(text: str) -> str:
    """<pre> verbatim: its line breaks are breaks, its inner spaces are hidden from the squeezing of runs."""
    depth = 0
    parts: list[str] = []
    for part in _PRE.split(text):
        if part == PRE_OPEN:
            depth += 1
        elif part == PRE_CLOSE:
            depth = max(0, depth - 1)
        else:
            parts.append(_keep_space(part) if depth else part)
    return "".join(parts)


def _keep_space(text: str) -> str:
    lines = text.replace(BREAK, "\n").replace("\r", "").replace("\xa0", " ").split("\n")
    kept = "\n".join(map(str.strip, lines))
    return kept.replace(" ", _KEPT_SPACE).replace("\t", _KEPT_TAB).replace("\n", BREAK)
