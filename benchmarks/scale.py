"""What each stage costs for one WARC file of a crawl and for a crawl of 90,000: measured here, multiplied by factors.

    python benchmarks/scale.py [--corpus manuals.warc.gz]

Two corpora are built, stage by stage, in this process: the sample crawl, and real pages with their real pictures. CPU
seconds are those of the units' own times (`timings/`), bytes those of the commit records and of /proc, memory the peak
of each stage. Bytes in shuffles are counted element by element by the coder that the engine uses (tests/shuffle_bytes).

A third and a fourth build hold the same pages with small and with large pictures: as many bytes are shuffled.

Printed is docs/scale.md from its first table on: what was measured, every factor, and their products. Seconds of a GPU
are computed from the shapes of ViT-L/14 and a rate that is a factor; the tiny CLIP's CPU seconds say nothing of it, so
that decoding and shrinking for the real one is measured apart.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import scale_plan  # noqa: E402
import shuffle_bytes  # noqa: E402
from scale_plan import STEPS, WARCS, drivers, value  # noqa: E402

from mmc4_builder import commits, sample, timings, transport, warc  # noqa: E402
from mmc4_builder.workspace import Workspace, read_rows  # noqa: E402
from pipelines.config import ImagesConfig, InterleaveConfig, ShardsConfig  # noqa: E402
from pipelines.config import sample as sample_config  # noqa: E402
from pipelines.launch import quiet  # noqa: E402
from pipelines.plan import STAGES, Crawl, Plan  # noqa: E402
from pipelines.store import Tars  # noqa: E402

CORPUS = ROOT.parent / "shared" / "corpora" / "manuals.warc.gz"
HTML = ("text/html", "application/xhtml+xml")


PLACE = ["sha256", "store", "store_offset", "store_length"]
WRITES = {"extract": "candidates"}  # reads all pages, and keeps rows of these
VECTORS = "scores/images/{}.parquet"
DIM = 768  # of ViT-L/14's vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One stage of one build."""

    cpu: dict[str, float]  # seconds by step
    written: dict[str, int]  # bytes by step
    read: int  # bytes, of all files
    peak: int  # bytes of memory
    crossings: dict[str, shuffle_bytes.Crossing]

    @property
    def shuffled(self) -> int:
        return sum(crossing.bytes for crossing in self.crossings.values())

    @property
    def elements(self) -> int:
        return sum(crossing.elements for crossing in self.crossings.values())

    @property
    def largest(self) -> int:
        return max(crossing.largest for crossing in self.crossings.values())


def build(paths: Sequence[Path], root: Path) -> tuple[Plan, dict[str, Measured]]:
    """All stages, with every picture kept whatever the tiny CLIP makes of it."""
    config = replace(
        sample_config(ImagesConfig(source="archive")),
        interleave=InterleaveConfig(min_similarity=-1.0, max_nsfw=1.0),
        shards=ShardsConfig(documents=50),
    )
    crawl = Crawl(name="scale", root="", warcs=tuple((str(path), str(path.stat().st_size)) for path in paths))
    plan = Plan(build=config, crawl=crawl, root=str(root))
    return plan, {name: measure(plan, name) for name in STAGES}


def measure(plan: Plan, name: str) -> Measured:
    """Run one stage."""
    stage = plan.stage(name)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory starts anew
    before = field_of("/proc/self/io", "rchar:")
    crossings = shuffle_bytes.run(stage.transform)
    read = field_of("/proc/self/io", "rchar:") - before
    names = {work.step: [unit.name for unit in work.units] for work in stage.work}
    done = {step: commits.load_all(plan.root, step, units) for step, units in names.items()}
    return Measured(
        cpu={
            step: sum(timing.cpu_seconds for timing in timings.load_all(plan.root, step, units))
            for step, units in names.items()
        },
        written={step: sum(o.size for commit in found for o in commit.outputs) for step, found in done.items()},
        read=read,
        peak=field_of("/proc/self/status", "VmHWM:") * 1024,
        crossings=crossings,
    )


