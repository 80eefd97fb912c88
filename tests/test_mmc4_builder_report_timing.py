"""The report's section on time: numbers as they were noted, hostile names as text, nothing where nothing is known."""

from pathlib import Path

import pytest
from test_mmc4_builder_report import CHROMIUM, EVIL, browse, parse, rows, skeleton, texts

from mmc4_builder.funnel import Funnel
from mmc4_builder.report import ReportData, render_report
from mmc4_builder.report_timing import duration, size
from mmc4_builder.timing_sums import Times, stage_time, times
from mmc4_builder.timings import Run, Timing


def of(word: str) -> Times:
    """A stage of two steps, of which one was timed, and two hosts; `word` wherever there is text."""
    found = [
        Timing(
            step=word, unit=f"{number}{word}", began=1.0, wall_seconds=seconds, cpu_seconds=0.25,
            thread_cpu_seconds=0.2, bytes_received=10, bytes_fetched=2_000, bytes_out=3_000_000, by=word,
        )
        for number, seconds in enumerate((1.0, 90.0, 3.0))
    ]  # fmt: skip
    run = Run(began=1.0, seconds=95.0, units=3, resumed=0, retries=2, state="done")
    stage = stage_time(word, [run, run], [(word, 4, found), ("other", 2, [])])
    return times([stage], {word: (10, 9, 120.0), "quick.example": (5, 0, 0.5)})


def data(found: Times | None) -> ReportData:
    return ReportData(title="t", subtitle="", funnel=Funnel(), times=found)


def test_numbers_as_they_were_noted() -> None:
    root = parse(data(of("images")))
    overview, steps, slowest, slow_hosts, failing = (rows(table) for table in root.css("#time table"))
    assert dict(zip(overview[0], overview[1], strict=True)) == {
        "Stage": "images", "Time passed": "3m10s", "Runs": "2", "Retries": "4", "Units": "6", "Timed": "3",
        "Units' time": "1m34s", "CPU time": "0.75 s", "Received": "30 B", "Fetched": "6 kB", "Written": "9 MB",
    }  # fmt: skip
    assert steps[1] == ["images", "4", "3", "1m34s", "0.75 s", "3.0 s", "1m30s", "30 B", "6 kB", "9 MB"]
    assert steps[2] == ["other", "2", "0", *["-"] * 7]
    assert [row[:2] for row in slowest[1:]] == [
        ["images/1images", "1m30s"],
        ["images/2images", "3.0 s"],
        ["images/0images", "1.0 s"],
    ]
    assert slow_hosts[1:] == [["images", "10", "9", "2m00s", "12.0 s"], ["quick.example", "5", "0", "0.5 s", "0.1 s"]]
    assert failing[1:] == [["images", "10", "9", "2m00s", "12.0 s"]]


@pytest.mark.parametrize("nothing", [None, Times()])
def test_without_times_the_page_is_what_it_was(nothing: Times | None) -> None:
    assert not parse(data(nothing)).css("#time")
    assert render_report(data(nothing)) == render_report(ReportData(title="t", subtitle="", funnel=Funnel()))


@pytest.mark.parametrize("evil", EVIL)
def test_no_name_becomes_markup(evil: str) -> None:
    assert skeleton(parse(data(of(evil)))) == skeleton(parse(data(of("plain"))))


def test_many_rows_are_cut() -> None:
    stage = of("images").stages[0]
    hosts = {f"{n}.example": (1, 1, 1.0) for n in range(500)}
    found = times([stage] * 50, hosts)
    assert len(render_report(data(found))) < 100_000


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0 s"), (0.0314, "0.0314 s"), (59.94, "59.9 s"), (61.0, "1m01s"), (90_000.0, "1d01h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_600, "1 MB"), (5 * 10**18, "5e+03 PB")]
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
def test_a_browser_shows_it_and_complains_of_nothing(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(data(of("<script>console.log('ran')</script>"))), "utf-8")
    dom, console = browse(page, tmp_path / "profile")
    assert console == ""
    root = parse(data(of("plain")))
    assert dom.count("<table>") == len(root.css("#time table")) and "3m10s" in dom
    assert texts(root, "#time h3")[-1] == "Hosts that fail most"
