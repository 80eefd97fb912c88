"""Stage 1: every reason to drop a record, a page or a line, and documents that can be traced to their bytes."""

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pvalue import PCollection
from builds import environment
from small_crawls import (
    HTML,
    TIMESTAMP,
    Counters,
    Extracted,
    agrees,
    article,
    assert_adds_up,
    counts,
    extracted,
    http,
    img,
    markup,
    member,
    page,
    paragraphs,
    picture,
    plan,
    prose,
    response_fields,
    rows,
    run,
    write,
)

from filters.near_text import NearTextRules
from mmc4_builder import commits
from mmc4_builder.warc import Response, read_record, write_warc
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import DocumentsConfig
from pipelines.documents import extract
from pipelines.near_text import NearText
from pipelines.plan import Plan
from pipelines.schemas import DOCUMENTS, HOST_FILES, NEAR_LOSERS
from pipelines.units import Committed, Step, run_unit


def packed(data: bytes) -> bytes:
    """The same on every run: test names hold some of these bytes, and runs side by side must agree on them."""
    return gzip.compress(data, mtime=0)


OTHER = "A picture of the harbour hangs on the wall of every house in this town."
SHARED = "This very line stands on two pages of the crawl and only one may keep it."
GERMAN = [
    "Der alte Mann ging am Morgen langsam durch den Wald und suchte seinen Hund.",
    "Seine Frau wartete zu Hause mit dem Frühstück und las die Zeitung von gestern.",
    "Am Abend saßen beide vor dem Kamin und erzählten sich Geschichten von früher.",
]


def url(name: str) -> str:
    return f"http://{name}.example/"


def with_picture(name: str, lines: list[str], timestamp: str = TIMESTAMP) -> Response:
    return page(url(name), paragraphs(lines) + img("http://x.example/a.jpg"), timestamp=timestamp)


# One page for each reason, in the first of two WARC files.
REASONS: list[Response] = [
    Response(url=url("gone"), timestamp=TIMESTAMP, payload=markup("gone"), status=404, headers=(HTML,)),
    Response(url=url("pdf"), timestamp=TIMESTAMP, payload=b"%PDF", headers=(("Content-Type", "application/pdf"),)),
    Response(url=url("untyped"), timestamp=TIMESTAMP, payload=markup("x")),
    Response(url=url("undated"), timestamp="yesterday", payload=markup("x"), headers=(HTML,)),
    picture("http://x.example/a.jpg"),
    with_picture("too-long", [line * 50 for line in prose("towers", 60)]),
    with_picture("lorem", [*prose("meadows"), "Lorem ipsum dolor sit amet is no text of anybody."]),
    with_picture("code", [*prose("bridges"), "The function begins with a { and ends with nothing."]),
    with_picture("short", prose("islands", 2)),
    page(url("blind"), paragraphs(prose("deserts"))),
    with_picture("german", GERMAN),
    with_picture("rude", [*prose("quarries"), "The keeper said zounderkite to the whole assembled town."]),
    with_picture("thin", [*prose("rivers", 2), SHARED, "Home"]),
    with_picture(
        "lines",
        [
            *prose("valleys"),
            "The word " + "a" * 1001 + " is too long to be one.",
            "A line without an end mark",
            "Too few words.",
            "Please enable Javascript to read this page of ours.",
            "By reading on you accept our cookie policy in full.",
            prose("valleys")[0].upper(),
        ],
    ),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Counters]:
    """Two WARC files with every reason; the plan, and Beam's counters."""
    folder = tmp_path_factory.mktemp("documents")
    second = [
        with_picture("piers", [*prose("orchards"), SHARED]),
        article("twice", "http://x.example/new.jpg", timestamp="2024-03-02T00:00:00Z"),
    ]
    twice = article("twice", "http://x.example/old.jpg", timestamp="2024-03-01T00:00:00Z")
    crawl = write(folder / "crawl", [*REASONS, twice], second)
    made = plan(folder / "out", crawl, documents=DocumentsConfig(bad_words=("zounderkite",)))
    return made, run(made.stage("documents").transform)


