"""How many floating-point operations a batch takes: the model's own, by formula, for MFU and for predictions.

Two for each weight and token, and those of attention. Counted are the sums that the mathematics needs: recomputing
activations adds none. Norms, activations and softmax are left out, as torch's FlopCounterMode leaves them out.
"""

from dataclasses import dataclass

from model.flamingo import Flamingo
from model.language import attention_width


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The shapes that matter: B sequences of L tokens with N image slots, and M distinct images of T frames."""

    sequences: int
    tokens: int
    slots: int
    images: int
    frames: int = 1
    places: int | None = None  # tokens of the batch whose logits are made; None: all


@dataclass(frozen=True, slots=True)
class Flops:
    """Operations of one pass over a batch. `backward` is zero for what needs no gradient."""

    forward: int = 0
    backward: int = 0

    @property
    def total(self) -> int:
        return self.forward + self.backward

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.forward + other.forward, self.backward + other.backward)

    def __mul__(self, times: int) -> "Flops":
        return Flops(self.forward * times, self.backward * times)


def flops_per_batch(model: Flamingo, batch: Batch) -> Flops:
    """Forward and backward of one batch. Gradients go only where something below them is trained."""
    patches, frame = model.vision.frame
    shown = batch.images * batch.frames
    vision = Flops(frame * shown, 2 * frame * shown if model.config.vision.train else 0)
    resampler, per_image = _resampler(model, batch.frames * patches)
    return vision + resampler * batch.images + _text(model, batch, per_image * batch.slots)


def _linear(weights: int, tokens: int, *, input_grad: bool = True, weight_grad: bool = True) -> Flops:
    return Flops(2 * weights * tokens, 2 * weights * tokens * (input_grad + weight_grad))


def _attention(queries: int, keys: int, inner: int, *, grad: bool = True) -> Flops:
    """Scores and their use. Every key counts, masked or not: that is what is computed. Backward: four products."""
    forward = 4 * queries * keys * inner
    return Flops(forward, 2 * forward * grad)


def _resampler(model: Flamingo, patches: int) -> tuple[Flops, int]:
    """For one image: operations, and how many visual tokens it becomes."""
    config, resampler = model.config.resampler, model.resampler
    width, inner = config.width, config.heads * config.head_dim
    flops = Flops()
    if resampler.project is not None:
        flops += _linear(resampler.project.weight.numel(), patches, input_grad=model.config.vision.train)
    if resampler.mix is not None:
        return flops + _linear(2 * resampler.mix.up.weight.numel(), 1), config.latents
    perceiver = config.kind == "perceiver"
    queries = config.latents if perceiver else patches
    keys = patches + queries if perceiver else patches
    layer = _linear(2 * width * inner + 2 * config.ff_mult * width * width, queries)
    layer += _linear(2 * width * inner, keys) + _attention(queries, keys, inner)
    return flops + layer * config.depth, queries


def _block(model: Flamingo, batch: Batch, visual: int, *, input_grad: bool) -> Flops:
    """One new layer; `visual`: visual tokens of a sequence."""
    config, width = model.config.cross_attention, model.config.language.width
    inner, text = config.heads * config.head_dim, batch.sequences * batch.tokens
    flops = Flops()
    if config.kind == "grafting":
        flops += _linear(4 * width * inner, text) + _attention(text, batch.tokens, inner)
    if batch.images:
        flops += _linear(width * inner, text, input_grad=input_grad) + _linear(width * inner, text)
        flops += _linear(2 * model.config.resampler.width * inner, batch.sequences * visual)
        flops += _attention(text, visual, inner)
    if config.kind != "vanilla":
        flops += _linear(2 * config.ff_mult * width * width, text)
    return flops


def _text(model: Flamingo, batch: Batch, visual: int) -> Flops:
    """The language model with the new layers between: gradients start at the lowest thing that is trained."""
    language, text = model.config.language, batch.sequences * batch.tokens
    layers = model.decoder.layers(model.lm)
    inner = attention_width(model.lm)
    flops = Flops()
    reached = language.train or (language.train_new_tokens and language.new_tokens > 0)
    for index, layer in enumerate(layers):
        if index in model.conditioned:
            flops += _block(model, batch, visual, input_grad=reached)
            reached = True
        weights = sum(p.numel() for p in layer.parameters() if p.ndim > 1)
        flops += _linear(weights, text, input_grad=reached, weight_grad=language.train)
        flops += _attention(text, batch.tokens, inner, grad=reached)
    for _ in range(len(model.blocks) - len(model.conditioned)):
        flops += _block(model, batch, visual, input_grad=reached)
        reached = True
    places = text if batch.places is None else batch.places
    head = model.decoder.head_weight(model.lm).numel()
    flops += _linear(head, places, input_grad=reached, weight_grad=language.train)
    trained = language.train_new_tokens
    return flops + _linear(model.new_tokens.weight.numel(), places, input_grad=reached, weight_grad=trained)
