"""The tiny CLIP's heads: small, of the released shape, and right about the sample that they have not seen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from filters import faces, nsfw
from mmc4_builder import clip
from mmc4_builder.image_header import ImageError
from mmc4_builder.images import normalise
from mmc4_builder.sample import train_heads
from mmc4_builder.sample.pictures import Picture, payload
from mmc4_builder.sample.scenes import held_out
from mmc4_builder.sample.web import build

WEIGHTS = Path(train_heads.__file__).parent / "weights" / "heads"
OTHERS = 4  # one in so many of the pictures that are no stand-ins: the sample's own build looks at all


@dataclass(frozen=True, kw_only=True)
class Seen:
    labels: npt.NDArray[np.str_]
    vectors: npt.NDArray[np.float32]


def label(picture: Picture) -> str:
    return picture.scene.label if picture.scene else picture.variant


def stored(picture: Picture) -> bytes | None:
    try:
        return normalise(payload(picture)).data
    except ImageError:
        return None


@pytest.fixture(scope="module")
def model() -> clip.Clip:
    return clip.load(clip.TINY, device="cpu")


@pytest.fixture(scope="module")
def seen(model: clip.Clip) -> Seen:
    """Pictures of the sample as the image stage keeps them."""
    whole = [one for one in build().pictures if one.status == 200 and one.encoding != "bomb"]
    stand_ins = [one for one in whole if label(one) in train_heads.KINDS]
    others = [one for one in whole if label(one) not in train_heads.KINDS][::OTHERS]
    found = [(label(one), data) for one in (*stand_ins, *others) if (data := stored(one)) is not None]
    vectors = model.embed_images([data for _, data in found])
    return Seen(labels=np.array([name for name, _ in found]), vectors=vectors)


def test_they_are_small_and_hold_no_pickle() -> None:
    assert sorted(path.name for path in WEIGHTS.iterdir()) == ["faces.json", "nsfw.safetensors"]
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 400_000


def test_every_stand_in_for_nudity_goes_and_nothing_else(seen: Seen, model: clip.Clip) -> None:
    scores = nsfw.score(seen.vectors, nsfw.load(nsfw.TINY, dim=model.identity.dim))
    dropped = np.array([nsfw.reject(score) is not None for score in scores])
    assert (seen.labels == "nsfw_standin").sum() >= 20
    np.testing.assert_array_equal(dropped, seen.labels == "nsfw_standin")


def test_every_face_goes_and_little_else(seen: Seen, model: clip.Clip) -> None:
    """One plane through the tiny CLIP's space does not part them without fault."""
    head = faces.load(faces.TINY, dim=model.identity.dim)
    scores = faces.score(seen.vectors, head)
    dropped = np.array([faces.reject(score, max_score=head.threshold) is not None for score in scores])
    is_face = seen.labels == "face"
    assert is_face.sum() >= 20 and dropped[is_face].all()
    assert dropped[~is_face].mean() <= 0.02


def test_they_belong_to_the_tiny_clip(model: clip.Clip) -> None:
    head = faces.load(faces.TINY)
    assert (head.clip, head.clip_sha256) == (model.identity.name, model.identity.sha256)
    assert head.report.recall >= 0.95 and head.report.precision >= 0.85


def small(**changes: int) -> train_heads.Recipe:
    counts = {"each": 130, "scenes": 60, "lookalikes": 60, "unrelated": 20, "steps": 30, **changes}
    return train_heads.Recipe(**counts)  # type: ignore[arg-type]


def test_training_sees_nothing_that_the_sample_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    draw_scene = train_heads.draw_scene

    def noted(scene: Any, *size: int) -> Any:
        shown.append(scene)
        return draw_scene(scene, *size)

    monkeypatch.setattr(train_heads, "draw_scene", noted)
    names = [name for name, _ in train_heads.draw(small(each=20, scenes=20))]
    assert len(names) == 2 * 20 + 20 + 60 + 20 and len(shown) == len(names) - 20
    assert not any(held_out(scene.main.kind, scene.main.colour, scene.place) for scene in shown)


def test_training_runs_and_runs_alike(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        train_heads.train(small(), tmp_path / folder)
    for name in ("nsfw.safetensors", "faces.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_network_has_the_released_shape(model: clip.Clip) -> None:
    from safetensors.torch import load_file

    state = load_file(WEIGHTS / "nsfw.safetensors")
    network = train_heads.network(model.identity.dim)
    network.load_state_dict(state)
    vectors = np.eye(model.identity.dim, dtype=np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(vectors))[:, 0].numpy()
    np.testing.assert_allclose(nsfw.score(vectors, nsfw.load(nsfw.TINY)), expected, atol=1e-6)
