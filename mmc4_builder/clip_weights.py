"""Where a CLIP's weights are: shipped with the package, in a file, in the hub's cache, or on the hub."""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEFAULT = "ViT-L-14:openai"  # what MMC4 measured its thresholds with (MMC4 §3)
TINY = "tiny"  # ships with the package; knows the sample's toy world and nothing else

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
_PATIENCE = 5.0  # seconds for the hub to answer at all
REMEDY = (
    "Either download the weights where there is a network, copy the file here and name it as "
    "MODEL:/path/to/file (OpenAI's own weights need the -quickgelu variant, such as "
    "ViT-L-14-quickgelu:/path/to/open_clip_model.safetensors), "
    f"or use --clip {TINY}, which needs no download and knows only the sample"
)


class WeightsError(Exception):
    """A CLIP that cannot be loaded: what was looked for, where, and how to go on."""


def find(name: str = DEFAULT) -> Path:
    """The weights file behind a name, downloaded if need be; nothing is loaded. Raises WeightsError."""
    folder = folder_of(name)
    if folder:
        weights = folder / "open_clip_model.safetensors"
        if not weights.is_file():
            raise WeightsError(f"no {weights.name} in {folder}. {REMEDY}")
        return weights
    architecture, pretrained = parted(name)
    if not pretrained or architecture not in _known():
        raise WeightsError(
            f"{name!r} is neither {TINY!r} nor MODEL:TAG nor MODEL:FILE with a model that open_clip knows, "
            f"such as {DEFAULT}"
        )
    import open_clip

    config = open_clip.get_pretrained_cfg(architecture, pretrained)
    return _by_tag(name, config) if config else _local_file(architecture, pretrained)


def _known() -> list[str]:
    """Names of open_clip's models."""
    import open_clip  # several seconds, which no other name should wait for

    return list(open_clip.list_models())


def folder_of(name: str) -> Path | None:
    """The folder of the tiny CLIP or of a `local-dir:`, None for other names."""
    if name == TINY:
        return Path(__file__).parent / "sample" / "weights" / "tiny"
    schema, _, rest = name.partition(":")
    return Path(rest) if schema == "local-dir" else None


def parted(name: str) -> tuple[str, str]:
    """(model as open_clip spells it, tag or file)."""
    architecture, _, pretrained = name.partition(":")
    return architecture.replace("/", "-"), pretrained


def _local_file(architecture: str, pretrained: str) -> Path:
    import open_clip

    path = Path(pretrained).expanduser()
    if not path.is_file():
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(architecture))
        raise WeightsError(f"{pretrained!r} is no file and no tag of {architecture} (tags: {tags}). {REMEDY}")
    if path.suffix not in _SUFFIXES:
        raise WeightsError(f"weights must end in {', '.join(_SUFFIXES)}, got {path}")
    return path


def _by_tag(name: str, config: dict[str, Any]) -> Path:
    """The file behind a tag: from the hub's cache, else downloaded if the hub answers."""
    import open_clip

    if cached := _cached(config):
        return cached
    hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    place = config.get("hf_hub") or config.get("url") or "nowhere"
    looked = f"weights {name!r} ({place}) are not in the cache of the hub"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise WeightsError(f"{looked}, and HF_HUB_OFFLINE is set. {REMEDY}")
    if not _answers(hub):
        raise WeightsError(f"{looked}, and {hub} does not answer. {REMEDY}")
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # whatever the hub's client raises
        raise WeightsError(f"{looked}, and the download failed: {error}. {REMEDY}") from error


def _cached(config: dict[str, Any]) -> Path | None:
    """The file in the hub's cache, if it is there: safetensors before anything else, as open_clip does."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, file = str(config.get("hf_hub", "")).rpartition("/")
    file = file or "open_clip_pytorch_model.bin"
    names = dict.fromkeys(("open_clip_model.safetensors", f"{file.rpartition('.')[0]}.safetensors", file))
    for candidate in names if repository else ():
        found = try_to_load_from_cache(repository, candidate)
        if isinstance(found, str):
            return Path(found)
    return None


def _answers(url: str) -> bool:
    """Whether a connection can be opened within `_PATIENCE`; True behind a proxy, which only it can tell."""
    if any(os.environ.get(key) for key in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    parts, answers = urlsplit(url), list[bool]()

    def connect() -> None:
        with suppress(OSError), socket.create_connection((parts.hostname or "", port), timeout=_PATIENCE):
            answers.append(True)

    port = parts.port or (80 if parts.scheme == "http" else 443)
    # In a thread, because looking up a name knows no time limit.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    return bool(answers)
