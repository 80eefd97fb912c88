"""Pages: lines, pictures, limits, and what hostile mark-up does to them."""

import re
from pathlib import Path

import pytest
from fastwarc.warc import ArchiveIterator, WarcRecordType
from hypothesis import given, settings
from hypothesis import strategies as st

from mmc4_builder.charset import decode
from mmc4_builder.html import HtmlLimits, parse_page
from mmc4_builder.records import Page

URL = "http://site.org/a/page.html"


def parse(html: str) -> Page:
    return parse_page(html, URL)


def names(page: Page) -> list[str]:
    return [image.url.rpartition("/")[2] for image in page.images]


@pytest.mark.parametrize(
    ("html", "lines"),
    [
        ("", []),
        ("plain", ["plain"]),
        ("<p>a<p>b", ["a", "b"]),
        ("<p>a</p>b<br>c<BR/>d<br />e", ["a", "b", "c", "d", "e"]),
        ("<div><div><p>a</p></div></div>", ["a"]),
        ("a <b>b</b><i>c</i> d", ["a bc d"]),
        ("<nav>a</nav><main>b</main><dialog>c</dialog>", ["abc"]),
        ("<tr><td>a<td>b<tr><td>c</table>", ["a b", "c"]),
        ("<table><tr><td>a</td><td>b</td></tr><tr><th>c</th><td>d</td></tr></table>", ["a b", "c", "d"]),
        ("<ul><li>a<li>b</ul>c", ["a", "b", "c"]),
        ("<select><option>a<option>b</select>c", ["ab c"]),
        ("x<label>a</label><input value=v>b", ["x a b"]),
        ("<title>T &amp; U</title><body>a", ["T & U", "a"]),
        ("<center>a</center>b<noframes>c</noframes>", ["a", "b", "c"]),
        ("<noscript>a</noscript><textarea>b</textarea>", ["a", "b"]),
        ("<p hidden style='display:none'>a", ["a"]),
        ("a<script>if (a < b) '<p>x'</script>b<style>p > a {}</style>c", ["abc"]),
        ("a<SCRIPT type='x'>1</SCRIPT >b<script>'</scripty>'</script\n>c", ["abc"]),
        ("a<script src=x></script>b<script/>c</script>d", ["abd"]),
        ("a<script>never closed <p>b", ["a"]),
        ("a<!-- <p> -->b<!-->c<!--->d<!-- x --!>e<!--[if IE]><p>h<![endif]-->f", ["abcdef"]),
        ("a<!DOCTYPE x>b<?php 1 ?>c", ["abc"]),
        ("a<!-- never closed <p>b", ["a"]),
        ("a<![if !IE]>b<![endif]>c</ x>d</>e", ["abcde"]),
        ("1 < 2 <3 <- <> <b>x</b>", ["1 < 2 <3 <- <> x"]),
        ('a<p title="x > y < z" id=\'it\'s\'>b', ["a", "b"]),
        ("<a title='5 > 4' href=x>b</a><a alt=\"<p>\">c</a>", ["bc"]),
        ('<a title="">"><b title="\'">c</b>', ['">c']),
        ('<input value=">">x', ["x"]),
        ('<div class="a"">b</div>c', ["b", "c"]),  # a quote too many is no value
        ('<div class="a>b</div>c', []),  # a value that never closes takes the rest, as in browsers
        ("<p\nclass=a\n>b</p\n>c", ["b", "c"]),
        ("<p/class=a>b<P>c<Div>d<x-y>e</x-y>", ["b", "c", "de"]),
        ("<p<b>c", ["c"]),
        ("a<p", ["a"]),
        ("a<p title='", ["a"]),
        ("<pre>\n  a  b\n\tc\td  \n\n</pre>e  f", ["a  b", "c\td", "e f"]),
        ("<pre class=x>a <b>b  c</b>\n<span>d</span></pre>", ["a b  c", "d"]),
        ("a&nbsp;&nbsp;b &lt;p&gt; &eacute;&#233;&#xe9; &copy; AT&T", ["a b <p> ééé © AT&T"]),
        ("a\x00b<p\x00>c\x01d", ["ab", "c d"]),
        ("a\r\nb\rc\x0cd\x85e\u2028f", ["a b c d e f"]),
        ("<svg><title>a</title><text>b</text></svg>", ["a", "b"]),
        ("<template><p>a</p></template>", ["a"]),
        ("<iframe src=x>a</iframe>b", ["a b"]),
    ],
)  # fmt: skip
def test_lines(html: str, lines: list[str]) -> None:
    assert list(parse(html).lines) == lines


