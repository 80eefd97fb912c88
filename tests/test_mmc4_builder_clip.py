"""CLIP: what loads, what is refused, and what the tiny one is good for."""

import hashlib
import io
import os
import pickle
import random
import socket
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mmc4_builder import clip
from mmc4_builder.images import normalise
from mmc4_builder.sample import truth
from mmc4_builder.sample.draw import draw_scene
from mmc4_builder.sample.pictures import payload
from mmc4_builder.sample.prose import small_talk
from mmc4_builder.sample.scenes import random_scene
from mmc4_builder.sample.truth import KEPT
from mmc4_builder.sample.unrelated import VARIANTS, draw_unrelated
from mmc4_builder.sample.web import build

WEIGHTS = Path(clip.__file__).parent / "sample" / "weights" / "tiny"
SMALL = "ViT-S-32-alt"  # open_clip's smallest model with the key names of OpenAI's ViT


@pytest.fixture(scope="module")
def tiny() -> clip.Clip:
    return clip.load(clip.TINY, device="cpu")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of a real architecture, in the formats that people have."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    state = open_clip.create_model(SMALL).state_dict()
    torch.save(state, folder / "bare.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}},
        folder / "run.pt",
    )
    save_file(state, folder / "safe.safetensors")
    return folder


def pictures(count: int) -> list[Image.Image]:
    rng = random.Random(7)
    return [draw_scene(random_scene(rng, for_sample=True), 300, 200) for _ in range(count)]


def jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def test_tiny_is_small_and_holds_no_pickle() -> None:
    files = sorted(path.name for path in WEIGHTS.iterdir())
    assert files == ["bpe.txt.gz", "open_clip_config.json", "open_clip_model.safetensors"]
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 3_000_000


def test_vectors_are_unit_float32(tiny: clip.Clip) -> None:
    for vectors in (tiny.embed_images(pictures(3)), tiny.embed_texts(["a red boat", "", "x" * 5000])):
        assert vectors.shape == (3, tiny.identity.dim) and vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_in_nothing_out(tiny: clip.Clip) -> None:
    assert tiny.embed_images([]).shape == tiny.embed_texts([]).shape == (0, tiny.identity.dim)


@pytest.mark.parametrize("group", [1, 3, 8, 11])
def test_grouping_changes_no_bit(group: int) -> None:
    tiny = clip.load(clip.TINY, device="cpu", batch_size=8)
    shown, said = pictures(20), [f"Sentence number {n} is about a red boat." for n in range(20)]
    images = [tiny.embed_images(shown[start : start + group]) for start in range(0, 20, group)]
    texts = [tiny.embed_texts(said[start : start + group]) for start in range(0, 20, group)]
    np.testing.assert_array_equal(np.concatenate(images), tiny.embed_images(shown))
    np.testing.assert_array_equal(np.concatenate(texts), tiny.embed_texts(said))


def test_bytes_arrays_and_images_are_one(tiny: clip.Clip) -> None:
    data = jpeg(pictures(1)[0])
    decoded = Image.open(io.BytesIO(data)).convert("RGB")
    one, two, three = tiny.embed_images([data, decoded, np.asarray(decoded)])
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, three)


def test_any_mode_is_read_as_rgb(tiny: clip.Clip) -> None:
    picture = pictures(1)[0]
    modes = [picture.convert(mode) for mode in ("L", "CMYK", "P", "RGBA", "1")]
    assert tiny.embed_images(modes).shape == (5, tiny.identity.dim)


def test_long_texts_are_cut_like_clips_own(tiny: clip.Clip) -> None:
    head = "a red boat on the sea " * 20
    one, two = tiny.embed_texts([head + "by day", head + "with a green bird"])
    np.testing.assert_array_equal(one, two)


def test_identity(tiny: clip.Clip) -> None:
    data = (WEIGHTS / "open_clip_model.safetensors").read_bytes()
    assert tiny.identity == clip.Identity(name="tiny", sha256=hashlib.sha256(data).hexdigest(), dim=96)
    folder = clip.load(f"local-dir:{WEIGHTS}", device="cpu")
    assert folder.identity.sha256 == tiny.identity.sha256


def test_preprocessing_is_the_models_own(tiny: clip.Clip) -> None:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{WEIGHTS}")
    for picture in pictures(2):
        assert torch.equal(tiny.preprocess(picture), transform(picture))