def test_every_reason_is_counted_and_everything_adds_up(built: tuple[Plan, Counters]) -> None:
    made, counters = built
    counted = counts(made, "documents")
    assert agrees(counters, counted)
    records = {name: n for name, n in counted["extract"].items() if name.startswith("records")}
    assert records == {
        "records.entered": 17,
        "records.kept": 12,
        "records.dropped.bad_date": 1,
        "records.dropped.http_status": 1,
        "records.dropped.not_html": 2,
        "records.dropped.picture": 1,
    }
    both = commits.total(c for work in made.stage("documents").work for c in work.committed(made.root))
    assert_adds_up(both)
    assert {name: n for name, n in both.items() if n and name.startswith("pages")} == {
        "pages.entered": 12,
        "pages.kept": 3,
        "pages.dropped.too_long": 1,
        "pages.dropped.lorem_ipsum": 1,
        "pages.dropped.curly_bracket": 1,
        "pages.dropped.too_few_sentences": 1,
        "pages.dropped.duplicate_url": 1,
        "pages.dropped.too_few_unique_sentences": 1,
        "pages.dropped.no_images": 1,
        "pages.dropped.not_english": 1,
        "pages.dropped.bad_words": 1,
    }
    lines = {name.removeprefix("lines.dropped."): n for name, n in both.items() if n and "lines.dropped." in name}
    # Pages take their lines along: of single pages all of them, later those that the first rules left.
    assert lines.pop("page_dropped") == (60 + 5 + 5 + 2) + (4 + 3 + 5 + 3 + 4)
    assert lines == {
        "too_long_word": 1,
        "no_end_mark": 2,
        "too_few_words": 1,
        "javascript": 1,
        "policy": 1,
        "duplicate_on_page": 1,
    }


def test_documents_are_the_pages_that_stay(built: tuple[Plan, Counters]) -> None:
    documents = rows(built[0].root, "documents")
    assert [document["url"] for document in documents] == [url("lines"), url("piers"), url("twice")]
    assert documents[0]["sentences"] == prose("valleys")


def test_the_newest_capture_of_a_url_stays(built: tuple[Plan, Counters]) -> None:
    (document,) = [d for d in rows(built[0].root, "documents") if d["url"] == url("twice")]
    assert (document["timestamp"], document["warc"]) == ("2024-03-02T00:00:00Z", "1.warc.gz")
    assert [image["url"] for image in document["images"]] == ["http://x.example/new.jpg"]


def test_documents_can_be_read_again_from_the_crawl(built: tuple[Plan, Counters]) -> None:
    made = built[0]
    for document in rows(made.root, "documents"):
        path = Path(made.crawl.root, document["warc"])
        record = read_record(str(path), document["offset"], document["length"])
        assert (record.url, record.timestamp) == (document["url"], document["timestamp"])
        assert record.digest == document["digest"] != ""
        assert document["sentences"][0] in record.payload.decode()


def test_dead_letters_name_the_record(built: tuple[Plan, Counters]) -> None:
    root = Path(built[0].root)
    (letter,) = map(json.loads, (root / "dead_letters/extract/00000.jsonl").read_text().splitlines())
    assert (letter["what"], letter["reason"], letter["warc"]) == ("records", "bad_date", "0.warc.gz")
    assert letter["offset"] > 0
    assert "yesterday" in letter["detail"]


