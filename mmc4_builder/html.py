"""From HTML to a Page: lines of text and pictures in document order, in one linear pass.

A lexer and no tree, for two reasons. The lines that C4's rules expect are Common Crawl's WET, which comes from a
lexer. And a page may be written to hurt: selectolax's lexbor (1.0.2) takes 6.3 s and 2.9 GB for 55 kB of unclosed
formatting tags, and quadratic time for nested ones; here every page costs time and memory in proportion to its
length. On the real pages of the test corpus, lines and positions equal an independent walk of lexbor's tree.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mmc4_builder.html_pictures import MAX_SOURCES, Figure, Picture, image_refs
from mmc4_builder.html_tags import attributes, is_whole, skip_comment, skip_raw, tag_name, whole_tag
from mmc4_builder.image_urls import resolver
from mmc4_builder.records import Page
from mmc4_builder.signals import MAX_SIGNALS, Signal, may_signal, meta_signal
from mmc4_builder.wet_lines import MARKS, split_lines, squash


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlLimits:
    """Where a page is cut. A cut is never silent: it adds the signal ("truncated", name of the limit)."""

    max_chars: int = 5 * 2**20  # of HTML: what Common Crawl keeps of a page since March 2025
    max_tags: int = 200_000
    max_images: int = 1000
    max_line_chars: int = 200_000  # C4 drops longer documents anyway
    max_alt_chars: int = 2000  # of an alt text, and of a caption


def parse_page(html: str, url: str, limits: HtmlLimits = HtmlLimits()) -> Page:
    """Lines as Common Crawl's WET has them, pictures with their position, opt-out <meta>s; never raises.

    An image's position is the number of lines completed before it. Pictures in <template>, <textarea>
    and <iframe> do not show and do not count; one that a <noscript> merely repeats counts once.
    """
    lexer = _Lexer(html, limits)
    text = lexer.run()
    lines, positions, cut = split_lines(text, limits.max_line_chars)
    if cut:
        lexer.truncated.append("max_line_chars")
    pictures = zip(lexer.pictures, positions, strict=True)
    images = image_refs(pictures, resolver(url, lexer.base), limits.max_alt_chars) if positions else ()
    marks = (("truncated", name) for name in dict.fromkeys(lexer.truncated))
    return Page(url=url, lines=tuple(lines), images=images, signals=(*lexer.signals, *marks))


@dataclass(slots=True)
class _Lexer:
    """Runs over the pieces of a page between its '<'; holds what is open at the moment."""

    html: str
    limits: HtmlLimits
    pictures: list[Picture] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    truncated: list[str] = field(default_factory=list)
    base: str = ""
    out: list[str] = field(default_factory=list)
    marks: dict[str, str] = field(default_factory=dict)
    pieces: Iterator[str] = iter(())
    sources: list[dict[str, str]] = field(default_factory=list)
    figure: Figure | None = None
    caption_at: int = -1  # where in `out` the open <figcaption> begins
    hidden: str = ""  # the open element whose pictures do not show
    depth: int = 0  # of that element in itself
    fallback: bool = False

    def run(self) -> str:
        """Text of the page with the marks of wet_lines.py in it."""
        pieces = self._pieces()
        # Tags seen before, as written: most tags of a page are few, and a look-up is all they cost.
        marks = self.marks = MARKS_AS_WRITTEN.copy()
        self.pieces, out = pieces, self.out
        get, add = marks.get, out.append
        add(next(pieces))
        for piece in pieces:
            tag, closed, text = piece.partition(">")
            mark = get(tag)
            if mark is None:
                mark = get(tag.partition(" ")[0])
                if mark is None or not closed or "'" in tag or tag.count('"') & 1:
                    mark, text = self._tag(piece, tag, text)
                else:
                    marks[tag] = mark
            if mark:
                add(mark)
            if text:
                add(text)
        self._end_caption()
        return "".join(out)

    def _pieces(self) -> Iterator[str]:
        html = self.html
        if len(html) > self.limits.max_chars:
            html = html[: self.limits.max_chars]
            self.truncated.append("max_chars")
        pieces = html.replace("\0", "").split("<", self.limits.max_tags + 1)
        if len(pieces) > self.limits.max_tags + 1:
            pieces.pop()
            self.truncated.append("max_tags")
        return iter(pieces)

    def _tag(self, piece: str, tag: str, text: str) -> tuple[str, str]:
        """Mark and text of a piece whose tag is not known as written."""
        first = piece[:1]
        if first in ("!", "?"):
            return "", skip_comment(piece, self.pieces)
        if not (first == "/" or (first.isascii() and first.isalpha())):
            return "<", piece
        whole = len(tag) < len(piece) and is_whole(tag)
        if not whole:
            tag, text = whole_tag(piece, self.pieces)
        name = tag_name(tag)
        mark = MARKS.get(name, "")
        if handle := _HANDLERS.get(name):
            return handle(self, tag, mark, text)
        if whole:
            self.marks[tag] = mark
        return mark, text

    def _raw(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        return mark, skip_raw(tag_name(tag), self.pieces)

    def _image(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        sources, self.sources = self.sources, []
        if self.hidden:
            return " ", text
        if len(self.pictures) >= self.limits.max_images:
            self.truncated.append("max_images")
            return " ", text
        self.pictures.append(Picture(attributes(tag), sources, self.figure, self.fallback))
        return mark, text

    def _source(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        if "srcset" in tag and len(self.sources) < MAX_SOURCES:
            self.sources.append(attributes(tag))
        return mark, text

    def _picture(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        self.sources = []
        return mark, text

    def _noscript(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        self.fallback = tag[0] != "/"
        return mark, text

    def _hide(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        name = tag_name(tag)
        if not self.hidden:
            self.hidden, self.depth = name, 1
        elif name == self.hidden == "template":  # the only one of them that nests
            self.depth += 1
        return mark, text

    def _show(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        if tag_name(tag) == "/" + self.hidden:
            self.depth -= 1
            if not self.depth:
                self.hidden = ""
        return mark, text

    def _open_figure(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        self.figure = Figure(self.figure)
        return mark, text

    def _close_figure(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        self._end_caption()
        self.figure = self.figure.parent if self.figure else None
        return mark, text

    def _open_caption(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        if self.figure and self.caption_at < 0:
            self.caption_at = len(self.out)
        return mark, text

    def _close_caption(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        self._end_caption()
        return mark, text

    def _end_caption(self) -> None:
        if self.figure and self.caption_at >= 0:
            caption = squash("".join(self.out[self.caption_at :]))
            self.figure.caption = self.figure.caption or caption[: self.limits.max_alt_chars]
        self.caption_at = -1

    def _base(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        self.base = self.base or attributes(tag).get("href", "")
        return mark, text

    def _meta(self, tag: str, mark: str, text: str) -> tuple[str, str]:
        low = tag.lower()
        if may_signal(low) and len(self.signals) < MAX_SIGNALS:
            found = attributes(tag)
            signal = meta_signal(found.get("name", ""), found.get("content", ""))
            self.signals += [signal] if signal else []
        return mark, text


_Handler = Callable[[_Lexer, str, str, str], tuple[str, str]]
_HANDLERS: dict[str, _Handler] = {
    "script": _Lexer._raw,
    "style": _Lexer._raw,
    "img": _Lexer._image,
    "image": _Lexer._image,
    "source": _Lexer._source,
    "picture": _Lexer._picture,
    "/picture": _Lexer._picture,
    "noscript": _Lexer._noscript,
    "/noscript": _Lexer._noscript,
    "figure": _Lexer._open_figure,
    "/figure": _Lexer._close_figure,
    "figcaption": _Lexer._open_caption,
    "/figcaption": _Lexer._close_caption,
    "base": _Lexer._base,
    "meta": _Lexer._meta,
}
_HANDLERS.update({name: _Lexer._hide for name in ("template", "textarea", "iframe", "noembed", "xmp")})
_HANDLERS.update({"/" + name: _Lexer._show for name in ("template", "textarea", "iframe", "noembed", "xmp")})

_INLINE = (
    "a abbr b big code dfn em font head html i kbd link main nav option path s samp small span strike strong "
    "sub sup svg tt u var"
)
_PLAIN = {**{side + name: "" for name in _INLINE.split() for side in ("", "/")}, **MARKS}
MARKS_AS_WRITTEN = {
    written: mark
    for name, mark in _PLAIN.items()
    if name not in _HANDLERS
    for written in (name, name.upper(), name + "/", name + " /")
}
