"""AdamW as the paper has it: which weights decay, and the rate of each update."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from model.flamingo import Flamingo
from train.config import OptimizerConfig


def rate(step: int, config: OptimizerConfig) -> float:
    """Of update `step`, counted from 0: a linear warm-up, then constant."""
    return config.rate * min(1.0, (step + 1) / max(1, config.warmup))


def trained(model: Flamingo) -> dict[str, nn.Parameter]:
    """By name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def decays(model: Flamingo) -> set[str]:
    """Names of the weights that decay: matrices of the new blocks.

    Not the resampler, norms, gates and new tokens (paper B.1.2; OpenFlamingo). Of a language model or a vision encoder
    that is trained, which the paper's ablations do and say nothing about, matrices decay and embeddings do not.
    """
    matrices = {f"{name}.{kind}" for name, kind in _matrices(model)}
    return {name for name in trained(model) if name in matrices and not name.startswith("resampler.")}


def _matrices(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Weights that multiply: not the tables of embeddings, nor the embeddings that are parameters by themselves."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) or name in ("", "new_tokens"):
            continue
        for kind, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2 and kind.endswith("weight"):
                yield name, kind


def build(model: Flamingo, config: OptimizerConfig) -> torch.optim.AdamW:
    """Two groups, and the state that the first update would make: a checkpoint has a place to load into."""
    weights, decaying = trained(model), decays(model)
    if not weights:
        raise ValueError("nothing of the model is trained")
    device = next(iter(weights.values())).device
    groups = [
        {"params": [p for n, p in weights.items() if n in decaying], "weight_decay": config.weight_decay},
        {"params": [p for n, p in weights.items() if n not in decaying], "weight_decay": 0.0},
    ]
    fused = device.type == "cuda"
    options: dict[str, Any] = {"fused": True} if fused else {"foreach": True}
    optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.rate, betas=config.betas, **options)
    for parameter in weights.values():
        optimizer.state[parameter] = {
            "step": torch.zeros((), device=device if fused else "cpu"),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value
