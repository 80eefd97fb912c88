"""Released C4 laid over the crawl: which capture a document was made from, and where its lines stood."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_crawls import (
    TIMESTAMP,
    agrees,
    assert_adds_up,
    counts,
    img,
    page,
    paragraphs,
    plan,
    prose,
    rows,
    run,
    write,
)

from mmc4_builder import commits
from mmc4_builder.transport import TransportError
from mmc4_builder.warc import Response
from mmc4_builder.workspace import Unit, Workspace
from pipelines.c4 import nearest, own_text, read_c4
from pipelines.config import DocumentsConfig
from pipelines.plan import Plan

KEY = 7


@pytest.mark.parametrize(
    ("pages", "wanted", "expected"),
    [
        ([], (KEY, 10.0), -1),
        ([(KEY + 1, 10.0)], (KEY, 10.0), -1),
        ([(KEY, 0.0), (KEY, 8.0), (KEY, 13.0)], (KEY, 10.0), 1),
        ([(KEY, 0.0), (KEY, 10.0)], (KEY, 10.0), 1),
        ([(KEY, 12.0), (KEY, 8.0)], (KEY, 10.0), 1),  # equally near: the earlier
        ([(KEY, 8.0), (KEY, 8.0)], (KEY, 10.0), 0),
        ([(KEY + 1, 10.0), (KEY, 99.0)], (KEY, 10.0), 1),
        ([(2**64 - 1, 1.0), (KEY, 1.0)], (2**64 - 1, 1.0), 0),
    ],
)
def test_nearest(pages: list[tuple[int, float]], wanted: tuple[int, float], expected: int) -> None:
    keys = np.asarray([key for key, _ in pages], np.uint64)
    times = np.asarray([time for _, time in pages], np.float64)
    assert nearest(keys, times, np.asarray([wanted[0]], np.uint64), np.asarray([wanted[1]])) == [expected]


PAGE = ("Home", "One line of text.", "Share", "Two lines of text.", "Home", "Three lines of text.")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("One line of text.\nTwo lines of text.", (1, 3)),
        ("one LINE of  text.\nThree lines of text.", (1, 5)),
        ("Home\nTwo lines of text.\nHome", (0, 3, 4)),
        ("Nowhere to be found.\nTwo lines of text.", (0, 3)),
        ("Two lines of text.\nNowhere to be found.\nThree lines of text.", (3, 3, 5)),
        ("Three lines of text.\nOne line of text.", (5, 5)),  # C4 never moves lines: only forward
        ("One line of text.\nOne line of text.", (1, 1)),
        ("", (0,)),
    ],
)
def test_own_text(text: str, numbers: tuple[int, ...]) -> None:
    assert own_text(text, PAGE) == (tuple(text.split("\n")), numbers)


LINE = st.text("ab \tA\u00df", max_size=3)


@given(st.lists(LINE, max_size=12), st.lists(LINE, max_size=12))
def test_places_go_forward_and_lie_on_the_page(text: list[str], page_lines: list[str]) -> None:
    lines, numbers = own_text("\n".join(text), page_lines)
    assert len(lines) == len(numbers) == max(1, len(text))
    assert list(numbers) == sorted(numbers)
    assert all(0 <= number < max(1, len(page_lines)) for number in numbers)


@given(st.lists(st.text("abc", min_size=1, max_size=2), min_size=1, max_size=30), st.data())
def test_lines_cut_out_of_a_page_are_found_in_it(page_lines: list[str], data: st.DataObject) -> None:
    kept = [line for line in page_lines if data.draw(st.booleans())]
    lines, numbers = own_text("\n".join(kept), page_lines)
    assert all(page_lines[number] == line for line, number in zip(lines, numbers, strict=True) if line)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["same\n" * 100_000, "same\nother\n" * 50_000, "other\n" * 100_000])
def test_pages_of_one_line_over_and_over(text: str) -> None:
    lines, _ = own_text(text, ["same"] * 100_000)
    assert len(lines) == 100_001


# A build from released C4.


def captured(name: str, timestamp: str, lines: list[str]) -> Response:
    body = paragraphs(["Menu", lines[0], "Advertisement"]) + img(f"http://x.example/{name}.jpg")
    return page(f"https://www.{name}.example/", body + paragraphs(lines[1:]), timestamp=timestamp)


def released(folder: Path, *lines: Any) -> Path:
    path = folder / "c4-train.00000-of-00001.json.gz"
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()))
    return path


def document(name: str, lines: list[str], timestamp: str = TIMESTAMP) -> dict[str, str]:
    return {"url": f"http://{name}.example/?utm_source=x", "timestamp": timestamp, "text": "\n".join(lines)}


BAD_LINES = [
    "not json",
    "[]",
    '"text"',
    "null",
    {"url": "http://a.example/", "text": "No time."},
    {"url": "http://a.example/", "timestamp": "soon", "text": "No time."},
    {"url": "http://a.example/", "timestamp": 5, "text": "No time."},
    {"url": 5, "timestamp": TIMESTAMP, "text": "No URL."},
    {"url": "http://a.example/", "timestamp": TIMESTAMP, "text": None},
    {"url": "http://a.example/", "timestamp": TIMESTAMP, "text": ["x"]},
    '{"url": "http://a.example/", "timestamp": "' + TIMESTAMP + '", "text": "half \\ud800"}',
    '{"url": "http://\\ud800.example/", "timestamp": "' + TIMESTAMP + '", "text": "half"}',
    "[" * 100_000,
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Two captures of one page in two WARC files, pages that C4 lacks, and C4 documents that the crawl lacks."""
    folder = tmp_path_factory.mktemp("c4")
    first = [
        captured("twice", "2024-03-01T00:00:00Z", prose("old")),
        captured("unreleased", TIMESTAMP, prose("unreleased")),
        page("http://blind.example/", paragraphs(prose("blind"))),
    ]
    second = [
        captured("twice", "2024-03-09T00:00:00Z", prose("new")),
        captured("odd", "2024-02-31T00:00:00Z", prose("odd")),  # a day that no calendar knows
        captured("exact", "2024-03-01T00:00:00.123456789Z", prose("exact")),
    ]
    path = released(
        folder,
        document("twice", prose("new")[1:], "2024-03-07T00:00:00Z"),
        document("twice", prose("new")[1:], "2024-03-08T00:00:00Z"),
        document("elsewhere", prose("elsewhere")),
        document("blind", prose("blind")),
        document("odd", prose("odd")),
        document("exact", prose("exact")),
        *BAD_LINES,
    )
    crawl = write(folder / "crawl", first, second)
    made = plan(folder / "out", crawl, documents=DocumentsConfig(c4=(str(path),)))
    counters = run(made.stage("documents").transform)
    assert agrees(counters, counts(made, "documents"))
    return made


