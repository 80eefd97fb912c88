"""The trainer beside OpenFlamingo's own `train_one_epoch`: the same weights, the same samples, the same threads.

    python benchmarks/train.py --peer FOLDER [--shards] [--size tiny] [--precision amp_bf16] [--rounds 5] [--threads 1]
    python benchmarks/train.py --scaling
    python benchmarks/train.py --peer FOLDER --device cuda --size openflamingo_3b --precision amp_bf16 --shards \\
        --documents 32 --workers 4 [--compile]

FOLDER, or OPEN_FLAMINGO in the environment, is as for benchmarks/model.py. Each side is a child process; they work in
turns, on batches made beforehand. With `--shards` documents come out of tars by each side's own loader, which packs
them on ours, and the CPU time of its processes counts too; FOLDER then needs what benchmarks/loader.py says.
`--size tiny` is about the model of `mmc4-train --config tiny`; without it the model has OpenFlamingo-3B's proportions.
`--precision` is OpenFlamingo's flag: fp32 is its default, amp_bf16 what its models were trained with; ours then keeps
the frozen parts in bf16. On a CPU it matters only where that multiplies in bf16 (`grep amx_bf16 /proc/cpuinfo`).
`--scaling`: samples/s of two processes beside one with the same number of samples each. On a GPU seconds count and no
CPU time, and our side tells its MFU, with `--shards`. `--alone` leaves out the peer.
"""

import argparse
import itertools
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # before this folder, whose train.py and model.py are not the packages

import torch  # noqa: E402
import train_work  # noqa: E402
from children import Child  # noqa: E402
from loader import write_corpus  # noqa: E402
from loader_work import END, MIN_BYTES, THRESHOLD  # noqa: E402
from model_work import IMAGE, LENGTH, SIDE, SIZE, SIZES, VOCABULARY, own_stdout, serve  # noqa: E402
from timing import report  # noqa: E402
from train_work import LAMBDAS, OF_UPDATE, RATE, SHARD_UPDATES, UPDATES, WARMUP, Sample, settle, steady  # noqa: E402

MODEL = runpy.run_path(str(HERE / "model.py"), run_name="model_benchmark")
GOAL = 1.5
LEAST_DOCUMENTS = 400  # of the tars
LOSSES_APART = {"fp32": 1e-3, "amp_bf16": 3e-2}


# Ours


def collated(samples: list[Sample], image: int) -> Any:
    """Padded to the longest, without a picture that is not there."""
    from model.masking import previous_image
    from train.batch import Batch

    length, slots = max(len(s.ids) for s in samples), max(len(s.pictures) for s in samples)
    ids = torch.tensor([s.ids + [0] * (length - len(s.ids)) for s in samples])
    mask = torch.tensor([[1] * len(s.ids) + [0] * (length - len(s.ids)) for s in samples])
    rows, count = torch.full((len(samples), slots), -1), 0
    for row, sample in zip(rows, samples, strict=True):
        row[: len(sample.pictures)] = torch.arange(count, count := count + len(sample.pictures))
    return Batch(
        input_ids=ids,
        attention_mask=mask,
        labels=ids.masked_fill((ids == image) | (mask == 0), -100),
        phi=previous_image(ids, image),
        image_rows=rows,
        images=torch.cat([s.pictures for s in samples])[:, None],
    )


def engine_of(model: Any, device: torch.device, *, bf16: bool = False, compiled: bool = False) -> Any:
    from model.parallelize import ParallelPlan, bare, parallelize
    from train import optimizer
    from train.config import OptimizerConfig
    from train.step import Engine

    plan = ParallelPlan(bf16=bf16, compile=compiled)
    config = OptimizerConfig(rate=RATE, warmup=WARMUP)
    wrapped = parallelize(model.train(), plan, device)
    return Engine(
        model=wrapped, optimizer=optimizer.build(bare(wrapped), config), config=config, weights=LAMBDAS, plan=plan,
        device=device,
    )  # fmt: skip


def run_updates(engine: Any, batches: Iterable[Any], first: int = 0) -> list[Any]:
    from train.step import count, update

    return [update(engine, mine, count(mine)[0], step) for step, mine in enumerate(batches, first)]


def small_batches() -> list[Any]:
    made = [train_work.update(number) for number in range(UPDATES)]
    return [{name: (collated(samples, IMAGE),) for name, samples in one.items()} for one in made]


def losses(engine: Any, batches: dict[str, Any]) -> list[float]:
    """Of the next update, to compare the two sides with."""
    from model.parallelize import arithmetic
    from train.step import _loss_sum

    with torch.no_grad(), arithmetic(engine.model, engine.plan, engine.device):
        return [float(_loss_sum(engine, batches[name][0])) / batches[name][0].targets for name in LAMBDAS]


