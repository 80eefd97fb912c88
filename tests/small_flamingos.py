"""Flamingos of a few thousand parameters on random language models of every family, and batches for them."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from first_mpt import FirstMpt, FirstMptConfig
from torch import Tensor, nn

from model import config as configs
from model import masking
from model.config import FlamingoConfig
from model.flamingo import Flamingo
from model.vision import VisionTower

IMAGE, VOCABULARY, WIDTH, LAYERS = 97, 96, 32, 4  # ids 96 and 97 are the two new tokens


def language_model(family: str, *, seed: int = 0, table: int = 100) -> Any:
    """A random model of a family. Its table has a few rows more than the tokenizer has tokens, as real ones do."""
    import transformers as t

    kw: dict[str, Any] = {
        "vocab_size": table, "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    grouped = kw | {"intermediate_size": 48, "num_key_value_heads": 2}
    special = {"bos_token_id": 0, "eos_token_id": 1}
    make: dict[str, Any] = {
        "opt": lambda: t.OPTConfig(ffn_dim=48, word_embed_proj_dim=WIDTH, **kw),
        "gpt_neox": lambda: t.GPTNeoXConfig(intermediate_size=48, **kw),
        "mpt": lambda: t.MptConfig(
            d_model=WIDTH, n_layers=LAYERS, n_heads=4, expansion_ratio=2, vocab_size=table, max_seq_len=128, **special
        ),
        "llama": lambda: t.LlamaConfig(**grouped),
        "mistral": lambda: t.MistralConfig(sliding_window=64, **grouped),
        "qwen2": lambda: t.Qwen2Config(**grouped),
        "qwen3": lambda: t.Qwen3Config(head_dim=8, **grouped),
        "gpt2": lambda: t.GPT2Config(
            n_embd=WIDTH, n_layer=LAYERS, n_head=4, vocab_size=table, n_positions=128, **special
        ),
    }
    torch.manual_seed(seed)
    if family == "first_mpt":
        return FirstMpt(FirstMptConfig(d_model=WIDTH, n_layers=LAYERS, vocab_size=table)).eval()
    auto: Any = t.AutoModelForCausalLM
    return auto.from_config(make[family]()).eval()


FAMILIES = ("opt", "gpt_neox", "mpt", "llama", "mistral", "qwen2", "qwen3", "gpt2", "first_mpt")


class PatchTower(VisionTower):
    """A tower that is one convolution, for any size of image."""

    def features(self, frames: Tensor) -> Tensor:
        found: Tensor = self.trunk(frames)
        return found.flatten(2).transpose(1, 2)


def tower(config: FlamingoConfig) -> PatchTower:
    return PatchTower(nn.Conv2d(3, config.vision.width, 8, 8), config.vision, (0.5,) * 3, (0.5,) * 3)


def flamingo(family: str = "llama", config: FlamingoConfig | None = None, *, seed: int = 0, gates: float = 0.0) -> Any:
    """`gates`: what tanh gates hold; above zero, images matter."""
    config = config or configs.tiny()
    lm = language_model(family, seed=seed)
    torch.manual_seed(seed + 1)
    model = Flamingo(config, tower(config), lm).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("gate.value"):
                parameter.fill_(gates)
    return model


@dataclass
class Batch:
    """0, 1 and 3 images in sequences of 12 tokens; image rows of 4 distinct images, one shown twice."""

    input_ids: Tensor
    images: Tensor
    image_rows: Tensor
    phi: Tensor
    labels: Tensor

    def arguments(self) -> dict[str, Any]:
        return dict(vars(self))


def batch(*, seed: int = 5, frames: int = 1, **changes: Any) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (3, 12), generator=generator)
    ids[1, 4] = IMAGE
    ids[2, [0, 3, 8]] = IMAGE
    rows = torch.tensor([[-1, -1, -1], [0, -1, -1], [1, 0, 2]])
    images = torch.randn(3, frames, 3, 16, 16, generator=generator)
    labels = torch.where(ids == IMAGE, -100, ids)
    made = Batch(ids, images, rows, masking.visible(ids, IMAGE), labels)
    return replace(made, **changes)
