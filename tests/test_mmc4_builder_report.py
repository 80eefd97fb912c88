"""The report: hostile text stays text, everything is embedded and bounded, and a real browser is content."""

import contextlib
import io
import math
import random
import re
import shutil
import subprocess
import zlib
from base64 import b64decode, b64encode
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from selectolax.lexbor import LexborHTMLParser, LexborNode

from filters.optout import _REASONS
from mmc4_builder.funnel import Funnel, Step
from mmc4_builder.report import (
    MAX_BYTES,
    MAX_OPTOUT_ROWS,
    DroppedImage,
    Histogram,
    MatchedImage,
    OptOuts,
    RefusingHost,
    ReportData,
    ReportDocument,
    ReportImage,
    Signal,
    ThumbnailError,
    histogram,
    render_report,
    thumbnail,
    withheld,
)
from mmc4_builder.report_html import clip, element, link, text
from pipelines import optout_counts
from pipelines.schemas import OPTOUT

EVIL = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style></title></textarea><script>alert(1)</script>",
    "<!-- --><svg onload=alert(1)>",
    "&lt;b&gt; &amp; &#60;i&#62;",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    'https://example.org/" onclick="alert(1)',
    "https://example.org/<script>",
    "https:\tjavascript:alert(1)",
    "\x00\x1b[2J\ud800\u202egnp.exe\ufffe",
)


def picture(width: int = 64, height: int = 48, kind: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    image = Image.new(mode, (width, height))
    if mode == "RGB":
        ImageDraw.Draw(image).ellipse((4, 4, width // 2, height - 4), fill=(200, 90, 40))
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


THUMBNAIL = thumbnail(picture())


def report_of(word: str, url: str) -> ReportData:
    """A report in which every free text is `word` and every address is `url`."""
    image = ReportImage(url=url, thumbnail=THUMBNAIL, width=640, height=480, similarity=0.25, alt=word)
    name = word if word.isprintable() and word else "name"  # a Step takes no others
    return ReportData(
        title=word,
        subtitle=f"about {word}",
        facts=((word, word),),
        totals=((word, 3),),
        funnel=Funnel((Step(stage=name, unit=name, entered=3, kept=1, reasons=((name, 2),)),)),
        histograms=(Histogram(name=word, unit=word, edges=(0, 1, 2), counts=(1, 2), marks=((word, 1.0),)),),
        documents=(
            ReportDocument(
                url=url,
                sentences=(word, "One.", "Two.", word),
                images=(MatchedImage(image=image, matched_index=0, position=3),),
                warc=word,
                offset=42,
                timestamp=word,
            ),
        ),
        kept=(image,),
        dropped=(
            DroppedImage(image=image, reason=word, detail=word),
            DroppedImage(image=replace(image, thumbnail=b""), reason="http_404"),
        ),
        optouts=OptOuts(
            signals=(Signal(name=word, value=word, decision=word, reason=word, pages=2, images=3),),
            signals_in_all=1,
            hosts=(RefusingHost(host=word, reasons=(word, "other"), pages=2, images=3),),
            hosts_in_all=1,
        ),
    )


def parse(data: ReportData) -> LexborNode:
    root = LexborHTMLParser(render_report(data)).root
    assert root is not None
    return root


def texts(root: LexborNode, selector: str) -> list[str]:
    return [node.text() for node in root.css(selector)]


def skeleton(root: LexborNode) -> Counter[tuple[str, ...]]:
    """Every element with the names of its attributes: what hostile text must not change."""
    return Counter((node.tag or "", *sorted(node.attributes)) for node in root.css("*"))


# --- hostile text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_becomes_markup(evil: str) -> None:
    plain = skeleton(parse(report_of("plain", "ftp://plain")))
    assert skeleton(parse(report_of(evil, "ftp://plain"))) == plain


@pytest.mark.parametrize("evil", EVIL)
def test_no_address_becomes_anything_but_a_web_link(evil: str) -> None:
    root = parse(report_of(evil, evil))
    assert not root.css("script, iframe, object, embed, base, form, svg foreignObject")
    for node in root.css("*"):
        assert not [name for name in node.attributes if name.startswith("on") or name == "style"]
    for node in root.css("a"):
        assert re.match(r"#[a-z0-9-]+$|https://example\.org/", node.attributes["href"] or "")
    for node in root.css("img"):
        assert (node.attributes["src"] or "").startswith("data:image/jpeg;base64,/9j/")


@settings(max_examples=30)
@given(st.text(min_size=1, max_size=40).filter(lambda word: word.isprintable() and word != "http_404"))
def test_any_text_stays_text(word: str) -> None:
    expected = skeleton(parse(report_of("plain", "ftp://plain")))
    found = skeleton(parse(report_of(word, "ftp://plain")))
    # a counter's name may break after an underscore; a name such as `nsfw` withholds its picture
    for tag in ("wbr", "img", "div"):
        for shape in [shape for shape in expected | found if shape[0] == tag]:
            del expected[shape], found[shape]
    assert found == expected


def test_hostile_text_can_be_read() -> None:
    root = parse(report_of(EVIL[0], "https://example.org/"))
    assert texts(root, "h1") == [EVIL[0]]
    assert texts(root, ".lines p")[0] == EVIL[0]
    assert root.css("figure img")[0].attributes["alt"] == EVIL[0]
    assert EVIL[0] not in render_report(report_of(EVIL[0], EVIL[0]))


def test_what_no_file_may_hold_is_replaced() -> None:
    page = render_report(report_of(EVIL[-1], EVIL[-1]))
    assert page.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\ud800-\udfff\u202a-\u202e]", page)


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        ("https://example.org/a?b=c&d=1#e", True),
        ("HTTP://EXAMPLE.ORG", True),
        ("http://[::1]:8080/x", True),
        ("javascript:alert(1)//https://example.org/", False),
        (" https://example.org/", False),
        ("https://example.org/a b", False),
        ("https://", False),
        ("https:///evil", False),
        ("//example.org/", False),
        ("ftp://example.org/", False),
        ("", False),
        ("https://example.org/" + "x" * 3_000, False),
    ],
)
def test_link(url: str, linked: bool) -> None:
    markup = link(url)
    assert markup.startswith("<a " if linked else "<span ")
    assert ('rel="noreferrer noopener nofollow"' in markup) == linked


