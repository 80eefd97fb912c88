"""`--url-list`: the pictures that a build wants, as Parquet files that img2dataset takes as its input."""

from dataclasses import dataclass
from functools import partial

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.pvalue import PCollection

from mmc4_builder import storage
from mmc4_builder.workspace import Unit, Workspace
from pipelines.config import ImagesConfig
from pipelines.fetching import KeepOut, refusal
from pipelines.host_files import CrawlTime
from pipelines.images import Builds, by_url, mention
from pipelines.previous_images import look_up
from pipelines.schemas import HOST_FILES, MENTIONS
from pipelines.spool import Spool
from pipelines.units import Committed, Exchange, Run, Step

URLS = pa.schema([("url", pa.string())])


def list_urls(
    unit: Unit, *, root: str, folder: str, config: ImagesConfig, previous: Builds = (), buckets: int = 1
) -> int:
    """One bucket of hosts -> a file of the URLs that may be fetched, in order; how many.

    Those that a list, a removal, or the hosts at crawl time refuse are not in it, nor those that earlier builds have.
    img2dataset asks nobody.
    """
    workspace = Workspace(root, "url_list", unit)
    keep_out = KeepOut.of(root, config)
    crawl_time = CrawlTime(workspace.received("host_files", HOST_FILES), config.optout.agents)
    mentions = by_url(workspace.received("mentions", MENTIONS))
    with Spool() as spool:
        before = look_up(unit, previous, mentions, buckets, spool)
        new = [url for url in sorted(mentions) if url not in before]
    urls = [u for u in new if not (keep_out.url(u) or refusal(crawl_time.statements(u), config=config))]
    path = storage.join(folder, f"{unit.name}.parquet")
    with storage.write_atomic(path) as stream:
        pq.write_table(pa.table([urls], schema=URLS), stream, compression="zstd")
    return len(urls)


@dataclass
class UrlLists(beam.PTransform):
    """Documents files -> a folder of URL lists. It is an export: written anew each time."""

    root: str
    fingerprint: str  # of the images stage
    folder: str
    config: ImagesConfig
    files: tuple[Unit, ...]
    buckets: tuple[Unit, ...]
    previous: Builds = ()

    def expand(self, pipeline: beam.Pipeline) -> PCollection[int]:
        files = pipeline | beam.Create(self.files)
        mentioning = Step(
            name="mention",
            root=self.root,
            fingerprint=self.fingerprint,
            run=partial(mention, config=self.config, buckets=len(self.buckets)),
        )
        told = [files | Committed(self.root, "extract"), files | Run(mentioning)]
        place = partial(list_urls, root=self.root, folder=self.folder, config=self.config)
        write = partial(place, previous=self.previous, buckets=len(self.buckets))
        units = told | beam.Flatten() | Exchange(("mentions", "host_files"), self.buckets)
        return units | beam.Map(write).with_output_types(int)


def total(folder: str) -> int:
    """URLs in all lists of a folder."""
    return sum(_rows(storage.join(folder, name)) for name in storage.names(folder) if name.endswith(".parquet"))


def _rows(path: str) -> int:
    with storage.open_read(path) as stream:
        return int(pq.ParquetFile(stream).metadata.num_rows)
