"""What a run says of itself: a line on the console, a line in metrics.jsonl, TensorBoard, and W&B where asked for."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal, TextIO

import torch

from mmc4_builder.progress import clock_time
from model.flamingo import Flamingo
from model.flops import Batch as Shape
from model.flops import flops_per_batch
from train.distributed import Place, gathered
from train.step import Batches, Update

PEAKS = {
    "GB200": 2.5e15,
    "B200": 2.25e15,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10G": 70e12,
    "L4": 121e12,
}
"""Dense bf16 operations a second, by a part of the device's name; the first that fits. From NVIDIA's data sheets."""

Writers = Literal["tensorboard", "wandb", "none"]


def peak(device: torch.device) -> float:
    """Operations a second of a device; infinite where unknown, so that its share reads 0 and not wrong."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return next((value for part, value in PEAKS.items() if part in name), float("inf"))


def memory(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU since the last question; what this process holds on a CPU."""
    if device.type == "cuda":
        most = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return most
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux: the most it ever held
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@dataclass(slots=True)
class Window:
    """The updates since the last line."""

    since: float
    updates: list[Update] = field(default_factory=list)
    waited: float = 0.0  # seconds that this rank waited for data
    shapes: dict[str, list[int]] = field(default_factory=dict)  # of this rank, summed: see `add`
    skipped: dict[str, Counter[str]] = field(default_factory=dict)  # of this rank, by dataset and reason

    def add(self, done: Update, batches: Batches, waited: float) -> None:
        self.updates.append(done)
        self.waited += waited
        for name, parts in batches.items():
            sums = self.shapes.setdefault(name, [0] * 6)
            for batch in parts:
                frames, slots = batch.images.shape[1], batch.image_rows.shape[1]
                one = (1, len(batch.input_ids), batch.real_tokens, slots, len(batch.images), frames)
                self.shapes[name] = sums = [a + b for a, b in zip(sums, one, strict=True)]
                self.skipped.setdefault(name, Counter()).update(batch.skipped)


def flops(model: Flamingo, shapes: Mapping[str, Sequence[int]]) -> int:
    """Of what a rank has done, by the model's formula at the mean shape of each dataset; padding is not counted."""
    total = 0
    for count, *sums in shapes.values():
        sequences, tokens, slots, images, frames = (max(1, round(s / count)) for s in sums)
        shape = Shape(
            sequences=sequences, tokens=max(1, tokens // sequences), slots=slots, images=images, frames=frames
        )
        total += count * flops_per_batch(model, shape).total
    return total


def record(window: Window, *, now: float, ranks: Sequence[Mapping[str, Any]], peaks: float) -> dict[str, Any]:
    """The line as data. `ranks`: of each rank its flops, seconds waited, memory and skipped samples."""
    seconds = max(now - window.since, 1e-9)
    counts = [count for done in window.updates for count in done.counts.values()]
    last = window.updates[-1]
    skipped: dict[str, Counter[str]] = {}
    for rank in ranks:
        for name, reasons in rank["skipped"].items():
            skipped.setdefault(name, Counter()).update(reasons)
    return {
        "step": last.step + 1,
        "loss": _means(window.updates),
        "gradient_norm": last.norm,
        "rate": last.rate,
        "tokens_per_second": sum(count.tokens for count in counts) / seconds,
        "samples_per_second": sum(count.sequences for count in counts) / seconds,
        "images_per_second": sum(count.images for count in counts) / seconds,
        "mfu": sum(rank["flops"] for rank in ranks) / seconds / (peaks * len(ranks)),
        "data_wait": max(rank["waited"] for rank in ranks) / seconds,
        "memory": max(rank["memory"] for rank in ranks),
        "skipped": {name: dict(sorted(reasons.items())) for name, reasons in sorted(skipped.items()) if reasons},
        "seconds": seconds,
    }


def _means(updates: Sequence[Update]) -> dict[str, float]:
    """Of each dataset, over all targets since the last line."""
    sums: dict[str, list[float]] = {}
    for done in updates:
        for name, loss in done.losses.items():
            pair = sums.setdefault(name, [0.0, 0.0])
            pair[0] += loss * done.counts[name].targets
            pair[1] += done.counts[name].targets
    return {name: total / targets for name, (total, targets) in sums.items()}


def render(line: Mapping[str, Any], steps: int) -> str:
    """One line for people."""
    losses = "  ".join(f"{name} {loss:.4f}" for name, loss in line["loss"].items())
    skipped = sum(sum(reasons.values()) for reasons in line["skipped"].values())
    parts = [
        f"step {line['step']:,}/{steps:,}",
        losses,
        f"norm {line['gradient_norm']:.3g}",
        f"rate {line['rate']:.3g}",
        f"{line['tokens_per_second']:,.0f} tokens/s",
        f"{line['samples_per_second']:,.1f} samples/s",
        f"{line['images_per_second']:,.1f} images/s",
        f"MFU {100 * line['mfu']:.1f}%",
        f"data wait {100 * line['data_wait']:.0f}%",
        f"{line['memory'] / (1 << 30):.2f} GiB",
        *([f"{skipped} skipped"] if skipped else []),
    ]
    return "  ".join(part for part in parts if part)


class Log:
    """Takes every update, writes every so many. All ranks call it; the first one writes."""

    def __init__(
        self,
        folder: Path,
        model: Flamingo,
        place: Place,
        *,
        steps: int,
        writers: Writers = "tensorboard",
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._place, self._steps, self._clock = model, place, steps, clock
        self._window = Window(since=clock())
        self._peak = peak(place.device)
        self._console = Console(stream or sys.stderr) if place.first else None
        self._file = _appended(folder / "metrics.jsonl") if place.first else None
        self._board = _writer(writers, folder, self.say) if place.first else None
        self._started, self._first_step = clock(), None

    def add(self, done: Update, batches: Batches, waited: float) -> None:
        self._window.add(done, batches, waited)
        if self._console:
            self._console.progress(done.step + 1, self._steps, self._clock() - self._started)

    def line(self) -> None:
        """Write what the updates since the last line gave."""
        window, now = self._window, self._clock()
        if not window.updates:
            return
        mine = {
            "flops": flops(self._model, window.shapes) if self._peak < float("inf") else 0,
            "waited": window.waited,
            "memory": memory(self._place.device),
            "skipped": window.skipped,
        }
        made = record(window, now=now, ranks=gathered(mine), peaks=self._peak)
        self._write(made)
        self.say(render(made, self._steps))
        self._window = Window(since=self._clock())

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """What the held-out samples gave after `step` updates. The time that it took is nobody's."""
        self._write({"step": step, "validation": dict(values)})
        self.say(f"step {step:,}/{self._steps:,}  validation: " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()))

    def pause(self) -> "_Pause":
        """Around what is no training: its time does not count."""
        return _Pause(self._window, self._clock)

    def say(self, text: str) -> None:
        if self._console:
            self._console.say(text)

    def close(self) -> None:
        if self._console:
            self._console.close()
        if self._file:
            self._file.close()
        if self._board:
            self._board.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        if self._board:
            self._board.add(line)


def _appended(path: Path) -> TextIO:
    """Open to go on with. A process that was killed may have left half a line, which then stands alone."""
    file = path.open("a+b")
    if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
        file.write(b"\n")
    return TextIOWrapper(file)


class _Pause:
    def __init__(self, window: Window, clock: Callable[[], float]) -> None:
        self._window, self._clock = window, clock

    def __enter__(self) -> None:
        self._began = self._clock()

    def __exit__(self, *_: object) -> None:
        self._window.since += self._clock() - self._began


class Console:
    """Lines on a stream, and on a terminal one more at the bottom that is written again and again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._terminal, self._drawn = stream, stream.isatty(), 0
        self._first: int | None = None

    def progress(self, step: int, steps: int, seconds: float) -> None:
        """`seconds` since this process began to train; the first update's are left out of the estimate."""
        if not self._terminal:
            return
        if self._first is None:
            self._first, self._since = step, seconds
        done = step - self._first
        left = clock_time((steps - step) * (seconds - self._since) / done) if done else "-"
        filled = 30 * step // steps
        text = f"[{'#' * filled:.<30}] {step:,}/{steps:,}  {100 * step // steps}%  ETA {left}"
        self._put("\r" + text.ljust(self._drawn))
        self._drawn = len(text)

    def say(self, text: str) -> None:
        self._put(("\r" + " " * self._drawn + "\r" if self._drawn else "") + text + "\n")
        self._drawn = 0

    def close(self) -> None:
        if self._drawn:
            self._put("\n")
            self._drawn = 0

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads it any more; training must not die of that
            self._terminal = False


class _Board:
    """Numbers of a line, by name, to somewhere that draws curves."""

    def __init__(self, put: Callable[[Mapping[str, float], int], None], close: Callable[[], None]) -> None:
        self._put, self.close = put, close

    def add(self, line: Mapping[str, Any]) -> None:
        self._put(dict(scalars(line)), line["step"])


def scalars(line: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """`{"loss": {"pairs": 2.5}}` becomes `("loss/pairs", 2.5)`."""
    found: list[tuple[str, float]] = []
    for name, value in line.items():
        if isinstance(value, Mapping):
            found += scalars(value, f"{prefix}{name}/")
        elif name != "step":
            found.append((prefix + name, float(value)))
    return found


def _writer(kind: Writers, folder: Path, say: Callable[[str], None]) -> _Board | None:
    """A missing library is said once, and is no reason not to train."""
    if kind == "none":
        return None
    try:
        return _tensorboard(folder) if kind == "tensorboard" else _wandb(folder)
    except ImportError:
        say(f"{kind} is not installed: figures go to metrics.jsonl alone")
        return None


def _tensorboard(folder: Path) -> _Board:
    from torch.utils.tensorboard import SummaryWriter

    board: Any = SummaryWriter(str(folder / "tensorboard"))

    def put(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            board.add_scalar(name, value, step)

    return _Board(put, board.close)


def _wandb(folder: Path) -> _Board:
    import wandb

    run: Any = wandb.init(project="mmc4-train", name=folder.name, dir=str(folder), resume="allow")
    return _Board(lambda values, step: run.log(dict(values), step=step), run.finish)