@pytest.mark.parametrize(
    ("html", "images"),
    [
        ("<img src=a.png>", [("a.png", 0)]),
        ("<p>x</p><img src=a.png><p>y <img src=b.png> z</p>", [("a.png", 1), ("b.png", 1)]),
        ("<p>x <img src=a.png></p><img src=b.png>", [("a.png", 0), ("b.png", 1)]),
        ("x<img src=a.png>y", [("a.png", 0)]),
        ("<image src=a.png><IMG SRC='b.png'/><iMg src = c.png >", [("a.png", 0), ("b.png", 0), ("c.png", 0)]),
        ("<img src=a.png src=b.png><img/src=c.png>", [("a.png", 0), ("c.png", 0)]),
        ('<img alt="a > b" src="a.png?x=1&amp;copy=2&copy=3&lt">', [("a.png?x=1&copy=2&copy=3<", 0)]),
        ("<img><img src><img src=''><img src=data:x><img src=#>", []),
        ("<input type=image src=a.png><svg><image href=b.png /></svg><video poster=c.png></video>", []),
        ("<!-- <img src=a.png> --><script>'<img src=b.png>'</script><p title='<img src=c.png>'>", []),
        ("<textarea><img src=a.png></textarea><img src=b.png>", [("b.png", 0)]),
        ("<iframe><img src=a.png></iframe><img src=b.png>", [("b.png", 0)]),
        ("<template><template></template><img src=a.png></template><img src=b.png>", [("b.png", 0)]),
        ("<table><tr><td><img src=a.png><td>x</table><img src=b.png>", [("a.png", 0), ("b.png", 1)]),
        ("<a href=x><img src=a.png></a><noframes><img src=b.png></noframes>", [("a.png", 0), ("b.png", 0)]),
        ("<pre>x\n<img src=a.png>y\n</pre>", [("a.png", 1)]),
        ("<img src=a.png", []),
        # Lazy pictures, with and without a fallback for readers without scripts.
        ("<img data-src=a.png><noscript><img src=a.png></noscript>", [("a.png", 0)]),
        ("<noscript><img src=a.png></noscript><img src=data:, data-src=a.png>", [("a.png", 0)]),
        ("<img src=data:, class=lazy><noscript><img src=a.png></noscript>", [("a.png", 0)]),
        ("<img data-src=a.png><noscript><img src=b.png></noscript>", [("a.png", 0), ("b.png", 0)]),
        ("<img src=a.png><img src=a.png>", [("a.png", 0), ("a.png", 0)]),
        # <picture>
        (
            "<picture><source srcset='a.png 400w, b.png 900w'><img src=c.png></picture><img src=d.png>",
            [("b.png", 0), ("d.png", 0)],
        ),
        ("<picture><source srcset=a.png></picture><img src=data:,>", []),
        ("<video><source src=a.mp4></video><img src=b.png>", [("b.png", 0)]),
    ],
)  # fmt: skip
def test_images(html: str, images: list[tuple[str, int]]) -> None:
    page = parse(html)
    assert [(name, image.position) for name, image in zip(names(page), page.images, strict=True)] == images


def test_base_counts_wherever_it_stands_and_only_once() -> None:
    page = parse("<img src=a.png><base target=x><base href='//cdn.org/p/'><base href='/q/'>")
    assert [image.url for image in page.images] == ["http://cdn.org/p/a.png"]


@pytest.mark.parametrize(
    ("html", "alt", "caption"),
    [
        ("<img src=a alt=' a &amp; b\n &quot;c&quot; '>", 'a & b "c"', ""),
        ("<img src=a alt='&amp;lt;'>", "&lt;", ""),
        ("<img src=a>", "", ""),
        ("<figure><img src=a><figcaption>x <b>y</b><p>z</figcaption></figure>", "", "x y z"),
        ("<figure><figcaption>x &amp; y</figcaption><img src=a alt=z></figure>", "z", "x & y"),
        ("<figure><img src=a><figcaption>x</figure>y", "", "x"),
        ("<figure><img src=a><figcaption>x", "", "x"),
        ("<figure><figure><img src=a></figure><figcaption>x</figcaption></figure>", "", "x"),
        ("<figure><figcaption>x</figcaption></figure><img src=a>", "", ""),
        ("<img src=a><figcaption>x</figcaption>", "", ""),
    ],
)
def test_alt_and_caption(html: str, alt: str, caption: str) -> None:
    page = parse(html)
    assert [(image.alt, image.caption) for image in page.images] == [(alt, caption)]


