"""Metrics: a JSON line by a table, Prometheus' format by a strict reader, and an endpoint that harms nobody."""

import io
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from mmc4_builder.metrics import State, exposition, line
from mmc4_builder.metrics_out import Endpoint, Lines, MetricsError, lines_to, opened, parse_address, served
from mmc4_builder.stuck import Stuck

HALF = State(
    stage="images",
    total=200,
    done=112,
    resumed=12,
    running=2,
    counts={"bytes_fetched": 9_000, "images": 60, "bytes_written": 7},
    before={"bytes_fetched": 4_000, "images": 10},
    seconds=50.0,
    idle_seconds=4.0,
    retries=3,
    stuck=(Stuck(unit="images/00003", seconds=400.4, usual=2.0, by="h/1/2"),),
    stuck_units=7,
)
BARE = State(stage="documents", total=3, done=0)
SAMPLE = re.compile(r'([a-z_0-9]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,(?!\}))?)*)\} (-?[0-9.e+]+)')


def read(page: str) -> dict[str, tuple[str, dict[str, float]]]:
    """Every rule of the text format that this could break: by name, the kind, and the samples by their labels."""
    families: dict[str, tuple[str, dict[str, float]]] = {}
    assert page.endswith("\n") and "\n\n" not in page
    lines = iter(page.splitlines())
    current = ""
    for text in lines:
        if text.startswith("# HELP "):
            current = text.split(" ")[2]
            assert current not in families and len(text.split(" ", 3)[3]) > 5
            word, kind = next(lines).rsplit(" ", 1)
            assert word == f"# TYPE {current}" and kind in ("gauge", "counter")
            assert (kind == "counter") == current.endswith("_total")
            families[current] = (kind, {})
            continue
        found = SAMPLE.fullmatch(text)
        assert found and found[1] == current, text
        assert found[2] not in families[current][1]
        families[current][1][found[2]] = float(found[3])
    assert all(samples for _, samples in families.values())
    return families


def test_a_line_has_everything() -> None:
    assert json.loads(line(HALF, 1_795_325_025.9)) == {
        "time": "2026-11-22T05:23:45Z",
        "stage": "images",
        "state": "running",
        "seconds": 50.0,
        "units": {"total": 200, "done": 112, "resumed": 12, "running": 2},
        "counts": {"bytes_fetched": 9_000, "images": 60, "bytes_written": 7},
        "rates": {"units": 2.0, "bytes_fetched": 100.0, "images": 1.0, "bytes_written": 0.14},
        "eta_seconds": 44.0,
        "idle_seconds": 4.0,
        "retries": 3,
        "stuck": {"units": 7, "first": [{"unit": "images/00003", "seconds": 400, "by": "h/1/2"}]},
    }


@pytest.mark.parametrize(
    ("state", "eta", "rates"),
    [
        (BARE, None, {}),
        (replace(BARE, seconds=5.0), None, {"units": 0.0}),
        (replace(BARE, done=2, resumed=2, seconds=5.0), None, {"units": 0.0}),
        (replace(BARE, done=3, resumed=3, state="done"), 0.0, {}),
        (replace(BARE, done=3, resumed=1, seconds=4.0, state="done"), 0.0, {"units": 0.5}),
    ],
)
def test_edges(state: State, eta: float | None, rates: dict[str, float]) -> None:
    told = json.loads(line(state, 0.0))
    assert told["eta_seconds"] == eta and told["rates"] == rates
    assert "\n" not in line(state, 0.0)


def test_the_text_for_prometheus_keeps_its_rules() -> None:
    odd = replace(BARE, stage='a"b\\c\nd')
    found = read(exposition([HALF, odd], "1.0"))
    assert found["mmc4_build_info"] == ("gauge", {'version="1.0"': 1})
    assert found["mmc4_stage_units_committed_total"] == ("counter", {'stage="images"': 112, r'stage="a\"b\\c\nd"': 0})
    assert found["mmc4_stage_units_stuck"][1]['stage="images"'] == 7
    assert found["mmc4_stage_fetched_bytes_total"][1] == {'stage="images"': 9_000}  # unknown of the other
    assert found["mmc4_stage_items_total"][1] == {'stage="images",kind="images"': 60}
    assert list(found["mmc4_stage_eta_seconds"][1].values()) == [44.0]
    assert list(read(exposition([], "1.0"))) == ["mmc4_build_info"]


