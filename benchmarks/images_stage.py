"""The whole image stage beside img2dataset's: fetch, verify, shrink, hash and store pictures.

    python benchmarks/images_stage.py [--rounds 3] [--copies 1] [--corpus manuals.warc.gz]

Both fetch the same URLs from nginx on this machine, 64 at once, over http and https with keep-alive, and take the
same pictures: at least 150 px, at most 2:1, shrunk to at most 800 px, quality 90. The figure is pictures stored per
CPU-second of the client and its children.

Ours is the stage's own function, `pipelines.images.store`: robots.txt obeyed, opt-outs read, sha256 twice, a
perceptual hash, tar and Parquet. img2dataset is its own `Downloader`, called as a worker of its `download` calls it:
tar and Parquet, one sha256, no EXIF. Its other two processes and their start-up (each imports it anew) are left
out, and so are Beam and our imports.

The pictures are the real ones of the corpus (329, mostly drawings as PNG), each under `--copies` URLs of different
hosts. With more than one copy, ours writes equal pictures into its tar only once, which spares it a little. As with
benchmarks/fetch.py, most of the gain over https is that `urlopen` before Python 3.12 loads all certificate
authorities for each connection.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import local_web
import pyarrow as pa
from fetch import Task, alternate, config
from images import CORPUS, RULES, archived
from timing import installed

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from mmc4_builder.workspace import Unit, Workspace
from pipelines.config import ImagesConfig
from pipelines.images import store
from pipelines.schemas import MENTIONS

MODES = ("http keep-alive", "https keep-alive")


def ours(task: Task) -> int:
    """How many URLs gave a picture."""
    with tempfile.TemporaryDirectory() as root:
        page = Workspace(root, "mention", Unit(name="page"))
        columns = [[0] * len(task.urls), list(task.urls), ["page"] * len(task.urls), [1] * len(task.urls)]
        page.leave("mentions", {"bucket": pa.table(columns, schema=MENTIONS)})
        workspace = Workspace(root, "images", Unit(name="bucket", pieces=page.commit("").pieces["bucket"]))
        store(workspace.unit, workspace, config=ImagesConfig(fetch=config(task)), crawl_root=root, buckets=1)
        return workspace.commit("").counts["urls.kept"]


def img2dataset(task: Task) -> int:
    """Likewise: what a worker of `img2dataset.download` does with one shard of URLs."""
    from img2dataset.downloader import Downloader
    from img2dataset.resizer import Resizer
    from img2dataset.writer import WebDatasetSampleWriter

    if task.ca_file:
        os.environ["SSL_CERT_FILE"] = task.ca_file
    resizer = Resizer(
        image_size=RULES.max_side,
        resize_mode="keep_ratio_largest",
        resize_only_if_bigger=True,
        encode_quality=RULES.quality,
        min_image_size=RULES.min_side,
        max_image_area=RULES.max_pixels,
        max_aspect_ratio=RULES.max_aspect,
    )
    with tempfile.TemporaryDirectory() as root:
        shard = f"{root}/00000.feather"
        table = pa.table({"url": list(task.urls)})
        with pa.OSFile(shard, "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
        download = Downloader(
            sample_writer_class=WebDatasetSampleWriter,
            resizer=resizer,
            thread_count=task.concurrency,
            save_caption=False,
            extract_exif=False,  # ours has none to give
            output_folder=root,
            column_list=["url"],
            timeout=10,
            number_sample_per_shard=10_000,
            oom_shard_count=5,
            compute_hash="sha256",
            verify_hash_type=None,
            encode_format="jpg",
            retries=0,
            user_agent_token=None,
            disallowed_header_directives=["noai", "noimageai", "noindex", "noimageindex"],
        )
        worked, _ = download((0, shard))
        if not worked:
            raise ValueError("img2dataset failed; its error is above")
        return int(json.loads(Path(root, "00000_stats.json").read_text())["successes"])


def race(web: local_web.Web, mode: str, args: argparse.Namespace) -> tuple[float, float]:
    """Pictures stored per CPU-second, ours and img2dataset's."""
    task = Task(
        urls=[url for url, _ in web.urls(mode, args.copies * web.pictures)],
        port=web.ports[mode],
        concurrency=64,
        ca_file=web.ca_file if mode.startswith("https") else None,
    )
    taken = alternate({"ours": partial(ours, task), "img2dataset": partial(img2dataset, task)}, args.rounds)
    stored = {int(str(run.said)) for took in taken.values() for run in took}
    if len(stored) != 1:
        raise SystemExit(f"not the same number of pictures: {stored}")
    count = stored.pop()
    rates = {name: count / median(run.cpu for run in took) for name, took in taken.items()}
    ratio = rates["ours"] / rates["img2dataset"]
    print(f"{mode} ({len(task.urls)} URLs, {count} pictures stored) x{ratio:.2f}", file=sys.stderr)
    for name, rate in rates.items():
        wall = median(run.wall for run in taken[name])
        print(f"  {name:<14}{rate:>9.1f} /CPU-s{1e3 / rate:>9.2f} CPU ms each{wall:>8.1f} s wall", file=sys.stderr)
    return rates["ours"], rates["img2dataset"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, default=1, help="URLs for each picture")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="WARC file with pictures")
    args = parser.parse_args()
    if not installed("img2dataset"):
        raise SystemExit("img2dataset is not installed: nothing to compare with")
    if not args.corpus.exists():
        raise SystemExit(f"no pictures: {args.corpus} is not there; name a WARC file with --corpus")
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it asks the network for news of itself on import
    import img2dataset.downloader
    import img2dataset.resizer
    import img2dataset.writer  # noqa: F401  # not in the child, where it would count

    with local_web.nginx(archived(args.corpus)) as web:
        rates = {mode: race(web, mode, args) for mode in MODES}
    ratios = {mode: round(mine / theirs, 2) for mode, (mine, theirs) in rates.items()}
    mine, theirs = rates[MODES[0]]
    line = {
        "claim": "fetch, verify, shrink, hash and store pictures over http",
        "ratio": ratios[MODES[0]],
        "ours": round(mine, 2),
        "peer": round(theirs, 2),
        "peer_name": "img2dataset",
        "peer_version": installed("img2dataset"),
        "unit": "pictures/CPU-s",
        "ratios": ratios,
        "python": platform.python_version(),
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
