"""HTML of the sample's pages: one page written in many hands, as sites do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape

EMPTY_GIF = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a site writes its pages."""

    tag: str = "plain"  # a key of TAGS
    links: str = "absolute"  # absolute, relative, base, host or protocol
    charset: str = "utf-8"  # a Python codec
    declared: str = "header"  # header, meta, bom or nowhere
    gallery: bool = False  # pictures stand in figures with captions


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One picture as a page shows it."""

    url: str
    alt: str = ""
    caption: str = ""


Element = str | Shown
"""A paragraph or a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """The text of one page, before it is HTML."""

    host: str
    scheme: str
    title: str
    elements: tuple[Element, ...]
    robots: str = ""  # content of the meta element; "" for none
    language: str = "en"


def html(sheet: Sheet, style: Style) -> bytes:
    """The page as a server sends it, in the style's charset."""
    head = [f"<title>{escape(sheet.title)}</title>"]
    if style.declared == "meta":
        head.insert(0, f'<meta charset="{style.charset}">')
    if sheet.robots:
        head.append(f'<meta name="robots" content="{escape(sheet.robots)}">')
    if style.links == "base":
        head.append(f'<base href="{sheet.scheme}://{sheet.host}/img/">')
    head.append("<style>body { margin: 2em; } .late { opacity: 0; }</style>")
    body = "\n".join(_block(element, sheet, style) for element in sheet.elements)
    page = _FRAME.format(
        language=sheet.language, head="\n".join(head), title=escape(sheet.title), body=body, host=sheet.host
    )
    encoded = page.encode(style.charset, "xmlcharrefreplace")
    return b"\xef\xbb\xbf" + encoded if style.declared == "bom" else encoded


def content_type(style: Style) -> str:
    return f"text/html; charset={style.charset}" if style.declared == "header" else "text/html"


# None of these lines survives C4's rules: no end mark, too few words, or a phrase that betrays furniture.
_FRAME = """<!DOCTYPE html>
<html lang="{language}">
<head>
{head}
</head>
<body>
<nav><ul>
<li><a href="/">Home</a></li><li><a href="/archive/">Archive</a></li><li><a href="/about/">About us</a></li>
</ul></nav>
<div class="notice">This site uses cookies to remember how you read it.</div>
<noscript>Please switch on javascript to see this page as it was meant.</noscript>
<article>
<h1>{title}</h1>
{body}
</article>
<script>var state = {{"lazy": true}}; document.title.trim();</script>
<footer><p>Copyright {host}</p><p>All about us and our terms of use are on this page.</p></footer>
</body>
</html>
"""


def _block(element: Element, sheet: Sheet, style: Style) -> str:
    if isinstance(element, str):
        return f"<p>{escape(element, quote=False)}</p>"
    written = escape(_link(element.url, sheet, style))
    tag = TAGS[style.tag](written, escape(element.alt))
    if element.url.startswith("data:"):
        tag = _plain(element.url, escape(element.alt))
    if style.gallery or element.caption:
        return f"<figure>{tag}<figcaption>{escape(element.caption)}</figcaption></figure>"
    return f"<div>{tag}</div>"


def _link(url: str, sheet: Sheet, style: Style) -> str:
    """The URL as this site writes it; pictures of other hosts are always written in full."""
    own = f"{sheet.scheme}://{sheet.host}"
    folder = f"{own}/img/"
    if style.links == "protocol" and url.startswith(sheet.scheme):
        return url[len(sheet.scheme) + 1 :]
    if style.links == "host" and url.startswith(own):
        return url[len(own) :]
    if style.links == "relative" and url.startswith(folder):
        return "../img/" + url[len(folder) :]
    if style.links == "base" and url.startswith(folder):
        return url[len(folder) :]
    return url


def _smaller(url: str) -> str:
    """The address of a smaller version, which the crawl has not kept."""
    stem, dot, extension = url.rpartition(".")
    return f"{stem}-160w{dot}{extension}"


def _plain(url: str, alt: str) -> str:
    return f'<img src="{url}" alt="{alt}">'


def _lazy(url: str, alt: str) -> str:
    return f'<img class="late" src="{EMPTY_GIF}" data-src="{url}" alt="{alt}">'


def _lazy_set(url: str, alt: str) -> str:
    return f'<img class="late" src="{EMPTY_GIF}" data-srcset="{_smaller(url)} 160w, {url} 900w" alt="{alt}">'


def _noscript(url: str, alt: str) -> str:
    return f'<img class="late" src="{EMPTY_GIF}" alt="{alt}"><noscript><img src="{url}" alt="{alt}"></noscript>'


def _lazy_noscript(url: str, alt: str) -> str:
    return f"{_lazy(url, alt)}<noscript>{_plain(url, alt)}</noscript>"


def _srcset(url: str, alt: str) -> str:
    return f'<img src="{url}" srcset="{_smaller(url)} 160w, {url} 900w" sizes="60vw" alt="{alt}">'


def _srcset_only(url: str, alt: str) -> str:
    return f'<img srcset="{_smaller(url)} 1x, {url} 2x" alt="{alt}">'


def _picture(url: str, alt: str) -> str:
    modern = url.rpartition(".")[0] + ".avif"
    source = f'<source type="image/avif" srcset="{modern}">'
    return f'<picture>{source}<img src="{url}" alt="{alt}" loading="lazy"></picture>'


TAGS: Mapping[str, Callable[[str, str], str]] = {
    "plain": _plain,
    "lazy": _lazy,
    "lazy_set": _lazy_set,
    "noscript": _noscript,
    "lazy_noscript": _lazy_noscript,
    "srcset": _srcset,
    "srcset_only": _srcset_only,
    "picture": _picture,
}
