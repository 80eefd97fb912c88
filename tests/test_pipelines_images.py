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
    run,
    run_until,
    write,
)

from mmc4_builder.fetch import FetchConfig
from mmc4_builder.images import normalise
from mmc4_builder.warc import Response
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import ImagesConfig, ImageSource
from pipelines.picture_tar import TarStore
from pipelines.plan import Plan
from pipelines.schemas import PAGE_STATEMENTS, TOTALS

JPEG = ("Content-Type", "image/jpeg")


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
    "good.jpg": (serve(jpeg(1), ("Content-Type", "image/jpeg"), ("X-Robots-Tag", "all")), None),
    "refused.jpg": (serve(jpeg(1), ("X-Robots-Tag", "noai")), "optout_header"),
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
        total_seconds=2.0,
        retries=0,
        per_host=8,
        delay_seconds=0.0,
        max_failures=100,
    )
    return ImagesConfig(source=source, fetch=fetch)


def stored(root: str) -> dict[str, dict[str, Any]]:
    """Rows by the last part of their URL."""
    return {row["url"].rsplit("/", 1)[-1]: row for row in image_rows(root)}


def image_rows(root: str) -> list[dict[str, Any]]:
    """All rows of the buckets, in their order."""
    paths = sorted(Path(root, "images").glob("[0-9]*.parquet"))
    return [row for path in paths for row in read_rows(str(path))]


def timeless(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the times at which things were seen."""
    said = [{name: one[name] for name in ("name", "value", "source")} for one in row["statements"]]
    return {**row, "fetched": None, "statements": said}


def assert_places(root: str) -> None:
    """Every offset gives exactly the JPEG of that hash, and no tar holds one twice."""
    for row in image_rows(root):
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
    assert {"name": "x-robots-tag", "value": "all"} in good["headers"]
    assert [said["name"] for said in good["statements"]] == ["header:x-robots-tag"]
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
    assert list(map(timeless, image_rows(again.root))) == list(map(timeless, image_rows(live.root)))


# Pictures of the crawl first, then of the web.


def test_a_dead_link_falls_back_to_the_crawl(server: FaultServer, tmp_path: Path) -> None:
    """The web comes first; the crawl's copy stands in for what is gone or broken, and never for what is refused."""
    names = ("good.jpg", "gone.jpg", "broken.jpg", "page.jpg", "refused.jpg", "nowhere.jpg", "dot.jpg")
    held = [picture(server.url(f"/{name}"), 20) for name in names[:-2]]
    spoilt = Response(url=server.url("/nowhere.jpg"), timestamp=TIMESTAMP, payload=b"no picture", headers=(JPEG,))
    named = article("mill", *(server.url(f"/{name}") for name in names))
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [named, *held, spoilt]), images=config(server, "both"))
    run_until(made, "images")
    found = stored(made.root)
    assert [(found[n]["origin"], found[n]["reason"]) for n in names] == [
        ("live", None),
        ("archive", None),
        ("archive", None),
        ("archive", None),
        (None, "optout_header"),
        (None, "http_404"),
        ("live", "too_small"),
    ]
    assert found["gone.jpg"]["sha256"] == normalise(jpeg(20)).sha256
    assert found["gone.jpg"]["fetched"] == TIMESTAMP
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


# What hosts, pictures and lists say.

ROBOTS = b"User-agent: *\nDisallow: /private/\n\nUser-agent: GPTBot\nDisallow: /\n"
RESERVED = b'[{"location": "/reserved/*", "tdm-reservation": 1}]'
XMP = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description plus:DataMining="DMI-PROHIBITED"/>'


def said_by(host: str, path: str, body: bytes, status: int = 200, timestamp: str = TIMESTAMP) -> Response:
    return Response(url=f"http://{host}{path}", timestamp=timestamp, payload=body, status=status, headers=())


def with_xmp(data: bytes) -> bytes:
    return data[:2] + b"\xff\xe1" + (len(XMP) + 2).to_bytes(2, "big") + XMP + data[2:]


