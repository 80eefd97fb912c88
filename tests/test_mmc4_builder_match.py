"""The assignment against released documents, against MMC4's own way of solving it, and by its invariants."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mmc4_builder.match import UNASSIGNED, assign, core_fraction, similarity_matrix

REAL_DOCS = Path(__file__).parents[2] / "shared" / "data" / "mmc4_docs.jsonl"
TIE = 6e-5  # what MMC4's float32 costs beside a padding of 1000 can tell apart

matrices = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7),
    elements=st.floats(-1, 1, width=32),
)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def total(similarity: np.ndarray, columns: np.ndarray) -> float:
    return float(similarity.astype(np.float64)[np.arange(len(columns)), columns].sum())


def padded_solution(similarity: np.ndarray, solve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """MMC4's way: a square of float32 costs, padded with 1000; an image in the padding takes its argmax."""
    n, m = similarity.shape
    cost = np.full((max(n, m), max(n, m)), 1000, dtype=np.float32)
    cost[:n, :m] = -similarity
    columns = solve(cost)[:n]
    return np.where(columns < m, columns, similarity.argmax(axis=1))


def test_similarity_is_the_cosine_in_float32() -> None:
    rng = np.random.default_rng(0)
    images, texts = unit(rng.normal(size=(3, 16))), unit(rng.normal(size=(5, 16)))
    found = similarity_matrix(images.astype(np.float32), texts.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images @ texts.T, atol=1e-6)


def test_similarity_never_leaves_the_range_of_a_cosine() -> None:
    row = unit(np.ones((1, 768))).astype(np.float16)
    assert similarity_matrix(row, row).tolist() == [[pytest.approx(1, abs=0.01)]]
    assert float(similarity_matrix(row * 1.005, row).max()) <= 1.0


@pytest.mark.parametrize("n, m", [(0, 3), (2, 0), (0, 0)])
def test_similarity_of_nothing_is_empty(n: int, m: int) -> None:
    rows = unit(np.ones((3, 4)))
    assert similarity_matrix(rows[:n], rows[:m]).shape == (n, m)


@pytest.mark.parametrize(
    "images, texts, message",
    [
        (np.eye(2), np.eye(3), "2 dimensions and texts 3"),
        (np.ones(3), np.eye(3), "images have shape"),
        (np.eye(3) * 2, np.eye(3), "row 0 of images has length 2"),
        (np.eye(3), np.zeros((1, 3)), "row 0 of texts has length 0"),
        (np.array([[1.0, 0], [np.nan, 0]]), np.eye(2), "row 1 of images has length nan"),
    ],
)
def test_similarity_refuses_what_is_no_embedding(images: np.ndarray, texts: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity_matrix(images, texts)


@pytest.mark.parametrize(
    "similarity, expected",
    [
        pytest.param([[0.3, 0.2], [0.4, 0.1]], [1, 0], id="the total counts, not each image's best"),
        pytest.param([[0.1, 0.9, 0.2]], [1], id="one image"),
        pytest.param([[0.9], [0.8], [0.95]], [0, 0, 0], id="one sentence takes all"),
        pytest.param([[0.3, 0.2], [0.9, 0.1], [0.2, 0.8]], [0, 0, 1], id="the left-over image goes to its best"),
        pytest.param([[-0.5, -0.2]], [1], id="negative similarities"),
        pytest.param(np.zeros((2, 0)), [UNASSIGNED, UNASSIGNED], id="no sentences"),
        pytest.param(np.zeros((0, 4)), [], id="no images"),
    ],
)
def test_assignment(similarity: object, expected: list[int]) -> None:
    found = assign(np.array(similarity, dtype=np.float32))
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        assign(np.array([[0.1, value]]))


def test_a_vector_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        assign(np.zeros(3))


@given(matrices)
def test_one_image_a_sentence_while_free_ones_remain(similarity: np.ndarray) -> None:
    n, m = similarity.shape
    columns = assign(similarity)
    assert len(set(columns.tolist())) == min(n, m)
    assert columns.tolist() == assign(similarity.copy()).tolist()


@given(matrices)
@settings(max_examples=50)
def test_the_total_is_at_least_that_of_a_greedy_solution(similarity: np.ndarray) -> None:
    left, greedy = similarity.astype(np.float64).copy(), 0.0
    for _ in range(min(similarity.shape)):
        row, column = np.unravel_index(left.argmax(), left.shape)
        greedy += left[row, column]
        left[row], left[:, column] = -9, -9
    columns = assign(similarity)
    taken: dict[int, float] = {}
    for row, column in enumerate(columns.tolist()):
        taken[column] = max(taken.get(column, -9), float(similarity[row, column]))
    assert sum(taken.values()) >= greedy - 1e-6


def real_docs() -> list[dict]:
    if not REAL_DOCS.exists():
        pytest.skip("the released documents are not beside this checkout")
    return [json.loads(line) for line in REAL_DOCS.read_text().splitlines()]


def test_released_documents_have_the_expected_assignment() -> None:
    docs = real_docs()
    for record in docs:
        expected = record["expected"]
        similarity = np.array(record["doc"]["similarity_matrix"], dtype=np.float32)
        columns = assign(similarity)
        assert total(similarity, columns) == pytest.approx(expected["total_similarity"], abs=1e-9)
        if not expected["tie"]:
            assert columns.tolist() == expected["matched_text_index"]
        found = [float(similarity[row, column]) for row, column in enumerate(columns)]
        assert sorted(found) == sorted(expected["matched_sim"]) or expected["tie"]
    assert len(docs) == 53


def test_released_core_documents_pass_the_core_rule() -> None:
    for record in real_docs():
        assert core_fraction([image["matched_sim"] for image in record["doc"]["image_info"]]) >= 0.75


@pytest.mark.parametrize("shape", [(3, 9), (9, 3), (20, 20), (60, 25)])
def test_totals_equal_those_of_mmc4s_solver(shape: tuple[int, int]) -> None:
    lap = pytest.importorskip("lap", reason="the peer is not installed: pip install lap")
    for seed in range(20):
        similarity = np.random.default_rng(seed).uniform(0.02, 0.4, shape).astype(np.float32)
        theirs = padded_solution(similarity, lambda cost: lap.lapjv(cost)[1])
        ours = assign(similarity)
        assert total(similarity, ours) == pytest.approx(total(similarity, theirs), abs=max(shape) * TIE)


@pytest.mark.parametrize(
    "sims, expected",
    [([], 0.0), ([0.25], 0.0), ([0.26, 0.25], 0.5), ([0.3, 0.3, 0.3, 0.1], 0.75)],
)
def test_core_fraction_counts_what_is_above(sims: list[float], expected: float) -> None:
    assert core_fraction(sims) == expected
