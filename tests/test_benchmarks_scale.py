"""The numbers of docs/scale.md follow from benchmarks/scale.py: its factors, its steps, its arithmetic."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))
import scale_plan  # noqa: E402

from pipelines.config import ImagesConfig, sample  # noqa: E402
from pipelines.plan import STAGES, Crawl, Plan  # noqa: E402


def test_the_docs_have_the_factors_of_the_script() -> None:
    assert scale_plan.factors_table() in (ROOT / "docs/scale.md").read_text()


@pytest.mark.parametrize("stage", STAGES[:4])  # how many tars there are, only a build knows
def test_every_step_of_a_stage_has_its_driver(stage: str, tmp_path: Path) -> None:
    crawl = Crawl(name="small", root="", warcs=(("0.warc.gz",),))
    plan = Plan(build=sample(ImagesConfig(source="archive")), crawl=crawl, root=str(tmp_path))
    assert {work.step for work in plan.stage(stage).work} == {
        step for step, (its, _) in scale_plan.STEPS.items() if its == stage
    }


def test_buckets_and_units_of_a_whole_crawl() -> None:
    crawl = Crawl(name="whole", root="", warcs=tuple((f"{n}.warc.gz",) for n in range(scale_plan.WARCS)))
    plan = Plan(build=sample(ImagesConfig(source="archive")), crawl=crawl, root="")
    assert len(plan.buckets) == scale_plan.BUCKETS
    assert len(plan.files) * scale_plan.TOGETHER == scale_plan.WARCS


@pytest.mark.parametrize("rows", [10, 5_000, 100_000])
def test_pairs(rows: int) -> None:
    """Of a file's rows, thrown into buckets by a hash."""
    hit = len(np.unique(np.random.default_rng(0).integers(0, scale_plan.BUCKETS, rows)))
    assert scale_plan.pairs(rows) == pytest.approx(hit, rel=0.02)


def test_operations_of_vit_l_14() -> None:
    """As published for 224 pixels: 81 billion multiply-adds a picture, 6.6 a sentence."""
    flops = scale_plan.vit_l_14()
    assert flops["pictures"] / 2e9 == pytest.approx(81.0, rel=0.01)
    assert flops["sentences"] / 2e9 == pytest.approx(6.6, rel=0.02)


def test_larger_units_shuffle_less() -> None:
    every = [sum(scale_plan.of_stage(stage, together) for stage in STAGES) for together in (1, 4, 16)]
    assert every == sorted(every, reverse=True)