NOAI = ("X-Robots-Tag", "noai")
SAYING = [
    said_by("x.example", "/robots.txt", b"User-agent: *\nDisallow: /", timestamp="2024-02-01T00:00:00Z"),
    said_by("x.example", "/robots.txt", ROBOTS),  # newer, so the one before does not count
    said_by("x.example", "/.well-known/tdmrep.json", RESERVED),
    said_by("mill.example", "/robots.txt", b"User-agent: CCBot\nDisallow: /"),
    said_by("down.example", "/robots.txt", b"", status=503),
    said_by("moved.example", "/robots.txt", b"", status=404),
    said_by("nobody.example", "/robots.txt", ROBOTS),
    picture("http://x.example/private/a.jpg", 1),
    picture("http://x.example/reserved/b.jpg", 2),
    replace(picture("http://moved.example/c.jpg", 3), headers=(JPEG, NOAI)),
    replace(picture("http://moved.example/d.jpg"), payload=with_xmp(jpeg(4))),
    picture("http://moved.example/e.jpg", 5),
    picture("http://down.example/f.jpg", 6),
]


@pytest.fixture(scope="module")
def saying(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A crawl whose hosts and pictures say this and that."""
    folder = tmp_path_factory.mktemp("saying")
    urls = [record.url for record in SAYING if record.url.endswith(".jpg")]
    made = plan(folder / "out", write(folder / "crawl", [article("mill", *urls)], SAYING))
    run_until(made, "images")
    return made


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.jpg", [("robots:mmc-build", "Disallow: /private/"), ("robots:GPTBot", "Disallow: /")]),
        ("b.jpg", [("robots:GPTBot", "Disallow: /"), ("tdmrep:tdm-reservation", "1")]),
        ("c.jpg", [("header:x-robots-tag", "noai")]),
        ("d.jpg", [("xmp:datamining", "DMI-PROHIBITED")]),
        ("e.jpg", []),
        ("f.jpg", [("robots:unreachable", "http_503")]),
    ],
)
def test_what_was_said_of_archived_pictures_is_noted_and_nothing_refused(
    name: str, said: list[tuple[str, str]], saying: Plan
) -> None:
    row = stored(saying.root)[name]
    assert row["reason"] is None and row["sha256"]
    assert [(one["name"], one["value"]) for one in row["statements"]] == said
    assert all(one["seen"] == TIMESTAMP for one in row["statements"])


def test_host_files_that_were_consulted_are_kept(saying: Plan) -> None:
    """All but the outdated one and the one of a host that nobody asked about."""
    files = [row for path in sorted(Path(saying.root, "images/hosts").glob("*")) for row in read_rows(str(path))]
    assert sorted((row["url"], row["status"]) for row in files) == sorted(
        [
            ("http://x.example/robots.txt", 200),
            ("http://x.example/.well-known/tdmrep.json", 200),
            ("http://mill.example/robots.txt", 200),
            ("http://down.example/robots.txt", 503),
            ("http://moved.example/robots.txt", 404),
        ]
    )
    (robots,) = [row for row in files if row["url"] == "http://x.example/robots.txt"]
    assert (robots["body"], robots["origin"], robots["warc"]) == (ROBOTS, "archive", "1.warc.gz")


def received(made: Plan, step: str, exchange: str, unit: str, schema: Any) -> list[dict[str, Any]]:
    sent = records(made, "images")[step]
    pieces = tuple(piece for commit in sent for piece in commit.pieces.get(unit, ()))
    return list(Workspace(made.root, "", Unit(name=unit, pieces=pieces)).received(exchange, schema).to_pylist())


def test_pages_are_told_what_their_host_said(saying: Plan) -> None:
    (told,) = received(saying, "images", "page_statements", "00000", PAGE_STATEMENTS)
    assert told["row"] == 0
    assert [(one["name"], one["source"]) for one in told["statements"]] == [
        ("robots:CCBot", "http://mill.example/robots.txt")
    ]


@pytest.mark.parametrize(
    ("keys", "tombstones", "reasons"),
    [
        (("x.example",), "", {"a": "optout_list", "b": "optout_list", "c": None, "e": None}),
        (("http://moved.example/c.jpg",), "x.example\n", {"a": "removed", "b": "removed", "c": "optout_list"}),
        ((hashlib.sha256(jpeg(5)).hexdigest(),), "", {"a": None, "e": "optout_list"}),
        (("x.example",), hashlib.sha256(with_xmp(jpeg(4))).hexdigest(), {"a": "optout_list", "d": "removed"}),
    ],
)
def test_lists_and_removals_are_honoured(
    keys: tuple[str, ...], tombstones: str, reasons: dict[str, str | None], saying: Plan, tmp_path: Path
) -> None:
    again = ("images", "occurrences", "frequent")
    root = shutil.copytree(saying.root, tmp_path / "out", ignore=shutil.ignore_patterns(*again))
    (root / "removals").mkdir()
    (root / "removals/keys.txt").write_text(tombstones)
    build = replace(saying.build, images=replace(saying.build.images, optout_keys=keys))
    made = replace(saying, root=str(root), build=build)
    run(made.stage("images").transform)
    found = stored(made.root)
    assert {name: found[f"{name}.jpg"]["reason"] for name in reasons} == reasons
    refused = [row for row in found.values() if row["reason"]]
    assert all(row["sha256"] is None and row["store"] is None for row in refused)
    tars = b"".join(path.read_bytes() for path in Path(root, "images").glob("*.tar"))
    assert not any(jpeg(seed) in tars for seed, name in ((1, "a"), (5, "e")) if reasons.get(name))


def test_refused_by_the_list_is_never_asked_for(server: FaultServer, tmp_path: Path) -> None:
    before = len(server.requests)
    images = replace(config(server), optout_keys=("127.0.0.1",))
    made = plan(tmp_path / "out", write(tmp_path / "crawl", [article("mill", server.url("/good.jpg"))]), images=images)
    run_until(made, "images")
    assert stored(made.root)["good.jpg"]["reason"] == "optout_list"
    assert len(server.requests) == before


def test_files_of_live_hosts_are_kept(live: Plan, server: FaultServer) -> None:
    files = [row for path in sorted(Path(live.root, "images/hosts").glob("*")) for row in read_rows(str(path))]
    assert [(row["url"], row["origin"], row["status"]) for row in files] == [
        (server.url("/.well-known/tdmrep.json"), "live", 404),
        (server.url("/robots.txt"), "live", 404),
    ]


def test_requests_and_bytes_are_counted_beside_the_funnel(live: Plan) -> None:
    counted = counts(live, "images")["images"]
    assert counted["requests"] >= counted["urls.kept"] and counted["bytes"] > 0


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
    return {row["key"]: row["documents"] for row in received(made, "occurrences", "totals", bucket, TOTALS)}


def test_a_picture_is_counted_over_all_hosts_and_files(tmp_path: Path) -> None:
    """One picture at three hosts, shown by four documents of two files; another shown by one."""
    shared = [f"http://{host}.example/same.jpg" for host in ("one", "two", "three")]
    other = "http://one.example/other.jpg"
    first = [article("mill", shared[0], other), article("well", shared[0], shared[0])]
    second = [article("barn", shared[1]), article("farm", shared[2])]
    kept = [*(picture(url, 1) for url in shared), picture(other, 2)]
    images = ImagesConfig(source="archive", frequent_from=4)
    made = plan(tmp_path / "out", write(tmp_path / "crawl", first, [*second, *kept]), images=images)
    counters = run_until(made, "images")
    assert agrees(counters, counts(made, "images"))
    found = {row["url"]: row for row in image_rows(made.root)}
    same, different = (normalise(jpeg(seed)).phash for seed in (1, 2))
    buckets = {Path(found[url]["store"]).stem for url in shared}
    assert len(buckets) > 1
    for bucket in buckets:
        assert totals(made, bucket)[same] == 4
    assert totals(made, Path(found[other]["store"]).stem)[different] == 1
    assert list(read_rows(f"{made.root}/images/frequent.parquet")) == [{"key": same, "documents": 4}]
    assert (found[shared[0]]["documents"], found[shared[0]]["units"]) == (2, ["00000"])
    assert (found[shared[1]]["documents"], found[shared[1]]["units"]) == (1, ["00001"])


def test_a_url_that_two_files_name_knows_both(tmp_path: Path) -> None:
    url = "http://x.example/a.jpg"
    files = [article("mill", url)], [article("well", url), article("barn", url), picture(url)]
    made = plan(tmp_path / "out", write(tmp_path / "crawl", *files))
    run_until(made, "images")
    (row,) = image_rows(made.root)
    assert (row["units"], row["documents"]) == (["00000", "00001"], 3)
    assert totals(made, Path(row["store"]).stem) == {row["phash"]: 3}


@pytest.mark.parametrize("sizes", [[], [1], [511, 512, 513], [0, 5000, 1], [100_000, 3]])
def test_the_tar_tells_where_bytes_lie(sizes: list[int]) -> None:
    stream = io.BytesIO()
    contents = {f"{number:064x}": bytes([number]) * size for number, size in enumerate(sizes)}
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        store = TarStore(tar, "images/00000.tar")
        places = {name: store.add(name, data) for name, data in contents.items()}
        assert {name: store.place(name) for name in contents} == places
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