def test_a_line_of_two_pages_stays_where_the_url_has_the_smallest_hash(tmp_path: Path) -> None:
    """Whichever of the two WARC files that page lies in."""
    names = ["one", "two"]
    pages = [with_picture(name, [*prose(name), SHARED]) for name in names]
    keepers = []
    for number, files in enumerate((pages, pages[::-1])):
        made = plan(tmp_path / str(number), write(tmp_path / f"crawl{number}", [files[0]], [files[1]]))
        run(made.stage("documents").transform)
        found = rows(made.root, "documents")
        assert sum(SHARED in document["sentences"] for document in found) == 1
        keepers += [document["url"] for document in found if SHARED in document["sentences"]]
        keys = {row["url"]: row["url_key"] for row in rows(made.root, "documents/pages")}
        assert keepers[-1] == min(keys, key=lambda u: keys[u])
        assert counts(made, "documents")["documents"]["lines.dropped.duplicate_elsewhere"] == 1
    assert keepers[0] == keepers[1]


PLACED = """
<nav><img src="/before.jpg"> <a href="/">Home</a> | <a href="/news">News</a></nav>
<p>The first line has one sentence. It has another one too.</p>
<img src="/after-two.jpg"><p>Dropped</p><img src="/after-dropped.jpg">
<p>Here a picture <img src="/inside.jpg"> stands in the middle of the line.</p>
<p>Share this!</p><p>No end mark here</p><img src="/after-rubbish.jpg">
<p>The last line of the page comes after all the rubbish.</p>
<footer><img src="/after-all.jpg"> Imprint</footer><img src="/at-the-end.jpg">
"""


def test_pictures_stand_before_the_first_sentence_that_follows_them(tmp_path: Path) -> None:
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [page("http://p.example/", PLACED)]))
    run(made.stage("documents").transform)
    (document,) = rows(made.root, "documents")
    assert len(document["sentences"]) == 4
    places = {image["url"].rsplit("/")[-1].removesuffix(".jpg"): image["position"] for image in document["images"]}
    assert places == {
        "before": 0,
        "after-two": 2,
        "after-dropped": 2,
        "inside": 2,  # counts from the start of its line
        "after-rubbish": 3,
        "after-all": 4,
        "at-the-end": 4,
    }
    assert [image["position"] for image in document["images"]] == sorted(places.values())


def test_a_line_that_another_page_keeps_moves_no_picture(tmp_path: Path) -> None:
    """Places count the lines of the page, not those that are left of it."""
    body = paragraphs([SHARED]) + img("http://x.example/0.jpg") + paragraphs(prose("cellars"))
    other = with_picture("other", [SHARED, *prose("attics")])
    mine = page("http://mine.example/", body)
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [mine, other]))
    run(made.stage("documents").transform)
    found = {document["url"]: document for document in rows(made.root, "documents")}
    document = found["http://mine.example/"]
    assert document["images"][0]["position"] == (SHARED in document["sentences"])


def test_signals_of_header_and_page_are_kept(tmp_path: Path) -> None:
    head = '<meta name="robots" content="noai"><meta name="tdm-reservation" content="1">'
    record = page("http://p.example/", paragraphs(prose("vaults")), ("X-Robots-Tag", "noimageai"), head=head)
    found = extract_one(tmp_path, record)
    assert [(s["name"], s["value"]) for s in found.pages[0]["signals"]] == [
        ("header:x-robots-tag", "noimageai"),
        ("meta:robots", "noai"),
        ("meta:tdm-reservation", "1"),
    ]


def extract_one(folder: Path, record: Response, config: DocumentsConfig | None = None) -> Extracted:
    path = folder / "one.warc.gz"
    write_warc(str(path), [record], filename=path.name)
    return extracted(folder / "out", path, config)


# Hostile records. Beside each lies a sound page that must come through.

SOUND = markup(paragraphs(prose("lighthouses")))
CUT = packed(SOUND)[:-9]
CHUNKED = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (SOUND[:100], SOUND[100:])) + b"0\r\n\r\n"
PACKED = packed(SOUND)
PACKED_CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED)
GZIPPED = ("Content-Encoding", "gzip")
IN_CHUNKS = ("Transfer-Encoding", "chunked")