def test_escaping_happens_once() -> None:
    inner = element("b", "1 < 2", title='"')
    assert inner == '<b title="&quot;">1 &lt; 2</b>'
    assert element("p", inner, " & ", class_="x", aria_label=None) == f'<p class="x">{inner} &amp; </p>'
    assert text(text("&")) == "&amp;"


@pytest.mark.parametrize(("value", "expected"), [("abc", "abc"), ("abcd", "ab\u2026"), ("a  d", "a\u2026")])
def test_clip(value: str, expected: str) -> None:
    assert clip(value, 3) == expected


# --- the page as a whole ----------------------------------------------------------------------------------


def test_same_data_same_bytes() -> None:
    assert render_report(report_of("a", "https://example.org/")) == render_report(
        report_of("a", "https://example.org/")
    )


def test_nothing_is_loaded_and_the_policy_fits_the_style() -> None:
    page = render_report(report_of("a", "https://example.org/"))
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = LexborHTMLParser(page).css("meta[http-equiv]")[0].attributes["content"] or ""
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_headings_and_tables_are_named() -> None:
    root = parse(report_of("a", "https://example.org/"))
    assert len(root.css("h1")) == 1
    assert texts(root, "h2") == [
        "Funnel",
        "Distributions",
        "Documents",
        "Kept pictures",
        "Dropped pictures",
        "Opt-outs",
    ]
    anchors = {node.attributes["id"] for node in root.css("[id]")}
    for node in root.css("nav a, .chips a, .skip"):
        assert (node.attributes["href"] or "")[1:] in anchors
    assert len(root.css("table")) == len(root.css("table > caption")) > 0
    assert not root.css("th:not([scope])")
    assert not [node for node in root.css("img") if not node.attributes.get("alt")]
    for node in root.css("svg"):
        assert {"aria-hidden", "aria-label"} & set(node.attributes)


