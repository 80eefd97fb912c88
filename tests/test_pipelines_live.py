"""A build against a hostile web: every fault has its reason, and the same corpus comes out twice."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_server import HostileServer, good
from small_crawls import article, assert_adds_up, counts, plan, run, run_until, write

from filters.url import UrlRules
from mmc4_builder import timings
from mmc4_builder.fetch_rules import may_pass
from mmc4_builder.urls import host_of
from mmc4_builder.workspace import read_rows
from pipelines import retry
from pipelines.config import ImagesConfig
from pipelines.plan import Plan

ANY_NAME = UrlRules(extensions=tuple("abcdefghijklmnopqrstuvwxyz/"))  # the faults are not all called .jpg


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    with HostileServer(tmp_path_factory.mktemp("certificates")) as running:
        yield running


def build(web: HostileServer, folder: Path) -> Plan:
    """Documents and images of a crawl whose pages show every picture of the hostile web."""
    urls = [case.url for case in web.cases()]
    files = [article("mill", *urls[::2])], [article("barn", *urls[1::2])]
    images = ImagesConfig(source="live", fetch=web.config(), urls=ANY_NAME)
    made = plan(folder / "out", write(folder / "crawl", *files), images=images)
    run_until(made, "images")
    return made


@pytest.fixture(scope="module")
def first(web: HostileServer, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return build(web, tmp_path_factory.mktemp("first"))


def image_rows(made: Plan) -> dict[str, dict[str, Any]]:
    paths = sorted(Path(made.root, "images").glob("[0-9]*.parquet"))
    return {row["url"]: row for path in paths for row in read_rows(str(path))}


def test_each_fault_has_its_reason(web: HostileServer, first: Plan) -> None:
    rows = image_rows(first)
    expected = {case.url: case.reason or case.picture for case in web.cases()}
    assert {url: rows[url]["reason"] for url in expected} == expected
    assert rows.keys() == expected.keys()


def test_the_funnel_tells_the_same(web: HostileServer, first: Plan) -> None:
    counted = counts(first, "images")["images"]
    assert_adds_up(counted)
    reasons = Counter(case.reason or case.picture for case in web.cases())
    kept = reasons.pop(None)
    assert counted["urls.kept"] == kept
    assert {name.removeprefix("urls.dropped."): n for name, n in counted.items() if "dropped" in name} == reasons


def test_no_disallowed_path_is_asked_for(web: HostileServer, first: Plan) -> None:
    """Not in the first build, nor in any other of this file."""
    assert not [path for path in web.paths("robots-good") if path.startswith("/private/")]
    assert set(web.paths("robots-ours")) <= {"/robots.txt", "/.well-known/tdmrep.json"}


def test_refusals_carry_their_evidence(web: HostileServer, first: Plan) -> None:
    rows = image_rows(first)
    for case in web.cases():
        if case.reason and case.reason.startswith("optout"):
            assert rows[case.url]["statements"], case.url
            assert rows[case.url]["sha256"] is None


def test_hosts_that_failed_and_that_took_time_are_known(web: HostileServer, first: Plan) -> None:
    """By what the fetcher says; a host that refuses has not failed."""
    asked = Counter(host_of(case.url) for case in web.cases() if host_of(case.url))
    failures = [case for case in web.cases() if case.reason and not case.reason.startswith("optout_")]
    failed = Counter(host_of(case.url) for case in failures if host_of(case.url))
    hosts = timings.load_hosts(first.root)
    assert {host: urls for host, (urls, _, _) in hosts.items()} == asked
    assert {host: count for host, (_, count, _) in hosts.items() if count} == failed
    assert any(seconds > 0 for _, _, seconds in hosts.values())


def test_the_same_corpus_comes_out_twice(web: HostileServer, first: Plan, tmp_path: Path) -> None:
    """On a server that starts anew, whose faults have not been met: the same pictures, and the same verdicts."""
    (tmp_path / "certificates").mkdir()
    with HostileServer(tmp_path / "certificates") as again:
        second = build(again, tmp_path)
    assert digests(second) == digests(first)
    assert Counter(map(facts, image_rows(second).values())) == Counter(map(facts, image_rows(first).values()))


def digests(made: Plan) -> set[str]:
    """Of all stored pictures: the names of hosts hold a port, so that buckets differ between servers."""
    return {row["sha256"] for row in image_rows(made).values() if row["sha256"]}


def facts(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("reason", "sha256", "phash", "width", "height", "original_sha256", "documents"))


def test_a_retry_asks_only_what_failed_and_may_pass(web: HostileServer, first: Plan) -> None:
    rows = image_rows(first)
    before = len(web.seen)
    web.hosts["flaps.localhost"]["/c.jpg"] = good
    stage = retry.stage(first)
    assert stage is not None
    run(stage.transform)
    assert retry.finish(first)
    asked = {(one.host, one.path) for one in web.seen[before:]}
    paths = {url: (url.split("/")[2].partition(":")[0], "/" + url.split("/", 3)[3]) for url in rows}
    for url, row in rows.items():
        if row["reason"] is None or not may_pass(row["reason"]):
            assert paths[url] not in asked, (url, row["reason"])
    retried = image_rows(first)
    assert all(retried[url] == row for url, row in rows.items() if not (row["reason"] and may_pass(row["reason"])))
    assert [url for url, row in retried.items() if row["reason"] is None and rows[url]["reason"]] == [
        web.url("flaps", "/c.jpg")
    ]
