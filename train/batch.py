"""What a training step reads: one micro-batch of one dataset, as tensors.

Shapes: B sequences, L tokens, N image slots a sequence, M images that are really there, T frames.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Padding is on the right. Images are bytes until they are on the device: a quarter of what floats would move."""

    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L], 0 on padding
    labels: Tensor  # int64 [B, L], unshifted, -100 where nothing is predicted
    phi: Tensor  # int64 [B, L] or [B, L, 2], of model.masking
    image_rows: Tensor  # int64 [B, N], which of the M images is in which slot, -1: none
    images: Tensor  # uint8 [M, T, 3, H, W]
    keys: tuple[tuple[str, ...], ...] = ()  # the samples in each sequence
    skipped: Mapping[str, int] = field(default_factory=dict)  # samples passed over on the way here, by reason

    @property
    def targets(self) -> int:
        """Tokens that are predicted: the first one of a sequence never is."""
        return int((self.labels[:, 1:] != -100).sum())

    @property
    def real_tokens(self) -> int:
        return int(self.attention_mask.sum())

    def to(self, device: torch.device | str) -> "Batch":
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """DataLoader asks for this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {n: change(v) if isinstance(v, Tensor) else v for n, v in values.items()}
        return Batch(**changed)


def normalised(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], dtype: torch.dtype) -> Tensor:
    """uint8 [M, T, 3, H, W] to what the vision encoder was trained on: (x / 255 - mean) / std."""
    scale = images.new_tensor([255 * s for s in std], dtype=torch.float32)[:, None, None]
    shift = images.new_tensor([m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32)[:, None, None]
    return (images.float() / scale - shift).to(dtype)
