"""Pictures of evaluation sets are found, and files that are no evaluation set are named."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters import contamination
from filters.contamination import (
    NOTHING_NEAR,
    ContaminationRules,
    EvaluationSet,
    EvaluationSetError,
    distances,
    load,
    reject,
    save,
    similarities,
)

RANDOM = np.random.default_rng(0)


def made(count: int, dim: int = 0) -> EvaluationSet:
    return EvaluationSet(
        phashes=RANDOM.integers(0, 2**64, count, dtype=np.uint64),
        names=tuple(f"coco/{number}" for number in range(count)),
        vectors=RANDOM.normal(size=(count, dim)).astype(np.float32) if dim else None,
        model="a" * 64 if dim else "",
    )


@pytest.mark.parametrize(
    ("distance", "similarity", "reason"),
    [
        (0, None, "evaluation_image"),
        (10, None, "evaluation_image"),
        (11, None, None),
        (64, 0.94, None),
        (64, 0.95, "evaluation_image"),
        (NOTHING_NEAR, -1.0, None),
    ],
)
def test_reject(distance: int, similarity: float | None, reason: str | None) -> None:
    assert reject(distance, similarity) == reason


def test_either_test_can_be_switched_off() -> None:
    assert reject(0, 0.5, rules=ContaminationRules(max_distance=None)) is None
    assert reject(64, 1.0, rules=ContaminationRules(min_similarity=None)) is None


@pytest.mark.parametrize(
    "wrong", [{"max_distance": 65}, {"max_distance": -1}, {"min_similarity": 1.1}, {"min_similarity": float("nan")}]
)
def test_bad_rules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give"):
        ContaminationRules(**wrong)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=8), st.lists(st.integers(0, 2**64 - 1), max_size=8))
def test_distance_to_the_nearest(asked: list[int], wanted: list[int]) -> None:
    evaluation = EvaluationSet(phashes=np.array(wanted, np.uint64), names=("",) * len(wanted))
    expected = [min(((a ^ b).bit_count() for b in wanted), default=NOTHING_NEAR) for a in asked]
    assert distances(np.array(asked, np.uint64), evaluation).tolist() == expected


def test_parts_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = made(50, dim=8)
    hashes = RANDOM.integers(0, 2**64, 30, dtype=np.uint64)
    vectors = RANDOM.normal(size=(30, 8)).astype(np.float32)
    whole = distances(hashes, evaluation), similarities(vectors, evaluation)
    monkeypatch.setattr(contamination, "_PAIRS", 120)
    assert distances(hashes, evaluation).tolist() == whole[0].tolist()
    np.testing.assert_allclose(similarities(vectors, evaluation), whole[1], atol=1e-6)


def test_similarity_is_the_cosine() -> None:
    evaluation = EvaluationSet(
        phashes=np.zeros(2, np.uint64), names=("a", "b"), vectors=np.array([[3, 0], [0, 0.5]], np.float32)
    )
    asked = np.array([[7, 0], [1, 1], [-1, -1], [0, 0]], np.float32)
    np.testing.assert_allclose(similarities(asked, evaluation), [1, 0.5**0.5, -(0.5**0.5), 0], atol=1e-6)


def test_without_vectors_nothing_is_similar() -> None:
    assert similarities(np.ones((3, 5), np.float32), made(4)).tolist() == [-1, -1, -1]
    assert similarities(np.ones((3, 5), np.float32), made(0, dim=5)).tolist() == [-1, -1, -1]


def test_vectors_of_another_model_are_refused() -> None:
    with pytest.raises(EvaluationSetError, match="embed it with this model"):
        similarities(np.ones((3, 5), np.float32), made(4, dim=6))


@pytest.mark.parametrize(("count", "dim"), [(3, 4), (3, 0), (0, 0), (0, 4)])
def test_saved_and_loaded(tmp_path: Path, count: int, dim: int) -> None:
    evaluation = made(count, dim)
    save(evaluation, tmp_path / "set.parquet")
    again = load(tmp_path / "set.parquet")
    assert again.phashes.tolist() == evaluation.phashes.tolist()
    assert (again.names, again.model) == (evaluation.names, evaluation.model)
    if evaluation.vectors is None:
        assert again.vectors is None
    else:
        assert again.vectors is not None and again.vectors.shape == (count, dim)
        np.testing.assert_allclose(again.vectors, evaluation.vectors, rtol=1e-6)


FLOATS = pa.list_(pa.float32(), 2)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"name": ["a"]}, "phash"),
        ({"phash": pa.array([1], pa.uint64())}, "name"),
        ({"phash": pa.array([-1], pa.int64()), "name": ["a"]}, "uint64|bounds"),
        ({"phash": pa.array([None], pa.uint64()), "name": ["a"]}, "nulls"),
        ({"phash": pa.array([1], pa.uint64()), "name": pa.array([None], pa.string())}, "nulls"),
        ({"phash": pa.array([1], pa.uint64()), "name": ["a"], "clip": [[1.0]]}, "clip is list"),
        ({"phash": pa.array([1], pa.uint64()), "name": ["a"], "clip": pa.array([None], FLOATS)}, "no evaluation set"),
        ({"phash": pa.array([1], pa.uint64()), "name": ["a"], "clip": pa.array([[1, np.nan]], FLOATS)}, "NaN"),
        ({"phash": pa.array([1], pa.uint64()), "name": ["a"], "clip": pa.array([[1, None]], FLOATS)}, "NaN"),
    ],
)
def test_other_files_are_named(columns: dict[str, object], message: str) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    stream.seek(0)
    with pytest.raises(EvaluationSetError, match=message):
        load(stream)


def test_no_parquet_at_all() -> None:
    with pytest.raises(EvaluationSetError, match="no evaluation set"):
        load(io.BytesIO(b"<html>"))


@pytest.mark.parametrize(
    ("names", "vectors", "message"),
    [(("a",), None, "1 names"), (("a", "b"), np.ones((3, 2), np.float32), r"\(3, 2\)")],
)
def test_columns_of_different_lengths(names: tuple[str, ...], vectors: np.ndarray | None, message: str) -> None:
    with pytest.raises(EvaluationSetError, match=message):
        EvaluationSet(phashes=np.zeros(2, np.uint64), names=names, vectors=vectors)