def field_of(path: str, name: str) -> int:
    """A number that the kernel tells of this process."""
    (line,) = (line for line in Path(path).read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def contents(plan: Plan, paths: Sequence[Path]) -> dict[str, float]:
    """How much of what costs are counted by a built corpus holds."""
    pages = [row for unit in plan.files for row in rows(plan, f"documents/pages/{unit.name}.parquet", ["lines"])]
    documents = [row for unit in plan.files for row in rows(plan, f"documents/{unit.name}.parquet", ["sentences"])]
    urls = [row for unit in plan.buckets for row in rows(plan, f"images/{unit.name}.parquet", ["sha256"])]
    return {
        "html_mb": sum(html_bytes(path) for path in paths) / 1e6,
        "candidates": len(pages),
        "lines": sum(len(page["lines"]) for page in pages),
        "documents": len(documents),
        "urls": len(urls),
        "pictures": sum(row["sha256"] is not None for row in urls),
        "sentences": sum(len(document["sentences"]) for document in documents),
        "dim": next(len(r["clip"]) for unit in plan.buckets for r in rows(plan, VECTORS.format(unit.name), ["clip"])),
    }


def rows(plan: Plan, relative: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    return read_rows(f"{plan.root}/{relative}", columns)


def html_bytes(path: Path) -> int:
    """Of all pages of a WARC file."""
    with transport.open_stream(str(path)) as stream:
        found = warc.read_records(stream, str(path))
        return sum(len(r.payload) for r in found if isinstance(r, warc.Record) and r.content_type in HTML)


def prepared(plan: Plan) -> tuple[float, float]:
    """CPU seconds to make a picture, and a sentence, ready for ViT-L/14, which itself is not here."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    transform, tokenize = image_transform_v2(PreprocessCfg(), is_train=False), open_clip.get_tokenizer("ViT-L-14")
    stored = (row for unit in plan.buckets for row in rows(plan, f"images/{unit.name}.parquet", PLACE) if row["sha256"])
    texts = (row for unit in plan.files for row in rows(plan, f"documents/{unit.name}.parquet", ["sentences"]))
    sentences = [sentence for row in islice(texts, 100) for sentence in row["sentences"]]
    with Tars(Workspace(plan.root, "", plan.buckets[0])) as tars:
        pictures = [tars.read(row) for row in islice(stored, 200)]
    started = time.process_time()
    for picture in pictures:
        transform(Image.open(io.BytesIO(picture)).convert("RGB"))
    between = time.process_time()
    tokenize(sentences)
    return (between - started) / len(pictures), (time.process_time() - between) / len(sentences)


def show_measured(name: str, held: dict[str, float], stages: dict[str, Measured]) -> None:
    told = ", ".join(f"{amount:,.{what == 'html_mb':d}f} {what.replace('_', ' ')}" for what, amount in held.items())
    print(f"\n### Measured: {name}\n\n{told}.\n")
    print("| stage | CPU s | MB read | MB written | elements shuffled | kB shuffled | largest element, B | peak MB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for stage, one in stages.items():
        print(
            f"| {stage} | {sum(one.cpu.values()):.2f} | {one.read / 1e6:.1f} | {sum(one.written.values()) / 1e6:.2f} "
            f"| {one.elements:,} | {one.shuffled / 1e3:.1f} | {one.largest:,} | {one.peak / 1e6:.0f} |",
            flush=True,
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one stage, for one WARC file."""

    cpu: float  # seconds
    gpu: float
    requests: float  # to the crawl and to the web
    read: float  # MB
    written: float


def costs(held: dict[str, float], stages: dict[str, Measured], ready: tuple[float, float]) -> dict[str, Costs]:
    """The measured costs of all stages, multiplied."""
    much = drivers()

    def per(driver: str) -> float:
        """How many times as much of it one WARC file holds as the corpus."""
        return much[driver] / held[driver]

    cpu = {n: sum(t * per(STEPS[s][1]) for s, t in one.cpu.items()) for n, one in stages.items()}
    written = {n: sum(b * per(WRITES.get(s, STEPS[s][1])) for s, b in one.written.items()) for n, one in stages.items()}
    pictures = much["pictures"] * value("picture_kb") / 1e3
    heads = stages["scores"].cpu["heads"] / held["pictures"]
    fetching = much["urls"] * value("fetch_ms") / 1e3  # a live picture; what was measured came out of an archive
    cpu["images"] += fetching - much["urls"] * stages["images"].cpu["images"] / held["urls"]
    cpu["scores"] = much["pictures"] * (ready[0] + heads) + much["sentences"] * ready[1]
    vectors = much["pictures"] * 2 * (DIM - held["dim"]) * 4  # longer than the tiny CLIP's; at rest, and for compare
    judged = stages["interleave"].read / held["documents"] * much["documents"] / 1e6
    return {
        "documents": Costs(cpu["documents"], 0, 1, value("warc_mb"), written["documents"] / 1e6),
        "images": Costs(cpu["images"], 0, much["urls"], much["urls"] * value("fetched_kb") / 1e3, pictures),
        "scores": Costs(cpu["scores"], scale_plan.gpu_seconds(), 0, pictures, (written["scores"] + vectors) / 1e6),
        "interleave": Costs(cpu["interleave"], 0, 0, judged, written["interleave"] / 1e6),
        "shards": Costs(cpu["shards"] * pictures * 1e6 / written["shards"], 0, 0, pictures, pictures),
    }


def show_plan(found: dict[str, Costs], element: float) -> None:
    """For one WARC file and for a crawl."""
    much = drivers()
    amounts = ", ".join(f"{amount:,.0f} {what.replace('_', ' ')}" for what, amount in much.items())
    print(f"\n### One WARC file of a crawl\n\nIt holds on average {amounts}.\n")
    print("| stage | CPU s | T4 s, computed | requests out | MB read | MB written | addresses shuffled | kB shuffled |")
    print("|---|---|---|---|---|---|---|---|")
    for stage, cost in found.items():
        count = scale_plan.of_stage(stage) / WARCS
        print(
            f"| {stage} | {cost.cpu:,.0f} | {cost.gpu:,.0f} | {cost.requests:,.0f} | {cost.read:,.0f} "
            f"| {cost.written:,.1f} | {count:,.0f} | {count * element / 1e3:,.0f} |"
        )
    print(f"\n### A crawl of {WARCS:,}\n")
    print(
        "| stage | CPU h | T4 h, computed | requests out, M | TB read | TB written | GB shuffled | MB, largest group |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for stage, cost in found.items():
        group = scale_plan.largest_group(stage) * element / 1e6
        print(
            f"| {stage} | {cost.cpu * WARCS / 3600:,.0f} | {cost.gpu * WARCS / 3600:,.0f} "
            f"| {cost.requests * WARCS / 1e6:,.1f} | {cost.read * WARCS / 1e6:,.1f} "
            f"| {cost.written * WARCS / 1e6:,.2f} "
            f"| {scale_plan.of_stage(stage) * element / 1e9:,.0f} | {group:,.1f} |"
        )
    show_shuffle(element)


def show_shuffle(element: float) -> None:
    """Beside the pictures; and what smaller or larger units would change."""
    print("\n### What is shuffled, by WARC files in a unit\n")
    print("| WARC files in a unit | GB shuffled | addresses, M (each is a read of a range) | MB, largest group |")
    print("|---|---|---|---|")
    for together in (1, 4, 16):
        count = sum(scale_plan.of_stage(stage, together) for stage in STAGES)
        group = max(scale_plan.largest_group(stage, together) for stage in STAGES) * element / 1e6
        print(f"| {together} | {count * element / 1e9:,.0f} | {count / 1e6:,.0f} | {group:,.1f} |")
    stored = drivers()["pictures"] * WARCS * value("picture_kb") * 1e3
    all_of_it = sum(scale_plan.of_stage(stage) for stage in STAGES) * element
    print(
        f"\nAn address has {element:.0f} bytes, as measured. Stored pictures have {stored / 1e12:,.0f} TB: for "
        f"{stored / all_of_it:,.0f} bytes of them one is shuffled, and none of their own."
    )


def show_sizes(folder: Path) -> None:
    """The same pages with small and with large pictures."""
    from test_pipelines_shuffle import SIZES
    from test_pipelines_shuffle import build as build_sized

    print("\n### Pictures of two sizes\n\n| pictures | MB stored | bytes shuffled by all stages |\n|---|---|---|")
    for size, (width, height, quality) in SIZES.items():
        built = build_sized(folder / size, size)
        print(f"| {width} × {height}, quality {quality} | {built.stored / 1e6:.2f} | {built.shuffled:,} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="WARC file with pages and their pictures")
    args = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpora = {"the sample crawl": sample.write_crawl(folder / "crawl")}
        if args.corpus.exists():
            corpora["real pages and pictures"] = [args.corpus]
        else:
            print(f"{args.corpus} is not there: costs are those of the sample, which is no real web", file=sys.stderr)
        for number, (corpus, paths) in enumerate(corpora.items()):
            plan, stages = build(paths, folder / f"build{number}")
            held = contents(plan, paths)
            show_measured(corpus, {what: n for what, n in held.items() if what != "dim"}, stages)
        ready = prepared(plan)
        print(f"\nReady for ViT-L/14: {1e3 * ready[0]:.2f} CPU ms a picture, {1e3 * ready[1]:.3f} a sentence.")
        show_sizes(folder)
    print(f"\n### Factors\n\n{scale_plan.factors_table()}")
    element = sum(one.shuffled for one in stages.values()) / sum(one.elements for one in stages.values())
    show_plan(costs(held, stages, ready), element)


if __name__ == "__main__":
    main()