def test_tiny_aligns_the_sample(tiny: clip.Clip) -> None:
    """p@1 and the place of MMC4's thresholds, on a tenth of the pages; benchmarks/alignment.py takes all."""
    files = {file.url: file for file in build().pictures}
    own: list[float] = []
    others: list[float] = []
    hits: list[bool] = []
    for page in truth().kept()[::10]:
        shown = [m for m in page.mentions if m.verdict == KEPT and m.sentence and files[m.url].status == 200]
        images = tiny.embed_images([normalise(payload(files[m.url])).data for m in shown])
        for row, mention in zip(images @ tiny.embed_texts(page.sentences).T, shown, strict=True):
            answer = page.sentences.index(mention.sentence)
            hits.append(row.argmax() == answer)
            own.append(row[answer])
            others.extend(np.delete(row, answer))
    assert len(hits) >= 50
    assert np.mean(hits) >= 0.95
    assert np.quantile(own, 0.1) > 0.25
    assert np.quantile(others, 0.95) < 0.2


@pytest.mark.parametrize("variant", VARIANTS)
def test_unrelated_pictures_fall_below_the_threshold(tiny: clip.Clip, variant: str) -> None:
    rng = random.Random(11)
    said = [small_talk(rng) for _ in range(20)] + list(truth().kept()[3].sentences)
    drawn = [draw_unrelated(variant, 50_000 + seed, 400, 300) for seed in range(10)]
    assert (tiny.embed_images(drawn) @ tiny.embed_texts(said).T).max() < 0.15


@pytest.mark.parametrize("file", ["bare.pt", "run.pt", "safe.safetensors"])
def test_real_architecture_loads_from_a_file(small: Path, file: str) -> None:
    model = clip.load(f"{SMALL}:{small / file}", device="cpu", batch_size=2)
    reference = open_clip.create_model(SMALL, pretrained=str(small / "safe.safetensors")).eval()
    picture = pictures(1)[0]
    with torch.inference_mode():
        image = reference.encode_image(model.preprocess(picture)[None])[0].numpy()
        text = reference.encode_text(open_clip.get_tokenizer(SMALL)(["a red boat"]))[0].numpy()
    np.testing.assert_allclose(model.embed_images([picture])[0], image / np.linalg.norm(image), atol=1e-5)
    np.testing.assert_allclose(model.embed_texts(["a red boat"])[0], text / np.linalg.norm(text), atol=1e-5)
    assert model.identity.dim == len(image)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Hostile()}, tmp_path / "evil.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("evil.pt", "plain.pt"):
        with pytest.raises(clip.WeightsError, match="cannot be loaded"):
            clip.load(f"{SMALL}:{tmp_path / name}", device="cpu")
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "neither 'tiny' nor MODEL:TAG"),
        ("ViT-L-14", "neither 'tiny' nor MODEL:TAG"),
        ("NoSuchModel:openai", "neither 'tiny' nor MODEL:TAG"),
        ("ViT-L-14:no_such_tag", "no file and no tag of ViT-L-14 .tags: openai"),
        ("ViT-L-14:/nowhere/at/all.safetensors", "no file and no tag"),
        ("local-dir:/nowhere", "no open_clip_model.safetensors in /nowhere"),
    ],
)
def test_what_cannot_be_found_is_named_with_the_remedy(name: str, said: str) -> None:
    with pytest.raises(clip.WeightsError, match=said):
        clip.load(name, device="cpu")


def test_other_files_are_refused(tmp_path: Path, small: Path) -> None:
    numpy_file = tmp_path / "weights.npz"
    np.savez(numpy_file, a=np.zeros(1))
    with pytest.raises(clip.WeightsError, match="must end in .safetensors"):
        clip.load(f"{SMALL}:{numpy_file}", device="cpu")
    with pytest.raises(clip.WeightsError, match="cannot be loaded"):
        clip.load(f"RN50:{small / 'safe.safetensors'}", device="cpu")


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(key, raising=False)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("offline", [True, False])
def test_without_a_route_it_fails_fast(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:  # bound, not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1" if offline else "0")
        reason = "HF_HUB_OFFLINE is set" if offline else "does not answer"
        with pytest.raises(clip.WeightsError, match=f"vit_large_patch14_clip_224.openai.*{reason}.*--clip tiny"):
            clip.load(device="cpu")


@pytest.mark.usefixtures("no_cache")
def test_a_tag_is_read_from_the_hubs_cache(tmp_path: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the cache is found without the network, and loaded with the tag's own settings."""
    snapshot = tmp_path / "models--someone--small" / "snapshots" / "1234"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("1234")
    (snapshot / "open_clip_model.safetensors").symlink_to(small / "safe.safetensors")
    config = {"hf_hub": "someone/small/", "quick_gelu": True, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, tag: config)
    model = clip.load(f"{SMALL}:mine", device="cpu", batch_size=2)
    assert "QuickGELU" in str(model.model)
    assert model.preprocess(Image.new("RGB", (9, 9), "white")).max() == pytest.approx(1.0)
