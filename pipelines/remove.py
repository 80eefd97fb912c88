"""`--remove`: take pages and pictures out of a build, for good, and prove that they are gone.

Tombstones come first, so that nothing comes back whatever happens next. Then everything at rest is erased, what
was decided on it is decided anew, and the tars that hold it are written anew. Last, a search that shares no code
with all that reads every file again. A removal that is killed goes on when it is run again.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TextIO

from mmc4_builder import commits, storage, timings, tombstones
from mmc4_builder.key_lists import KeyList
from mmc4_builder.workspace import Unit
from pipelines import replacement, summary
from pipelines.build import BuildError, claim, run_stage, tidy
from pipelines.launch import Engine
from pipelines.plan import Plan, Stage, Work
from pipelines.removal import PROOF, STEPS, Erase, Prove, Redecide, Tars

SHOWN = 50  # keys in the table; the file has them all
BATCH = 32  # files that one unit of the proof searches
NOT_SEARCHED = ("build.json", "error.log", "build.lock")
FOLDERS = (
    "retries",
    "documents",
    "scores",
    "images",
    "interleave",
    "optout.parquet",
    "exchange",
    "dead_letters",
    "docs",
    "shards",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the search found."""

    keys: tuple[str, ...]
    files: int
    hits: dict[str, dict[str, int]]  # by key, then by file
    inside: dict[str, int]  # by key: within longer addresses, which are not the key's own


def run(plan: Plan, keys: KeyList, engine: Engine, stream: TextIO = sys.stderr) -> int:
    """Remove what the keys name and print the proof; 1 where anything is left."""
    if not len(keys):
        raise BuildError("the list of what to remove holds no key: give URLs, domains or hashes, one a line")
    claim(plan, reconfigure=False)
    storage.sweep(plan.root)
    replacement.discard(plan.root, timings.RUNNING)
    replacement.finish_all(plan.root)
    every = tombstones.add(plan.root, keys)
    removed = erase(plan, every, engine, stream)
    forget_times(plan)
    summary.write(plan)
    found = delete_leftovers(plan, prove(plan, every, engine, stream))
    path = write_proof(plan, found, removed)
    print(report(plan, found, removed, path))
    return 1 if found.hits else 0


def erase(plan: Plan, keys: KeyList, engine: Engine, stream: TextIO) -> dict[str, int]:
    """Erase, decide anew and write tars anew; what that came to."""
    dated = commits.fingerprint(keys.to_text())
    units = erase_units(plan)
    work = (Work("erase_find", dated, plan.buckets), Work("erase", dated, units))
    transform = Erase(plan.root, dated, plan.buckets, units)
    run_stage(plan, Stage(name="erase", transform=transform, work=work), engine, stream)
    if decided := done(plan, "interleave"):
        tars = plan.stage("shards").work[0].units if len(decided) == len(plan.files) else ()
        again = Redecide(plan, dated, frozenset(decided), tars)
        anew = (Work("erase_docs", dated, plan.files),)
        run_stage(plan, Stage(name="decide anew", transform=again, work=anew), engine, stream)
        if tars and (written := done(plan, "shards")):
            holding = (Work("erase_shards", dated, tars),)
            rewrite = Tars(plan, dated, frozenset(written), tars)
            run_stage(plan, Stage(name="tars", transform=rewrite, work=holding), engine, stream)
            if len(written) == len(tars):
                tidy(plan)
    counts = commits.total(
        commit for step in STEPS for commit in commits.load_all(plan.root, step, commits.done(plan.root, step))
    )
    for folder in ("exchange/erased", "exchange/slots", *(f"commits/{step}" for step in STEPS), replacement.FOLDER):
        replacement.discard(plan.root, folder)
    return counts


def forget_times(plan: Plan) -> None:
    """Which hosts were slow is known no more, as any may have to be forgotten; nor what the removal itself took."""
    for folder in (timings.HOSTS, *(f"{timings.FOLDER}/{step}" for step in STEPS)):
        replacement.discard(plan.root, folder)


def erase_units(plan: Plan) -> tuple[Unit, ...]:
    """A unit for each number that files bear, with the steps that left any of them."""
    left: dict[str, list[str]] = {unit.name: [] for unit in (*plan.files, *plan.buckets)}
    for path in storage.walk(storage.join(plan.root, "commits")):
        step, _, name = path.partition("/")
        if step not in (*STEPS, PROOF, "interleave", "shards") and name.endswith(".json"):
            left.setdefault(name.removesuffix(".json"), []).append(step)
    return tuple(Unit(name=name, inputs=tuple(sorted(left[name]))) for name in sorted(left))


def done(plan: Plan, stage: str) -> list[str]:
    """Units of a late stage whose results are valid: all that they build on must be there."""
    before = ("images", "scores") if stage == "interleave" else ("interleave",)
    if not all(len(w.committed(plan.root)) == len(w.units) for name in before for w in plan.stage(name).work):
        return []
    return [commit.unit for commit in plan.stage(stage).work[0].committed(plan.root)]