def from_shards(folder: Path, workers: int) -> Iterator[dict[str, Any]]:
    """The updates' batches: documents out of tars, and the pairs made before."""
    from transformers import PreTrainedTokenizerFast

    from model.config import LanguageConfig
    from train import vocabulary
    from train.config import DatasetConfig, ImagesConfig, InterleavedConfig
    from train.loader import Loader

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=END)
    words = vocabulary.of(tokenizer, LanguageConfig(name=None, layers=2, width=16, vocab_size=VOCABULARY, new_tokens=3))
    assert words.image == IMAGE
    kind = InterleavedConfig(
        tokens=LENGTH, max_images=train_work.SLOTS, min_similarity=THRESHOLD, min_bytes=MIN_BYTES, packed=True
    )
    data = DatasetConfig(name="documents", path=str(folder / "ours"), kind=kind, batch=train_work.DOCUMENTS)
    loader = Loader(data, vocabulary=words, images=ImagesConfig(), side=SIDE, seed=0, workers=workers)
    pairs = itertools.cycle([batches["pairs"] for batches in small_batches()])
    for documents in loader:
        yield {"documents": documents, "pairs": next(pairs)}


def train_on(engine: Any, batches: Iterator[dict[str, Any]], first: int) -> dict[str, float]:
    """Some updates, and what they cost in all processes."""
    from model.parallelize import bare
    from train.metrics import Window, flops, peak

    window = Window(since=0.0)
    taken: list[dict[str, Any]] = []

    def noted() -> Iterator[dict[str, Any]]:
        for one in itertools.islice(batches, SHARD_UPDATES):
            taken.append(one)
            yield one

    def work() -> None:
        for done, one in zip(run_updates(engine, noted(), first), taken, strict=True):
            window.add(done, one, 0.0)

    spent = steady(work, engine.device)
    every = [batch for one in taken for parts in one.values() for batch in parts]
    return spent | {"samples": sum(sum(map(len, b.keys)) or len(b.input_ids) for b in every),
                    "tokens": sum(b.real_tokens for b in every),
                    "mfu": flops(bare(engine.model), window.shapes) / spent["wall"] / peak(engine.device)}  # fmt: skip


def child(given: argparse.Namespace) -> None:
    from train.distributed import joined

    answers = own_stdout()
    torch.set_num_threads(given.threads)
    with joined(given.device) as place:
        model = random_model() if given.alone else MODEL["build_small"](given.child)
        engine = engine_of(model, place.device, bf16=given.precision == "amp_bf16", compiled=given.compile)
        batches, updates = small_batches(), itertools.count(0, UPDATES)

        def train() -> None:
            run_updates(engine, batches, next(updates))
            settle(engine.device)

        def job(name: str) -> Callable[[], Any]:
            if name == "losses":
                return lambda: losses(engine, batches[0])
            if name == "shards":
                endless, first = from_shards(given.child, given.workers), itertools.count(0, SHARD_UPDATES)
                return lambda: train_on(engine, endless, next(first))
            return train

        serve(job, answers)


# Beside the peer


def compare(given: argparse.Namespace) -> None:
    """Both sides in turns, or ours alone; what is printed last is a line of JSON."""
    samples = 3 * given.documents * UPDATES
    with tempfile.TemporaryDirectory() as folder:
        if given.shards:
            write_corpus(Path(folder), max(LEAST_DOCUMENTS, (given.rounds + 3) * SHARD_UPDATES * given.documents))
        flags = [f"--{name}={getattr(given, name)}" for name in ("threads", "precision", "device", "workers")]
        sides = {}
        if not given.alone:  # first: it writes the weights
            peer = [str(HERE / "openflamingo_train_peer.py"), folder, *flags]
            sides["open_flamingo"] = Child(peer, given.peer, given.threads)
        switches = [f"--{name}" for name in ("alone", "compile") if getattr(given, name)]
        sides["ours"] = Child([__file__, "--child", folder, *flags, *switches], threads=given.threads)
        taken: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        before = {name: side.run("losses")["result"] for name, side in sides.items()}
        for number in range(given.rounds + 1):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                run = sides[name].run("shards" if given.shards else "train")
                taken[name].append(run["result"] if given.shards else run | {"samples": samples})
        after = {name: side.run("losses")["result"] for name, side in sides.items()}
        for side in sides.values():
            side.close()
    speed = {kind: _speeds(taken, kind) for kind in ("cpu", "wall")}
    for name in sides:
        print(f"{name:<16}{speed['cpu'][name]:>8.2f} samples/s CPU{speed['wall'][name]:>8.2f} samples/s wall   "
              f"documents {before[name][0]:.5f} -> {after[name][0]:.5f}, pairs {before[name][1]:.5f} -> "
              f"{after[name][1]:.5f}", file=sys.stderr)  # fmt: skip
    kind, device = ("wall", torch.cuda.get_device_name()) if given.device == "cuda" else ("cpu", "CPU")
    if given.shards:
        tokens = {name: median(run["tokens"] / run[kind] for run in runs[1:]) for name, runs in taken.items()}
        print(f"tokens per {kind} second: " + ", ".join(f"{n} {t:.0f}" for n, t in tokens.items()), file=sys.stderr)
        if given.device == "cuda":
            print(f"MFU of ours: {median(run['mfu'] for run in taken['ours'][1:]):.1%}", file=sys.stderr)
    origin = "documents from shards" if given.shards else "batches made before"
    claim = f"training a {given.size} model, samples per {kind} second, {device}, {given.threads} thread(s), {origin}, "
    if given.alone:
        print(json.dumps({"claim": claim + given.precision, "ours": speed[kind]["ours"], "unit": "samples/s"}))
        return
    compared = [before] if given.shards else [before, after]  # each side's loader deals its own documents
    apart = max(abs(a - b) for one in compared for a, b in zip(one["ours"], one["open_flamingo"], strict=True))
    verdict = "losses agree" if apart < LOSSES_APART[given.precision] else "losses DIFFER"
    print(f"{speed[kind]['ours'] / speed[kind]['open_flamingo']:.2f}x (goal {GOAL}x); {verdict}", file=sys.stderr)
    report(
        claim=f"{claim}{given.precision}, {verdict}",
        ours=speed[kind]["ours"],
        peer=speed[kind]["open_flamingo"],
        peer_name="open_flamingo 2.0.1",
        unit="samples/s",
    )


