"""Flamingo: a frozen vision encoder, a resampler, and a frozen language model with new layers that see.

Shapes: B sequences, L text tokens, N image slots a sequence, M distinct images, T frames, R visual tokens an image,
K = N * R visual tokens a sequence, V tokens of the vocabulary with the new ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model import language, masking, vision
from model.config import ConfigError, FlamingoConfig
from model.cross_attention import CrossAttentionBlock, GraftedBlock, KeyValue, VanillaBlock, View
from model.embeddings import NewTokens
from model.language import Bound, Call, Decoder
from model.resampler import Resampler
from model.targets import token_loss
from model.vision import VisionTower

Images = Tensor | Sequence[Tensor]
"""[M, T, 3, H, W]; or M tensors [T, 3, H, W], where sizes or numbers of frames differ."""

Media = Sequence[Tensor | KeyValue | None]
"""For each new block: visual tokens [B, K, d], or what the block's `project_media` made of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a call gives. The loss is a sum, with its count beside it: means of means are wrong across ranks."""

    logits: Tensor  # [B, L, V], or [P, V] where places were named
    loss_sum: Tensor | None = None  # negative log-likelihoods of labels that are not -100, in fp32
    loss_tokens: Tensor | None = None
    past_key_values: Any = None

    @property
    def loss(self) -> Tensor:
        if self.loss_sum is None or self.loss_tokens is None:
            raise ValueError("there is a loss only where labels are given")
        return self.loss_sum / self.loss_tokens.clamp(min=1)


