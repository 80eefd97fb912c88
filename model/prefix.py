"""A prompt read once: the part that every continuation of it shares, whether tried, ranked or generated.

Shapes: B prompts, L tokens, N image slots, R visual tokens an image, d their width, H heads, c width of a head.

Three things are kept. The language model's own cache; keys and values of visual tokens, made once and then only those
of the image that the text after the prompt sees, so that a step costs the same after four shots and after thirty-two;
and, beyond one prompt, the resampler's output for each image, by its content.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from model.config import ConfigError
from model.cross_attention import KeyValue
from model.flamingo import Flamingo


class VisualCache:
    """Visual tokens of images by content, the least recently used given up beyond `capacity` images.

    Holds nothing over a change of the weights: optimizer steps and `load_state_dict` empty it.
    """

    def __init__(self, model: Flamingo, capacity: int = 1024) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 image, not {capacity}")
        self.model, self.capacity = model, capacity
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._weights = -1

    def encode(self, images: Sequence[Tensor]) -> Tensor:
        """Images [T, 3, H, W] to visual tokens [M, R, d]. Each distinct one goes through the encoder at most once."""
        self._forget_if_trained()
        keys = [_content(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._kept}
        found = {key: self._kept[key] for key in keys if key in self._kept}
        if new:
            with torch.no_grad():
                made = self.model.encode_images([_like(image, self.model) for image in new.values()])
            found |= dict(zip(new, (one.clone() for one in made), strict=True))
        for key in keys:
            self._kept[key] = found[key]
            self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return torch.stack([found[key] for key in keys])

    def __len__(self) -> int:
        return len(self._kept)

    def _forget_if_trained(self) -> None:
        parts = (self.model.vision, self.model.resampler)
        weights = sum(p._version for part in parts for p in part.parameters() if not p.is_inference())
        if weights != self._weights:
            self._kept.clear()
        self._weights = weights


def _content(image: Tensor) -> bytes:
    plain = image.detach().contiguous().cpu()
    digest = hashlib.blake2b(repr((plain.dtype, tuple(plain.shape))).encode(), digest_size=16)
    digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _like(image: Tensor, model: Flamingo) -> Tensor:
    weight = next(model.vision.parameters())
    return image.to(device=weight.device, dtype=weight.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What tokens see, as `Flamingo.forward` takes it: keys and values for each block, [B, H, N * R, c]."""

    media: tuple[KeyValue, ...]
    image_rows: Tensor  # [B, N]
    phi: Tensor  # [B, L] or [B, L, 2]

    @property
    def inputs(self) -> dict[str, Any]:
        return {"media": self.media, "image_rows": self.image_rows, "phi": self.phi}

    def of_last(self) -> "Sight":
        """What the text after the last token sees: that token's image alone, or all images where it sees several."""
        last = self.phi[:, -1:]
        if last.ndim == 3:
            return Sight(media=self.media, image_rows=self.image_rows, phi=last)
        slot = (last - 1).clamp(min=0)
        slots = self.image_rows.shape[1]
        return Sight(
            media=tuple((_at_slot(k, slot, slots), _at_slot(v, slot, slots)) for k, v in self.media),
            image_rows=self.image_rows.gather(1, slot).masked_fill(last == 0, -1),
            phi=last.clamp(max=1),
        )

    def repeated(self, times: int) -> "Sight":
        """Each row `times` times over, for beams or candidates of one prompt."""
        if times == 1:
            return self
        return Sight(
            media=tuple((k.repeat_interleave(times, 0), v.repeat_interleave(times, 0)) for k, v in self.media),
            image_rows=self.image_rows.repeat_interleave(times, 0),
            phi=self.phi.repeat_interleave(times, 0),
        )

    def stretched(self, tokens: int) -> "Sight":
        """The last token's view for `tokens` tokens that follow it."""
        last = self.phi[:, -1:]
        phi = last.expand(-1, tokens, *last.shape[2:])
        return Sight(media=self.media, image_rows=self.image_rows, phi=phi)

    def before_last(self) -> "Sight":
        return Sight(media=self.media, image_rows=self.image_rows, phi=self.phi[:, :-1])


def _at_slot(x: Tensor, slot: Tensor, slots: int) -> Tensor:
    """[B, H, N * R, c] to [B, H, R, c]: the visual tokens of each row's own slot [B, 1]."""
    batch, heads, tokens, width = x.shape
    by_slot = x.view(batch, heads, slots, tokens // slots, width)
    return by_slot[torch.arange(batch, device=x.device), :, slot[:, 0]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Prompts as they come: token ids [B, L], padded on the left, and what they show.

    Images come as `visual` [M, R, d] (from `VisualCache.encode` or `Flamingo.encode_images`), with `image_rows` [B, N]
    and `phi` of `masking`. Prompts without any image leave all three out.
    """

    input_ids: Tensor
    attention_mask: Tensor
    visual: Tensor | None = None
    image_rows: Tensor | None = None
    phi: Tensor | None = None

    def __post_init__(self) -> None:
        if self.attention_mask.shape != self.input_ids.shape:
            shapes = list(self.attention_mask.shape), list(self.input_ids.shape)
            raise ValueError(f"attention_mask has shape {shapes[0]}, input_ids {shapes[1]}")
        if not bool(self.attention_mask[:, -1].all()):
            raise ValueError("prompts are padded on the left: the last token of each must be its own")
        given = [part is not None for part in (self.visual, self.image_rows, self.phi)]
        if any(given) and not all(given):
            raise ValueError("images need all of visual, image_rows and phi")

    def sight(self, model: Flamingo) -> Sight | None:
        """Keys and values of everything that the prompts show: made here, once."""
        if self.visual is None or self.image_rows is None or self.phi is None or not self.image_rows.shape[1]:
            return None
        if not len(self.visual):
            return None
        media = model.project_media(model.place(self.visual, self.image_rows))
        return Sight(media=media, image_rows=self.image_rows, phi=self.phi)


Form = Literal["cache", "tuple", "list"]
"""How a language model gives its cache. Some families of transformers 4 give a tuple of keys and values [B, H, L, c];
code of before, a list of [B, L, H * c], in which a batch can be told from a sequence all the same."""


def form_of(past: Any) -> Form:
    return "list" if isinstance(past, list) else "tuple" if isinstance(past, tuple) else "cache"


def to_cache(past: Any) -> Any:
    """A cache object of what a language model gave."""
    if form_of(past) == "cache":
        return past
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer, (keys, values) in enumerate(past):
        if isinstance(past, list):
            if keys.ndim != 3:
                raise ConfigError(f"a list of keys and values of shape {list(keys.shape)} is no known kind of cache")
            keys, values = keys[:, None], values[:, None]
        cache.update(keys, values, layer)
    return cache


def to_model(cache: Any, form: Form) -> Any:
    """The cache object as the language model wants it."""
    if form == "cache" or cache is None:
        return cache
    if hasattr(cache, "layers"):
        pairs = [(layer.keys, layer.values) for layer in cache.layers]
    else:  # transformers before 4.54
        pairs = list(zip(cache.key_cache, cache.value_cache, strict=True))
    return tuple(pairs) if form == "tuple" else [(keys[:, 0], values[:, 0]) for keys, values in pairs]
