"""CLIP: pictures and sentences as unit vectors, through open_clip."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmc4_builder import weights_file
from mmc4_builder.clip_weights import DEFAULT, REMEDY, TINY, WeightsError, find, folder_of, parted

__all__ = ["DEFAULT", "TINY", "Clip", "Identity", "WeightsError", "find", "load"]

if TYPE_CHECKING:
    import torch

Picture = bytes | Image.Image | NDArray[np.uint8]
"""An encoded file, a PIL image, or decoded RGB of shape (height, width, 3)."""

_PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which model made an embedding. Embeddings with different identities must not be compared."""

    name: str  # as it was asked for
    sha256: str  # hex, of the weights file
    dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A loaded model. Every pass has `batch_size` rows, so results do not depend on callers' groups."""

    identity: Identity
    batch_size: int
    device: str
    model: Any = field(repr=False)
    preprocess: Callable[[Image.Image], "torch.Tensor"] = field(repr=False)
    tokenize: Callable[[list[str]], "torch.Tensor"] = field(repr=False)

    def embed_images(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """Unit vectors [n, dim]. Pictures are resized, cropped and normalised as the model was trained."""
        import torch

        return self._embed(
            pictures,
            lambda batch: torch.stack([self.preprocess(_decoded(picture)) for picture in batch]),
            self.model.encode_image,
        )

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors [n, dim]. What goes beyond the model's context (77 tokens for OpenAI's) is cut off."""
        return self._embed(texts, lambda batch: self.tokenize(list(batch)), self.model.encode_text)

    def _embed(
        self,
        items: Sequence[Any],
        prepare: Callable[[Sequence[Any]], "torch.Tensor"],
        encode: Callable[["torch.Tensor"], "torch.Tensor"],
    ) -> NDArray[np.float32]:
        import torch
        import torch.nn.functional as F

        vectors = np.empty((len(items), self.identity.dim), dtype=np.float32)
        on_gpu = self.device != "cpu"
        half = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float16
        precision = torch.autocast(self.device.partition(":")[0], half, enabled=on_gpu)
        for start in range(0, len(items), self.batch_size):
            batch = prepare(items[start : start + self.batch_size])
            missing = self.batch_size - len(batch)
            padded = torch.cat([batch, batch[-1:].expand(missing, *batch.shape[1:])]).to(self.device)
            with torch.inference_mode(), precision:
                rows = F.normalize(encode(padded).float(), dim=-1)
            vectors[start : start + len(batch)] = rows[: len(batch)].cpu().numpy()
        return vectors


def load(name: str = DEFAULT, *, device: str | None = None, batch_size: int = 32, threads: int = 1) -> Clip:
    """The model called `name`: `tiny`, `MODEL:TAG`, `MODEL:FILE`, or open_clip's own `local-dir:FOLDER`.

    Weights are read without executing anything they hold: safetensors, or `torch.load(weights_only=True)`.
    `device` is chosen when not given. On a CPU torch is set to `threads` threads for the whole process: one
    makes sums, and so results, the same everywhere. Raises WeightsError.
    """
    import torch

    weights = find(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        torch.set_num_threads(threads)
    try:
        model, tokenize = _from_folder(weights.parent) if folder_of(name) else _from_name(name, weights)
    except Exception as error:  # open_clip, safetensors and torch each raise their own kinds
        raise WeightsError(f"{name!r} cannot be loaded: {error}. {REMEDY}") from error
    from open_clip.transform import PreprocessCfg, image_transform_v2

    model.eval().requires_grad_(False)
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    dim = int(model.encode_text(tokenize(["a"])).shape[-1])
    return Clip(
        identity=Identity(name=name, sha256=weights_file.digest(weights), dim=dim),
        batch_size=batch_size,
        device=device,
        model=model.to(device),
        preprocess=transform,
        tokenize=tokenize,
    )


def _from_folder(folder: Path) -> tuple[Any, Any]:
    """open_clip's folder format: configuration, safetensors, and perhaps merges for the tokenizer."""
    import open_clip

    merges = folder / "bpe.txt.gz"
    model = open_clip.create_model(f"local-dir:{folder}", weights_only=True)
    own = {"bpe_path": str(merges)} if merges.is_file() else {}
    return model, open_clip.get_tokenizer(f"local-dir:{folder}", **own)


def _from_name(name: str, weights: Path) -> tuple[Any, Any]:
    import open_clip

    architecture, pretrained = parted(name)
    config = open_clip.get_pretrained_cfg(architecture, pretrained)
    model = open_clip.create_model(
        architecture,
        pretrained=str(weights),
        weights_only=True,
        force_quick_gelu=bool(config.get("quick_gelu")),
        force_preprocess_cfg={key: config[key] for key in _PREPROCESS if config.get(key) is not None},
    )
    return model, open_clip.get_tokenizer(architecture)


def _decoded(picture: Picture) -> Image.Image:
    if isinstance(picture, bytes):
        return Image.open(io.BytesIO(picture)).convert("RGB")
    return Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture.convert("RGB")
