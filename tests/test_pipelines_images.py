"""Stage 2: each picture fetched once, from the crawl or from a real web server, and stored under its hash."""

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
from faults import FaultServer, Route, Talk, hang_up, redirect, stalled_body
from PIL import Image
from small_crawls import (
    TIMESTAMP,
    agrees,
    article,
    assert_adds_up,
    counts,
    img,
    jpeg,
    page,
    paragraphs,
    picture,
    plan,
    prose,
    records,
    rows,
    run,
    run_until,
    write,
)

from mmc4_builder.fetch import FetchConfig
from mmc4_builder.images import normalise
from mmc4_builder.warc import Response
from mmc4_builder.workspace import Unit, Workspace
from pipelines import images
from pipelines.config import ImagesConfig, ImageSource
from pipelines.images import TarStore, outcomes
from pipelines.plan import Plan
from pipelines.schemas import TOTALS


def serve(data: bytes, *headers: tuple[str, str], delay: float = 0.0) -> Route:
    def route(talk: Talk) -> None:
        talk.closing.wait(delay)
        talk.reply(200, data, *headers)

    return route


def png() -> bytes:
    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg(9))).save(stream, "PNG")
    return stream.getvalue()


ROUTES: dict[str, tuple[Route, str | None]] = {
    "good.jpg": (serve(jpeg(1), ("Content-Type", "image/jpeg"), ("X-Robots-Tag", "noai")), None),
    "again.jpg": (serve(jpeg(1)), None),
    "mislabelled.jpg": (serve(jpeg(2), ("Content-Type", "text/html")), None),
    "large.jpg": (serve(jpeg(3, 1600, 1000)), None),
    "picture.png": (serve(png()), None),
    "moved.jpg": (redirect("/good.jpg"), None),
    "late.jpg": (serve(jpeg(4), delay=0.2), None),
    "gone.jpg": (lambda talk: talk.reply(410), "http_410"),
    "broken.jpg": (lambda talk: talk.reply(500), "http_500"),
    "slow.jpg": (stalled_body, "timeout"),
    "hang-up.jpg": (hang_up, "connection_reset"),
    "loop.jpg": (redirect("/loop.jpg"), "too_many_redirects"),
    "page.jpg": (serve(b"<html>404</html>", ("Content-Type", "image/jpeg")), "not_an_image"),
    "cut.jpg": (serve(jpeg(5)[:2000]), "truncated"),
    "spoilt.jpg": (serve(jpeg(6)[:700] + bytes(300) + jpeg(6)[1000:]), "corrupt"),
    "dot.jpg": (serve(jpeg(7, 40, 40)), "too_small"),
    "banner.jpg": (serve(jpeg(8, 800, 160)), "bad_aspect"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with FaultServer({f"/{name}": route for name, (route, _) in ROUTES.items()}) as running:
        yield running


def config(server: FaultServer, source: ImageSource = "live") -> ImagesConfig:
    fetch = FetchConfig(
        contact="https://example.org/crawl",
        allow_private=True,
        ports=(server.port,),
        read_seconds=1.0,
        retries=0,
        per_host=8,
    )
    return ImagesConfig(source=source, fetch=fetch)


def stored(root: str) -> dict[str, dict[str, Any]]:
    """Rows by the last part of their URL."""
    return {row["url"].rsplit("/", 1)[-1]: row for row in rows(root, "images")}


def assert_places(root: str) -> None:
    """Every offset gives exactly the JPEG of that hash, and no tar holds one twice."""
    for row in rows(root, "images"):
        if row["sha256"] is None:
            assert (row["store"], row["store_offset"], row["width"]) == (None, None, None)
            continue
        data = Path(root, row["store"]).read_bytes()
        found = data[row["store_offset"] :][: row["store_length"]]
        assert hashlib.sha256(found).hexdigest() == row["sha256"]
        assert simplejpeg.decode_jpeg(found).shape == (row["height"], row["width"], 3)
    for path in Path(root, "images").glob("*.tar"):
        with tarfile.open(path) as tar:
            members = [(member.name, hashlib.sha256(tar.extractfile(member).read()).hexdigest())  # type: ignore[union-attr]
                       for member in tar]  # fmt: skip
        assert all(name == f"{sha256}.jpg" for name, sha256 in members)
        assert len(set(members)) == len(members)


@pytest.fixture(scope="module")
def live(server: FaultServer, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A crawl that names every picture of the server, and holds none."""
    folder = tmp_path_factory.mktemp("live")
    urls = [server.url(f"/{name}") for name in (*ROUTES, "nowhere.jpg")]
    made = plan(folder / "out", write(folder / "crawl", [article("mill", *urls)]), images=config(server))
    counters = run_until(made, "images")
    assert agrees(counters, counts(made, "images"))
    return made


def test_every_url_is_asked_for_once(live: Plan, server: FaultServer) -> None:
    assert server.hits("/good.jpg") == 2  # once for itself, once for the redirect
    assert all(server.hits(f"/{name}") == 1 for name in ROUTES if name not in ("good.jpg", "loop.jpg"))


@pytest.mark.parametrize(
    ("name", "reason"), [*((n, why) for n, (_, why) in ROUTES.items()), ("nowhere.jpg", "http_404")]
)
def test_what_becomes_of_each(name: str, reason: str | None, live: Plan) -> None:
    row = stored(live.root)[name]
    assert row["reason"] == reason
    assert (row["sha256"] is None) == (reason is not None)


def test_reasons_are_counted(live: Plan) -> None:
    counted = counts(live, "images")["images"]
    assert_adds_up(counted)
    reasons = sorted(why for _, why in ROUTES.values() if why) + ["http_404"]
    assert {n: c for n, c in counted.items() if "dropped" in n} == {f"urls.dropped.{why}": 1 for why in reasons}


def test_bytes_lie_where_the_rows_say(live: Plan) -> None:
    assert_places(live.root)


def test_rows_tell_where_a_picture_came_from(live: Plan, server: FaultServer) -> None:
    found = stored(live.root)
    good, moved = found["good.jpg"], found["moved.jpg"]
    assert good["sha256"] == good["original_sha256"] == hashlib.sha256(jpeg(1)).hexdigest()
    assert (good["origin"], good["final_url"], good["warc"]) == ("live", server.url("/good.jpg"), None)
    assert {"name": "x-robots-tag", "value": "noai"} in good["headers"]
    assert good["fetched"][:2] == "20"
    assert (moved["url"], moved["final_url"]) == (server.url("/moved.jpg"), server.url("/good.jpg"))
    assert (good["documents"], good["units"]) == (1, ["00000"])


def test_the_same_bytes_are_stored_once(live: Plan) -> None:
    found = stored(live.root)
    places = {(found[n]["store"], found[n]["store_offset"]) for n in ("good.jpg", "again.jpg", "moved.jpg")}
    assert len(places) == 1


def test_large_pictures_are_shrunk_and_others_become_jpegs(live: Plan) -> None:
    found = stored(live.root)
    large = found["large.jpg"]
    assert (large["width"], large["height"]) == (800, 500)
    assert (large["original_width"], large["original_height"]) == (1600, 1000)
    assert large["original_sha256"] == hashlib.sha256(jpeg(3, 1600, 1000)).hexdigest()
    assert found["picture.png"]["original_format"] == "png"


def test_answers_in_another_order_change_no_tar(live: Plan, server: FaultServer, tmp_path: Path) -> None:
    """Those that came late come first now; only the times at which pictures were seen may differ."""
    before = dict(server.routes)
    skipped = shutil.ignore_patterns("images", "mention", "occurrences", "aliases", "redirects")
    again = replace(live, root=str(shutil.copytree(live.root, tmp_path / "out", ignore=skipped)))
    server.routes["/late.jpg"] = serve(jpeg(4))
    server.routes["/again.jpg"] = serve(jpeg(1), delay=0.3)
    server.routes["/mislabelled.jpg"] = serve(jpeg(2), ("Content-Type", "text/html"), delay=0.2)
    try:
        run(again.stage("images").transform)
    finally:
        server.routes.update(before)
    for path in sorted(Path(live.root, "images").glob("*.tar")):
        assert Path(again.root, "images", path.name).read_bytes() == path.read_bytes()
    strip = lambda row: {name: value for name, value in row.items() if name != "fetched"}  # noqa: E731
    assert list(map(strip, rows(again.root, "images"))) == list(map(strip, rows(live.root, "images")))


def test_results_come_in_the_order_of_the_urls(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where more URLs are asked for than may wait for their turn."""
    monkeypatch.setattr(images, "AHEAD", 3)
    urls = sorted(server.url(f"/{name}") for name, (_, why) in ROUTES.items() if why is None) + ["http://0/"]
    found = list(outcomes(urls, {}, config(server)))
    assert [url for url, _ in found] == urls
    assert [reason for _, (_, _, reason) in found[:-1]] == [None] * (len(urls) - 1)


# Pictures of the crawl first, then of the web.


def test_a_dead_copy_of_the_crawl_is_fetched_anew(server: FaultServer, tmp_path: Path) -> None:
    names = ("good.jpg", "late.jpg", "large.jpg", "gone.jpg")
    held, spoilt, absent, dead = (server.url(f"/{name}") for name in names)
    before = server.hits("/good.jpg")
    broken = Response(url=spoilt, timestamp=TIMESTAMP, payload=jpeg(4)[:900], headers=(("Content-Type", "image/jpeg"),))
    crawl = write(
        tmp_path / "crawl",
        [article("mill", held, spoilt, absent, dead), picture(held, 20), broken, replace(broken, url=dead)],
    )
    made = plan(tmp_path / "out", crawl, images=config(server, "both"))
    run_until(made, "images")
    found = stored(made.root)
    assert [(found[n]["origin"], found[n]["reason"]) for n in names] == [
        ("archive", None),
        ("live", None),
        ("live", None),
        (None, "http_410"),
    ]
    assert found["good.jpg"]["sha256"] == normalise(jpeg(20)).sha256
    assert found["good.jpg"]["fetched"] == TIMESTAMP
    assert server.hits("/good.jpg") == before
    assert_places(made.root)


def test_archived_pictures_and_nothing_else(tmp_path: Path) -> None:
    """No server runs, and no request is made: what the crawl lacks is missing."""
    held, absent, spoilt = (f"http://x.example/{n}.jpg" for n in ("held", "absent", "spoilt"))
    broken = Response(url=spoilt, timestamp=TIMESTAMP, payload=b"no picture", headers=(("Content-Type", "image/jpeg"),))
    crawl = write(tmp_path / "crawl", [article("mill", held, absent, spoilt), picture(held, 1), broken])
    made = plan(tmp_path / "out", crawl)
    run_until(made, "images")
    found = stored(made.root)
    assert [found[n]["reason"] for n in ("held.jpg", "absent.jpg", "spoilt.jpg")] == [
        None,
        "missing",
        "not_an_image",
    ]
    assert (found["held.jpg"]["warc"], found["held.jpg"]["final_url"]) == ("0.warc.gz", held)
    assert {"name": "Content-Type", "value": "image/jpeg"} in found["held.jpg"]["headers"]


# Which pictures are asked for, and how often each is shown.


def test_every_reason_of_mentions(tmp_path: Path) -> None:
    names = ["a.jpg", "a.jpg", "b.gif", "c.jpg?x=1", "my-logo.jpg", "d" * 2100 + ".jpg", "e.JPG"]
    body = paragraphs(prose("mill")) + img(*(f"http://x.example/{name}" for name in names))
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [page("http://p.example/", body)]))
    counters = run_until(made, "images")
    assert agrees(counters, counts(made, "images"))
    assert counts(made, "images")["mention"] == {
        "mentions.entered": 7,
        "mentions.kept": 1,
        "mentions.dropped.repeated_in_document": 1,
        "mentions.dropped.url_extension": 3,
        "mentions.dropped.url_too_long": 1,
        "mentions.dropped.url_word": 1,
    }
    assert list(stored(made.root)) == ["a.jpg"]


def totals(made: Plan, bucket: str) -> dict[int, int]:
    """Perceptual hash -> documents that show it, as the tar of a bucket is told."""
    sent = records(made, "images")["occurrences"]
    pieces = tuple(piece for commit in sent for piece in commit.pieces.get(bucket, ()))
    table = Workspace(made.root, "", Unit(name=bucket, pieces=pieces)).received("totals", TOTALS)
    return dict(zip(table["key"].to_pylist(), table["documents"].to_pylist(), strict=True))


def test_a_picture_is_counted_over_all_hosts_and_files(tmp_path: Path) -> None:
    """One picture at three hosts, shown by four documents of two files; another shown by one."""
    shared = [f"http://{host}.example/same.jpg" for host in ("one", "two", "three")]
    other = "http://one.example/other.jpg"
    first = [article("mill", shared[0], other), article("well", shared[0], shared[0])]
    second = [article("barn", shared[1]), article("farm", shared[2])]
    kept = [*(picture(url, 1) for url in shared), picture(other, 2)]
    made = plan(tmp_path / "out", write(tmp_path / "crawl", first, [*second, *kept]))
    counters = run_until(made, "images")
    assert agrees(counters, counts(made, "images"))
    found = {row["url"]: row for row in rows(made.root, "images")}
    same, different = (normalise(jpeg(seed)).phash for seed in (1, 2))
    buckets = {Path(found[url]["store"]).stem for url in shared}
    assert len(buckets) > 1
    for bucket in buckets:
        assert totals(made, bucket)[same] == 4
    assert totals(made, Path(found[other]["store"]).stem)[different] == 1
    assert (found[shared[0]]["documents"], found[shared[0]]["units"]) == (2, ["00000"])
    assert (found[shared[1]]["documents"], found[shared[1]]["units"]) == (1, ["00001"])


def test_a_url_that_two_files_name_knows_both(tmp_path: Path) -> None:
    url = "http://x.example/a.jpg"
    files = [article("mill", url)], [article("well", url), article("barn", url), picture(url)]
    made = plan(tmp_path / "out", write(tmp_path / "crawl", *files))
    run_until(made, "images")
    (row,) = rows(made.root, "images")
    assert (row["units"], row["documents"]) == (["00000", "00001"], 3)
    assert totals(made, Path(row["store"]).stem) == {row["phash"]: 3}


@pytest.mark.parametrize("sizes", [[], [1], [511, 512, 513], [0, 5000, 1], [100_000, 3]])
def test_the_tar_tells_where_bytes_lie(sizes: list[int]) -> None:
    stream = io.BytesIO()
    contents = {f"{number:064x}": bytes([number]) * size for number, size in enumerate(sizes)}
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        store = TarStore(tar, "images/00000.tar")
        places = {name: store.add(name, data) for name, data in contents.items()}
        assert {name: store.add(name, b"") for name in contents} == places
    written = stream.getvalue()
    for name, data in contents.items():
        start = places[name]["store_offset"]
        assert written[start : start + places[name]["store_length"]] == data
    with tarfile.open(fileobj=io.BytesIO(written)) as again:
        assert [(m.name, m.size, m.mtime, m.uid) for m in again] == [
            (f"{name}.jpg", len(data), 0, 0) for name, data in contents.items()
        ]


@pytest.mark.parametrize("source", ["live", "both"])
def test_live_pictures_need_somebody_to_answer_for_them(source: ImageSource) -> None:
    with pytest.raises(ValueError, match="contact"):
        ImagesConfig(source=source)
