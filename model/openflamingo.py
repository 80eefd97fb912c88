"""OpenFlamingo's checkpoints: into this model, and back out, with every key accounted for.

OpenFlamingo saves the resampler, the gated cross-attention blocks, and the language model's embeddings resized to its
tokenizer. Names are mapped one to one. What of the frozen language model is in the file is compared with the one that
is given, so that a checkpoint does not end up on a model that it was not trained with.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import language
from model import vision as towers
from model.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    VisionConfig,
    clip_vit_l14,
)
from model.flamingo import Flamingo
from model.language import Decoder, layer_count
from model.vision import VisionTower

HEAD_DIM = 64
"""Of OpenFlamingo's resampler and cross-attention. The number of heads follows from the shapes."""

_FEED_FORWARD = {"0": "norm", "1": "up", "3": "down"}
_RESAMPLER_ATTENTION = {
    "norm_media": "context_norm", "norm_latents": "norm", "to_q": "to_q", "to_kv": "to_kv", "to_out": "to_out"
}  # fmt: skip
_BLOCK = {
    **{f"attn.{part}": f"attention.{part}" for part in ("norm", "to_q", "to_kv", "to_out")},
    **{f"ff.{theirs}": f"ff.{ours}" for theirs, ours in _FEED_FORWARD.items()},
}
_GATES = {"attn_gate": "attention_gate.value", "ff_gate": "ff_gate.value"}
_RESAMPLER_LAYER = {
    **{f"0.{theirs}": f"attention.{ours}" for theirs, ours in _RESAMPLER_ATTENTION.items()},
    **{f"1.{theirs}": f"ff.{ours}" for theirs, ours in _FEED_FORWARD.items()},
}
_PLACED = re.compile(r"lang_encoder\.(.+)\.(\d+)\.gated_cross_attn_layer\.(.+)")
_BUFFERS = ("attention.bias", "attention.masked_bias", "attn.bias", "attn.masked_bias", "inv_freq", "causal_mask")
"""Ends of names of what older transformers saved beside parameters; it follows from the configuration."""
_RENAMED = {"gpt_neox": {"lm_head.weight": "embed_out.weight"}}
"""By `model_type`: what transformers 5 calls otherwise than transformers did in OpenFlamingo's time."""
_WRAPPERS = ("module.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.", "_orig_mod.")


class OpenFlamingoError(ValueError):
    """A checkpoint that does not fit the model, with what does not fit."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint: as released, or with optimizer and all as training saves it."""
    found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return unwrapped(found.get("model_state_dict", found))


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what DDP, FSDP, checkpointing and compile put into them."""
    plain = {}
    for name, tensor in state.items():
        for wrapper in _WRAPPERS:
            name = name.replace(wrapper, "")
        plain[name] = tensor
    # A whole state dict, not filtered, lists the language model's layers and the new ones twice.
    twice = ("lang_encoder.old_decoder_blocks.", "lang_encoder.gated_cross_attn_layers.", "vision_encoder.")
    return {name: tensor for name, tensor in plain.items() if not name.startswith(twice)}


def load_openflamingo(
    checkpoint: str | Path | Mapping[str, Tensor],
    lm: nn.Module,
    vision: VisionConfig | None = None,
    *,
    tower: VisionTower | None = None,
    new_tokens: int = 3,
) -> Flamingo:
    """OpenFlamingo's model, its configuration read off the checkpoint's shapes.

    `vision`: the encoder it was trained with; by default that of all released ones, CLIP ViT-L/14 before its last
    LayerNorm. `tower`: that encoder, if it is built already. `new_tokens`: how many OpenFlamingo added to the
    tokenizer: 3, or 2 where the tokenizer had a token for padding.
    """
    state = unwrapped(checkpoint) if isinstance(checkpoint, Mapping) else read(checkpoint)
    vision = vision or clip_vit_l14(final_norm=False)
    config = config_of(state, lm, vision, new_tokens)
    model = Flamingo(config, tower or towers.build(vision), lm)
    load_state(model, state)
    return model


def config_of(state: Mapping[str, Tensor], lm: nn.Module, vision: VisionConfig, new_tokens: int = 3) -> FlamingoConfig:
    """The configuration that fits a checkpoint; an error where the language model cannot be the one."""
    latents, width = _shape(state, "perceiver.latents")
    if width != vision.width:
        raise OpenFlamingoError(
            f"the checkpoint's visual tokens have width {width}, {vision.name} has {vision.width}: another encoder"
        )
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("perceiver.layers."))
    placed = _placement(state, lm)
    table = _table_name(lm)
    rows, lm_width = _shape(state, f"lang_encoder.{table}")
    block = f"lang_encoder.{placed.path}.{placed.every - 1}.gated_cross_attn_layer."
    _check_width(lm, lm_width, _shape(state, block + "ff.1.weight")[1])
    frames = len(state["perceiver.frame_embs"]) if "perceiver.frame_embs" in state else 0
    return FlamingoConfig(
        vision=vision,
        resampler=ResamplerConfig(
            width=width,
            depth=depth,
            heads=_shape(state, "perceiver.layers.0.0.to_q.weight")[0] // HEAD_DIM,
            head_dim=HEAD_DIM,
            latents=latents,
            latents_std=1.0,
            ff_mult=_shape(state, "perceiver.layers.0.1.1.weight")[0] // width,
            activation="gelu",
            frames=frames,
        ),
        cross_attention=CrossAttentionConfig(
            placement="last",
            every=placed.every,
            heads=_shape(state, block + "attn.to_q.weight")[0] // HEAD_DIM,
            head_dim=HEAD_DIM,
            ff_mult=_shape(state, block + "ff.1.weight")[0] // lm_width,
            activation="gelu",
            media_norm=False,
        ),
        language=LanguageConfig(
            name=getattr(lm.config, "_name_or_path", None) or None,
            layers=layer_count(lm),
            width=lm_width,
            vocab_size=rows - new_tokens,
            new_tokens=new_tokens,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placement:
    path: str  # of the list of decoder layers
    every: int


def _placement(state: Mapping[str, Tensor], lm: nn.Module) -> _Placement:
    """Where the checkpoint's blocks stand, checked against the language model."""
    found = [match for name in state if (match := _PLACED.fullmatch(name))]
    if not found:
        raise OpenFlamingoError("no gated cross-attention in this state dict: is it OpenFlamingo's?")
    paths = sorted({match[1] for match in found})
    ours = Decoder(lm).layers_path
    if paths != [ours]:
        raise OpenFlamingoError(
            f"the checkpoint's language model has its layers at {', '.join(paths)}, {type(lm).__name__} at {ours}: "
            "another family of language models"
        )
    indices, total = sorted({int(match[2]) for match in found}), layer_count(lm)
    every = indices[0] + 1
    if indices != list(range(every - 1, total, every)):
        raise OpenFlamingoError(
            f"the checkpoint has cross-attention before layers {indices}, which is not every {every} of the "
            f"{total} that {type(lm).__name__} has: another language model"
        )
    return _Placement(path=ours, every=every)


