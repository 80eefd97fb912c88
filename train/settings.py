"""The configuration beside a run's output, so that a folder is gone on with only by the run that it is of."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model.config import ConfigError
from train.config import TrainConfig

NAME = "config.json"
MAY_CHANGE = ("steps", "save_every", "keep", "validate_every", "log_every", "parallel.")
"""What says how long, how often and on what, and not what is trained."""
PLACES = ("model.vision.name", "model.vision.pretrained", "model.language.name", ".path")
"""Where things lie: they may be moved. Whether frozen weights are the same ones is the checkpoint's to check."""


def to_json(config: TrainConfig) -> dict[str, Any]:
    """Everything that is decided, by name; datasets say what they are."""
    values = asdict(config)
    for dataset, made in zip(values["datasets"], config.datasets, strict=True):
        dataset["kind"] = {"is": type(made.kind).__name__, **dataset["kind"]}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def to_text(config: TrainConfig) -> str:
    return json.dumps(to_json(config), indent=1)


def keep(config: TrainConfig, folder: Path) -> None:
    """Write it, or compare it with what is there. Raises ConfigError that lists what differs."""
    path = folder / NAME
    if path.is_file():
        try:
            there = json.loads(path.read_text())
        except ValueError as error:
            raise ConfigError(f"{path} is no configuration ({error}): name another --output") from error
        if faults := differences(there, to_json(config)):
            raise ConfigError(
                f"{folder} holds another run: name another --output, or ask for what it is\n  " + "\n  ".join(faults)
            )
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{NAME}.partial")
    temporary.write_text(to_text(config) + "\n")
    os.replace(temporary, path)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One line for each setting that makes it another run."""
    theirs, ours = dict(_flat(there)), dict(_flat(here))
    return [
        f"{name}: {theirs.get(name)!r} there, {ours.get(name)!r} asked for"
        for name in sorted(theirs.keys() | ours.keys())
        if theirs.get(name) != ours.get(name) and not name.startswith(MAY_CHANGE) and not name.endswith(PLACES)
    ]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        parts: Any = value.items()
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        parts = ((part.get("name", index), part) for index, part in enumerate(value))
    else:
        yield name, value
        return
    for key, part in parts:
        yield from _flat(part, f"{name}.{key}" if name else str(key))