@pytest.mark.parametrize(
    ("payload", "headers", "kept"),
    [
        (SOUND, [HTML], True),
        (SOUND, [HTML, ("Content-Length", "7")], True),
        (SOUND, [HTML, ("Content-Length", "-1")], True),
        (SOUND, [HTML, ("Content-Length", "99999999")], True),
        (CHUNKED, [HTML, IN_CHUNKS], True),
        (PACKED, [HTML, GZIPPED], True),
        (PACKED_CHUNKED, [HTML, IN_CHUNKS, GZIPPED], True),
        (CHUNKED[:-40], [HTML, IN_CHUNKS], True),  # what a cut body gives is kept
        (CUT, [HTML, GZIPPED], True),
        (SOUND, [HTML, GZIPPED, IN_CHUNKS], True),  # decoded by the crawler, headers left as they were
        (SOUND, [], False),
        (SOUND, [("Content-Type", "TEXT/HTML;charset=nonsense")], True),
        (SOUND, [("Content-Type", "application/xhtml+xml")], True),
        (b"", [HTML], False),
        (b"\0" * 100_000, [HTML], False),
        (SOUND.replace(b"winter", b"win\0ter"), [HTML], True),
    ],
)
def test_payloads(payload: bytes, headers: list[tuple[str, str]], kept: bool, tmp_path: Path) -> None:
    found = hostile(tmp_path, member(response_fields("http://odd.example/"), http(payload, *headers)))
    assert [row["url"] for row in found.pages[1:]] == ["http://odd.example/"] * kept
    if kept:
        assert found.pages[1]["lines"][:3] == prose("lighthouses")[:3]
    assert found.counts["records.entered"] == 2


@pytest.mark.parametrize(
    ("fields", "block", "reason"),
    [
        (response_fields("", WARC_Date=TIMESTAMP), http(SOUND, HTML), "missing_url"),
        (response_fields("nowhere"), http(SOUND, HTML), "bad_url"),
        (response_fields("http://x.example/", WARC_Date=""), http(SOUND, HTML), "missing_date"),
        (response_fields("http://x.example/", WARC_Date="1 May"), http(SOUND, HTML), "bad_date"),
        (response_fields("http://x.example/"), b"no http at all", "no_http_header"),
        (response_fields("http://x.example/"), b"HTTP/1.1 200 OK\r\nHost: x", "bad_http_header"),
        (response_fields("http://x.example/"), http(b"", ("X", "a" * 70_000)), "http_header_too_large"),
        (
            response_fields("http://x.example/"),
            http(PACKED[:20] + b"\xff" * 90, HTML, GZIPPED),
            "bad_content_encoding",
        ),
        (
            response_fields("http://x.example/"),
            http(packed(bytes(20 << 20)), HTML, GZIPPED),
            "payload_too_large",
        ),
    ],
)
def test_bad_records_become_dead_letters(fields: dict[str, str], block: bytes, reason: str, tmp_path: Path) -> None:
    found = hostile(tmp_path, member(fields, block))
    assert found.counts[f"records.dropped.{reason}"] == 1
    (letter,) = map(json.loads, found.letters.splitlines())
    assert (letter["reason"], letter["warc"]) == (reason, "hostile.warc.gz")
    assert letter["offset"] == len(sound_page())
    assert [row["url"] for row in found.pages] == ["http://sound.example/"]