def test_empty_sections_are_left_out() -> None:
    root = parse(ReportData(title="Nothing", subtitle="", funnel=Funnel()))
    assert texts(root, "h1, h2") == ["Nothing"]
    assert not root.css("nav a")


def test_size_is_bounded() -> None:
    word = "&" * 100_000
    rng = random.Random(0)
    noise = Image.frombytes("RGB", (320, 320), rng.randbytes(320 * 320 * 3))
    out = io.BytesIO()
    noise.save(out, "JPEG", quality=80)
    image = ReportImage(url=word, thumbnail=out.getvalue(), width=1, height=1, similarity=0.5, alt=word)
    matched = MatchedImage(image=image, matched_index=0, position=0)
    chart = histogram(word, range(1000), 200, word)
    document = ReportDocument(url=word, sentences=(word,) * 500, images=(matched,) * 10, warc=word)
    data = ReportData(
        title=word,
        subtitle=word,
        funnel=Funnel(),
        facts=((word, word),) * 500,
        totals=((word, 1),) * 500,
        histograms=(chart,) * 50,
        documents=(document,) * 100,
        kept=(image,) * 1000,
        dropped=tuple(DroppedImage(image=image, reason=f"r{i % 100}", detail=word) for i in range(3000)),
        optouts=OptOuts(
            signals=(Signal(name=word, value=word, decision=word, reason=word, pages=1, images=1),) * 500,
            signals_in_all=500,
            hosts=(RefusingHost(host=word, reasons=(word,) * 500, pages=1, images=1),) * 500,
            hosts_in_all=70_000,
            hosts_lost=3,
        ),
    )
    page = render_report(data)
    assert len(page.encode()) <= MAX_BYTES
    assert re.search(r"[1-9]\d* of 100 documents\. ", page)
    assert re.search(r"[1-9]\d* of 1,000 pictures\.", page)
    assert "The first 20 of 500 statements." in page
    assert "The first 20 hosts; a count may be too low by 3." in page
    assert "60 more reasons not shown" in page


# --- funnel -----------------------------------------------------------------------------------------------


def rows(table: LexborNode) -> list[list[str]]:
    return [[cell.text() for cell in row.css("th, td")] for row in table.css("tr")]


def test_funnel_tables_add_up() -> None:
    pages = Step(stage="documents", unit="pages", entered=10, kept=4, reasons=(("no_images", 5), ("language", 1)))
    documents = Step(stage="interleave", unit="documents", entered=4, kept=4)
    root = parse(ReportData(title="t", subtitle="", funnel=Funnel((pages, documents))))
    overview, first, second = (rows(table) for table in root.css("table"))
    assert overview[1:] == [
        ["documents", "pages", "10", "4", "40.0 %", ""],
        ["interleave", "documents", "4", "4", "100.0 %", ""],
    ]
    assert first[1:] == [
        ["kept", "4", "40.0 %", ""],
        ["no_images", "5", "50.0 %", ""],
        ["language", "1", "10.0 %", ""],
        ["entered", "10", "100.0 %", ""],
    ]
    assert second[1:] == [["kept", "4", "100.0 %", ""], ["entered", "4", "100.0 %", ""]]


def test_bars_of_one_unit_have_one_scale() -> None:
    funnel = Funnel(
        (
            Step(stage="a", unit="images", entered=8, kept=4, reasons=(("x", 4),)),
            Step(stage="b", unit="images", entered=4, kept=2, reasons=(("x", 2),)),
            Step(stage="c", unit="documents", entered=2, kept=2),
            Step(stage="d", unit="nothing", entered=0, kept=0),
        )
    )
    root = parse(ReportData(title="t", subtitle="", funnel=funnel))
    widths = [node.attributes["width"] for node in root.css(".overview .kept")]
    assert widths == ["500", "250", "1000", "0"]


