"""Tiny crawls for tests: pages and pictures as WARC files, and single stages run on them in memory."""

import gzip
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from builds import as_response
from PIL import Image

from filters.text import url_key
from mmc4_builder import commits
from mmc4_builder.commits import Commit
from mmc4_builder.sample import web as sample_web
from mmc4_builder.urls import normalize_url
from mmc4_builder.warc import Response, write_warc
from mmc4_builder.workspace import Unit, Workspace, read_rows
from pipelines.config import Build, DocumentsConfig, ImagesConfig, ScoresConfig, sample
from pipelines.documents import extract
from pipelines.launch import Engine
from pipelines.plan import STAGES, Crawl, Plan
from pipelines.schemas import FACTS, OPINIONS, SCORED
from pipelines.units import Step, run_unit

TIMESTAMP = "2024-03-01T12:00:00Z"
HTML = ("Content-Type", "text/html; charset=utf-8")
Counters = dict[str, dict[str, int]]  # by step, then by name


def prose(topic: str, lines: int = 4) -> list[str]:
    """Lines of English that C4's rules let pass, one sentence each, and on no page of another topic."""
    return [f"The keeper of {topic} wrote line {i} about the long winter and a quiet sea." for i in range(lines)]


def markup(body: str, head: str = "") -> bytes:
    return f"<!doctype html><html><head>{head}</head><body>{body}</body></html>".encode()


def paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{line}</p>" for line in lines)


def img(*urls: str) -> str:
    return "".join(f'<img src="{url}" alt="what {url[-8:]} shows">' for url in urls)


def page(url: str, body: str, *headers: tuple[str, str], timestamp: str = TIMESTAMP, head: str = "") -> Response:
    return Response(url=url, timestamp=timestamp, payload=markup(body, head), headers=(HTML, *headers))


def article(topic: str, *images: str, timestamp: str = TIMESTAMP) -> Response:
    """A page that is kept: English of its own, and pictures between its lines."""
    first, *rest = prose(topic)
    return page(f"http://{topic}.example/", paragraphs([first]) + img(*images) + paragraphs(rest), timestamp=timestamp)


def write_halves(folder: Path) -> list[Path]:
    """A corner of the sample in two crawls, the pages with the smaller hashes first. The second names pictures of the
    first again."""
    web = sample_web.build()
    pages = sorted(web.documents[::8], key=lambda d: url_key(normalize_url(d.truth.url)))
    middle = len(pages) // 2
    again = [mention.url for document in pages[:3] for mention in document.truth.mentions]
    paths = []
    for number, half in enumerate((pages[:middle], pages[middle:])):
        named = {mention.url for document in half for mention in document.truth.mentions}
        shown = [as_response(picture) for picture in web.pictures if picture.url in named]
        pages_of = [
            Response(url=d.truth.url, timestamp=d.truth.timestamp, payload=d.body, headers=d.headers) for d in half
        ]
        more = [article("lighthouse", *again)] if number else []
        paths.append(folder / f"{number}.warc.gz")
        write_warc(str(paths[-1]), [*pages_of, *more, *shown], filename=paths[-1].name)
    return paths