ODD = member(response_fields("http://odd.example/"), http(SOUND, HTML))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (ODD[: len(ODD) // 2], None),  # a file of which the middle is lost
        (b"garbage between two members" * 10, None),
        (b"\0" * 5000, None),
        (member(response_fields("http://odd.example/"), http(SOUND, HTML), length=10), "bad_content_length"),
        (member(response_fields("http://odd.example/"), http(SOUND, HTML), length=10**9), None),
        (ODD[:40] + b"\xff\xff\xff\xff" + ODD[44:], None),
    ],
)
def test_damage_in_the_middle_costs_one_record(between: bytes, reason: str | None, tmp_path: Path) -> None:
    after = member(response_fields("http://after.example/"), http(markup(paragraphs(prose("wells"))), HTML))
    found = hostile(tmp_path, between + after)
    assert [row["url"] for row in found.pages] == ["http://sound.example/", "http://after.example/"]
    assert found.counts["records.kept"] == 2
    assert found.counts["records.entered"] == 3 == 2 + len(found.letters.splitlines())
    assert reason is None or f'"reason": "{reason}"' in found.letters


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty_file"),
        (b"this is no WARC file at all\n" * 100, None),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20, None),
        (packed(b"a gzip file of something else" * 50), None),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "zstd_not_supported"),
        (b"BZh91AY" + bytes(50), "bzip2_not_supported"),
    ],
)
def test_files_that_are_no_warc(content: bytes, reason: str | None, tmp_path: Path) -> None:
    path = tmp_path / "no.warc.gz"
    path.write_bytes(content)
    found = extracted(tmp_path / "out", path)
    assert found.pages == []
    assert found.counts["records.entered"] == len(found.letters.splitlines()) > 0
    assert reason is None or found.counts == {"records.entered": 1, f"records.dropped.{reason}": 1}


def test_a_warc_without_responses_is_no_error(tmp_path: Path) -> None:
    made = plan(tmp_path / "out", write(tmp_path / "crawl", []))
    run(made.stage("documents").transform)
    assert rows(made.root, "documents") == []
    (size,) = (path.stat().st_size for path in (tmp_path / "crawl").iterdir())
    assert counts(made, "documents") == {"extract": {"crawl.bytes": size}}


def sound_page() -> bytes:
    return member(response_fields("http://sound.example/"), http(markup(paragraphs(prose("mills"))), HTML))


def hostile(folder: Path, rest: bytes) -> Extracted:
    """A sound page, and behind it what the test made."""
    path = folder / "hostile.warc.gz"
    path.write_bytes(sound_page() + rest)
    found = extracted(folder / "out", path)
    assert found.pages[0]["url"] == "http://sound.example/"
    assert_adds_up({n: c for n, c in found.counts.items() if n.startswith("records")})
    return found


JAPANESE = ["港の灯台守は長い冬の間ずっと静かな海を眺めていました。"]
CAFE = ["The café of the harbour serves “crème brûlée” to every naïve guest it finds."]


@pytest.mark.parametrize(
    ("codec", "label", "lines"),
    [
        ("utf-8", "", CAFE),
        ("utf-8", "iso-8859-1-nonsense", CAFE),
        ("windows-1252", "windows-1252", CAFE),
        ("windows-1252", "iso-8859-1", CAFE),  # what browsers take it for
        ("windows-1252", "", CAFE),
        ("shift_jis", "shift_jis", JAPANESE),
        ("utf-16", "", CAFE),
        ("utf-16-le", "utf-16le", CAFE),
    ],
)
def test_charsets(codec: str, label: str, lines: list[str], tmp_path: Path) -> None:
    content_type = "text/html" + (f"; charset={label}" if label else "")
    payload = markup(paragraphs([*prose("ports"), *lines])).decode().encode(codec)
    record = Response(
        url="http://p.example/",
        timestamp=TIMESTAMP,
        payload=payload,
        headers=(("Content-Type", content_type),),
    )
    found = extract_one(tmp_path, record)
    assert found.pages[0]["lines"][:4] == prose("ports")
    assert (lines[0] in found.pages[0]["lines"]) == (lines is CAFE)  # a Japanese full stop is no end mark of C4


def test_a_wrong_charset_spoils_letters_and_nothing_else(tmp_path: Path) -> None:
    payload = markup(paragraphs([*prose("ports"), *CAFE])).decode().encode("windows-1252")
    record = Response(url="http://p.example/", timestamp=TIMESTAMP, payload=payload, headers=(HTML,))
    found = extract_one(tmp_path, record)
    assert found.pages[0]["lines"][:4] == prose("ports")
    assert "\ufffd" in found.pages[0]["lines"][4]


