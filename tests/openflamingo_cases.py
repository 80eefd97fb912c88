"""Models that OpenFlamingo's code and ours both build: the same weights from one rule, the same inputs.

tests/data/openflamingo/make.py runs OpenFlamingo's own code on these cases and stores what it answers. No weights are
stored: every tensor is filled from its own name by numpy's RandomState, whose streams are frozen for good.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

BASE = 64
"""Token ids below this are the language model's own."""
ENDOFCHUNK, IMAGE, PAD = BASE, BASE + 1, BASE + 2
TOKENS = BASE + 3
"""Rows of the table after OpenFlamingo resized it to its tokenizer's length."""
VISION_WIDTH = 32
VISION = {"image_size": 16, "layers": 2, "width": VISION_WIDTH, "head_width": 16, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
"""open_clip's settings of a tiny ViT: four patches a picture."""
PICTURE = (3, 16, 16)
OLD_NAMES = {"gpt_neox.lm_head.weight": "gpt_neox.embed_out.weight"}
"""What transformers 5 renamed."""
NEW_TOKENS = 8
"""How many tokens the stored generations have at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One language model, one placement, one batch. `images` is how many images each row of the batch has."""

    name: str
    family: str
    every: int
    images: tuple[int, ...]
    settings: Mapping[str, object] = field(default_factory=dict)


_OPT = {
    "vocab_size": BASE,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 4,
    "ffn_dim": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "dropout": 0.0,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
_NEOX = {
    "vocab_size": BASE,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "rotary_pct": 1.0,
    "max_position_embeddings": 64,
    "use_parallel_residual": False,
    "tie_word_embeddings": False,
}
_LLAMA = {
    "vocab_size": BASE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
# As in OpenFlamingo-3B and 9B: the table is padded beyond the tokenizer, so that OpenFlamingo cuts it.
_MPT = {"vocab_size": BASE + 8, "d_model": 32, "n_layers": 4, "n_heads": 4, "max_seq_len": 64}

SETTINGS: Mapping[str, Mapping[str, object]] = {"opt": _OPT, "gpt_neox": _NEOX, "llama": _LLAMA, "mpt": _MPT}

CASES = tuple(
    Case(name=f"{family}_every{every}_{label}", family=family, every=every, images=images, settings=SETTINGS[family])
    for family, every in (("opt", 1), ("opt", 2), ("gpt_neox", 2), ("llama", 1), ("mpt", 1), ("mpt", 2))
    for label, images in (("mixed", (3, 1, 0)), ("none", (0, 0)))
)
"""Three images, one and none in one batch padded on the left; and a batch without any image."""


def normal(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers that depend on `name` and `shape` alone."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(stream.standard_normal(shape).astype(np.float32))


def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """What a parameter called `name` holds: scales near one, open gates, small weights."""
    noise = normal(name, shape)
    if name.endswith("_gate"):
        return 0.8 + 0.2 * noise
    if len(shape) == 1 and name.endswith("weight"):
        return 1 + 0.1 * noise
    return (0.1 if "emb" in name or "wte" in name else 0.3) * noise


def fill(module: torch.nn.Module, prefix: str) -> None:
    """Give every parameter of `module` the value of its name after `prefix`."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            name = OLD_NAMES.get(prefix + name, prefix + name)
            parameter.copy_(value(name, tuple(parameter.shape)))


def new_rows(table: str, width: int) -> torch.Tensor:
    """Rows of the ids BASE to TOKENS in `table`, "input" or "output": (TOKENS - BASE, width)."""
    return value(f"new_rows.{table}", (TOKENS - BASE, width))


def language_config(family: str, settings: Mapping[str, object]) -> object:
    """The transformers configuration of a case's language model."""
    import transformers

    names = {"opt": "OPTConfig", "gpt_neox": "GPTNeoXConfig", "llama": "LlamaConfig", "mpt": "MptConfig"}
    return getattr(transformers, names[family])(**settings)


def language_model(family: str, settings: Mapping[str, object]) -> torch.nn.Module:
    """The tiny language model of a case, in float32, with the rule's weights."""
    import transformers

    names = {"opt": "OPT", "gpt_neox": "GPTNeoX", "llama": "Llama", "mpt": "Mpt"}
    config = language_config(family, settings)
    model: torch.nn.Module = getattr(transformers, names[family] + "ForCausalLM")(config).float().eval()
    fill(model, f"{family}.")
    return model


def vision_model() -> torch.nn.Module:
    """A tiny open_clip model whose picture tower has the rule's weights."""
    from open_clip.model import CLIP

    model: torch.nn.Module = CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT).eval()
    fill(model.visual, "vision.")
    model.visual.output_tokens = True
    return model


def pixels(case: Case) -> torch.Tensor:
    """(batch, images, 1, 3, height, width): at least one picture a row, as OpenFlamingo wants it."""
    return normal(f"{case.name}.pixels", (len(case.images), max(*case.images, 1), 1, *PICTURE))


def _row(case: Case, row: int, finished: bool) -> list[int]:
    stream = np.random.RandomState(zlib.crc32(f"{case.name}.{row}".encode()))
    ids = [int(token) for token in stream.randint(3, BASE, 4 + row)]
    for image in range(case.images[row]):
        last = image == case.images[row] - 1
        ids += [IMAGE, *(int(token) for token in stream.randint(3, BASE, 3 + image))]
        ids += [ENDOFCHUNK] if finished or not last else []
    return ids


def inputs(case: Case, *, finished: bool = True) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels, padded on the left; prompts end within a chunk if not `finished`."""
    rows = [_row(case, row, finished) for row in range(len(case.images))]
    length = max(map(len, rows)) + (case.images == (0, 0))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    # A row's first token follows nothing: what a padded place predicts is nobody's promise.
    first = (mask == 1) & (mask.cumsum(1) == 1)
    labels = ids.masked_fill((mask == 0) | first | (ids == IMAGE), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