def test_rare_reasons_are_summed_so_that_the_table_still_adds_up() -> None:
    reasons = tuple((f"http_{i}", i) for i in range(1, 61))
    total = sum(count for _, count in reasons)
    step = Step(stage="images", unit="images", entered=total, kept=0, reasons=reasons)
    table = rows(parse(ReportData(title="t", subtitle="", funnel=Funnel((step,)))).css(".step table")[0])
    assert table[-2][:2] == ["20 more reasons", "210"]
    assert sum(int(row[1].replace(",", "")) for row in table[1:-1]) == total


# --- documents --------------------------------------------------------------------------------------------


def document(count: int, *images: tuple[int, int]) -> ReportData:
    """`count` sentences, and pictures at (matched sentence, position in the page)."""
    matched = tuple(
        MatchedImage(
            image=ReportImage(url=f"https://a.example/{i}.jpg", thumbnail=THUMBNAIL),
            matched_index=m,
            position=p,
        )
        for i, (m, p) in enumerate(images)
    )
    sentences = tuple(f"Sentence {i}." for i in range(count))
    page = ReportDocument(url="https://a.example/", sentences=sentences, images=matched, warc="w.gz", offset=42)
    return ReportData(title="t", subtitle="", funnel=Funnel(), documents=(page,))


@pytest.mark.parametrize(
    ("matched", "position", "move", "mark"),
    [
        (2, 2, "next to it in the page", None),
        (2, 3, "next to it in the page", None),
        (2, 1, "1 down from its place in the page", "Sentence 1."),
        (2, 0, "2 down from its place in the page", "Sentence 0."),
        (2, 4, "1 up from its place in the page", "Sentence 4."),
        (2, 5, "2 up from its place in the page", ""),
        (2, 99, "96 up from its place in the page", ""),
        (2, -7, "9 down from its place in the page", "Sentence 0."),
    ],
)
def test_dom_position_and_match(matched: int, position: int, move: str, mark: str | None) -> None:
    root = parse(document(5, (matched, position)))
    assert move in root.css("figcaption")[0].text(separator=" ")
    assert texts(root, ".matched p") == [f"Sentence {matched}."]
    marks = root.css(".gap")
    assert len(marks) == (mark is not None)
    if mark is not None:
        assert marks[0].text() == "picture 1 in the page"
        following = marks[0].next
        assert (following.css("p")[0].text() if following else "") == mark


def test_pictures_are_numbered_as_the_page_has_them() -> None:
    root = parse(document(9, (7, 8), (1, 0)))
    assert texts(root, "figcaption strong") == ["Picture 1", "Picture 2"]
    assert texts(root, ".matched p") == ["Sentence 1.", "Sentence 7."]


def test_long_runs_fold_and_no_sentence_is_lost() -> None:
    root = parse(document(20, (10, 10)))
    assert texts(root, "summary") == ["9 sentences without a picture", "8 sentences without a picture"]
    assert texts(root, ".lines p") == [f"Sentence {i}." for i in range(20)]
    assert texts(root, ".n") == [str(i) for i in range(20)]


def test_a_picture_whose_sentence_is_not_there_is_still_shown() -> None:
    root = parse(document(3, (99, 1), (-1, 2)))
    assert texts(root, ".document > .pics strong") == ["Picture 1", "Picture 2"]
    assert not root.css(".matched")


def test_provenance_and_cuts_are_told() -> None:
    root = parse(document(300, *[(0, 0)] * 45))
    assert "w.gz @ 42" in texts(root, ".document code")
    notes = texts(root, ".document > .note")
    assert notes[-2:] == ["100 more sentences not shown", "5 more pictures not shown"]


# --- galleries --------------------------------------------------------------------------------------------


