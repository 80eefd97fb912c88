"""What a run says of itself, as data and as a line."""

import builtins
import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from small_flamingos import flamingo
from training_runs import batch_of, one_thread  # noqa: F401

from model.flops import Batch as Shape
from model.flops import flops_per_batch
from train.distributed import Place, joined
from train.metrics import Console, Log, Window, flops, memory, peak, record, render, scalars
from train.step import Counts, Update

pytest.importorskip("transformers")

CPU = torch.device("cpu")


def counts(targets: int, images: int = 3) -> Counts:
    return Counts(targets=targets, tokens=100, images=images, sequences=4, micro_batches=1)


def done(step: int, losses: dict[str, float], targets: int) -> Update:
    found = {name: counts(targets) for name in ("documents", "pairs")}
    return Update(step=step, losses=losses, counts=found, norm=0.5, rate=1e-4)


def rank(**changes: Any) -> dict[str, Any]:
    return {"flops": 10**12, "waited": 0.5, "memory": 3 << 30, "skipped": {}} | changes


def test_record() -> None:
    window = Window(
        since=10.0, updates=[done(0, {"documents": 4.0}, 10), done(1, {"documents": 1.0, "pairs": 2.0}, 30)]
    )
    skipped = [{"documents": {"no_images": 2}}, {"documents": {"no_images": 1, "bad_json": 1}, "pairs": {}}]
    ranks = [rank(skipped=skipped[0]), rank(skipped=skipped[1], waited=1.0, memory=1)]
    line = record(window, now=12.0, ranks=ranks, peaks=10e12)
    assert line == {
        "step": 2,
        "loss": {"documents": pytest.approx((4.0 * 10 + 1.0 * 30) / 40), "pairs": 2.0},
        "gradient_norm": 0.5,
        "rate": 1e-4,
        "tokens_per_second": 200.0,
        "samples_per_second": 8.0,
        "images_per_second": 6.0,
        "mfu": pytest.approx(2e12 / 2 / (2 * 10e12)),
        "data_wait": 0.5,
        "memory": 3 << 30,
        "skipped": {"documents": {"bad_json": 1, "no_images": 3}},
        "seconds": 2.0,
    }
    assert render(line, 50) == (
        "step 2/50  documents 1.7500  pairs 2.0000  norm 0.5  rate 0.0001  200 tokens/s  8.0 samples/s  6.0 images/s  "
        "MFU 5.0%  data wait 50%  3.00 GiB  4 skipped"
    )
    assert record(window, now=12.0, ranks=ranks, peaks=float("inf"))["mfu"] == 0


def test_unknown_devices_have_no_peak_and_memory_is_what_is_held() -> None:
    assert peak(CPU) == float("inf")
    assert 50 << 20 < memory(CPU) < 1 << 40


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H20", 148e12),
        ("Tesla T4", float("inf")),
    ]
    + [("NVIDIA H200", 989e12), ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA GB200", 2.5e15), ("NVIDIA B200", 2.25e15)],
)
def test_peaks(monkeypatch: pytest.MonkeyPatch, name: str, expected: float) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak(torch.device("cuda", 0)) == expected


def test_flops_are_the_models_formula_without_padding() -> None:
    model, batch, window = flamingo(), batch_of(["d0", "d1", "d2"]), Window(since=0.0)
    for _ in range(2):
        window.add(done(0, {}, 1), {"documents": (batch,)}, 0.0)
    shape = Shape(sequences=3, tokens=12, slots=2, images=len(batch.images))
    assert flops(model, window.shapes) == 2 * flops_per_batch(model, shape).total


def test_scalars_are_named_by_path() -> None:
    line = {"step": 3, "loss": {"pairs": 2.5}, "rate": 1, "skipped": {"pairs": {"bad": 2}}}
    assert scalars(line) == [("loss/pairs", 2.5), ("rate", 1.0), ("skipped/pairs/bad", 2.0)]


def log_of(folder: Path, stream: StringIO, **changes: Any) -> Log:
    return Log(folder, flamingo(), Place(rank=0, world=1, device=CPU), steps=10, stream=stream, **changes)


def test_log_writes_lines_and_curves(tmp_path: Path) -> None:
    said, batch = StringIO(), batch_of(["d0"])
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')  # of a process that was killed
    with joined("cpu"):
        log = log_of(tmp_path, said)
        log.line()  # nothing yet
        log.add(done(1, {"documents": 2.0}, 3), {"documents": (batch,)}, 0.1)
        log.line()
        log.validation(2, {"loss": 1.5})
        log.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"step": 1}', '{"st'] and [json.loads(line)["step"] for line in lines[2:]] == [2, 2]
    assert said.getvalue().splitlines()[0].startswith("step 2/10  documents 2.0000")
    assert said.getvalue().splitlines()[1] == "step 2/10  validation: loss 1.5000"
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize("kind", ("tensorboard", "wandb"))
def test_a_missing_library_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    real = builtins.__import__

    def absent(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith(("torch.utils.tensorboard", "wandb")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", absent)
    said = StringIO()
    log_of(tmp_path, said, writers=kind).close()
    assert said.getvalue() == f"{kind} is not installed: figures go to metrics.jsonl alone\n"


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal_is_one_line_below_the_others() -> None:
    stream = Terminal()
    console = Console(stream)
    console.progress(1, 10, 5.0)
    console.progress(2, 10, 6.0)
    console.say("a line")
    console.progress(10, 10, 14.0)
    console.close()
    first, second, third = stream.getvalue().split("\r")[1:4]
    assert first == "[###...........................] 1/10  10%  ETA -"
    assert second.rstrip() == "[######........................] 2/10  20%  ETA 8s"
    assert third.strip() == "" and "\ra line\n\r[#####" in stream.getvalue() and stream.getvalue().endswith("ETA 0s\n")


def test_a_log_has_no_bar_and_a_closed_stream_is_no_error() -> None:
    stream = StringIO()
    console = Console(stream)
    console.progress(1, 10, 5.0)
    assert stream.getvalue() == ""
    stream.close()
    console.say("nobody hears")