class Flamingo(nn.Module):
    """See `forward`. `lm` is any causal language model of transformers; it is used as it is and never changed."""

    def __init__(self, config: FlamingoConfig, tower: VisionTower, lm: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(lm)
        self.vision, self.lm = tower, lm.requires_grad_(config.language.train)
        self._check()
        cross, width = config.cross_attention, config.language.width
        self.resampler = Resampler(config.resampler, tower.width)
        self.conditioned = cross.layers(config.language.layers)
        kind = {"gated_dense": CrossAttentionBlock, "vanilla": VanillaBlock, "grafting": GraftedBlock}[cross.kind]
        count = cross.graft_layers if cross.kind == "grafting" else len(self.conditioned)
        self.blocks = nn.ModuleList(kind(cross, width, config.resampler.width) for _ in range(count))
        self.new_tokens = self._new_tokens()
        self.checkpointing = False  # recompute each layer in the backward pass: less memory, a third more time
        self.train(self.training)

    def _check(self) -> None:
        wanted = (self.config.language.layers, self.config.language.width, self.config.vision.width)
        embeddings: Any = language.table(self.lm)
        found = (language.layer_count(self.lm), embeddings.weight.shape[1], self.vision.width)
        if wanted != found:
            names = "language model's layers, its width, vision encoder's width"
            raise ConfigError(f"{names}: the configuration says {wanted}, the models have {found}")

    def _new_tokens(self) -> NewTokens:
        config = self.config.language
        table: Any = language.table(self.lm).weight
        head = self.decoder.head_weight(self.lm)
        new = NewTokens(config.vocab_size, config.new_tokens, config.width, tied=head is table)
        new.to(table.device).fill_from(table, head)
        return new.requires_grad_(config.train_new_tokens)

    def train(self, mode: bool = True) -> "Flamingo":
        super().train(mode)
        if not self.config.language.train:
            self.lm.eval()  # a frozen model drops nothing out
        return self

    # From images to what blocks read

    def encode_images(self, images: Images) -> Tensor:
        """Visual tokens [M, R, d] of each image or video. Made once, they can be kept and given to any prompt."""
        if isinstance(images, Tensor):
            visual: Tensor = self.resampler(self.vision(images))
            return visual
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_shape.setdefault(tuple(image.shape), []).append(index)
        groups = [self.encode_images(torch.stack([images[i] for i in group])) for group in by_shape.values()]
        order = torch.tensor([i for group in by_shape.values() for i in group], device=groups[0].device)
        return torch.cat(groups)[order.argsort()]

    def place(self, visual: Tensor, image_rows: Tensor) -> Tensor:
        """Visual tokens [M, R, d] where sequences want them: [B, K, d]. Row -1 is an empty slot."""
        return visual[image_rows.clamp(min=0)].flatten(1, 2)

    def project_media(self, media: Tensor) -> tuple[KeyValue, ...]:
        """Keys and values of visual tokens [B, K, d] for every block: what generation keeps for a prompt."""
        return tuple(block.project_media(media) for block in self.blocks)  # type: ignore[operator]

    def forward(
        self,
        input_ids: Tensor,
        *,
        images: Images | None = None,
        visual: Tensor | None = None,
        media: Media | None = None,
        image_rows: Tensor | None = None,
        phi: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        places: Tensor | None = None,
    ) -> Output:
        """Logits, and the loss where there are labels.

        Images come as pixels (`images`), as `encode_images` gave them (`visual`), or as `project_media` gave them
        (`media`). `image_rows` [B, N] says which of the M images is in which slot of a sequence, -1 for none: an
        image that several sequences show is encoded once, and padding is not encoded at all.
        `phi` [B, L] or [B, L, 2] is of `masking`. `labels` [B, L] are as in transformers: unshifted, -100 is ignored.
        With `past_key_values` only the new tokens are given, and `phi` for them; `attention_mask` is for all.
        `places` [P] names the only tokens whose logits are wanted; see `targets`. The loss is the same with
        `places=target_places(labels)`, and cheaper.
        """
        blocks, seen = self._conditioning(images, visual, media, image_rows, phi)
        options: dict[str, Any] = {"attention_mask": attention_mask, "use_cache": use_cache}
        if past_key_values is not None:
            options["past_key_values"] = past_key_values
        if position_ids is None:
            position_ids = positions(attention_mask, input_ids.shape[1])
        if position_ids is not None and self.decoder.takes_positions:
            options["position_ids"] = position_ids
        layers = self._layers(blocks, seen)
        call = Call(
            layers=layers,
            embed=self.new_tokens.embed,
            before=self._before_head(blocks, seen, attention_mask, places),
            after=self.new_tokens.logits,
        )
        logits, past = self.decoder.run(self.lm, input_ids, call, options)
        if places is not None:
            logits = logits.squeeze(0)  # a view in the backward pass too, where an index would zero and copy
        loss_sum, loss_tokens = (None, None) if labels is None else token_loss(logits, labels, places)
        return Output(
            logits=logits, loss_sum=loss_sum, loss_tokens=loss_tokens, past_key_values=past if use_cache else None
        )

    def _conditioning(
        self,
        images: Images | None,
        visual: Tensor | None,
        media: Media | None,
        image_rows: Tensor | None,
        phi: Tensor | None,
    ) -> tuple[Media, View | None]:
        if images is not None:
            if len(images) == 0 and self.training:
                images = self._blank()
            visual = self.encode_images(images) if len(images) else None
        none: Media = [None] * len(self.blocks)
        if media is None and visual is None:
            return none, None
        if image_rows is None or phi is None:
            raise ValueError("images need image_rows (which image in which slot) and phi (which token sees which)")
        if not image_rows.shape[1]:
            image_rows = image_rows.new_full((len(image_rows), 1), -1)
        if media is None:
            assert visual is not None
            media = [self.place(visual, image_rows)] * len(self.blocks)
        if not media:
            return none, None
        first = media[0]
        keys = first[0] if isinstance(first, tuple) else first
        assert keys is not None
        per_image = keys.shape[-2] // image_rows.shape[1]
        return media, masking.view(phi, image_rows >= 0, per_image)

    def _blank(self) -> Tensor:
        """One image that nobody sees: all ranks must run the same modules, also the one whose batch is all text."""
        like = next(self.vision.parameters())
        size = self.vision.image_size
        return torch.zeros(1, 1, 3, size, size, device=like.device, dtype=like.dtype)

    # Into the language model

    def _layers(self, media: Media, seen: View | None) -> list[Any]:
        """The language model's layers as this call sees them: with our blocks before or in them."""
        layers: list[Any] = list(self.decoder.layers(self.lm))
        vanilla = self.config.cross_attention.kind == "vanilla"
        for index, block, seen_by_block in zip(
            self.conditioned, self.blocks, media, strict=False
        ):  # grafting has no such layers
            wrap = self._after_attention if vanilla else self._before
            layers[index] = wrap(block, layers[index], seen_by_block, seen)
        if self.checkpointing and torch.is_grad_enabled():
            layers = [Bound(layer, _recomputed) for layer in layers]
        return layers

    @staticmethod
    def _before(block: nn.Module, layer: nn.Module, media: Any, seen: View | None) -> Bound:
        """Gated cross-attention, then the frozen layer."""

        def call(layer: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            return layer(block(x, media, seen), *args, **kwargs)

        return Bound(layer, call)

    @staticmethod
    def _after_attention(block: nn.Module, layer: nn.Module, media: Any, seen: View | None) -> Bound:
        """Cross-attention between the frozen self-attention and the frozen feed-forward.

        What the block adds to the stream is added to what self-attention adds: the layer does the rest as ever. In
        layers that run both halves in parallel (GPT-NeoX) the feed-forward of the same layer does not see it.
        """
        path = language.attention_path(layer)

        def call(layer: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Any:
            def attend(attention: nn.Module, *args: Any, **kwargs: Any) -> Any:
                found = attention(*args, **kwargs)
                first = found[0] if isinstance(found, tuple) else found
                first = first + block(x + first, media, seen)
                return (first, *found[1:]) if isinstance(found, tuple) else first

            attention = Bound(layer.get_submodule(path), attend)
            return language.rewired(layer, {path: attention})(x, *args, **kwargs)

        return Bound(layer, call)

    def _before_head(
        self, media: Media, seen: View | None, attention_mask: Tensor | None, places: Tensor | None
    ) -> Callable[[Tensor], Tensor]:
        graft = self.config.cross_attention.kind == "grafting"

        def call(hidden: Tensor) -> Tensor:
            if graft:
                causal = masking.causal(hidden.shape[1], attention_mask, hidden.device)
                for block, seen_by_block in zip(self.blocks, media, strict=True):
                    hidden = block(hidden, seen_by_block, seen, causal)
            return hidden if places is None else hidden.flatten(0, 1)[places][None]

        return call


def _recomputed(layer: Any, *args: Any, **kwargs: Any) -> Any:
    return checkpoint(layer, *args, use_reentrant=False, **kwargs)


def positions(attention_mask: Tensor | None, length: int) -> Tensor | None:
    """[B, L]: places of the last `length` tokens, not counting padding. None for masks that are not [B, ...]."""
    if attention_mask is None or attention_mask.ndim != 2:
        return None
    return (attention_mask.long().cumsum(1) - 1).clamp(min=0)[:, -length:]


def build(config: FlamingoConfig, *, lm: nn.Module | None = None) -> Flamingo:
    """Everything as the configuration names it; with `lm`, on that language model."""
    return Flamingo(config, vision.build(config.vision), lm if lm is not None else language.build(config.language))
