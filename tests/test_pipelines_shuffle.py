"""Image bytes are never shuffled: what crosses the shuffles of all stages is counted, for small and large pictures."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import shuffle_bytes
from shuffle_bytes import Crossing
from small_crawls import TIMESTAMP, article, jpeg, plan, write

from mmc4_builder.warc import Response
from pipelines.config import InterleaveConfig, ShardsConfig
from pipelines.plan import STAGES

PAGES, PICTURES = 12, 4  # of each page
SIZES = {"small": (240, 200, 60), "large": (800, 660, 97)}  # pixels, pixels, quality


def responses(pixels: tuple[int, int, int]) -> list[list[Response]]:
    """Two WARC files of pages with pictures of their own, of one size."""
    files: list[list[Response]] = [[], []]
    for number in range(PAGES):
        urls = [f"http://topic{number}.example/{shown}.jpg" for shown in range(PICTURES)]
        files[number % 2].append(article(f"topic{number}", *urls))
        for shown, url in enumerate(urls):
            payload = jpeg(PICTURES * number + shown, *pixels)
            kind = (("Content-Type", "image/jpeg"),)
            files[number % 2].append(Response(url=url, timestamp=TIMESTAMP, payload=payload, headers=kind))
    return files


@dataclass(frozen=True, slots=True)
class Built:
    """A whole build: bytes of its stored pictures, and what crossed its shuffles."""

    stored: int
    crossings: dict[str, Crossing]

    @property
    def shuffled(self) -> int:
        return sum(crossing.bytes for crossing in self.crossings.values())


def build(root: Path, size: str) -> Built:
    """All stages, with every picture kept, and several tars."""
    everything = {"interleave": InterleaveConfig(min_similarity=-1.0), "shards": ShardsConfig(documents=3)}
    made = plan(root / "out", write(root / "warcs", *responses(SIZES[size])), **everything)
    crossings: dict[str, Crossing] = {}
    for stage in STAGES:
        crossings |= {f"{stage}: {at}": what for at, what in shuffle_bytes.run(made.stage(stage).transform).items()}
    return Built(sum(path.stat().st_size for path in (root / "out/images").glob("*.tar")), crossings)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("small"), "small")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("large"), "large")


def test_every_stage_was_looked_at(small: Built) -> None:
    assert {name.partition(":")[0] for name in small.crossings} == set(STAGES)
    assert all(crossing.elements and crossing.bytes for crossing in small.crossings.values())


def test_shuffled_bytes_are_far_fewer_than_those_of_pictures(large: Built) -> None:
    assert large.stored > 50_000 * PAGES * PICTURES
    assert large.shuffled < large.stored / 20


def test_shuffled_bytes_do_not_grow_with_the_pictures(small: Built, large: Built) -> None:
    assert large.stored > 5 * small.stored
    # A few numbers have a digit more, and a picture of another size may have another perceptual hash.
    assert abs(large.shuffled - small.shuffled) < 0.05 * small.shuffled


def test_elements_are_addresses(small: Built, large: Built) -> None:
    assert all(crossing.largest < 10_000 for built in (small, large) for crossing in built.crossings.values())
