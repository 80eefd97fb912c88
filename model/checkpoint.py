"""Checkpoints of one's own: a safetensors file of what is not somebody else's frozen weights, and whose those were.

The file's metadata holds the configuration and, for the language model and the vision encoder, name, revision and a
fingerprint. Loading compares all of it and lists what does not fit.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import (
    CrossAttentionConfig,
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    VisionConfig,
)
from model.flamingo import Flamingo

FORMAT = 1
METADATA = "flamingo"
_SAMPLE = 4096


class CheckpointError(ValueError):
    """A checkpoint that does not fit the model, with everything that does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which frozen weights: as they were asked for, and what they hold."""

    name: str | None
    revision: str | None
    fingerprint: str


def fingerprint(module: nn.Module) -> str:
    """Names, shapes and evenly spaced values of all parameters, the same in fp32 and bf16, in a moment for any size.

    It tells one model from another. It is no proof against tampering: that would read every byte.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(module.named_parameters()):
        flat = parameter.detach().flatten()
        step = -(-flat.numel() // _SAMPLE) or 1
        values = flat[::step].to(torch.bfloat16).cpu().contiguous().view(torch.uint8)
        digest.update(f"{name} {tuple(parameter.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def identities(model: Flamingo) -> dict[str, Identity]:
    """Of the parts that are frozen. A part that is trained is in the checkpoint itself."""
    config = model.config
    found = {}
    if not config.language.train:
        lm: Any = model.lm
        revision = getattr(lm.config, "_commit_hash", None)
        found["language"] = Identity(
            name=config.language.name or getattr(lm.config, "_name_or_path", None) or None,
            revision=revision,
            fingerprint=fingerprint(model.lm),
        )
    if not config.vision.train:
        found["vision"] = Identity(
            name=config.vision.name, revision=config.vision.pretrained, fingerprint=fingerprint(model.vision)
        )
    return found


def own_state(model: Flamingo) -> dict[str, Tensor]:
    """Everything but the frozen language model and vision encoder: also new layers that are frozen for now."""
    frozen = [
        part
        for part, train in (("lm.", model.config.language.train), ("vision.", model.config.vision.train))
        if not train
    ]
    state = model.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.startswith(tuple(frozen))}


def save(model: Flamingo, path: str | Path, *, notes: Mapping[str, str] | None = None) -> None:
    """Write `path` as one safetensors file, whole or not at all. `notes` are the caller's own metadata."""
    write(path, own_state(model), model.config, identities(model), notes)


def write(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: FlamingoConfig,
    frozen: Mapping[str, Identity],
    notes: Mapping[str, str] | None = None,
) -> None:
    """The same of a state at hand: of a model whose tensors were gathered from many processes."""
    from safetensors.torch import save_file

    about = {
        "format": FORMAT,
        "config": asdict(config),
        "frozen": {part: asdict(identity) for part, identity in frozen.items()},
        "notes": dict(notes or {}),
    }
    # Tied tables of a trained language model are one storage, which the format forbids: copies are saved.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    target = Path(path)
    temporary = target.with_name(f".{target.name}.partial")
    # One entry: the library writes several in an order of its own, another one each time.
    save_file(copies, temporary, metadata={METADATA: json.dumps(about)})
    os.replace(temporary, target)


def read_config(path: str | Path) -> FlamingoConfig:
    """The configuration of the model that a checkpoint is of."""
    return config_from(_about(path)["config"])


def config_from(values: Mapping[str, Any]) -> FlamingoConfig:
    """What `dataclasses.asdict` made, back into the configuration."""
    try:
        return FlamingoConfig(
            vision=VisionConfig(**values["vision"]),
            resampler=ResamplerConfig(**values["resampler"]),
            cross_attention=CrossAttentionConfig(**values["cross_attention"]),
            language=LanguageConfig(**values["language"]),
        )
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"not a configuration that this version knows: {error}") from error


def _about(path: str | Path) -> dict[str, Any]:
    """What a file says of itself. Raises CheckpointError for other files."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {}).get(METADATA, "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if about.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {about.get('format')}, this version reads {FORMAT}")
    return about


def load(model: Flamingo, path: str | Path, *, same_frozen: bool = True) -> None:
    """Fill a model of the same configuration. `same_frozen` False lets other frozen weights of the same shapes pass."""
    from safetensors.torch import load_file

    about = _about(path)
    faults = _config_faults(asdict(model.config), about["config"])
    if same_frozen:
        faults += _identity_faults(identities(model), about["frozen"])
    state, own = load_file(path), own_state(model)
    faults += [f"missing: {name}" for name in own if name not in state]
    faults += [f"unexpected: {name}" for name in state if name not in own]
    faults += [
        f"{name}: {list(state[name].shape)} in the checkpoint, {list(tensor.shape)} in the model"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if faults:
        more = f"\n  and {len(faults) - 30} more" if len(faults) > 30 else ""
        raise CheckpointError(f"{path} does not fit the model\n  " + "\n  ".join(faults[:30]) + more)
    model.load_state_dict(state, strict=False)


# What says how weights came or are trained further, and not what they mean.
_FREE = {"vision.pretrained", "vision.name", "language.name", "language.pretrained", "language.train_new_tokens"}


def _config_faults(here: Mapping[str, Any], there: Mapping[str, Any]) -> list[str]:
    ours, theirs = _flat(here), _flat(there)
    return [
        f"{name}: {theirs.get(name)!r} in the checkpoint, {ours.get(name)!r} in the model"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name) and name not in _FREE
    ]


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{part}.{name}": value for part, fields in values.items() for name, value in fields.items()}


def _identity_faults(here: Mapping[str, Identity], there: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"frozen {part}: trained beside {there[part]['name']} ({there[part]['revision'] or 'no revision'}), "
        f"the model has other weights ({identity.name})"
        for part, identity in here.items()
        if part in there and there[part]["fingerprint"] != identity.fingerprint
    ]
