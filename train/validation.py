"""Whether images inform text: the loss on held-out samples with their images, with others' images, and with none.

Shapes: B sequences, L tokens, N image slots, M images, V logits.

Each number but `loss` is a mean over the same tokens: targets that are text, and whose token before is text. The
first token behind a tag is left out, because a language model that reads the text without its tags finds no space
there; so are end-of-chunk tokens, which it does not know. A batch with fewer than two images has nobody to take
another's image from: it counts in `loss` alone.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from model.flamingo import Flamingo
from model.layers import Gate
from train.batch import Batch, normalised


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Mean negative log-likelihoods, in nats a token. NaN where no token counted."""

    loss: float  # of all targets, as in training
    images: float  # with the right images
    shuffled: float  # with images of other sequences of the batch
    blind: float  # the trained model without any image
    language: float  # the language model alone, which reads the text without tags; NaN without gates to close
    tokens: int  # behind each of the last four
    targets: int  # behind `loss`

    def metrics(self, dataset: str) -> dict[str, float]:
        """By name, as metrics.jsonl has them: `interleaved/loss`. What is no number is left out, as JSON has none."""
        return {f"{dataset}/{name}": value for name, value in asdict(self).items() if not math.isnan(value)}


@torch.no_grad()
def evaluate(model: Flamingo, batches: Iterable[Batch]) -> Validation:
    """One pass over `batches`, four forward passes each; sums are added up over all ranks.

    The model is put into evaluation mode for it, and back. Arithmetic is the caller's: call it under autocast for
    bf16. Ranks may have unequal numbers of batches: who has none left goes on with an empty one, so nobody waits.
    """
    training = model.training
    model.eval()
    try:
        sums = torch.zeros(7, dtype=torch.float64)
        for batch in _together(model, batches):
            sums += _sums(model, batch)
    finally:
        model.train(training)
    if _distributed():
        dist.all_reduce(sums)
    loss, images, shuffled, blind, language, tokens, targets = sums.tolist()
    each = [float("nan") if not tokens else value / tokens for value in (images, shuffled, blind, language)]
    return Validation(
        loss=loss / targets if targets else float("nan"),
        images=each[0],
        shuffled=each[1],
        blind=each[2],
        language=each[3],
        tokens=int(tokens),
        targets=int(targets),
    )


def _together(model: Flamingo, batches: Iterable[Batch]) -> Iterator[Batch]:
    """This rank's batches on its device, until no rank has one left."""
    device = next(model.parameters()).device
    left = iter(batches)
    while True:
        batch = next(left, None)
        some = torch.tensor(int(batch is not None))
        if _distributed():
            dist.all_reduce(some)
        if not some:
            return
        batch = _nothing(model.vision.image_size) if batch is None else batch
        yield _with_image(batch, model.vision.image_size).to(device)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _nothing(side: int) -> Batch:
    none = torch.zeros(1, 2, dtype=torch.int64)
    return Batch(
        input_ids=none,
        attention_mask=torch.ones_like(none),
        labels=torch.full_like(none, -100),
        phi=none,
        image_rows=torch.full((1, 1), -1),
        images=torch.zeros(0, 1, 3, side, side, dtype=torch.uint8),
    )


def _with_image(batch: Batch, side: int) -> Batch:
    """A batch without images gets a black one that nobody sees: all ranks must run the same modules."""
    if len(batch.images):
        return batch
    rows = torch.full((len(batch.input_ids), 1), -1, dtype=torch.int64)
    return replace(batch, images=torch.zeros(1, 1, 3, side, side, dtype=torch.uint8), image_rows=rows)


