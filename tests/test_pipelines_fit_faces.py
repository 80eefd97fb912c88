"""Fewer faces the cheap way: a sample of a finished build is labelled once, a classifier fitted, used, and reported.

RetinaFace's weights are out of reach, and the sample's faces are no faces. So one test runs the real library with
random weights through the stage, and the others let a stand-in see faces where the test has drawn a bright disc.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from small_crawls import TIMESTAMP, img, page, paragraphs, plan, prose, rows, run, run_until, write

from filters import faces
from mmc4_builder import commits, face_detector, face_labels
from mmc4_builder.face_detector import Face
from mmc4_builder.warc import Response
from pipelines import fit_faces
from pipelines.build import BuildError
from pipelines.config import ScoresConfig
from pipelines.fit_faces import Fit
from pipelines.launch import Engine
from pipelines.plan import Plan

PICTURES = 240
STAND_IN = "a stand-in"
HERE = Engine(workers=1)


def drawn(seed: int, *, has_face: bool) -> bytes:
    """A dark picture of coarse noise, with or without a bright disc."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 120, (5, 5, 3), dtype=np.uint8)).resize(
        (200, 200), Image.Resampling.BICUBIC
    )
    if has_face:
        x, y = (int(v) for v in rng.integers(40, 160, 2))
        ImageDraw.Draw(noise).ellipse((x - 40, y - 40, x + 40, y + 40), fill=(250, 220, 180))
    stream = io.BytesIO()
    noise.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def shown(seed: int) -> Response:
    url = f"http://x.example/{seed}.jpg"
    kind = (("Content-Type", "image/jpeg"),)
    return Response(url=url, timestamp=TIMESTAMP, payload=drawn(seed, has_face=seed % 3 == 0), headers=kind)


def see(pictures: Sequence[bytes], detector: str, threshold: float = 0.9) -> list[list[Face]]:
    """A face where there is a disc; the model is its own name."""
    assert detector == STAND_IN
    return [[Face(box=(1, 2, 3, 4), score=0.95)] if brightest(one) > 200 else [] for one in pictures]


def brightest(picture: bytes) -> int:
    return int(np.asarray(Image.open(io.BytesIO(picture)).convert("L")).max())


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, does in {"find": str, "load": str, "detect": see}.items():
        monkeypatch.setattr(face_detector, name, does)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("fit_faces")
    pictures = [shown(seed) for seed in range(PICTURES)]
    body = paragraphs(prose("mill")) + img(*(picture.url for picture in pictures))
    made = plan(folder / "out", write(folder / "crawl", [page("http://mill.example/", body), *pictures]))
    run_until(made, "scores")
    return made


def asked(path: Path, **changes: Any) -> Fit:
    return replace(Fit(path=str(path), detector=STAND_IN, sample=10_000), **changes)


def test_a_classifier_is_fitted_reported_and_used(
    scored: Plan, stand_in: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faces.json"
    assert fit_faces.run(scored, asked(path), HERE) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in ("recall", "precision", "kept", f"--faces {path}"))
    head = faces.load(str(path))
    used = replace(scored, build=replace(scored.build, scores=ScoresConfig(clip="tiny", faces=str(path))))
    run(used.stage("scores").transform)
    found = {row["sha256"]: row["face"] for row in rows(used.root, "scores/opinions")}
    stored = {row["url"]: row["sha256"] for row in rows(used.root, "images") if row["sha256"]}
    right = [
        (found[sha256] > head.threshold) == (int(url.split("/")[-1][:-4]) % 3 == 0) for url, sha256 in stored.items()
    ]
    assert np.mean(right) > 0.9


def test_a_sample_is_labelled_and_only_once(scored: Plan, stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_faces.label(scored, STAND_IN, 0.25, HERE, io.StringIO())
    labelled = {row["sha256"] for row in rows(scored.root, "scores/face_labels")}
    everything = {row["sha256"] for row in rows(scored.root, "scores/images")}
    assert labelled == {sha256 for sha256 in everything if int(sha256[:16], 16) <= 0.25 * 2**64}
    assert 0.1 < len(labelled) / len(everything) < 0.4
    monkeypatch.setattr(face_detector, "detect", None)  # it would fail if it were asked again
    fit_faces.label(scored, STAND_IN, 0.25, HERE, io.StringIO())


def test_a_higher_recall_keeps_less(scored: Plan, stand_in: None, tmp_path: Path) -> None:
    thresholds = []
    for recall in (0.5, 1.0):
        fit_faces.run(scored, asked(tmp_path / "faces.json", recall=recall), HERE)
        thresholds.append(faces.load(str(tmp_path / "faces.json")).threshold)
    assert thresholds[1] < thresholds[0]


def test_too_few_labels(scored: Plan, stand_in: None, tmp_path: Path) -> None:
    with pytest.raises(face_labels.FitError, match="--face-sample"):
        fit_faces.run(scored, asked(tmp_path / "faces.json", sample=20), HERE)
    assert not (tmp_path / "faces.json").exists()


def test_it_needs_a_detector_and_scores(scored: Plan, stand_in: None, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="--face-detector"):
        fit_faces.run(scored, asked(tmp_path / "faces.json", detector=None), HERE)
    with pytest.raises(BuildError, match="scores"):
        fit_faces.run(replace(scored, root=str(tmp_path)), asked(tmp_path / "faces.json"), HERE)


@pytest.mark.timeout(400)
def test_the_real_detector_in_its_stage(tmp_path: Path) -> None:
    """Random weights of the real architecture, made to find something: boxes at rest, and in what is told."""
    retinaface = pytest.importorskip("retinaface.model.retinaface_pth_model")
    import torch

    torch.manual_seed(11)
    model: Any = retinaface.RetinaFace()
    for stride in (32, 16, 8):
        getattr(model, f"face_rpn_stride{stride}").cls_score.weight.data *= 60
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    picture = shown(3)
    body = paragraphs(prose("mill")) + img(picture.url)
    crawl = write(tmp_path / "crawl", [page("http://mill.example/", body), picture])
    scores = ScoresConfig(clip="tiny", face_detector=str(tmp_path / "weights.pth"))
    made = plan(tmp_path / "out", crawl, scores=scores)
    run_until(made, "scores")
    (stored,) = [row for row in rows(made.root, "scores/faces")]
    alone = face_detector.detect([drawn(3, has_face=True)], face_detector.load(scores.face_detector or ""))[0]
    assert [tuple(face[side] for side in ("x1", "y1", "x2", "y2")) for face in stored["faces"]] == [
        f.box for f in alone
    ]
    assert alone, "weights that find nothing show nothing"
    assert [row["faces"] for row in rows(made.root, "scores/opinions")] == [stored["faces"]]
    assert (
        commits.total(commits.load_all(made.root, "faces", [u.name for u in made.buckets]))["pictures.looked_at"] == 1
    )
