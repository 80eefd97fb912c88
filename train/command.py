"""From the command line to a training run, and from its end to an exit code."""

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from mmc4_builder import clip_weights
from mmc4_builder.clip_weights import WeightsError
from model import checkpoint, language
from model import flamingo as models
from model.checkpoint import CheckpointError
from model.config import ConfigError, FlamingoConfig
from model.flamingo import Flamingo
from train import checkpoints, recipes, settings, vocabulary
from train.config import DatasetConfig, TrainConfig
from train.distributed import DivergedError, Place, gathered, joined
from train.loader import Loader, held_out
from train.predict import predict
from train.samples import DataError
from train.step import NonFiniteError, RankError
from train.trainer import Run, train
from train.updates import LoaderError
from train.validation import evaluate
from train.vocabulary import Vocabulary

FAILURES = (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    LoaderError,
    NonFiniteError,
    RankError,
    WeightsError,
    checkpoints.CheckpointError,
)


def run(args: argparse.Namespace) -> int:
    """Do what the arguments ask for: 0, 1 with the cause on stderr, or 128 and the signal that stopped it."""
    if args.device == "cuda" and not torch.cuda.is_available():
        print("mmc4-train: --device cuda: torch finds no GPU here", file=sys.stderr)
        return 1
    with joined(args.device) as place:
        try:
            return act(args, place)
        except FAILURES as error:
            print(f"mmc4-train: {error}", file=sys.stderr, flush=True)
            return 1


def act(args: argparse.Namespace, place: Place) -> int:
    config = resolve(args)
    if not args.dry_run:
        _keep(config, Path(args.output), place)
    model = build(config)
    if args.init:
        checkpoint.load(model, args.init)
    if place.first:
        print(predict(config, model, world=place.world, device=place.device).to_text(), file=sys.stderr, flush=True)
        if args.dry_run:
            print(settings.to_text(config))
    if args.dry_run:
        return 0
    words = vocabulary.load(config.model.language)
    loaders = {
        dataset.name: loader(config, dataset, model, words, place, workers=args.workers) for dataset in config.datasets
    }
    try:
        done = train(config, model, loaders, Run(output=Path(args.output), place=place, writers=args.curves),
                     validator(config, loaders, words, place))  # fmt: skip
    finally:
        for one in loaders.values():
            one.close()
    return done.exit_code


def _keep(config: TrainConfig, folder: Path, place: Place) -> None:
    """The first rank writes the configuration, or refuses for all."""
    fault = ""
    if place.first:
        try:
            settings.keep(config, folder)
        except (ConfigError, OSError) as error:
            fault = str(error)
    if fault := gathered(fault)[0]:
        raise ConfigError(fault)


def resolve(args: argparse.Namespace) -> TrainConfig:
    """The recipe, with what flags say about where and how much."""
    config = recipes.find(args.config)(recipes.Data(interleaved=args.data, pairs=args.pairs, videos=args.videos))
    if not isinstance(config, TrainConfig):
        raise ConfigError(f"--config {args.config} gives a {type(config).__name__}, not a TrainConfig")
    model = config.model
    if args.lm:
        model = recipes.with_language(model, args.lm)
    if model.language.name is None:
        raise ConfigError(f"--config {args.config} has no language model of its own: name one with --lm")
    if args.vision:
        model = replace(model, vision=replace(model.vision, pretrained=args.vision))
    return replace(config, model=model, steps=args.steps or config.steps)


def build(config: TrainConfig) -> Flamingo:
    """The model with the frozen parts' weights, the new parts as the seed has them: the same on all ranks."""
    _find_vision(config.model)
    torch.manual_seed(config.seed)
    name = config.model.language.name
    disable_progress_bar()  # of a load that takes a moment; downloads have their own
    try:
        lm = language.build(config.model.language)
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise WeightsError(f"language model {name}: {first} Name a hub's model or a local folder with --lm") from error
    half = config.parallel.bf16 and not config.model.language.train
    return models.build(config.model, lm=lm.to(torch.bfloat16 if half else torch.float32))


def _find_vision(config: FlamingoConfig) -> None:
    """Weights are looked for first: open_clip would say less about what is missing, and later."""
    vision = config.vision
    if vision.library == "open_clip":
        local = vision.name.startswith("local-dir:")
        if local or vision.pretrained:
            clip_weights.find(vision.name if local else f"{vision.name}:{vision.pretrained}")


def loader(
    config: TrainConfig, dataset: DatasetConfig, model: Flamingo, words: Vocabulary, place: Place, *, workers: int
) -> Loader:
    return Loader(
        dataset,
        vocabulary=words,
        images=config.images,
        side=model.vision.image_size,
        seed=config.seed,
        rank=place.rank,
        world=place.world,
        workers=workers,
        micro_batch=config.parallel.micro_batch,
        see_all_previous=config.model.cross_attention.see_all_previous,
    )


def validator(
    config: TrainConfig, loaders: Mapping[str, Loader], words: Vocabulary, place: Place
) -> Callable[[Flamingo], Mapping[str, float]] | None:
    """Losses on the samples that datasets keep from training; None where none does."""
    datasets = [dataset for dataset in config.datasets if dataset.held_out]
    if not datasets:
        return None

    def validate(model: Flamingo) -> Mapping[str, float]:
        values: dict[str, float] = {}
        for dataset in datasets:
            batches = held_out(
                dataset, vocabulary=words, images=config.images, side=model.vision.image_size, seed=config.seed,
                rank=place.rank, world=place.world, micro_batch=config.parallel.micro_batch,
                see_all_previous=config.model.cross_attention.see_all_previous, source=loaders[dataset.name].source,
            )  # fmt: skip
            values |= evaluate(model, batches).metrics(dataset.name)
        return values

    return validate
