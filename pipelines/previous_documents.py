"""What earlier builds have of documents, for a build that adds to them: their pages and lines are the first owners.

Of a page and of a line there is one over all builds, as there is one within a build. Within a build the newest
capture of an address stays, and a line stays with the address that has the smallest hash. Between builds the earlier
one stays, since it is finished and is not visited again. So A and then B on top of A differ from one build of both in
this alone:

- An address that both crawls hold stays in the text that A saw, even where B saw a newer one (`previous_url`). It is
  A's document that counts here: of a page that became none (no pictures, not English, ...) B may make one.
- A line that pages of both crawls have stays with A's page, even where B's has the smaller hash (`previous_line`). All
  pages count here that had their address to themselves, as within a build, whether or not they became documents. A
  page never loses a line to an earlier capture of itself.
- Of documents that say nearly the same (`--near-text`), A's stay and B's go.
- What follows from these: pages of A that would have lost too many lines to B stay, such of B go. Pictures: see
  `previous_images.py`.

Released C4 (`--c4 DIR`) holds each address once: there its documents are not compared with those of earlier builds.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filters.text import url_key
from mmc4_builder import storage
from mmc4_builder.urls import normalize_url
from mmc4_builder.workspace import Unit, Workspace, partition, read_rows
from pipelines.config import PreviousBuild
from pipelines.schemas import LINE_CLAIMS, PREVIOUS_LINES, PREVIOUS_URLS

Builds = Sequence[PreviousBuild]


def document_units(builds: Builds) -> tuple[Unit, ...]:
    """A unit for each documents file of the earlier builds, named by the build's place and the file: `0-00012`."""
    return tuple(Unit(name=f"{n}-{file:05d}") for n, build in enumerate(builds) for file in range(build.files))


def place_of(unit: Unit, builds: Builds) -> tuple[int, str, str]:
    """The earlier build that a unit is about: its place, its root, and the name of the unit within it."""
    number, _, name = unit.name.partition("-")
    return int(number), builds[int(number)].root, name


def claim_before(unit: Unit, workspace: Workspace, *, builds: Builds, buckets: int) -> None:
    """One documents file of an earlier build -> its pages and lines, to the buckets of their hashes."""
    number, root, name = place_of(unit, builds)
    documents = read_rows(storage.join(root, f"documents/{name}.parquet"), ["url"])
    keys = [url_key(normalize_url(row["url"])) for row in documents if row["url"]]  # what was removed is blank
    claims = left_by(root, "lines", name, LINE_CLAIMS)
    owned = [claims["key"], claims["owner"], pa.array([number] * len(claims), pa.int32())]
    workspace.counts["pages"] += len(keys)
    workspace.counts["lines"] += len(claims)
    workspace.leave("previous_urls", partition(pa.table([keys], schema=PREVIOUS_URLS), "key", buckets))
    workspace.leave("previous_lines", partition(pa.table(owned, schema=PREVIOUS_LINES), "key", buckets))


def left_by(root: str, exchange: str, name: str, schema: pa.Schema) -> pa.Table:
    """All that one file of an earlier build left for others there: Arrow streams, one after another."""
    data = storage.read(storage.join(root, f"exchange/{exchange}/{name}.arrows"))
    source = pa.BufferReader(data)
    tables = []
    while source.tell() < len(data):
        tables.append(pa.ipc.open_stream(source).read_all())
    return pa.concat_tables([schema.empty_table(), *tables])


def known_pages(claims: pa.Table, earlier: pa.Table) -> npt.NDArray[np.bool_]:
    """Captures of addresses of which an earlier build has a document."""
    return np.isin(claims["key"].to_numpy(), earlier["key"].to_numpy())


def known_lines(claims: pa.Table, earlier: pa.Table) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Lines that an earlier build has, and which of them lose: all but those that the very same page had."""
    keys, owners = first_owners(earlier)
    if not len(keys):
        nothing = np.zeros(len(claims), bool)
        return nothing, nothing
    wanted = claims["key"].to_numpy()
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = keys[at] == wanted
    return known, known & (owners[at] != claims["owner"].to_numpy())


def first_owners(earlier: pa.Table) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Keys in order, and who owns each: of the first build that has it, the page with the smallest hash (C4)."""
    key, owner, build = (earlier[name].to_numpy() for name in PREVIOUS_LINES.names)
    order = np.lexsort((owner, build, key))
    keys, first = np.unique(key[order], return_index=True)
    return keys, owner[order][first]