def _speeds(taken: dict[str, list[dict[str, Any]]], kind: str) -> dict[str, float]:
    """The first run of each is not counted."""
    return {name: median(run["samples"] / run[kind] for run in runs[1:]) for name, runs in taken.items()}


# Two processes beside one


def scaling(rounds: int) -> None:
    """Weak scaling: each process has the samples that one has. Printed, and true only where two cores are free."""
    speeds = {world: _speed_of(world, rounds) for world in (1, 2)}
    efficiency = speeds[2] / (2 * speeds[1])
    for world, speed in speeds.items():
        print(f"{world} process(es): {speed:.2f} samples/s", file=sys.stderr)
    print(json.dumps({"claim": "two-rank scaling on CPU", "efficiency": round(efficiency, 3), "unit": "samples/s",
                      "one": round(speeds[1], 2), "two": round(speeds[2], 2)}))  # fmt: skip


def _speed_of(world: int, rounds: int) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(world):
        where = {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        command = [sys.executable, __file__, "--rank", str(rank), "--rounds", str(rounds)]
        processes.append(subprocess.Popen(command, env=os.environ | where, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit("a process of the scaling benchmark failed")
    return float(outputs[0].splitlines()[-1])


def ranked(rounds: int) -> None:
    from train.distributed import joined

    torch.set_num_threads(1)
    with joined("cpu") as place:
        engine, batches = engine_of(random_model(), place.device), small_batches()
        run_updates(engine, batches)
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            run_updates(engine, batches)
            seconds.append(time.perf_counter() - start)
        print(3 * train_work.DOCUMENTS * UPDATES * place.world / median(seconds))


def random_model() -> Any:
    """As in the comparison, from random weights of our own."""
    import transformers
    from model_work import LANGUAGE, SIDE, TEXT, VISION, VISION_WIDTH
    from open_clip.model import CLIP

    from model import config as configs
    from model.flamingo import Flamingo
    from model.vision import clip_tower

    torch.manual_seed(0)
    vision = configs.VisionConfig(
        library="open_clip", name="small", pretrained=None, width=VISION_WIDTH, image_size=SIDE, final_norm=False
    )
    language = configs.LanguageConfig(
        name=None, layers=LANGUAGE["n_layers"], width=LANGUAGE["d_model"], vocab_size=8000, new_tokens=3
    )
    base = configs.openflamingo_3b()
    resampler = configs.replace(base.resampler, width=VISION_WIDTH)
    config = configs.replace(base, vision=vision, language=language, resampler=resampler)
    visual: Any = CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT).visual  # type: ignore[arg-type]
    lm = transformers.MptForCausalLM(transformers.MptConfig(**LANGUAGE))
    return Flamingo(config, clip_tower(visual, vision, (0.0,) * 3, (1.0,) * 3), lm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=os.environ.get("OPEN_FLAMINGO"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shards", action="store_true", help="documents from tars, by each side's own loader")
    parser.add_argument("--size", choices=tuple(SIZES), default=os.environ.get(SIZE, "small"))
    parser.add_argument("--precision", choices=tuple(LOSSES_APART), default="fp32")
    parser.add_argument("--scaling", action="store_true", help="two processes beside one")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--documents", type=int, default=4, help="of an update, beside twice as many pairs")
    parser.add_argument("--workers", type=int, default=1, help="processes of each side's loader")
    parser.add_argument("--alone", action="store_true", help="ours without the peer")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.documents % 4:
        parser.error("--documents must be a multiple of 4")
    os.environ |= {SIZE: given.size, OF_UPDATE: str(given.documents)}  # of the children's models and batches
    if given.child is not None:
        child(given)
    elif given.rank is not None:
        ranked(given.rounds)
    elif given.scaling:
        scaling(given.rounds)
    elif given.alone or (given.peer is not None and Path(given.peer, "open_flamingo").is_dir()):
        compare(given)
    else:
        print(MODEL["HOW_TO_GET_PEER"].replace("model.py", "train.py"), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