def prove(plan: Plan, keys: KeyList, engine: Engine, stream: TextIO) -> Proof:
    """Search everything below the root but the list of tombstones and the crawl, which is the input."""
    for folder in (f"commits/{PROOF}", "removals/hits"):
        replacement.discard(plan.root, folder)
    paths = [path for path in storage.walk(plan.root) if is_searched(plan, path)]
    batches = [tuple(paths[i : i + BATCH]) for i in range(0, len(paths), BATCH)]
    units = tuple(Unit(name=f"{number:05d}", inputs=batch) for number, batch in enumerate(batches))
    dated = commits.fingerprint(keys.to_text(), datetime.now(timezone.utc).isoformat())
    stage = Stage(name="prove", transform=Prove(plan.root, dated, units), work=(Work(PROOF, dated, units),))
    run_stage(plan, stage, engine, stream)
    hits: dict[str, dict[str, int]] = {}
    inside: dict[str, int] = {}
    for unit in units:
        for line in storage.read(storage.join(plan.root, f"removals/hits/{unit.name}.jsonl")).splitlines():
            hit = json.loads(line)
            if hit["hits"]:
                hits.setdefault(hit["key"], {})[hit["path"]] = hit["hits"]
            inside[hit["key"]] = inside.get(hit["key"], 0) + hit["inside"]
    for folder in (f"commits/{PROOF}", "removals/hits", f"{timings.FOLDER}/{PROOF}", timings.RUNNING):
        replacement.discard(plan.root, folder)
    return Proof(keys=tuple(keys), files=len(paths), hits=hits, inside=inside)


def is_searched(plan: Plan, path: str) -> bool:
    """Whether a file is the build's: not the list of tombstones, and not the input."""
    crawl = plan.crawl.root
    full = storage.join(plan.root, path)
    if storage.is_local(plan.root) and crawl and storage.is_local(crawl):
        crawl, full = os.path.realpath(crawl), os.path.realpath(full)
    inputs = {warc[0] for warc in plan.crawl.warcs}
    is_input = bool(crawl) and full.startswith(f"{crawl.rstrip('/')}/") or full in inputs
    return not (path.startswith("removals/") or path in NOT_SEARCHED or is_input)


def delete_leftovers(plan: Plan, found: Proof) -> Proof:
    """Files that no valid record knows are of an unfinished or another configuration: they go where they name a key."""
    paths = {path for files in found.hits.values() for path in files}
    if not paths:
        return found
    known = known_files(plan)
    gone = {path for path in paths if path.partition("/")[0] in FOLDERS and path not in known}
    gone |= {"report.html"} & paths if not done(plan, "interleave") else set()
    for path in gone:
        storage.remove(storage.join(plan.root, path))
    left = {key: {p: n for p, n in files.items() if p not in gone} for key, files in found.hits.items()}
    hits = {key: files for key, files in left.items() if files}
    return Proof(keys=found.keys, files=found.files, hits=hits, inside=found.inside)


def known_files(plan: Plan) -> set[str]:
    """Files that the build's records name; of the last two stages only valid ones count, others are not rewritten."""
    valid = {stage: set(done(plan, stage)) for stage in ("interleave", "shards")}
    known = {"shards/sizes.json"}
    for path in storage.walk(storage.join(plan.root, "commits")):
        step, _, name = path.partition("/")
        unit = name.removesuffix(".json")
        if step not in valid or unit in valid[step]:
            (record,) = commits.load_all(plan.root, step, [unit])
            known |= {output.path for output in record.outputs}
    return known


def write_proof(plan: Plan, found: Proof, removed: dict[str, int]) -> str:
    """Keep the proof with its time beside the others; its path below the root."""
    there = storage.names(storage.join(plan.root, "removals"))
    path = f"removals/proof-{sum(name.startswith('proof-') for name in there) + 1}.json"
    content: dict[str, Any] = {
        "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "files_searched": found.files,
        "not_searched": not_searched(plan),
        "removed": removed,
        "keys": [
            {"key": key, "hits": sum(found.hits.get(key, {}).values()), "files": found.hits.get(key, {}),
             "inside_other_addresses": found.inside.get(key, 0)}
            for key in found.keys
        ],
    }  # fmt: skip
    storage.write(storage.join(plan.root, path), json.dumps(content, indent=2).encode() + b"\n")
    return path


def not_searched(plan: Plan) -> list[str]:
    """What the proof does not speak of."""
    crawl = plan.crawl.root or "the files given with --input"
    return [
        f"the crawl, which is the input and not touched: {crawl}",
        "build.json: names of WARC files and lists that were given as flags",
        "removals/: the tombstones, by which nothing comes back",
    ]


def report(plan: Plan, found: Proof, removed: dict[str, int], path: str) -> str:
    """What a person reads: what went, and the proof."""
    what = {"documents": "documents", "addresses": "addresses of pictures", "pictures": "stored pictures"}
    went = [(text, n) for name, text in what.items() if (n := removed.get(f"{name}.removed", 0))]
    first = "removed " + ", ".join(f"{n:,} {text}" for text, n in went) if went else (
        "nothing here is named by these keys; they are remembered, and keep it out of later runs"
    )  # fmt: skip
    rewritten = removed.get("files.rewritten", 0) + removed.get("tars.rewritten", 0)
    shown = sorted(found.keys, key=lambda key: key not in found.hits)[:SHOWN]
    return "\n".join(
        (
            f"{first}; {rewritten:,} files rewritten",
            *_table([(key, sum(found.hits.get(key, {}).values()), found.inside.get(key, 0)) for key in shown]),
            *([f"and {len(found.keys) - SHOWN:,} more keys"] if len(found.keys) > SHOWN else []),
            *(f"LEFT: {key} in {file}, {n} times" for key, files in found.hits.items() for file, n in files.items()),
            f"{found.files:,} files searched; not searched: " + "; ".join(not_searched(plan)),
            f"proof: {plan.root}/{path}",
        )
    )


def _table(rows: Sequence[tuple[str, int, int]]) -> list[str]:
    width = max(3, *(len(key) for key, _, _ in rows))
    lines = [f"{'key':<{width}}  hits"]
    for key, hits, inside in rows:
        note = f"  (and inside of {inside:,} other addresses)" if inside else ""
        lines.append(f"{key:<{width}}  {hits:>4,}{note}")
    return lines