def nested() -> str:
    return "<div>" * 100_000 + paragraphs(prose("mazes")) + "</div>" * 100_000


def many_pictures() -> str:
    return paragraphs(prose("galleries")) + img(*(f"/{i}.jpg" for i in range(100_000)))


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("body", "signal"),
    [
        (lambda: "<div>" * 100_000 + paragraphs(prose("mazes")), None),
        (nested, "max_tags"),
        (many_pictures, "max_images"),
        (lambda: paragraphs(prose("clouds")) + "<p" * 500_000, "max_tags"),
        (lambda: paragraphs(prose("stars")) + "<p " + 'a="' * 300_000, None),
        (lambda: paragraphs(prose("dunes")) + "&#9999999999999;" * 50_000, None),
        (lambda: paragraphs(prose("caves")) + "[" * 1_000_000, None),
    ],
)
def test_pages_made_to_choke_on(body: Callable[[], str], signal: str | None, tmp_path: Path) -> None:
    found = extract_one(tmp_path, page("http://p.example/", body()))
    signals = [s["value"] for row in found.pages for s in row["signals"] if s["name"] == "truncated"]
    assert found.counts["records.kept"] == 1
    assert len(found.pages) + sum(n for name, n in found.counts.items() if name.startswith("pages.dropped")) == 1
    assert signal is None or found.pages == [] or signal in signals
    assert all(len(row["images"]) <= 1000 for row in found.pages)


LARGE = """
import sys
from pathlib import Path
from small_crawls import extracted
from mmc4_builder.warc import WarcLimits
from pipelines.config import DocumentsConfig
found = extracted(Path(sys.argv[1]), Path(sys.argv[2]), DocumentsConfig(warc=WarcLimits(max_payload=64 << 20)))
print(sorted(found.counts), [s["value"] for row in found.pages for s in row["signals"]])
# Of this process alone: getrusage's figure is inherited from the parent.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WARC file with one page of 50 MB, and a small one behind it."""
    path = tmp_path_factory.mktemp("large") / "large.warc.gz"
    body = paragraphs(prose("oceans")) + "<p>An endless page goes on and on without an end</p>" * 1_000_000
    write_warc(str(path), [page("http://large.example/", body), article("small")], filename=path.name)
    return path


def test_a_page_beyond_the_limit_is_a_dead_letter(large: Path, tmp_path: Path) -> None:
    found = extracted(tmp_path / "out", large)
    assert found.counts["records.dropped.record_too_large"] == 1
    assert [row["url"] for row in found.pages] == ["http://small.example/"]
    assert '"reason": "record_too_large"' in found.letters


