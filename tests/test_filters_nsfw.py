"""The NSFW classifier: the released architecture and file format, its arithmetic, and what it refuses."""

import hashlib
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from filters import nsfw
from mmc4_builder import weights_file
from mmc4_builder.weights_file import WeightsFileError


def network(dim: int = 768) -> nn.Sequential:
    """The published architecture, with random weights that spread its scores."""
    torch.manual_seed(3)
    layers: list[tuple[str, nn.Module]] = [
        ("norm", nn.BatchNorm1d(dim, eps=0.0)),
        ("dense", nn.Linear(dim, 64)),
        ("relu", nn.ReLU()),
        ("dense1", nn.Linear(64, 512)),
        ("relu1", nn.ReLU()),
        ("dense2", nn.Linear(512, 256)),
        ("relu2", nn.ReLU()),
        ("dense3", nn.Linear(256, 1)),
        ("sigmoid", nn.Sigmoid()),
    ]
    model = nn.Sequential(OrderedDict(layers))
    norm: Any = model.norm
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    norm.running_mean.normal_(0, dim**-0.5)
    norm.running_var.uniform_(0.2 / dim, 3 / dim)
    dense: Any = model.dense3
    dense.weight.data *= 30
    return model.eval()


def unit(count: int, dim: int = 768) -> np.ndarray[Any, np.dtype[np.float32]]:
    rows = np.random.default_rng(5).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    torch.save(network().state_dict(), folder / "nsfw_torch.pt")
    save_file(network().state_dict(), folder / "nsfw.safetensors")
    return folder


@pytest.mark.parametrize("name", ["nsfw_torch.pt", "nsfw.safetensors"])
def test_scores_are_the_networks_own(folder: Path, name: str) -> None:
    head = nsfw.load(str(folder / name), dim=768)
    vectors = unit(300)
    with torch.inference_mode():
        expected = network()(torch.from_numpy(vectors)).squeeze().numpy()
    found = nsfw.score(vectors, head)
    assert found.dtype == np.float32 and found.shape == (300,)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.5 and np.unique(expected).size == 300  # it is a test of something


def test_the_head_says_what_it_is(folder: Path) -> None:
    path = folder / "nsfw_torch.pt"
    identity = nsfw.load(str(path)).identity
    assert (identity.name, identity.dim) == (str(path), 768)
    assert identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_groups_change_no_bit(folder: Path) -> None:
    head, vectors = nsfw.load(str(folder / "nsfw_torch.pt")), unit(40)
    whole = nsfw.score(vectors, head)
    np.testing.assert_array_equal(
        np.concatenate([nsfw.score(vectors[i : i + 7], head) for i in range(0, 40, 7)]), whole
    )
    assert nsfw.score(vectors[:0], head).shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0, 1e30])
def test_what_is_no_embedding_is_never_kept(folder: Path, value: float) -> None:
    head, vectors = nsfw.load(str(folder / "nsfw_torch.pt")), unit(3)
    expected = nsfw.score(vectors, head)
    vectors[1] = value
    found = nsfw.score(vectors, head)
    np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])
    assert np.isnan(found[1]) and nsfw.reject(float(found[1]), max_score=1.0) == "nsfw"


def test_one_bad_number_is_enough(folder: Path) -> None:
    head, vectors = nsfw.load(str(folder / "nsfw_torch.pt")), unit(1)
    vectors[0, 7] = -np.inf
    assert np.isnan(nsfw.score(vectors, head)[0])


def test_half_precision_is_precise_enough(folder: Path) -> None:
    head, vectors = nsfw.load(str(folder / "nsfw_torch.pt")), unit(50)
    stored = vectors.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(nsfw.score(stored, head), nsfw.score(vectors, head), atol=0.02)


@pytest.mark.parametrize(
    ("score", "max_score", "reason"),
    [
        (0.0, 0.1, None),
        (0.1, 0.1, None),
        (0.11, 0.1, "nsfw"),
        (1.0, 0.1, "nsfw"),
        (0.4, 0.5, None),
        (float("nan"), 0.1, "nsfw"),
        (float("inf"), 0.1, "nsfw"),
        (0.2, float("nan"), "nsfw"),
    ],
)
def test_reject(score: float, max_score: float, reason: str | None) -> None:
    assert nsfw.reject(score, max_score=max_score) == reason


def test_vectors_of_another_clip_are_refused(folder: Path) -> None:
    path = str(folder / "nsfw_torch.pt")
    with pytest.raises(
        WeightsFileError, match="wants CLIP vectors of 768 numbers, and this CLIP makes 96.*--nsfw none"
    ):
        nsfw.load(path, dim=96)
    with pytest.raises(ValueError, match=r"\[n, 768\], got \(3, 96\)"):
        nsfw.score(unit(3, 96), nsfw.load(path))


def without(key: str) -> dict[str, torch.Tensor]:
    state = network().state_dict()
    return {name: value for name, value in state.items() if name != key}


def changed(key: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**network().state_dict(), key: value}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (without("dense2.bias"), r"missing \['dense2.bias'\]"),
        (changed("extra", torch.zeros(1)), r"unknown \['extra'\]"),
        (changed("dense1.weight", torch.zeros(64, 512)), r"dense1.weight .* shape \(512, 64\), got \(64, 512\)"),
        (changed("norm.bias", torch.zeros(512)), r"norm.bias .* \(768,\), got \(512,\)"),
        (changed("dense3.bias", torch.tensor([torch.nan])), "dense3.bias .* not finite"),
        (changed("norm.running_var", torch.zeros(768)), "norm.running_var .* not above 0"),
        ([1, 2], "holds a list"),
        ({"norm.weight": "text"}, "holds a str"),
    ],
)
def test_other_files_are_refused(state: Any, said: str, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsFileError, match=said):
        nsfw.load(str(tmp_path / "other.pt"))


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"norm.weight": Hostile()}, "evil.pt")
    Path("cut.safetensors").write_bytes(b"\xff" * 40)
    Path("large.pt").write_bytes(bytes((16 << 20) + 1))
    for name, said in (
        ("evil.pt", "cannot be read"),
        ("cut.safetensors", "cannot be read"),
        ("large.pt", "16,777,217"),
    ):
        with pytest.raises(WeightsFileError, match=said):
            nsfw.load(name)
    assert not Path("unpickled").exists()


def test_the_released_file_is_verified(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place in the cache is where a copy made by hand is found, and no other file passes for it there."""
    monkeypatch.setenv("MMC4_CACHE", str(tmp_path))
    assert len(nsfw.RELEASED_SHA256) == 64
    data = (folder / "nsfw_torch.pt").read_bytes()
    monkeypatch.setattr(nsfw, "RELEASED_SHA256", hashlib.sha256(data).hexdigest())
    place = weights_file.cache_path(nsfw.RELEASED_URL, nsfw.RELEASED_SHA256)
    place.parent.mkdir(parents=True)
    place.write_bytes(data)
    assert nsfw.find() == place
    assert nsfw.load(nsfw.RELEASED, dim=768).identity.name == "released"
    assert nsfw.load(nsfw.RELEASED_URL).identity.dim == 768
    with pytest.raises(WeightsFileError, match="SHA-256 .*, expected abab.*--nsfw none"):
        nsfw.find(f"{place}#sha256={'ab' * 32}")


def test_the_tiny_one_goes_with_the_tiny_clip() -> None:
    assert nsfw.load(nsfw.TINY, dim=96).identity.dim == 96
    with pytest.raises(WeightsFileError, match="768"):
        nsfw.load(nsfw.TINY, dim=768)
