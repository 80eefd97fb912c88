"""Documents that say nearly the same, over the whole corpus: bands of MinHash go to buckets, verdicts come back."""

from dataclasses import dataclass
from functools import partial

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.pvalue import PCollection

from filters import near_text, text
from filters.near_text import NearTextRules
from mmc4_builder.commits import Commit
from mmc4_builder.urls import normalize_url
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.config import PreviousBuild
from pipelines.previous_documents import Builds, document_units, left_by, place_of
from pipelines.schemas import BANDS, NEAR_LOSERS, PREVIOUS_URLS
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


def sketch_before(unit: Unit, workspace: Workspace, *, builds: Builds, buckets: int) -> None:
    """One documents file of an earlier build -> the bands of its documents, as that build left them; likewise."""
    _, root, name = place_of(unit, builds)
    keys = left_by(root, "bands", name, BANDS)["key"]
    workspace.leave("previous_bands", partition(pa.table([keys], schema=PREVIOUS_URLS), "key", buckets))


def judge(unit: Unit, workspace: Workspace) -> None:
    """One bucket of bands -> for each documents file, which of its documents say what another one says.

    Documents of earlier builds come before all others.
    """
    bands = workspace.received("bands", BANDS)
    before = workspace.received("previous_bands", PREVIOUS_URLS)["key"].to_numpy()
    units, rows, keys = bands["unit"].to_pylist(), bands["row"].to_pylist(), bands["key"].to_numpy()
    lost = near_text.losers(keys, bands["owner"].to_numpy(), units, rows) | np.isin(keys, before)
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
    previous: tuple[PreviousBuild, ...] = ()

    def expand(self, documents: PCollection[Commit]) -> PCollection[Commit]:
        step, count = partial(Step, root=self.root, fingerprint=self.fingerprint), len(self.buckets)
        sketching = step(name="sketch", run=partial(sketch, rules=self.rules, buckets=count))
        sketched = [documents | "Files" >> Exchange((), self.files) | Run(sketching)]
        if self.previous:
            looking = step(name="previous_bands", run=partial(sketch_before, builds=self.previous, buckets=count))
            files = documents.pipeline | "Earlier bands" >> beam.Create(document_units(self.previous))
            sketched.append(files | Run(looking))
        return (
            sketched
            | "All bands" >> beam.Flatten()
            | Exchange(("bands", "previous_bands"), self.buckets)
            | Run(step(name="near_text", run=judge))
        )