def _check_width(lm: nn.Module, table: int, block: int) -> None:
    own = _parameter(lm, _table_name(lm)).shape[1]
    if own != table or own != block:
        raise OpenFlamingoError(
            f"the checkpoint's language model has width {table} (its blocks {block}), {type(lm).__name__} has {own}: "
            "another language model"
        )


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise OpenFlamingoError(f"the checkpoint has no {name}: is it OpenFlamingo's, and of this language model?")
    return tuple(state[name].shape)


def _parameter(lm: nn.Module, name: str) -> Tensor:
    found: Tensor = lm.state_dict(keep_vars=True)[name]
    return found


def _table_name(lm: nn.Module) -> str:
    return _name_of(lm, language.table(lm))


def _head_name(lm: nn.Module) -> str:
    """Of the output table, which the input's may be."""
    return _name_of(lm, language.output_layer(lm) or language.table(lm))


def _name_of(lm: nn.Module, wanted: nn.Module) -> str:
    return next(f"{name}.weight" for name, module in lm.named_modules() if module is wanted)


def names(model: Flamingo) -> dict[str, str]:
    """Ours to theirs, for every parameter outside the language model's tables."""
    return {ours: theirs for ours, theirs in _pairs(model)}


def _pairs(model: Flamingo) -> Iterator[tuple[str, str]]:
    yield "resampler.latents", "perceiver.latents"
    if model.resampler.time is not None:
        yield "resampler.time", "perceiver.frame_embs"
    both = ("weight", "bias")
    for kind in both:
        yield f"resampler.norm.{kind}", f"perceiver.norm.{kind}"
    layers = len(model.resampler.layers)
    places = [(f"resampler.layers.{i}", f"perceiver.layers.{i}", _RESAMPLER_LAYER) for i in range(layers)]
    for number, layer in enumerate(model.conditioned):
        theirs = f"lang_encoder.{model.decoder.layers_path}.{layer}.gated_cross_attn_layer"
        places.append((f"blocks.{number}", theirs, _BLOCK))
        yield from ((f"blocks.{number}.{gate}", f"{theirs}.{name}") for name, gate in _GATES.items())
    for ours_at, theirs_at, parts in places:
        for theirs, ours in parts.items():
            kinds = both if "norm" in ours else both[:1]
            yield from ((f"{ours_at}.{ours}.{kind}", f"{theirs_at}.{theirs}.{kind}") for kind in kinds)


