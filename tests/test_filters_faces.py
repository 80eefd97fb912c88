"""The face filter: by the distilled classifier, by RetinaFace, by both; and files that it does not take."""

from pathlib import Path

import numpy as np
import pytest

from filters import faces
from mmc4_builder.face_head import Head, Report
from mmc4_builder.weights_file import WeightsFileError

REPORT = Report(
    fitted_on=100, fitted_faces=30, caught=9, missed=1, lost=4, spared=11, wanted_recall=0.95, strength=0.1
)  # fmt: skip
HEAD = Head(
    clip="x", clip_sha256="", coefficients=(2.0, 0.0, -1.0), intercept=0.5, threshold=0.3, report=REPORT
)  # fmt: skip
NAN = float("nan")


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "faces.json").write_text(HEAD.to_json())
    return str(tmp_path / "faces.json")


def test_probability(file: str) -> None:
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
    found = faces.score(vectors, faces.load(file, dim=3))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, 1 / (1 + np.exp([-2.5, -0.5, 0.5])), rtol=1e-6)


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_what_is_not_finite_is_never_kept(value: float) -> None:
    found = faces.score(np.array([[0, value, 0], [0, 0, 1]], dtype=np.float32), HEAD)
    assert np.isnan(found[0]) and not np.isnan(found[1])
    assert faces.reject(float(found[0]), max_score=1.0) == "face"


def test_extremes_stay_quiet() -> None:
    found = faces.score(np.array([[3e38, 0, 0], [-3e38, 0, 0]], dtype=np.float32), HEAD)
    assert found.tolist() == [1.0, 0.0]


def seen(*scores: float) -> list[dict[str, float]]:
    return [{"x1": 0, "y1": 0, "x2": 9, "y2": 9, "score": score} for score in scores]


@pytest.mark.parametrize(
    ("probability", "detected", "reason"),
    [
        (0.2, None, None),
        (0.3, None, None),
        (0.31, None, "face"),
        (NAN, None, "face"),
        (None, [], None),
        (None, seen(0.95), "face"),
        (None, seen(0.9), "face"),
        (None, seen(0.5, 0.89), None),
        (None, seen(0.5, NAN), "face"),
        (0.2, [], None),
        (0.2, seen(0.5, 0.99), "face"),
        (0.8, [], "face"),
        (None, None, "face"),  # nobody looked
    ],
)
def test_reject(probability: float | None, detected: list[dict[str, float]] | None, reason: str | None) -> None:
    assert faces.reject(probability, detected, max_score=0.3) == reason


def test_strongest() -> None:
    assert (faces.strongest([]), faces.strongest(seen(0.2, 0.7, 0.4))) == (0.0, 0.7)


def test_vectors_of_another_clip_are_refused(file: str) -> None:
    with pytest.raises(WeightsFileError, match="3 numbers of x, and this CLIP makes 768.*--fit-faces"):
        faces.load(file, dim=768)
    with pytest.raises(ValueError, match="3 numbers .x., got .2, 768.*--fit-faces"):
        faces.score(np.zeros((2, 768), np.float32), HEAD)


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b" " * ((1 << 20) + 1)])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_bytes(data)
    with pytest.raises(WeightsFileError, match="other.json is no face classifier"):
        faces.load(str(tmp_path / "other.json"))
    with pytest.raises(WeightsFileError, match="no file"):
        faces.load(str(tmp_path / "missing.json"))


def test_the_tiny_one_goes_with_the_tiny_clip() -> None:
    head = faces.load(faces.TINY, dim=96)
    assert head.clip == "tiny" and 0 < head.threshold < 1