def test_alt_is_no_text_and_a_caption_is() -> None:
    assert parse("<figure><img src=a alt=b><figcaption>c</figcaption></figure>").lines == ("c",)


def test_meta_signals() -> None:
    html = """<META NAME="Robots" content="noai, noimageai"><meta content=1 name=tdm-reservation>
    <meta name=description content=robots><meta charset=utf-8><!-- <meta name=robots content=none> -->"""
    assert parse(html).signals == (("meta:robots", "noai, noimageai"), ("meta:tdm-reservation", "1"))


@pytest.mark.parametrize(
    ("limits", "lines", "images", "cut"),
    [
        (HtmlLimits(), 2, 3, ()),
        (HtmlLimits(max_chars=9), 1, 0, ("max_chars",)),
        (HtmlLimits(max_tags=4), 1, 2, ("max_tags",)),
        (HtmlLimits(max_tags=6), 2, 3, ()),
        (HtmlLimits(max_images=1), 2, 1, ("max_images",)),
        (HtmlLimits(max_line_chars=1), 2, 3, ("max_line_chars",)),
        (HtmlLimits(max_images=1, max_line_chars=1), 2, 1, ("max_images", "max_line_chars")),
    ],
)
def test_limits_cut_and_say_so(limits: HtmlLimits, lines: int, images: int, cut: tuple[str, ...]) -> None:
    page = parse_page("<p>abc</p><img src=a><img src=b><img src=c><p>abc", URL, limits)
    assert (len(page.lines), len(page.images)) == (lines, images)
    assert page.signals == tuple(("truncated", name) for name in cut)


def test_alt_and_caption_are_bounded() -> None:
    html = "<figure><img src=a alt=abcdef><figcaption>abcdef</figcaption></figure>"
    (image,) = parse_page(html, URL, HtmlLimits(max_alt_chars=3)).images
    assert (image.alt, image.caption) == ("abc", "abc")


