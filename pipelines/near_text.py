"""Documents that say nearly the same, over the whole corpus: bands of MinHash go to buckets, verdicts come back."""

from dataclasses import dataclass
from functools import partial

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters import near_text, text
from filters.near_text import NearTextRules
from mmc4_builder.commits import Commit
from mmc4_builder.urls import normalize_url
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.schemas import BANDS, NEAR_LOSERS
from pipelines.units import Exchange, Run, Step


def sketch(unit: Unit, workspace: Workspace, *, rules: NearTextRules, buckets: int) -> None:
    """One documents file -> the bands of its documents, to the buckets of their keys."""
    keys: list[int] = []
    owners: list[int] = []
    rows: list[int] = []
    documents = read_rows(workspace.path(f"documents/{unit.name}.parquet"), ["url", "sentences"])
    for row, document in enumerate(documents):
        found = near_text.bands(document["sentences"], rules)
        keys += found
        owners += [text.url_key(normalize_url(document["url"]))] * len(found)
        rows += [row] * len(found)
    bands = pa.table([keys, owners, [unit.name] * len(keys), rows], schema=BANDS)
    workspace.leave("bands", partition(bands, "key", buckets))


def judge(unit: Unit, workspace: Workspace) -> None:
    """One bucket of bands -> for each documents file, which of its documents say what another one says."""
    bands = workspace.received("bands", BANDS)
    units, rows = bands["unit"].to_pylist(), bands["row"].to_pylist()
    lost = near_text.losers(bands["key"].to_numpy(), bands["owner"].to_numpy(), units, rows)
    losers: dict[str, set[int]] = {}
    for name, row, loses in zip(units, rows, lost.tolist(), strict=True):
        if loses:
            losers.setdefault(name, set()).add(row)
    workspace.leave("near_losers", {n: pa.table([sorted(found)], schema=NEAR_LOSERS) for n, found in losers.items()})


@dataclass
class NearText(beam.PTransform):
    """Commits of documents files -> commits that hold the verdicts. Who loses goes in stage 4, by policy."""

    root: str
    fingerprint: str
    rules: NearTextRules
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]

    def expand(self, documents: PCollection[Commit]) -> PCollection[Commit]:
        step = partial(Step, root=self.root, fingerprint=self.fingerprint)
        return (
            documents
            | "Files" >> Exchange((), self.files)
            | Run(step(name="sketch", run=partial(sketch, rules=self.rules, buckets=len(self.buckets))))
            | Exchange(("bands",), self.buckets)
            | Run(step(name="near_text", run=judge))
        )
