"""Which images a token may see: phi, an integer for each token, made with the data and shipped with the batch.

phi [B, L] is the number of the one image that a token sees: 1..N in order of `<image>` in the sequence, 0 for none.
phi [B, L, 2] holds the first and the last of several. An `<image>` token sees its own image. Numbers run on through
a packed sequence, whose documents do not see each other's images.
"""

import torch
from torch import Tensor

from model.cross_attention import View


def previous_image(input_ids: Tensor, image_token: int, documents: Tensor | None = None) -> Tensor:
    """phi [B, L]: the last image at or before the token, in its document.

    `documents` [B, L]: any integers that change where one document ends and the next begins; None: one a sequence.
    """
    is_image = input_ids == image_token
    count = is_image.cumsum(1)
    return torch.where(count > _images_before_document(is_image, documents), count, 0)


def next_image(input_ids: Tensor, image_token: int, documents: Tensor | None = None) -> Tensor:
    """phi [B, L]: the first image after the token, in its document; nothing after a document's last image.

    The paper does not say what the last text sees; this is the choice of OpenFlamingo v1.
    """
    is_image = input_ids == image_token
    count = is_image.cumsum(1)
    following = torch.where(count < _images_to_document_end(is_image, documents), count + 1, 0)
    return torch.where(is_image, count, following)


def all_previous_images(input_ids: Tensor, image_token: int, documents: Tensor | None = None) -> Tensor:
    """phi [B, L, 2]: every image at or before the token, in its document (ablation of the paper's Table 10)."""
    is_image = input_ids == image_token
    last = previous_image(input_ids, image_token, documents)
    first = torch.where(last > 0, _images_before_document(is_image, documents) + 1, 0)
    return torch.stack([first, last], dim=-1)


def visible(
    input_ids: Tensor,
    image_token: int,
    *,
    documents: Tensor | None = None,
    look_ahead: Tensor | None = None,
    all_previous: bool = False,
) -> Tensor:
    """phi: the previous image, or the next one where `look_ahead` says so, or all previous ones.

    `look_ahead`: bool, [B, 1] or [B, L], one draw of p_next for each document (paper A.3.2), made with the data.
    `all_previous`: what the model's configuration says in `cross_attention.see_all_previous`.
    """
    if all_previous:
        if look_ahead is not None:
            raise ValueError("all_previous and look_ahead exclude each other")
        return all_previous_images(input_ids, image_token, documents)
    previous = previous_image(input_ids, image_token, documents)
    if look_ahead is None:
        return previous
    return torch.where(look_ahead, next_image(input_ids, image_token, documents), previous)


def documents_between(input_ids: Tensor, end_token: int) -> Tensor:
    """Documents [B, L] of a packed sequence, of which each ends with `end_token`."""
    is_end = (input_ids == end_token).long()
    return is_end.cumsum(1) - is_end


def view(phi: Tensor, present: Tensor, tokens_per_image: int) -> View:
    """The attention mask for phi. `present` [B, N] bool: which image slots of a sequence hold an image."""
    first, last = (phi, phi) if phi.ndim == 2 else phi.unbind(-1)
    number = torch.arange(1, present.shape[1] + 1, device=phi.device)
    mask = (first[..., None] <= number) & (number <= last[..., None]) & present[:, None]
    seen = mask.any(-1, keepdim=True)
    mask = (mask | ~seen).repeat_interleave(tokens_per_image, dim=-1)
    return View(mask[:, None], seen)


def _starts(documents: Tensor) -> Tensor:
    """bool [B, L]: the first token of each document."""
    changes = documents[:, 1:] != documents[:, :-1]
    return torch.cat([torch.ones_like(documents[:, :1], dtype=torch.bool), changes], dim=1)


def _images_before_document(is_image: Tensor, documents: Tensor | None) -> Tensor:
    """[B, L]: how many images of the sequence come before the token's document."""
    count = is_image.cumsum(1)
    if documents is None:
        return torch.zeros_like(count)
    before = torch.where(_starts(documents), count - is_image.long(), 0)
    return before.cummax(1).values


def _images_to_document_end(is_image: Tensor, documents: Tensor | None) -> Tensor:
    """[B, L]: how many images of the sequence have come when the token's document ends."""
    count = is_image.cumsum(1)
    if documents is None:
        return count[:, -1:].expand_as(count)
    ends = _starts(documents.flip(1)).flip(1)
    after = torch.where(ends, count, count[:, -1:])
    return after.flip(1).cummin(1).values.flip(1)


def causal(length: int, attention_mask: Tensor | None, device: torch.device) -> Tensor:
    """bool [B or 1, 1, L, L]: each token sees itself and what came before, padding aside."""
    mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    if attention_mask is None:
        return mask
    itself = torch.eye(length, dtype=torch.bool, device=device)
    return (mask & attention_mask.bool()[:, None, None]) | itself