SIZE = 400_000
HOSTILE = {
    "deep": "<div>",
    "open formatting": "<p><b a=1><font b=2>x",
    "lt": "<",
    "gt": ">",
    "slash": "</",
    "ampersands": "&",
    "references": "&notit;",
    "nul": "\0",
    "attributes": "a=b ",
    "quote": '<a b="',
    "quotes": "<a b=\"' c='\"",
    "equals": '="" ',
    "comments": "<!--",
    "scripts": "<script>",
    "almost a script's end": "<script></scrip",
    "pre": "<pre> ",
    "spaces": "   ",
    "captions": "<figure><figcaption>x",
    "figures": "<figure><img src=a>",
    "templates": "<template><img src=a>",
    "sources": "<source srcset=a>",
    "bases": "<base href=x>",
    "metas": "<meta name=robots>",
    "unknown": "<x/",
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("prefix", ["", "<p ", "<img src=", '<img srcset="', '<img alt="', "<pre>"])
def test_hostile_pages_end(unit: str, prefix: str) -> None:
    page = parse(prefix + unit * (SIZE // len(unit)))  # quadratic work would run into the test's time limit
    assert len(page.images) <= HtmlLimits().max_images


@pytest.mark.parametrize("html", ["x" * 50_000_000, "<p>" * 17_000_000], ids=["text", "tags"])
def test_fifty_megabytes_are_cut(html: str) -> None:
    assert ("truncated", "max_chars") in parse(html).signals


def test_a_giant_attribute_does_not_hide_the_others() -> None:
    page = parse(f"<img src='data:{'A' * 2_000_000}' data-src=a.png alt=b>")
    assert (names(page), page.images[0].alt) == (["a.png"], "b")


WORDS = (
    "< > </ \" ' = / & ; &# &#x &lt &amp; p /p b img src srcset data-src alt x.png 2x 100w , script /script "
    "style !-- --> --!> pre /pre figure /figure figcaption /figcaption picture source noscript /noscript "
    "template iframe textarea base href meta name robots svg image br td http:// // [ ] # ? \\ {{ a é "
    "<p> <pre> </pre> <b> <img/src=x>"
)
SPACES = ["\n", " ", "\t", "\r", "\xa0", "\0", "\1", "\x85", "\u2028", "\0 ", "\0i", "\0v", "\0w", "\0s"]
MARKUP = st.lists(st.sampled_from(WORDS.split() + SPACES), max_size=40).map("".join)
LINE_BREAK = re.compile("[\0\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


@settings(max_examples=400)
@given(st.one_of(MARKUP, st.text(max_size=100)), st.sampled_from([URL, "", "http://[", "urn:x", "x"]))
def test_invariants(html: str, url: str) -> None:
    page = parse_page(html, url)
    assert page.url == url
    for line in page.lines:
        assert line and line == line.strip() and not LINE_BREAK.search(line)
    positions = [image.position for image in page.images]
    assert positions == sorted(positions)
    assert all(0 <= position <= len(page.lines) for position in positions)
    assert all(re.match("https?://[^/]", image.url, re.I) for image in page.images)
    assert parse_page(html, url) == page


# ---- the same rules over an HTML5 tree: slow, and written apart from the lexer ----

BREAKING = (
    "address article aside blockquote body br button canvas caption center col colgroup dd div dl dt embed "
    "fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr li map noframes noscript "
    "object ol output p pre progress section table tbody textarea tfoot th thead title tr ul video"
)
SPACING = "cite details datalist iframe img input label legend optgroup q select summary td time"


HIDE = str.maketrans({" ": "\ue000", "\xa0": "\ue000", "\t": "\ue001"})


def tree_lines(html: str) -> tuple[list[str], list[int]]:
    """WET lines and picture positions, from lexbor's tree, one node at a time."""
    lexbor = pytest.importorskip("selectolax.lexbor")
    breaking, spacing = frozenset(BREAKING.split()), frozenset(SPACING.split())
    lines, line, positions = [], "", []
    stack = [(lexbor.LexborHTMLParser(html).root, False, False)]

    def end_line() -> None:
        nonlocal line
        text = re.sub(" +", " ", line).replace("\ue000", " ").replace("\ue001", "\t").strip()
        lines.extend([text] if text else [])
        line = ""

    while stack:
        node, closing, verbatim = stack.pop()
        if node.tag == "-text" and verbatim:
            first, *more = node.text_content.translate(HIDE).split("\n")
            line += first
            for part in more:
                end_line()
                line = part
        elif node.tag == "-text":
            line += re.sub("[\x01-\x20\x7f-\xa0\u2028\u2029]+", " ", node.text_content)
        elif node.tag == "img":
            line += " "
            positions.append(len(lines))
        elif node.tag not in ("script", "style", "-comment"):
            if node.tag in breaking:
                end_line()
            line += ("\ue000" if verbatim else " ") if node.tag in spacing else ""
            if not closing and node.tag != "input":
                inside = verbatim or node.tag == "pre"
                children = [(child, False, inside) for child in node.iter(include_text=True)]
                stack += [(node, True, verbatim), *reversed(children)]
    end_line()
    return lines, positions


LEAVES = [
    "a", " b ", "c\n d", "&amp;", "&nbsp;", "é", "<br>", "<img src=x>", "<!-- < -->", "<script>a<b</script>",
    "5 < 6", "<input>", "<a title='>' href=x>e</a>", "\t", "<hr/>", "<i class=f>g</i>",
]  # fmt: skip
# Not p, li or h2: a tree ends these early and then drops their end tags, where a lexer still breaks the line.
ELEMENTS = "div span ul b em section figure blockquote label q cite noscript pre nav x-y"


def _element(name: str, inner: list[str]) -> str:
    return f"<{name} id='i'>{''.join(inner)}</{name}>"


WELL_FORMED = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.builds(_element, st.sampled_from(ELEMENTS.split()), st.lists(inner, max_size=4)),
    max_leaves=25,
).map("<body>".__add__)


@settings(max_examples=300)
@given(WELL_FORMED)
def test_the_lexer_and_a_tree_agree(html: str) -> None:
    page = parse(html)
    lines, positions = tree_lines(html)
    assert list(page.lines) == lines
    # Pictures of one address that a <noscript> repeats are the lexer's to merge.
    if "noscript" not in html:
        assert [image.position for image in page.images] == positions


def test_real_pages_have_the_lines_and_pictures_of_a_tree(manuals: Path) -> None:
    pages = images = 0
    with manuals.open("rb") as stream:
        for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
            content_type = record.http_headers.get("Content-Type", "") if record.http_headers else ""
            if "html" in content_type:
                html, _ = decode(record.reader.read(), content_type)
                page = parse_page(html, str(record.headers["WARC-Target-URI"]))
                assert (list(page.lines), [image.position for image in page.images]) == tree_lines(html), page.url
                assert page.signals == ()
                pages, images = pages + 1, images + len(page.images)
    assert (pages, images) == (234, 1269)
