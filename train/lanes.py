"""Who reads what: the order of samples as arithmetic, the same for any number of ranks and workers.

A dataset of B rows an update has STREAMS * B lanes. Update u takes a row from each of the B lanes of stream
u % STREAMS. Lane l reads the positions k * STREAMS * B + l, k = 0, 1, ..., of an infinite order: epoch after epoch,
each a permutation of all training samples. The k of each lane is all there is to remember.
"""

import hashlib
from dataclasses import dataclass

STREAMS = 8  # as many workers can make updates side by side
_ROUNDS = 6
_MASK = (1 << 64) - 1


def seed_of(*parts: object) -> int:
    """64 bits from a hash of the parts, which must differ where their texts differ: the same on every machine."""
    digest = hashlib.blake2b("\0".join(str(part) for part in parts).encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def permuted(index: int, count: int, seed: int) -> int:
    """Where a permutation of range(count) puts `index`: a Feistel network on the next power of four.

    Nothing is kept: what falls outside the range goes through the network again until it is inside, which takes
    four turns at most on average. A permutation of 1e8 samples in memory would be 0.8 GB for each worker.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for number in range(_ROUNDS):
            left, right = right, left ^ (_mixed(right + (number << 32) ^ seed) & mask)
        index = left << half | right
        if index < count:
            return index


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input reaches every bit."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _MASK
    return value ^ value >> 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Every `every`-th sample of a source is kept from training: the last of each run of so many. 0: none."""

    samples: int
    every: int = 0

    @property
    def held_out(self) -> int:
        return self.samples // self.every if self.every else 0

    @property
    def training(self) -> int:
        return self.samples - self.held_out

    def training_index(self, number: int) -> int:
        """Where the source has training sample `number`."""
        return number + number // (self.every - 1) if self.every else number

    def held_out_index(self, number: int) -> int:
        return (number + 1) * self.every - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a lane reads at one of its positions."""

    epoch: int
    index: int  # in the source


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """The order of one dataset. `name` gives datasets that share a source orders of their own."""

    split: Split
    batch: int
    seed: int
    name: str = ""

    def draw(self, stream: int, row: int, k: int) -> Draw:
        """The k-th sample of the lane of `row` in `stream`."""
        lanes = STREAMS * self.batch
        epoch, place = divmod(k * lanes + stream * self.batch + row, self.split.training)
        number = permuted(place, self.split.training, seed_of("order", self.seed, self.name, epoch))
        return Draw(epoch=epoch, index=self.split.training_index(number))
