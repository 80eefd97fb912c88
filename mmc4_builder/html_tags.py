"""Tags, comments and raw text of a page that was split at '<': where they end, and what a tag says.

A lexer and not a tree, as in Common Crawl's own WET extractor: every function reads on and never back, so
no page takes more than linear time and memory. (Tree builders re-open unclosed <b> at each block: 200 kB of
mark-up can grow to gigabytes.)
"""

import html
import re
from collections.abc import Iterator
from html.entities import html5
from itertools import islice

MAX_ATTRIBUTES = 100  # read of one tag

_STEP = re.compile(r"[^>=]*(?:(>)|=\s*([\"']?)|\Z)")
_NAME = re.compile(r"/?[a-zA-Z][^\s/>]*")
_ATTRIBUTE = re.compile(r"([^\s/>][^\s/>=]*)\s*(?:=\s*(?:\"([^\"]*)\"?|'([^']*)'?|([^\s>]*)))?")
_REFERENCE = re.compile(r"&(?:#(?:[0-9]{1,7}|[xX][0-9a-fA-F]{1,6});?|[a-zA-Z][a-zA-Z0-9]{1,31}(?:;|(?![=;a-zA-Z0-9])))")
_COMMENT_END = re.compile(r"--!?>")


def tag_name(tag: str) -> str:
    """Lower-case name, with a leading slash for an end tag; "" where this is no tag."""
    found = _NAME.match(tag)
    return found[0].lower() if found else ""


def is_whole(tag: str) -> bool:
    """Whether text up to the first '>' is surely the whole tag: no quoted value is open there."""
    return "'" not in tag and not tag.count('"') & 1


def whole_tag(piece: str, rest: Iterator[str]) -> tuple[str, str]:
    """Tag and text after it where values may hold '<' and '>'. A tag that never ends is ("", "")."""
    read: list[str] = []
    at = 0
    while step := _STEP.match(piece, at):
        at, quote = step.end(), step[2]
        if step[1]:
            return "".join(read) + piece[: at - 1], piece[at:]
        while quote or at == len(piece):  # the value, or the tag, goes on beyond this piece
            if quote and (end := piece.find(quote, at) + 1):
                at, quote = end, ""
                continue
            read.append(piece)
            following = next(rest, None)
            if following is None:
                return "", ""
            piece, at = "<" + following, 0
            if not quote:
                break
    return "", ""


def skip_comment(piece: str, rest: Iterator[str]) -> str:
    """Text after a comment, a doctype or a processing instruction whose '<' has been read."""
    if not piece.startswith("!--"):
        return piece.partition(">")[2]
    at = 1  # <!--> and <!---> are whole comments
    while not (end := _COMMENT_END.search(piece, at)):
        following = next(rest, None)
        if following is None:
            return ""
        piece, at = following, 0
    return piece[end.end() :]


def skip_raw(name: str, rest: Iterator[str]) -> str:
    """Text after the end tag of a <script> or <style> whose start tag has been read."""
    end = "/" + name
    for piece in rest:
        if piece.startswith("/") and tag_name(piece) == end:
            return piece.partition(">")[2]
    return ""


def attributes(tag: str) -> dict[str, str]:
    """Attributes of a tag, names in lower case, values decoded; the first of a name wins."""
    found: dict[str, str] = {}
    start = _NAME.match(tag)
    matches = islice(_ATTRIBUTE.finditer(tag, start.end() if start else 0), MAX_ATTRIBUTES)
    for name, double, single, bare in (match.groups("") for match in matches):
        value = double or single or bare
        found.setdefault(name.lower(), unescape_value(value) if "&" in value else value)
    return found


def unescape_value(value: str) -> str:
    """Character references of an attribute value: "?a=1&copy=2" is an address and keeps its "&copy"."""
    return _REFERENCE.sub(_character, value)


def _character(reference: re.Match[str]) -> str:
    found = reference[0]
    return html.unescape(found) if found[1] == "#" or found[1:] in html5 else found