@torch.no_grad()
def load_state(model: Flamingo, state: Mapping[str, Tensor]) -> None:
    """Copy a checkpoint into a model of its configuration. Nothing is changed unless everything fits."""
    mapping, parameters = names(model), dict(model.named_parameters())
    tables = _tables(model)
    rest = {
        name: tensor
        for name, tensor in state.items()
        if name not in mapping.values() and name not in tables and not name.endswith(_BUFFERS)
    }
    missing = [name for name in mapping.values() if name not in state]
    missing += [name for name, table in tables.items() if table.required and name not in state]
    own = {f"lang_encoder.{_wrapped(model, name)}": t for name, t in model.lm.state_dict().items()}
    unexpected = [name for name in rest if name not in own]
    shapes = [
        f"{theirs}: {list(state[theirs].shape)} in the checkpoint, {list(parameters[ours].shape)} in the model"
        for ours, theirs in mapping.items()
        if theirs in state and state[theirs].shape != parameters[ours].shape
    ]
    _refuse(missing=missing, unexpected=unexpected, shapes=shapes)
    for name, tensor in rest.items():
        _compare(name, tensor, own[name])
    for name, table in tables.items():
        if name in state:
            _check_rows(name, state[name], table, model)
    for ours, theirs in mapping.items():
        parameters[ours].copy_(state[theirs])
    for name, table in tables.items():
        if name in state and table.new is not None:
            table.new.copy_(state[name][model.new_tokens.first :])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table of the language model: its frozen rows, and ours for the new tokens (None: the same as another's)."""

    old: Tensor
    new: Tensor | None
    required: bool


def _tables(model: Flamingo) -> dict[str, _Table]:
    """By OpenFlamingo's names. Its filter keeps a frozen output table only if "embed" is in its name."""
    new = model.new_tokens
    table, head = _table_name(model.lm), _head_name(model.lm)
    found = {f"lang_encoder.{table}": _Table(old=_parameter(model.lm, table), new=new.weight, required=True)}
    if head != table:
        theirs = _wrapped(model, head)
        required = "embed" in theirs and new.output is not None
        found[f"lang_encoder.{theirs}"] = _Table(old=_parameter(model.lm, head), new=new.output, required=required)
    return found


def _wrapped(model: Flamingo, name: str) -> str:
    """A name of the language model's own, as it is once OpenFlamingo has wrapped its layers."""
    config: Any = model.lm.config
    name = _RENAMED.get(config.model_type, {}).get(name, name)
    return re.sub(rf"^({re.escape(model.decoder.layers_path)}\.\d+)\.", r"\1.decoder_layer.", name)


def _refuse(**faults: list[str]) -> None:
    if not any(faults.values()):
        return
    lines = []
    for kind, found in faults.items():
        if found:
            shown = "\n  ".join(found[:20]) + (f"\n  and {len(found) - 20} more" if len(found) > 20 else "")
            lines.append(f"{kind} ({len(found)}):\n  {shown}")
    raise OpenFlamingoError("the checkpoint does not fit the model\n" + "\n".join(lines))


def _check_rows(name: str, found: Tensor, table: _Table, model: Flamingo) -> None:
    first, total = model.new_tokens.first, model.new_tokens.first + model.new_tokens.count
    if found.shape != (total, table.old.shape[1]):
        raise OpenFlamingoError(
            f"{name} has shape {list(found.shape)} in the checkpoint, {[total, table.old.shape[1]]} is wanted"
        )
    _compare(name, found[:first], table.old[:first])


def _compare(name: str, found: Tensor, own: Tensor) -> None:
    """What was frozen in training must be what the language model has, but for the precision that it is loaded in."""
    if found.shape != own.shape:
        raise OpenFlamingoError(
            f"{name} has shape {list(found.shape)} in the checkpoint and {list(own.shape)} in the language model: "
            "another language model"
        )
    if own.is_meta or not own.is_floating_point():
        return
    here, there = own.detach().float().cpu(), found.float()
    if float((here - there).square().mean().sqrt()) > 0.01 * float(there.square().mean().sqrt()) + 1e-12:
        raise OpenFlamingoError(
            f"the frozen part of {name} is not what the language model has: another language model of the same "
            "shape (base for instruction-tuned, or the reverse?)"
        )


def to_openflamingo(model: Flamingo) -> dict[str, Tensor]:
    """The checkpoint as OpenFlamingo would have saved it; its own code loads it with `strict=False`, as ever."""
    cross = model.config.cross_attention
    if cross.kind != "gated_dense" or cross.placement != "last" or cross.media_norm or not cross.gate:
        raise OpenFlamingoError("OpenFlamingo has gated dense blocks at layers n-1, 2n-1..., without media_norm")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    mapping = names(model)
    rest = [
        name for name in parameters if not name.startswith(("vision.", "lm.", "new_tokens.")) and name not in mapping
    ]
    if rest:
        raise OpenFlamingoError(f"OpenFlamingo has no place for {', '.join(rest)}")
    state = {theirs: parameters[ours] for ours, theirs in mapping.items()}
    for name, table in _tables(model).items():
        new = model.new_tokens.weight if table.new is None else table.new
        if table.new is None or table.required:
            state[name] = torch.cat([table.old[: model.new_tokens.first].to(new.dtype), new]).detach()
    for name, tensor in model.lm.state_dict().items():
        theirs = f"lang_encoder.{_wrapped(model, name)}"
        if "embed" in name and theirs not in state:
            state[theirs] = tensor
    return state
