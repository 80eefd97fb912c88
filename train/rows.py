"""A sample becomes a part of a row: its tokens, and the pixels of the pictures that they show."""

import random
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from mmc4_builder.image_decode import Pixels
from train import interleaved, pairs, pictures, video
from train.config import ImagesConfig, InterleavedConfig, Kind, VideosConfig
from train.lanes import seed_of
from train.samples import Sample
from train.sequences import Piece, Skip
from train.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """pixels[i] is what the i-th `<image>` of the piece shows: uint8 [T, 3, side, side]."""

    piece: Piece
    pixels: tuple[Pixels, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides what a sample becomes, apart from chance."""

    kind: Kind
    vocabulary: Vocabulary
    images: ImagesConfig
    side: int  # px, of the vision encoder
    seed: int
    validation: bool = False  # videos from their start

    @property
    def frames(self) -> int:
        """T of a batch."""
        return self.kind.frames if isinstance(self.kind, VideosConfig) else 1

    @property
    def packed(self) -> bool:
        return isinstance(self.kind, InterleavedConfig) and self.kind.packed

    def without_chance(self) -> "Recipe":
        """For validation: nothing is thinned out, mirrored or coloured; windows are at the start; no packing."""
        plain = replace(self, validation=True, images=replace(self.images, flip=0.0, colour=False))
        if isinstance(self.kind, InterleavedConfig):
            kind = replace(self.kind, window="start", packed=False, keep_single=1.0, look_ahead=0.0)
            return replace(plain, kind=kind)
        return replace(plain, kind=replace(self.kind, leading_space=0.0))


def part(sample: Sample, epoch: int, room: int, recipe: Recipe, skipped: Counter[str]) -> Part:
    """The sample in at most `room` tokens; raises Skip.

    Chance comes from (seed, epoch, key) alone. A picture that cannot be decoded is counted in `skipped`, and the
    document is put together again without it, so that no `<image>` is left without a picture.
    """
    seed = seed_of("sample", recipe.seed, epoch, sample.key)
    if isinstance(recipe.kind, InterleavedConfig):
        return _of_document(sample, recipe.kind, room, recipe, seed, skipped)
    rng = random.Random(seed)
    kind = recipe.kind
    piece = pairs.compose(sample.key, sample.caption, recipe.vocabulary, kind.tokens, kind.leading_space, rng)
    pixels = (
        _of_video(sample, kind, recipe, rng) if isinstance(kind, VideosConfig) else _of_picture(sample, recipe, rng)
    )
    return Part(piece=piece, pixels=(pixels,))


def _of_document(
    sample: Sample, kind: InterleavedConfig, room: int, recipe: Recipe, seed: int, skipped: Counter[str]
) -> Part:
    sizes = [len(data) if data is not None else 0 for data in sample.images]
    present = {index for index, data in enumerate(sample.images) if data is not None}
    decoded: dict[int, Pixels] = {}
    while True:
        document = interleaved.document(sample.doc or {}, present, sizes)
        rng = random.Random(seed)  # again the same draws: only the broken picture is gone
        piece = interleaved.compose(document, recipe.vocabulary, kind, rng, room, sample.key)
        broken = set()
        for index in piece.images:
            if index not in decoded:
                try:
                    decoded[index] = _decoded(sample.images[index], recipe, random.Random(seed_of(seed, index)))
                except Skip as skip:
                    skipped[skip.reason] += 1
                    broken.add(index)
        if not broken:
            return Part(piece=piece, pixels=tuple(decoded[index] for index in piece.images))
        present -= broken


def _of_picture(sample: Sample, recipe: Recipe, rng: random.Random) -> Pixels:
    return _decoded(sample.images[0] if sample.images else None, recipe, rng)


def _of_video(sample: Sample, kind: VideosConfig, recipe: Recipe, rng: random.Random) -> Pixels:
    found = video.frames(sample.video or b"", kind, None if recipe.validation else rng)
    look = pictures.draw(recipe.images, rng)
    return np.stack([pictures.fitted(frame, recipe.side, recipe.images, look) for frame in found])


def _decoded(data: bytes | None, recipe: Recipe, rng: random.Random) -> Pixels:
    return pictures.decode(data or b"", recipe.side, recipe.images, rng)[None]