def test_a_page_of_50_mb_takes_bounded_memory(large: Path, tmp_path: Path) -> None:
    """Limits raised until it is let in: then it is cut to what Common Crawl keeps of a page."""
    made = subprocess.run(
        [sys.executable, "-c", LARGE, tmp_path / "out", large],
        env={**environment(), "PYTHONPATH": f"{Path(__file__).parent}:{environment()['PYTHONPATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    told, peak = made.stdout.splitlines()
    assert int(peak) < 1_500_000  # KiB
    assert "'pages.dropped.too_long'" in told


@pytest.mark.timeout(60)
def test_real_pages_come_through(manuals: Path, tmp_path: Path) -> None:
    """A corpus of real pages: everything adds up, and each page can be read again."""
    found = extracted(tmp_path / "out", manuals)
    assert_adds_up({n: c for n, c in found.counts.items() if n.startswith("records")})
    assert found.letters == ""
    assert len(found.pages) > 150
    for row in found.pages[::40]:
        assert read_record(str(manuals), row["offset"], row["length"]).url == row["url"]


def test_zero_sentences_of_a_released_document(tmp_path: Path) -> None:
    """An empty text is a document of no sentences; its pictures stand at 0."""
    crawl = write(tmp_path / "crawl", [article("empty", "http://x.example/a.jpg")])
    released = tmp_path / "c4.json.gz"
    line = {"url": "http://empty.example/", "timestamp": TIMESTAMP, "text": ""}
    released.write_bytes(packed(json.dumps(line).encode() + b"\n"))
    made = plan(tmp_path / "out", crawl, documents=DocumentsConfig(c4=(str(released),)))
    run(made.stage("documents").transform)
    (document,) = rows(made.root, "documents")
    assert (document["sentences"], [image["position"] for image in document["images"]]) == ([], [0])


# What hosts say, in the crawl and in the files of robots.txt beside it.

ROBOTS = b"User-agent: *\nDisallow: /img/private/\n"


def host_file(address: str, body: bytes, status: int = 200, *headers: tuple[str, str]) -> Response:
    return Response(url=address, timestamp=TIMESTAMP, payload=body, status=status, headers=headers)


def host_files(root: Path) -> list[dict[str, Any]]:
    (commit,) = commits.load_all(str(root), "extract", ["00000"])
    pieces = tuple(piece for sent in commit.pieces.values() for piece in sent)
    table = Workspace(str(root), "", Unit(name="", pieces=pieces)).received("host_files", HOST_FILES)
    return sorted(table.to_pylist(), key=lambda row: str(row["url"]))


def test_host_files_are_noted_whatever_their_status(tmp_path: Path) -> None:
    home = ("Location", "https://b.example/robots.txt")
    found = [
        host_file("http://a.example/robots.txt", ROBOTS),
        host_file("http://A.example:80/.well-known/tdmrep.json", b"[]"),
        host_file("http://a.example/robots.txt?x=1", b"no"),
        host_file("http://a.example/en/robots.txt", b"no"),
        host_file("http://b.example/robots.txt", b"", 301, home),
        host_file("https://b.example/robots.txt", b"x" * 600_000),
        host_file("http://c.example/robots.txt", b"gone", 404),
        host_file("http://d.example/robots.txt", b"", 302, ("Location", "http://d.example/robots.txt")),
    ]
    write(tmp_path / "crawl", found)
    counted = extracted(tmp_path / "out", tmp_path / "crawl/0.warc.gz").counts
    assert counted == {
        "records.entered": 8,
        "records.dropped.host_file": 6,
        "records.dropped.not_html": 2,
        "host_files.entered": 6,
        "host_files.kept": 6,
    }
    rows = host_files(tmp_path / "out")
    assert [(row["url"], row["status"], len(row["body"] or b"")) for row in rows] == [
        ("http://a.example/.well-known/tdmrep.json", 200, 2),
        ("http://a.example/robots.txt", 200, len(ROBOTS)),
        ("http://b.example/robots.txt", 200, 512_001),  # one byte more than is read tells that it is cut
        ("http://c.example/robots.txt", 404, 0),
        ("http://d.example/robots.txt", 302, 0),
        ("https://b.example/robots.txt", 200, 512_001),
    ]
    assert all((row["origin"], row["seen"], row["warc"]) == ("archive", TIMESTAMP, "0.warc.gz") for row in rows)


def test_a_body_without_room_counts_as_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.host_files.MAX_HELD", len(ROBOTS))
    write(tmp_path / "crawl", [host_file(f"http://{name}.example/robots.txt", ROBOTS) for name in "ab"])
    found = extracted(tmp_path / "out", tmp_path / "crawl/0.warc.gz")
    assert found.counts["host_files.dropped.too_many_bytes"] == 1
    assert "http://b.example/robots.txt" in found.letters
    assert [row["reason"] for row in host_files(tmp_path / "out")] == [None, "too_many_bytes"]


@pytest.mark.parametrize("there", [True, False])
def test_the_crawl_keeps_robots_files_beside_its_pages(there: bool, tmp_path: Path) -> None:
    folder = tmp_path / "crawl/segments/1/warc"
    write(folder, [article("mill", "http://x.example/a.jpg")])
    if there:
        said = [host_file("http://mill.example/robots.txt", ROBOTS), article("barn")]
        write(tmp_path / "crawl/segments/1/robotstxt", said)
    step = partial(
        extract, config=DocumentsConfig(crawl_robots=True), crawl_root=str(tmp_path / "crawl/segments/1"), buckets=4
    )
    unit = Unit(name="00000", inputs=("/warc/0.warc.gz",))
    commit = run_unit(unit, Step(name="extract", root=str(tmp_path / "out"), fingerprint="f", run=step))
    counted = {name: n for name, n in commit.counts.items() if not name.startswith(("records", "lines"))}
    files = [*(tmp_path / "crawl").rglob("0.warc.gz")]
    assert counted.pop("crawl.bytes") == sum(path.stat().st_size for path in files) and len(files) == 1 + there
    if there:
        assert counted == {"host_files.entered": 1, "host_files.kept": 1, "robots_warcs.entered": 1,
                           "robots_warcs.kept": 1}  # fmt: skip
        (row,) = host_files(tmp_path / "out")
        assert (row["url"], row["warc"]) == ("http://mill.example/robots.txt", "/robotstxt/0.warc.gz")
    else:
        assert counted == {"robots_warcs.entered": 1, "robots_warcs.dropped.not_found": 1}
        letter = json.loads((tmp_path / "out/dead_letters/extract/00000.jsonl").read_text())
        assert letter["warc"] == "/robotstxt/0.warc.gz"


def test_input_without_such_files_is_told(tmp_path: Path) -> None:
    write(tmp_path / "crawl", [article("mill")])
    found = extracted(tmp_path / "out", tmp_path / "crawl/0.warc.gz", DocumentsConfig(crawl_robots=True))
    assert found.counts["robots_warcs.dropped.no_such_subset"] == 1


# Documents that say nearly the same.


def near_losers(made: Plan) -> dict[str, list[int]]:
    sent = commits.load_all(made.root, "near_text", [unit.name for unit in made.buckets])
    found = {}
    for file in made.files:
        pieces = tuple(piece for commit in sent for piece in commit.pieces.get(file.name, ()))
        table = Workspace(made.root, "", Unit(name=file.name, pieces=pieces)).received("near_losers", NEAR_LOSERS)
        found[file.name] = sorted(set(table["row"].to_pylist()))
    return found


def test_near_duplicates_are_named_and_not_dropped(tmp_path: Path) -> None:
    """Five documents of which four say nearly the same, in two files: all stay at rest, three are named."""
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [], [page(url("x"), "")]))
    meadows = prose("meadows", 40)
    texts = {
        "00000": [[*meadows, "One more line."], prose("harbours", 40)],
        "00001": [[*meadows, "Yet another."], meadows, meadows],
    }
    for name, documents in texts.items():
        workspace = Workspace(made.root, "documents", Unit(name=name))
        with workspace.parquet(f"documents/{name}.parquet", DOCUMENTS) as rows:
            rows.extend({"url": url(f"{name}{i}"), "sentences": lines} for i, lines in enumerate(documents))
        workspace.commit("f")
    run(Near(made))
    losers = near_losers(made)
    assert sum(map(len, losers.values())) == 3
    assert 1 not in losers["00000"]
    assert [len(list(read_rows(f"{made.root}/documents/{name}.parquet"))) for name in texts] == [2, 3]


class Near(beam.PTransform):
    """The search for near duplicates alone, over documents that lie there."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan

    def expand(self, pipeline: beam.Pipeline) -> PCollection[commits.Commit]:
        found: PCollection[commits.Commit] = (
            pipeline
            | beam.Create(self.plan.files)
            | Committed(self.plan.root, "documents")
            | NearText(self.plan.root, "f", NearTextRules(), self.plan.files, self.plan.buckets)
        )
        return found