def test_prometheus_own_parser_agrees() -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    families = list(parser.text_string_to_metric_families(exposition([HALF, replace(BARE, stage='a"\\\n')], "1.0")))
    samples = {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}
    assert samples["mmc4_stage_units_committed_total", "images"] == 112
    assert samples["mmc4_stage_elapsed_seconds", 'a"\\\n'] == 0
    assert {family.type for family in families} == {"gauge", "counter"}


def test_lines_come_at_the_start_at_intervals_and_at_the_end() -> None:
    now, stream = [0.0], io.StringIO()
    lines = Lines(stream, 30.0, clock=lambda: now[0], now=lambda: now[0])
    for second in range(0, 100, 10):
        now[0] = float(second)
        lines.tell(replace(HALF, seconds=now[0]))
    lines.tell(replace(HALF, seconds=91.0, state="done"))
    lines.tell(replace(BARE, state="failed"))
    told = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert [(one["stage"], one["seconds"], one["state"]) for one in told] == [
        ("images", 0.0, "running"),
        ("images", 30.0, "running"),
        ("images", 60.0, "running"),
        ("images", 90.0, "running"),
        ("images", 91.0, "done"),
        ("documents", 0.0, "failed"),
    ]


def test_lines_are_appended(tmp_path: Path) -> None:
    for _ in range(2):
        with lines_to(str(tmp_path / "m"), 30.0) as lines:
            lines.tell(HALF)
            assert (tmp_path / "m").read_text().endswith("}\n")  # flushed
    assert len((tmp_path / "m").read_text().splitlines()) == 2


def test_a_full_disk_is_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    with lines_to("/dev/full", 30.0) as lines:
        lines.tell(HALF)
        lines.tell(replace(HALF, state="done"))
    assert capsys.readouterr().err.count("no more lines of metrics") == 1


def test_dash_is_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with opened("-", 30.0, None) as (sink,):
        sink.tell(HALF)
    assert json.loads(capsys.readouterr().out)["stage"] == "images"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:80", ("::1", 80)),
        ("build.example:65535", ("build.example", 65535)),
    ],
)
def test_address(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize("address", ["", "x", "-1", "65536", "host:", "9464:host", "99999999999", "http://x:1", "1.5"])
def test_no_address(address: str) -> None:
    with pytest.raises(MetricsError, match="is no port"):
        parse_address(address)


@pytest.fixture
def port(capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Endpoint, int]]:
    with served("0") as endpoint:
        yield endpoint, int(capsys.readouterr().err.rsplit(":", 1)[1].split("/")[0])


def ask(port: int, path: str, method: str = "GET") -> tuple[HTTPResponse, str]:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer, body


def test_the_endpoint_tells_the_last_state_of_each_stage(port: tuple[Endpoint, int]) -> None:
    endpoint, number = port
    assert list(read(ask(number, "/metrics")[1])) == ["mmc4_build_info"]
    for done in (1, 2, 3):
        endpoint.tell(replace(BARE, done=done, state="done" if done == 3 else "running"))
    endpoint.tell(HALF)
    answer, body = ask(number, "/metrics?x=y")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert read(body)["mmc4_stage_active"][1] == {'stage="documents"': 0, 'stage="images"': 1}
    assert read(body)["mmc4_stage_units_committed_total"][1]['stage="documents"'] == 3


def test_the_endpoint_serves_nothing_else(port: tuple[Endpoint, int], capsys: pytest.CaptureFixture[str]) -> None:
    _, number = port
    assert ask(number, "/")[0].status == ask(number, "/etc/passwd")[0].status == 404
    assert ask(number, "/metrics", "POST")[0].status == 501
    answer, body = ask(number, "/metrics", "HEAD")
    assert answer.status == 200 and body == ""
    with socket.create_connection(("127.0.0.1", number)) as rude:
        rude.sendall(b"\xff\x00 nonsense\r\n\r\n")
    with socket.create_connection(("127.0.0.1", number)):  # a client that says nothing stops no other
        assert ask(number, "/metrics")[0].status == 200
    assert capsys.readouterr().err == ""


def test_a_port_in_use_is_a_clear_error(port: tuple[Endpoint, int]) -> None:
    with pytest.raises(MetricsError, match=f"cannot serve --metrics-port {port[1]}: .*in use.*another port"):
        served(str(port[1])).__enter__()


def test_the_port_is_free_again_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with served("0"):
        number = int(capsys.readouterr().err.rsplit(":", 1)[1].split("/")[0])
        ask(number, "/metrics")
    with served(str(number)):
        assert ask(number, "/metrics")[0].status == 200