def jpeg(seed: int, width: int = 200, height: int = 160, quality: int = 85) -> bytes:
    """A picture of coloured blots, unlike that of any other seed."""
    blots = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(blots).resize((width, height), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def picture(url: str, seed: int = 0, *, timestamp: str = TIMESTAMP, kind: str = "image/jpeg") -> Response:
    return Response(url=url, timestamp=timestamp, payload=jpeg(seed), headers=(("Content-Type", kind),))


def redirect(url: str, target: str, status: int = 301) -> Response:
    return Response(url=url, timestamp=TIMESTAMP, payload=b"", status=status, headers=(("Location", target), HTML))


def member(fields: Mapping[str, str], block: bytes, *, length: int | None = None) -> bytes:
    """One gzip member with a WARC record as the test wants it, sound or not."""
    head = {"Content-Length": str(len(block) if length is None else length), **fields}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return gzip.compress(b"WARC/1.0\r\n" + lines.encode() + b"\r\n" + block + b"\r\n\r\n", mtime=0)


def response_fields(url: str, **changes: str) -> dict[str, str]:
    fields = {"WARC-Type": "response", "WARC-Target-URI": url, "WARC-Date": TIMESTAMP}
    return {**fields, **{name.replace("_", "-"): value for name, value in changes.items()}}


def http(payload: bytes, *headers: tuple[str, str], status: str = "200 OK") -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + payload


def write(folder: Path, *files: Sequence[Response]) -> Crawl:
    """WARC files `0.warc.gz`, `1.warc.gz`, ... below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, records in enumerate(files):
        write_warc(str(folder / f"{number}.warc.gz"), records, filename=f"{number}.warc.gz")
    return crawl(folder)


def crawl(folder: Path) -> Crawl:
    """All WARC files of a folder."""
    paths = sorted(folder.glob("*.warc*"))
    return Crawl(name="small", root=str(folder), warcs=tuple((p.name, str(p.stat().st_size)) for p in paths))


def plan(root: Path, crawl: Crawl, **changes: Any) -> Plan:
    """A plan for archived pictures and the tiny CLIP alone, or with another configuration for some stages."""
    config: Build = replace(sample(ImagesConfig(source="archive")), **{"scores": ScoresConfig(clip="tiny"), **changes})
    return Plan(build=config, crawl=crawl, root=str(root))


def run(transform: beam.PTransform) -> Counters:
    """Run a pipeline in memory; Beam's own counters of it, those that counted anything."""
    pipeline = Engine(workers=1).pipeline()
    pipeline | transform
    result = pipeline.run()
    result.wait_until_finish()
    found: Counters = {}
    for counter in result.metrics().query()["counters"]:
        if counter.committed:
            found.setdefault(counter.key.metric.namespace, {})[counter.key.metric.name] = counter.committed
    return found


def run_until(plan: Plan, last: str) -> Counters:
    """Run all stages up to one; Beam's counters of that last one."""
    counters: Counters = {}
    for name in STAGES[: STAGES.index(last) + 1]:
        counters = run(plan.stage(name).transform)
    return counters


def records(plan: Plan, stage: str) -> dict[str, list[Commit]]:
    """Commit records of a stage by step; every unit must have one."""
    found = {work.step: work.committed(plan.root) for work in plan.stage(stage).work}
    assert [len(found[w.step]) for w in plan.stage(stage).work] == [len(w.units) for w in plan.stage(stage).work]
    return found


def counts(plan: Plan, stage: str) -> Counters:
    """What the commit records of a stage count, by step, without zeros."""
    totals = {step: commits.total(found) for step, found in records(plan, stage).items()}
    kept = {step: {name: n for name, n in total.items() if n} for step, total in totals.items()}
    return {step: total for step, total in kept.items() if total}


def agrees(counters: Counters, committed: Counters) -> bool:
    """Whether Beam counted what the commits count. RunInference adds counters of its own to a step's."""
    return all(counters.get(step, {}) | total == counters.get(step) for step, total in committed.items())


def assert_adds_up(total: Mapping[str, int]) -> None:
    """Entered is kept and dropped together, for everything that is counted."""
    for what in {name.split(".")[0] for name in total if "." in name}:
        dropped = sum(n for name, n in total.items() if name.startswith(f"{what}.dropped."))
        assert total.get(f"{what}.entered", 0) == total.get(f"{what}.kept", 0) + dropped, what


def rows(root: Path | str, relative: str) -> list[dict[str, Any]]:
    """Rows of all units' Parquet files in a folder of the build, in the order of the units."""
    return [row for path in sorted(Path(root, relative).glob("[0-9]*.parquet")) for row in read_rows(str(path))]


@dataclass(frozen=True)
class Extracted:
    """What extraction made of one WARC file."""

    counts: dict[str, int]  # but for `bytes`
    bytes: int  # of the file, that were read
    pages: list[dict[str, Any]]
    letters: str  # the dead letters, a line each


def extracted(root: Path, warc: Path, config: DocumentsConfig | None = None) -> Extracted:
    """Extraction alone, without an engine."""
    step = partial(extract, config=config or DocumentsConfig(), crawl_root=str(warc.parent), buckets=4)
    unit = Unit(name="00000", inputs=(warc.name,))
    commit = run_unit(unit, Step(name="extract", root=str(root), fingerprint="f", run=step))
    letters = root / "dead_letters/extract/00000.jsonl"
    return Extracted(
        counts={name: n for name, n in commit.counts.items() if n and name != "crawl.bytes"},
        bytes=commit.counts["crawl.bytes"],
        pages=rows(root, "documents/pages"),
        letters=letters.read_text() if letters.exists() else "",
    )


def write_scores(
    plan: Plan, similarity: Callable[[str, int], float], opinions: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """What the scores stage would leave, with similarities of (URL, sentence) and opinions that a test chooses."""
    for bucket in plan.buckets:
        _write_opinions(Workspace(plan.root, "heads", bucket), opinions or {})
    known = {row["url"]: row for row in rows(plan.root, "images")}
    for unit in plan.files:
        workspace = Workspace(plan.root, "scores", unit)
        documents = read_rows(workspace.path(f"documents/{unit.name}.parquet"))
        with workspace.parquet(f"scores/{unit.name}.parquet", SCORED) as out:
            for number, document in enumerate(documents):
                mentioned = {image["url"]: image for image in reversed(document["images"]) if image["url"] in known}
                images = [
                    {
                        **{name: known[url][name] for name in FACTS},
                        "position": image["position"],
                        "alt": image["alt"],
                        "similarity": [similarity(url, i) for i in range(len(document["sentences"]))]
                        if known[url]["sha256"]
                        else None,
                    }
                    for url, image in reversed(mentioned.items())
                ]
                out.append({"row": number, "images": images})


def _write_opinions(workspace: Workspace, opinions: Mapping[str, Mapping[str, Any]]) -> None:
    told: dict[str, list[dict[str, Any]]] = {}
    for row in read_rows(workspace.path(f"images/{workspace.unit.name}.parquet")):
        opinion = {"url": row["url"], "occurrences": row["documents"], **opinions.get(row["url"], {})}
        for documents in row["units"] if row["sha256"] else ():
            told.setdefault(documents, []).append(opinion)
    workspace.leave("opinions", {u: pa.Table.from_pylist(found, schema=OPINIONS) for u, found in told.items()})
    workspace.commit("of a test")