def _sums(model: Flamingo, batch: Batch) -> Tensor:
    """The seven sums of one batch, in the order of `evaluate`."""
    first_new = model.config.language.vocab_size
    chosen = counted(batch, first_new) & (len(batch.images) > 1)
    dtype = next(model.vision.parameters()).dtype
    pixels = normalised(batch.images, model.vision.mean, model.vision.std, dtype)
    others = pixels[derangement(batch.image_rows, len(pixels))]
    every = batch.labels[:, 1:] != -100
    right = _losses(model, batch, pixels, every)
    sums = [
        right.sum(),
        right[chosen[every]].sum(),
        _losses(model, batch, others, chosen).sum(),
        _losses(model, batch, None, chosen).sum(),
        _language(model, batch, chosen).sum(),
        chosen.sum(),
        every.sum(),
    ]
    return torch.stack([value.double().cpu() for value in sums])


def counted(batch: Batch, first_new: int) -> Tensor:
    """bool [B, L - 1]: which tokens behind the first of a row count; see the top of the file."""
    labels, before = batch.labels[:, 1:], batch.input_ids[:, :-1]
    is_text = (labels != -100) & (labels < first_new)
    return is_text & (before < first_new) & batch.attention_mask[:, 1:].bool()


def derangement(image_rows: Tensor, images: int) -> Tensor:
    """[M]: for each image another one, always the same, and of another sequence if no sequence has more than half.

    Images in the order of the sequences that show them first are moved on by as many places as the fullest has.
    """
    owner = torch.full((images,), len(image_rows), device=image_rows.device)
    for row in range(len(image_rows) - 1, -1, -1):
        owner[image_rows[row][image_rows[row] >= 0]] = row
    order = owner.argsort(stable=True)
    fullest = int(owner.bincount().max())
    found = torch.empty_like(order)
    found[order] = order.roll(-(fullest if 2 * fullest <= images else images // 2))
    return found


def _losses(model: Flamingo, batch: Batch, pixels: Tensor | None, chosen: Tensor) -> Tensor:
    """[P]: negative log-likelihoods of the labels behind the first that `chosen` [B, L - 1] says.

    Through the whole `forward`, images too: parts of a sharded model are not to be called on their own.
    """
    seen = {} if pixels is None else {"images": pixels, "image_rows": batch.image_rows, "phi": batch.phi}
    logits = model(batch.input_ids, attention_mask=batch.attention_mask, places=_places(chosen), **seen).logits
    return F.cross_entropy(logits.float(), batch.labels[:, 1:][chosen], reduction="none")


def _places(chosen: Tensor) -> Tensor:
    """[P]: where, in the batch laid flat, the tokens before the chosen ones are."""
    return F.pad(chosen, (0, 1)).flatten().nonzero()[:, 0]


def _language(model: Flamingo, batch: Batch, chosen: Tensor) -> Tensor:
    """The same by the language model alone: without tags, without new layers, among its own tokens only."""
    first_new = model.config.language.vocab_size
    keep = (batch.input_ids < first_new) & batch.attention_mask.bool()
    order = (~keep).int().argsort(dim=1, stable=True)  # text to the left, in its order
    mask = keep.gather(1, order)
    ids = batch.input_ids.gather(1, order) * mask
    mine = F.pad(chosen, (1, 0)).gather(1, order)[:, 1:]
    with closed_gates(model) as closed:
        logits = model(ids, attention_mask=mask.long(), places=_places(mine)).logits[:, :first_new]
    losses = F.cross_entropy(logits.float(), ids[:, 1:][mine], reduction="none")
    return losses if closed else losses * float("nan")


@contextmanager
def closed_gates(model: Flamingo) -> Iterator[bool]:
    """All tanh gates at zero, as at the start: the model is its language model again. False where one has no value.

    Through the model's own `forward`, not around it: that is the way which works when its layers are sharded.
    """
    gates = [module.value for module in model.modules() if isinstance(module, Gate)]
    held = [gate.detach().clone() for gate in gates if gate is not None]
    with torch.no_grad():
        for gate in gates:
            if gate is not None:
                gate.zero_()
        try:
            yield None not in gates
        finally:
            for gate, value in zip([gate for gate in gates if gate is not None], held, strict=True):
                gate.copy_(value)