def test_everything_adds_up(built: Plan) -> None:
    everything = [c for work in built.stage("documents").work for c in work.committed(built.root)]
    both = commits.total(everything)
    assert_adds_up(both)
    assert {name: n for name, n in both.items() if n and name.startswith(("c4", "pages"))} == {
        "c4.entered": 6 + len(BAD_LINES),
        "c4.kept": 4,
        "c4.dropped.not_a_c4_document": len(BAD_LINES),
        "c4.dropped.page_not_in_crawl": 1,
        "c4.dropped.page_taken": 1,
        "pages.entered": 6,
        "pages.kept": 3,
        "pages.dropped.no_images": 1,
        "pages.dropped.not_in_c4": 2,
    }


def test_the_capture_nearest_in_time_becomes_the_document(built: Plan) -> None:
    found = {row["url"]: row for row in rows(built.root, "documents")}
    row = found["http://twice.example/?utm_source=x"]
    assert (row["timestamp"], row["warc"]) == ("2024-03-09T00:00:00Z", "1.warc.gz")
    assert row["sentences"] == prose("new")[1:]


def test_pictures_are_placed_by_the_lines_of_the_page(built: Plan) -> None:
    """The text of `twice` lacks the page's first line, so its picture comes first; in `exact` it comes second."""
    places = {row["url"].split(".")[0][7:]: row["images"][0]["position"] for row in rows(built.root, "documents")}
    assert places == {"twice": 0, "exact": 1, "odd": 1}


def test_bad_lines_are_dead_letters(built: Plan) -> None:
    letters = Path(built.root, "dead_letters/read_c4/00000.jsonl").read_text().splitlines()
    assert [json.loads(letter)["line"] for letter in letters] == list(range(6, 6 + len(BAD_LINES)))
    assert {json.loads(letter)["reason"] for letter in letters} == {"not_a_c4_document"}


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: b"no gzip" + data])
def test_a_damaged_c4_file_is_named(damage: Any, tmp_path: Path) -> None:
    """Half a file would silently be half a corpus."""
    path = released(tmp_path, *(document(str(i), prose(str(i))) for i in range(100)))
    path.write_bytes(damage(path.read_bytes()))
    unit = Unit(name="00000", inputs=(str(path),))
    with pytest.raises(TransportError, match=f"{path} is damaged"):
        read_c4(unit, Workspace(str(tmp_path / "out"), "read_c4", unit), buckets=4)
