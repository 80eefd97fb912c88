"""Captions for pictures by a trained checkpoint: `mmc4-caption --checkpoint runs/tiny/model.safetensors cat.jpg`.

The prompt is that of OpenFlamingo's demonstration: `<image>`, and before it perhaps shots, `<image>caption<EOC>`.
Shapes: B pictures, S their side, M images of a prompt, L tokens.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from model.flamingo import Flamingo
    from train.vocabulary import Vocabulary

EXAMPLES = """
examples:
  mmc4-caption --checkpoint runs/tiny/model.safetensors build/pictures/*.jpg
      a line for each picture: its path, a tab, its caption
  mmc4-caption --checkpoint model.safetensors --shot cat.jpg 'A cat on a sofa.' --shot dog.jpg 'A dog.' bird.jpg
      after two examples of what a caption is
"""
TOGETHER = 16  # pictures that are captioned in one batch


class CaptionError(Exception):
    """What cannot be captioned, or with what it cannot; names the value and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How captions are written."""

    beams: int = 3  # OpenFlamingo's; 1: greedy
    tokens: int = 40  # of a caption at most
    whole: bool = False  # all until the model ends the chunk, rather than one sentence: pages go on and on


def caption(
    model: "Flamingo",
    vocabulary: "Vocabulary",
    pictures: "torch.Tensor",
    shots: Sequence[tuple["torch.Tensor", str]] = (),
    writing: Writing | None = None,
) -> list[str]:
    """A caption for each of the pictures, uint8 [B, 3, S, S]; shots are pictures [3, S, S] with theirs."""
    import torch

    from model.generation import generate

    writing = writing or Writing()
    ends = [vocabulary.end_of_chunk, vocabulary.end, *(() if writing.whole else _sentence_ends(vocabulary))]
    training = model.training
    with torch.inference_mode():
        prompts = _prompts(model.eval(), vocabulary, pictures, shots)
        found = generate(
            model, prompts, num_beams=writing.beams, do_sample=False, max_new_tokens=writing.tokens,
            eos_token_id=ends, pad_token_id=vocabulary.pad,
        )  # fmt: skip
    model.train(training)
    written = found[:, prompts.input_ids.shape[1] :].tolist()
    return [vocabulary.decode(_until(ids, vocabulary)).strip() for ids in written]


def _until(ids: Sequence[int], vocabulary: "Vocabulary") -> Sequence[int]:
    """What comes before the chunk's end."""
    stops = {vocabulary.end_of_chunk, vocabulary.end}
    return ids[: next((place for place, number in enumerate(ids) if number in stops), len(ids))]


def _sentence_ends(vocabulary: "Vocabulary") -> list[int]:
    """The pieces that full stop, exclamation and question mark are behind a word."""
    return sorted({ids[-1] for ids in vocabulary.encode(["a.", "a!", "a?"])})


def _prompts(
    model: "Flamingo", vocabulary: "Vocabulary", pictures: "torch.Tensor", shots: Sequence[tuple["torch.Tensor", str]]
) -> Any:
    """The same tokens for each picture, as the shots are the same; a shot's image is encoded once."""
    import torch

    from model import masking
    from model.prefix import Prompts
    from train.batch import normalised

    texts = vocabulary.encode([text for _, text in shots])
    ids = [] if vocabulary.start is None else [vocabulary.start]
    for text in texts:
        ids += [vocabulary.image, *text, vocabulary.end_of_chunk]
    weight = next(model.vision.parameters())
    input_ids = torch.tensor([*ids, vocabulary.image], device=weight.device).repeat(len(pictures), 1)
    images = torch.stack([*(picture for picture, _ in shots), *pictures]).to(weight.device)
    pixels = normalised(images[:, None], model.vision.mean, model.vision.std, weight.dtype)
    shown = torch.arange(len(shots)).repeat(len(pictures), 1)
    own = len(shots) + torch.arange(len(pictures))[:, None]
    return Prompts(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        visual=model.encode_images(pixels),
        image_rows=torch.cat([shown, own], dim=1).to(weight.device),
        phi=masking.visible(input_ids, vocabulary.image, all_previous=model.config.cross_attention.see_all_previous),
    )


def load(
    checkpoint: str | Path, *, lm: str | None = None, vision: str | None = None, device: str = "cpu"
) -> tuple["Flamingo", "Vocabulary"]:
    """The model of a checkpoint, on the language model and the vision encoder that it names, or on others given here.

    `lm`: a folder or a hub's name. `vision`: a folder as open_clip saves it, or a file of weights. Raises
    CaptionError; ConfigError and CheckpointError where parts do not fit each other.
    """
    from transformers.utils.logging import disable_progress_bar

    from model import checkpoint as files
    from model import flamingo
    from train import vocabulary

    if not Path(checkpoint).is_file():
        raise CaptionError(f"--checkpoint {checkpoint}: there is no such file; mmc4-train writes model.safetensors")
    config = files.read_config(checkpoint)
    language, tower = config.language, config.vision
    if lm is not None:
        language = replace(language, name=lm)
    if vision is not None:
        folder = Path(vision).is_dir()
        tower = replace(tower, name=f"local-dir:{vision}") if folder else replace(tower, pretrained=vision)
    if language.name is None:
        raise CaptionError(f"{checkpoint} names no language model: give the one that it was trained on with --lm")
    disable_progress_bar()
    try:
        model = flamingo.build(replace(config, language=language, vision=tower))
    except (OSError, RuntimeError) as error:  # transformers and open_clip, where there is nothing of that name
        raise CaptionError(
            f"language model {language.name} or vision encoder {tower.name} cannot be loaded: "
            f"{str(error).splitlines()[0]}. Say where they are with --lm and --vision"
        ) from error
    files.load(model, checkpoint)
    return model.to(device).eval(), vocabulary.load(language)


def read(path: str | Path, model: "Flamingo", fit: str | None = None) -> "torch.Tensor":
    """A picture's file as uint8 [3, S, S], fitted as its encoder was trained, or as `fit` says. Raises CaptionError."""
    import numpy as np
    import torch

    from train.config import ImagesConfig
    from train.pictures import decode
    from train.sequences import Skip

    images: Any = ImagesConfig(fit=fit or model.vision.fit, flip=0.0)  # type: ignore[arg-type]
    try:
        pixels = decode(Path(path).read_bytes(), model.vision.image_size, images, random.Random(0))
    except OSError as error:
        raise CaptionError(f"{path} cannot be read: {error.strerror}") from error
    except Skip as error:
        raise CaptionError(f"{path} is no picture that can be decoded; JPEG, PNG and WebP are") from error
    return torch.from_numpy(np.ascontiguousarray(pixels))


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="mmc4-caption",
        description="Write captions for pictures with a model that mmc4-train has trained.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("pictures", metavar="PICTURE", nargs="+", help="JPEG, PNG or WebP files")
    top.add_argument("--checkpoint", metavar="FILE", required=True, help="model.safetensors of a run")
    top.add_argument("--lm", metavar="NAME", help="the language model: a folder or a hub's name; else as trained")
    top.add_argument("--vision", metavar="PATH", help="the vision encoder: a folder of open_clip or weights")
    top.add_argument("--fit", choices=("crop", "pad", "squash"), help="how pictures become square")
    top.add_argument(
        "--shot", nargs=2, action="append", default=[], metavar=("PICTURE", "CAPTION"), help="an example; any number"
    )
    top.add_argument("--beams", metavar="N", type=int, default=3, help="1 is greedy (%(default)s)")
    top.add_argument("--tokens", metavar="N", type=int, default=40, help="of a caption at most (%(default)s)")
    top.add_argument("--whole", action="store_true", help="all that the model says of a picture, not one sentence")
    top.add_argument("--device", choices=("cpu", "cuda"), help="by default a GPU where there is one")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where a picture could not be captioned, or none could; 2 for a command line that cannot be obeyed."""
    top = parser()
    args = top.parse_args(arguments)
    for name in ("beams", "tokens"):
        if getattr(args, name) < 1:
            top.error(f"--{name} must be at least 1, got {getattr(args, name)}")
    from model.checkpoint import CheckpointError
    from model.config import ConfigError

    try:
        return _run(args)
    except (CaptionError, CheckpointError, ConfigError) as error:
        print(f"mmc4-caption: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    """A picture that cannot be read is said, and the others get their captions."""
    import torch

    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model, vocabulary = load(args.checkpoint, lm=args.lm, vision=args.vision, device=device)
    shots = [(read(path, model, args.fit), text) for path, text in args.shot]
    writing = Writing(beams=args.beams, tokens=args.tokens, whole=args.whole)
    failed = 0
    for paths in _in_groups(args.pictures):
        shown: list[tuple[str, torch.Tensor]] = []
        for path in paths:
            try:
                shown.append((path, read(path, model, args.fit)))
            except CaptionError as error:
                print(f"mmc4-caption: {error}", file=sys.stderr)
                failed = 1
        if shown:
            written = caption(model, vocabulary, torch.stack([pixels for _, pixels in shown]), shots, writing)
            for (path, _), text in zip(shown, written, strict=True):
                print(f"{path}\t{text}", flush=True)
    return failed


def _in_groups(paths: Iterable[str]) -> Iterator[list[str]]:
    left = iter(paths)
    while group := list(islice(left, TOGETHER)):
        yield group


if __name__ == "__main__":
    sys.exit(main())