def test_dropped_pictures_stand_under_their_reason_with_the_funnel_s_count() -> None:
    steps = (
        Step(stage="documents", unit="pages", entered=50, kept=0, reasons=(("too_small", 50),)),
        Step(
            stage="images",
            unit="image_urls",
            entered=30,
            kept=9,
            reasons=(("too_small", 20), ("http_404", 1)),
        ),
        Step(stage="interleave", unit="images", entered=9, kept=5, reasons=(("too_small", 4),)),
    )
    shown = [
        DroppedImage(image=ReportImage(url="https://a.example/x/gone.jpg"), reason="http_404", detail="HTTP 404"),
        DroppedImage(image=ReportImage(url="https://a.example/i.gif", width=9, height=8), reason="too_small"),
    ]
    kept = (ReportImage(url="https://a.example/k.jpg", similarity=0.31),)
    data = ReportData(title="t", subtitle="", funnel=Funnel(steps), dropped=tuple(shown), kept=kept)
    root = parse(data)
    assert texts(root, "#dropped h3") == ["too_small 24", "http_404 1"]
    assert texts(root, ".chips a") == ["too_small 24", "http_404 1"]
    assert texts(root, "#dropped .note") == ["1 of 24 pictures.", "All 1 pictures."]
    assert texts(root, "#kept .note") == ["1 of 5 pictures."]
    small, gone = root.css("#dropped figcaption")
    assert small.text(separator="|") == "9 \u00d7 8 px|i.gif"
    assert gone.text(separator="|") == "HTTP 404|gone.jpg"


@pytest.mark.parametrize(
    ("reason", "embedded"),
    [
        *((reason, False) for reason in ("nsfw", "image_nsfw", "face", "FACES", "removed", "robots_unreachable")),
        *((f"optout_{kind}", False) for kind in ("list", "robots", "robots_agent", "content_usage", "header")),
        *((f"optout_{kind}", False) for kind in ("meta", "tdm", "metadata")),
        *((reason, True) for reason in ("surface", "ad_banner", "near_duplicate", "document_dropped")),
    ],
)
def test_what_was_dropped_to_protect_somebody_is_not_passed_on(reason: str, embedded: bool) -> None:
    image = ReportImage(url="https://a.example/x.jpg", thumbnail=THUMBNAIL)
    data = ReportData(title="t", subtitle="", funnel=Funnel(), dropped=(DroppedImage(image=image, reason=reason),))
    assert (b64encode(THUMBNAIL).decode() in render_report(data)) == embedded
    assert withheld(reason) != embedded


def test_every_reason_for_an_opt_out_withholds() -> None:
    assert _REASONS and all(withheld(reason) for reason, _ in _REASONS)


@pytest.mark.parametrize(("detail", "embedded"), [("optout_meta", False), ("removed", False), ("no_images_left", True)])
def test_pictures_of_a_refused_page_are_not_passed_on(detail: str, embedded: bool) -> None:
    image = ReportImage(url="https://a.example/x.jpg", thumbnail=THUMBNAIL)
    dropped = DroppedImage(image=image, reason="document_dropped", detail=detail)
    page = render_report(ReportData(title="t", subtitle="", funnel=Funnel(), dropped=(dropped,)))
    assert (b64encode(THUMBNAIL).decode() in page) == embedded
    assert ("withheld" in page) != embedded


# --- opt-outs ---------------------------------------------------------------------------------------------


