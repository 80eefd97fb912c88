"""Named training runs: functions from where the data is to a whole configuration. A variant is one more function.

# my.py, for `mmc4-train --config my.py:mine`
from dataclasses import replace
from model import config as ablations
from train import recipes

def mine(data):
    base = recipes.openflamingo_3b(data)
    return replace(base, model=ablations.no_tanh_gate(base.model), mixing="round_robin")
"""

import runpy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from model import config as models
from model.config import (
    ConfigError,
    CrossAttentionConfig,
    FlamingoConfig,
    LanguageConfig,
    ResamplerConfig,
    VisionConfig,
)
from train.config import (
    DatasetConfig,
    ImagesConfig,
    InterleavedConfig,
    OptimizerConfig,
    PairsConfig,
    ParallelConfig,
    TrainConfig,
    VideosConfig,
)

SAMPLE_WEIGHTS = Path(models.__file__).parents[1] / "mmc4_builder" / "sample" / "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where the data is. Any one of them will do."""

    interleaved: str | None = None
    pairs: str | None = None
    videos: str | None = None


Recipe = Callable[[Data], TrainConfig]


def tiny(data: Data) -> TrainConfig:
    """The sample's shards, the shipped toy CLIP and toy language model: minutes on two CPU cores.

    Windows are short, so that an update has many pictures. Gates begin open: a few hundred updates are too few to open
    them. New feed-forwards would learn seven hundred sentences by heart: the vanilla layers have none.
    """
    interleaved = InterleavedConfig(tokens=64, max_images=4, keep_single=1.0)
    return TrainConfig(
        model=tiny_model(),
        datasets=mixture(
            data, interleaved=(interleaved, 1.0, 32), pairs=(PairsConfig(), 0.2, 32), videos=(VideosConfig(), 0.03, 4),
            held_out=8,
        ),
        images=ImagesConfig(fit="squash"),
        optimizer=OptimizerConfig(rate=3e-3, warmup=20),
        steps=300,
        save_every=100,
        validate_every=25,
    )  # fmt: skip


def tiny_model() -> FlamingoConfig:
    """On what ships with the package. It knows the sample's toy world and nothing else."""
    return FlamingoConfig(
        vision=VisionConfig(
            library="open_clip", name=f"local-dir:{SAMPLE_WEIGHTS / 'tiny'}", pretrained=None, width=96, image_size=64
        ),
        resampler=ResamplerConfig(width=128, depth=1, heads=4, head_dim=32, latents=8),
        cross_attention=CrossAttentionConfig(kind="vanilla", heads=4, head_dim=32, gate_start=0.6),
        language=LanguageConfig(name=str(SAMPLE_WEIGHTS / "lm"), layers=4, width=128, vocab_size=1200),
    )


# OpenFlamingo's (arXiv 2308.01390, section 3, and its repository's example of a training run).


def openflamingo_3b(data: Data) -> TrainConfig:
    return _openflamingo(models.openflamingo_3b(), data)


def openflamingo_4b(data: Data) -> TrainConfig:
    return _openflamingo(models.openflamingo_4b(), data)


def openflamingo_9b(data: Data) -> TrainConfig:
    made = _openflamingo(models.openflamingo_9b(), data)
    return replace(made, parallel=replace(made.parallel, kind="fsdp", recompute=True))


def _openflamingo(model: FlamingoConfig, data: Data) -> TrainConfig:
    """60 M documents and 120 M pairs, 32 and 64 of them on each of 64 GPUs."""
    interleaved = InterleavedConfig(tokens=256, max_images=6, min_bytes=11_000, window="start")
    return TrainConfig(
        model=model,
        datasets=mixture(
            data, interleaved=(interleaved, 1.0, 2048), pairs=(PairsConfig(tokens=32, leading_space=0.0), 0.2, 4096)
        ),
        steps=60_000_000 // 2048,
        optimizer=OptimizerConfig(warmup=1875),
        parallel=ParallelConfig(bf16=True, compile=True, micro_batch=32),
    )


# The paper's (A.3, B.1). Its frozen language models are not public: `--lm` names one.


def flamingo_3b(data: Data) -> TrainConfig:
    return _flamingo(models.flamingo_3b(), data)


def flamingo_9b(data: Data) -> TrainConfig:
    made = _flamingo(models.flamingo_9b(), data)
    return replace(made, parallel=replace(made.parallel, kind="fsdp", recompute=True))


def _flamingo(model: FlamingoConfig, data: Data) -> TrainConfig:
    """The ablations' sizes (appendix B.3): 256 pages, 512 pairs of one set, 64 videos; 250,000 updates."""
    interleaved = InterleavedConfig(
        tokens=256, max_images=5, min_similarity=-1.0, order="dom", keep_single=1.0, look_ahead=0.5, labels="paper"
    )
    return TrainConfig(
        model=model,
        datasets=mixture(
            data,
            interleaved=(interleaved, 1.0, 256),
            pairs=(PairsConfig(tokens=32, labels="paper"), 0.2, 512),
            videos=(VideosConfig(tokens=32, labels="paper"), 0.03, 64),
        ),
        steps=250_000,
        images=ImagesConfig(fit="pad", colour=True),
        parallel=ParallelConfig(bf16=True, compile=True, micro_batch=32),
    )


Member = tuple[InterleavedConfig | PairsConfig | VideosConfig, float, int]
"""What a dataset is, its lambda, and its sequences an update."""


def mixture(
    data: Data, *, interleaved: Member, pairs: Member, videos: Member | None = None, held_out: int = 0
) -> tuple[DatasetConfig, ...]:
    """The members that there is data for."""
    wanted = (("interleaved", data.interleaved, interleaved), ("pairs", data.pairs, pairs))
    members = (*wanted, ("videos", data.videos, videos))
    if data.videos and videos is None:
        raise ConfigError("this recipe has no videos: its resampler knows no time. Leave --videos out")
    return tuple(
        DatasetConfig(name=name, path=path, kind=member[0], weight=member[1], batch=member[2], held_out=held_out)
        for name, path, member in members
        if path is not None and member is not None
    )


NAMED: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (tiny, openflamingo_3b, openflamingo_4b, openflamingo_9b, flamingo_3b, flamingo_9b)
}


def find(name: str) -> Recipe:
    """A recipe by its name, or `FILE.py:FUNCTION`. Raises ConfigError."""
    if name in NAMED:
        return NAMED[name]
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ConfigError(f"--config {name!r} is neither one of {', '.join(NAMED)} nor FILE.py:FUNCTION")
    if not Path(file).is_file():
        raise ConfigError(f"--config {name}: there is no file {file}")
    found = runpy.run_path(file).get(function)
    if not callable(found):
        raise ConfigError(f"--config {name}: {file} has no function {function}")
    recipe: Recipe = found
    return recipe


def with_language(config: FlamingoConfig, name: str) -> FlamingoConfig:
    """On another language model: its sizes are asked of it. Raises ConfigError where it cannot be had."""
    import transformers

    try:
        sizes = transformers.AutoConfig.from_pretrained(name).get_text_config()
        tokens = len(transformers.AutoTokenizer.from_pretrained(name))
    except (OSError, ValueError) as error:
        raise ConfigError(f"--lm {name}: {str(error).splitlines()[0]} Name a hub's model or a local folder") from error
    language = replace(
        config.language, name=name, layers=sizes.num_hidden_layers, width=sizes.hidden_size, vocab_size=tokens
    )
    return replace(config, language=language)
