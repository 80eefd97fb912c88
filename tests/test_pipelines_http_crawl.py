"""A crawl in Common Crawl's layout, read over HTTP from a server that fails: the same bytes as from a folder."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from builds import digests, write_corner
from servers import Fault, FolderServer, serve
from small_crawls import rows

from mmc4_builder.cli import main, parser
from mmc4_builder.mmc4_format import read_docs_zip
from pipelines.build import build
from pipelines.configure import configure, find_crawl
from pipelines.launch import Engine, EngineError
from pipelines.plan import Plan

CRAWL = "CC-MAIN-2024-10"
STEM = f"crawl-data/{CRAWL}/segments/1707947473347.0/warc/CC-MAIN-20240220211055-20240221001055"
FLAGS = ("--crawl", CRAWL, "--images", "archive", "--clip", "tiny")
LISTING = f"crawl-data/{CRAWL}/warc.paths.gz"
RESULTS = ("docs", "shards", "images", "documents", "scores", "interleave")


@dataclass(frozen=True)
class Site:
    """A crawl below a folder, and the server of that folder."""

    folder: Path
    names: tuple[str, ...]
    server: FolderServer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    names = tuple(f"{STEM}-{number:05d}.warc.gz" for number in range(2))
    for path, name in zip(write_corner(folder / "corner", files=2, every=24), names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / name)
    listing = "".join(f"{name}\n" for name in names).encode()
    (folder / LISTING).write_bytes(gzip.compress(listing, mtime=0))
    (folder / "collinfo.json").write_text('[{"id": "CC-MAIN-2024-18"}, {"id": "CC-MAIN-2024-10"}]')
    with serve(folder) as server:
        yield Site(folder, names, server)


def planned(root: str | Path, output: Path, *more: str) -> Plan:
    """What the command line makes of these flags."""
    args = parser().parse_args([*FLAGS, *more, "--crawl-root", str(root), "--output", str(output)])
    return Plan(build=configure(args), crawl=find_crawl(args), root=args.output)


@pytest.fixture(scope="module")
def over_http(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Built while a connection is cut in the middle of a file, and requests are refused."""
    first, second = site.names
    site.server.fail(LISTING, Fault(status=503, headers={"Retry-After": "0"}))
    site.server.fail(first, Fault(cut_after=3000))
    site.server.fail(second, Fault(status=503, headers={"Retry-After": "0"}))
    made = planned(site.server.root, tmp_path_factory.mktemp("http") / "out")
    build(made, Engine(workers=1))
    assert [request.status for request in site.server.asked(LISTING)] == [503, 200]
    assert [request.status for request in site.server.asked(second)].count(503) == 1
    assert site.server.asked(first)[1].headers["range"].startswith("bytes=3000-")
    return made


def test_over_http_the_same_bytes_come_out(over_http: Plan, site: Site, tmp_path: Path) -> None:
    local = planned(site.folder, tmp_path / "local")
    build(local, Engine(workers=1))
    docs = [doc for path in Path(over_http.root, "docs").iterdir() for doc in read_docs_zip(path)]
    assert len(docs) > 3 and all(doc["image_info"] for doc in docs)
    assert digests(Path(over_http.root), *RESULTS) == digests(Path(local.root), *RESULTS)


def test_provenance_names_the_file_and_not_the_server(over_http: Plan, site: Site) -> None:
    assert over_http.crawl.warcs == tuple((name,) for name in site.names)
    assert {row["warc"] for row in rows(over_http.root, "documents")} == set(site.names)
    assert {row["warc"] for row in rows(over_http.root, "images") if row["sha256"]} == set(site.names)


def test_a_limit_takes_the_first_files(over_http: Plan, site: Site, tmp_path: Path) -> None:
    before = len(site.server.asked(site.names[1]))
    made = planned(site.server.root, tmp_path / "out", "--limit", "1")
    build(made, Engine(workers=1), stages=("documents",))
    assert {row["warc"] for row in rows(made.root, "documents")} == {site.names[0]}
    assert len(site.server.asked(site.names[1])) == before


@pytest.mark.parametrize(
    ("crawl", "said"),
    [
        ("CC-MAIN-2024-11", ["no crawl CC-MAIN-2024-11", "CC-MAIN-2024-10", "CC-MAIN-2024-18"]),
        ("CC-MAIN-2024-81", ["'CC-MAIN-2024-81' is no crawl", "CC-MAIN-2024-18"]),
        ("nonsense", ["'nonsense' is no crawl"]),
    ],
)
def test_an_unknown_crawl_is_told_its_nearest(
    crawl: str, said: list[str], site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--crawl", crawl, "--crawl-root", site.server.root, *FLAGS[2:]]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert all(part in err for part in said), err
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(60)
def test_a_file_that_the_list_promises_and_the_server_lacks(site: Site, tmp_path: Path) -> None:
    """The run ends and names the file: the rest of the crawl would pass for the whole of it."""
    made = planned(site.server.root, tmp_path / "out")
    gone = f"{STEM}-00009.warc.gz"
    with pytest.raises(EngineError, match=f"no such file: {site.server.url(gone)}"):
        lacking = replace(made, crawl=replace(made.crawl, warcs=((gone,),)))
        build(lacking, Engine(workers=1), stages=("documents",))