def test_opt_outs_in_two_tables() -> None:
    signals = (
        Signal(name="header:x-robots-tag", value="noai", decision="refused", reason="optout_header", pages=2, images=9),
        Signal(name="header:tdm-reservation", value="0", decision="noted", reason="", pages=0, images=1),
    )
    hosts = (RefusingHost(host="a.example", reasons=("optout_header", "optout_tdm"), pages=1_000, images=20),)
    found = OptOuts(signals=signals, signals_in_all=2, hosts=hosts, hosts_in_all=7)
    root = parse(ReportData(title="t", subtitle="", funnel=Funnel(), optouts=found))
    statements, refusals = (rows(table) for table in root.css("#optouts table"))
    assert statements[1:] == [
        ["header:x-robots-tag", "noai", "refused", "optout_header", "2", "9"],
        ["header:tdm-reservation", "0", "noted", "", "0", "1"],
    ]
    assert refusals == [
        ["Host", "Reasons", "Pages", "Pictures", "Refusals"],
        ["a.example", "optout_header, optout_tdm", "1,000", "20", "1,020"],
    ]
    first, second = texts(root, "#optouts .note")
    assert first.startswith("All 2 statements. ") and second == "The first 1 of 7 hosts."


def test_nobody_refuses() -> None:
    signal = Signal(name="robots:content-usage", value="train-ai=y", decision="noted", reason="", pages=1, images=0)
    found = OptOuts(signals=(signal,), signals_in_all=1)
    root = parse(ReportData(title="t", subtitle="", funnel=Funnel(), optouts=found))
    assert texts(root, "#optouts h3") == ["Statements"]
    nothing = OptOuts(signals=(), signals_in_all=0)
    assert not parse(ReportData(title="t", subtitle="", funnel=Funnel(), optouts=nothing)).css("#optouts")


def write_optouts(path: Path, said: list[tuple[str, ...]]) -> str:
    """A file of optout.parquet with (subject, host, decision, reason, name, value) a row."""
    names = ("subject", "host", "decision", "reason", "name", "value")
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in said], schema=OPTOUT)
    pq.write_table(table, path, row_group_size=7)
    return str(path)


def test_opt_outs_are_added_up_over_files(tmp_path: Path) -> None:
    noai = ("refused", "optout_header", "header:x-robots-tag")
    agent = ("refused", "optout_robots_agent", "robots:GPTBot")
    paths = [
        write_optouts(tmp_path / "0.parquet", [("page", "a.example", *noai, "NoAI")] * 3),
        write_optouts(
            tmp_path / "1.parquet",
            [
                *[("image", f"{i % 3}.example", *noai, "noai ") for i in range(40)],
                *[("image", f"{i}.example", *agent, f"Disallow: /{i}/private/") for i in range(20)],
                ("image", "a.example", "noted", "", "header:tdm-reservation", "0"),
                ("page", "a.example", "refused", "optout_list", "list:opt-out", "a.example"),
            ],
        ),
        write_optouts(tmp_path / "2.parquet", []),
    ]
    found = optout_counts.count(paths)
    assert [(s.name, s.value, s.decision, s.reason, s.pages, s.images) for s in found.signals] == [
        ("header:x-robots-tag", "noai", "refused", "optout_header", 3, 40),
        ("robots:GPTBot", "disallow: \u2026", "refused", "optout_robots_agent", 0, 20),
        ("header:tdm-reservation", "0", "noted", "", 0, 1),
        ("list:opt-out", "", "refused", "optout_list", 1, 0),
    ]
    assert found.signals_in_all == 4 and found.hosts_in_all == 21 and not found.signals_lost + found.hosts_lost
    assert len(found.hosts) == MAX_OPTOUT_ROWS
    first, second, third, last = (found.hosts[i] for i in (0, 3, 4, 5))
    assert (first.host, first.reasons, first.images) == ("0.example", ("optout_header", "optout_robots_agent"), 15)
    assert second.host == "a.example" and (second.pages, second.images) == (4, 0)
    assert (third.host, third.images) == ("10.example", 1) and last.host == "11.example"
    assert optout_counts.count(paths[::-1]) == found


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("header:x-robots-tag", "  NoAI,\tnoimageai ", "noai, noimageai"),
        ("robots:mmc-build", "Disallow: /img/private/", "disallow: \u2026"),
        ("tdmrep:tdm-reservation", "1 policy https://a.example/p.json", "1 policy \u2026"),
        ("header:tdm-policy", "https://a.example/p.json", "\u2026"),
        ("header:x-robots-tag", "unavailable_after: 2035-06-25", "unavailable_after: \u2026"),
        ("robots:unreachable", "http_503", "http_503"),
        ("list:opt-out", "a.example", ""),
        ("meta:robots", "x" * 1_000, "x" * 80),
        ("meta:robots", "", ""),
    ],
)
def test_values_are_freed_of_what_tells_sites_apart(name: str, value: str, expected: str) -> None:
    assert optout_counts.normalised(name, value) == expected


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=300))
def test_what_is_forgotten_is_told(said: list[tuple[int, int]]) -> None:
    exact: Counter[int] = Counter()
    found: optout_counts.Largest[int] = optout_counts.Largest(5)
    for key, count in said:
        exact[key] += count
        found.add(key, ("page", "r"), count)
    assert len(found) <= 10
    counted = {key: cells.total() for key, cells in found.ordered()}
    assert all(exact[key] - found.lost <= counted.get(key, 0) <= exact[key] for key in exact)


@pytest.mark.parametrize("bytes_", [b"", b"<svg onload=alert(1)>", b"\xff\xd8" + b"x" * 200_000])
def test_what_is_no_thumbnail_is_not_embedded(bytes_: bytes) -> None:
    image = ReportImage(url="https://a.example/x.jpg", thumbnail=bytes_)
    root = parse(ReportData(title="t", subtitle="", funnel=Funnel(), kept=(image,)))
    assert not root.css("img")
    assert texts(root, ".absent") == ["no picture"]


# --- histograms -------------------------------------------------------------------------------------------


def test_histogram_with_edges() -> None:
    found = histogram("s", [0.1, 0.15, 0.2, 0.3, 0.31, math.nan, math.inf], [0.15, 0.2, 0.3], "")
    assert (found.edges, found.counts, found.outside) == ((0.15, 0.2, 0.3), (1, 2), 4)
    assert found.median == 0.2


@pytest.mark.parametrize("values", [[], [3.0], [2, 2, 2], [math.nan], [-1e308, 1e308]])
def test_histogram_of_awkward_values_can_be_drawn(values: list[float]) -> None:
    found = histogram("x", values, 4, "px")
    assert len(found.counts) == 4
    assert "nan" not in render_report(ReportData(title="t", subtitle="", funnel=Funnel(), histograms=(found,)))
    assert parse(ReportData(title="t", subtitle="", funnel=Funnel(), histograms=(found,))).css(".plot")


@given(st.lists(st.floats(), max_size=50), st.integers(1, 20))
def test_histogram_loses_no_value(values: list[float], bins: int) -> None:
    found = histogram("x", values, bins)
    assert sum(found.counts) + found.outside == len(values)
    assert found.outside == sum(not math.isfinite(value) for value in values)


@pytest.mark.parametrize(
    ("edges", "counts"),
    [((0.0, 1.0), ()), ((0.0, 0.0), (1,)), ((1.0, 0.0), (1,)), (tuple(range(300)), (0,) * 299)],
)
def test_bad_histograms_are_refused(edges: tuple[float, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="bins"):
        Histogram(name="x", unit="", edges=edges, counts=counts)


def test_marks_and_numbers_of_a_histogram() -> None:
    found = replace(histogram("s", [0.1, 0.3], [0, 0.2, 0.4]), marks=(("kept from 0.15", 0.15), ("far", 9.0)))
    root = parse(ReportData(title="t", subtitle="", funnel=Funnel(), histograms=(found,)))
    assert texts(root, ".marked") == ["kept from 0.15"]
    assert rows(root.css(".chart table")[0])[1:] == [["0 \u2013 0.2", "1"], ["0.2 \u2013 0.4", "1"]]
    assert root.css(".plot")[0].attributes["aria-label"] == "Histogram of s: 2 values, median 0.2"


# --- thumbnails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        picture(640, 480),
        picture(480, 640, "PNG"),
        picture(300, 300, "WEBP"),
        picture(300, 300, "GIF"),
        picture(300, 300, "JPEG", "CMYK"),
        picture(300, 300, "JPEG", "L"),
        picture(300, 300, "PNG", "I;16"),
        picture(300, 300, "PNG", "P", transparency=0),
    ],
)
def test_thumbnail(source: bytes) -> None:
    small = thumbnail(source, 100)
    with Image.open(io.BytesIO(small)) as image:
        assert image.format == "JPEG"
        assert image.mode == "RGB"
        assert max(image.size) == 100
    assert small == thumbnail(source, 100)


def test_thumbnail_never_enlarges() -> None:
    with Image.open(io.BytesIO(thumbnail(picture(30, 20)))) as image:
        assert image.size == (30, 20)


def test_transparency_is_white() -> None:
    out = io.BytesIO()
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(out, "PNG")
    with Image.open(io.BytesIO(thumbnail(out.getvalue()))) as image:
        assert image.getpixel((10, 10)) == (255, 255, 255)


def test_metadata_stays_behind() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where she lives"
    source = picture(64, 64, comment=b"a secret comment", exif=exif, icc_profile=b"a profile")
    assert b"secret" in source and b"lives" in source and b"profile" in source
    small = thumbnail(source)
    assert not any(word in small for word in (b"secret", b"lives", b"profile"))


def _bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size; only its header is ever read."""
    good = bytearray(picture(8, 8, "PNG"))
    good[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    good[29:33] = zlib.crc32(good[12:29]).to_bytes(4, "big")
    return bytes(good)


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        picture(64, 64)[:300],
        picture(64, 64, "PNG")[:60],
        _bomb(8_000, 8_000),
        _bomb(10_000, 10_000),
        _bomb(60_000, 60_000),
    ],
)
def test_what_cannot_be_shown_is_a_typed_error(source: bytes) -> None:
    with pytest.raises(ThumbnailError):
        thumbnail(source)


@settings(max_examples=40)
@given(st.integers(0, 10**9))
def test_damaged_pictures_never_crash(seed: int) -> None:
    rng = random.Random(seed)
    source = bytearray(picture(40, 30, rng.choice(["JPEG", "PNG", "GIF", "WEBP"])))
    for _ in range(5):
        source[rng.randrange(len(source))] = rng.randrange(256)
    with contextlib.suppress(ThumbnailError):
        assert thumbnail(bytes(source)).startswith(b"\xff\xd8")


# --- a real browser ---------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(page: Path, profile: Path) -> tuple[str, str]:
    """The DOM as the browser has it after loading, and what it logged on its console."""
    command = [
        CHROMIUM or "",
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, timeout=100, check=True)
    log = [line for line in done.stderr.decode(errors="replace").splitlines() if ":CONSOLE" in line]
    return done.stdout.decode(errors="replace"), "\n".join(log)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_shows_it_and_complains_of_nothing(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    evil = "<script>console.log('ran')</script>\"><img src=x onerror=console.log('ran')>"
    page.write_text(render_report(report_of(evil, "https://example.org/")), "utf-8")
    dom, console = browse(page, tmp_path / "profile")
    root = LexborHTMLParser(dom).root
    assert console == ""
    assert root is not None and texts(root, "h1") == [evil]
    assert not root.css("script")
    embedded = (root.css("img")[0].attributes["src"] or "").split(",")[1]
    assert b64decode(embedded) == THUMBNAIL


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_the_policy_stops_what_would_slip_through(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    injected = "<script>console.log('ran')</script><img src='file:///nowhere.png' onerror=console.log('ran')></main>"
    good = render_report(report_of("plain", "https://example.org/"))
    page.write_text(good.replace("</main>", injected), "utf-8")
    _, console = browse(page, tmp_path / "profile")
    assert "Content Security Policy" in console
    assert "ran" not in re.findall(r'CONSOLE[^"]*"(\w+)"', console)
