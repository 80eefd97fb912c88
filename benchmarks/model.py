"""The model beside OpenFlamingo's own code, on the same weights: training steps, and generation by beams.

    python benchmarks/model.py --peer FOLDER [--rounds 5] [--threads 1] [--compile]
    python benchmarks/model.py --device cuda --shape openflamingo_9b

FOLDER, or OPEN_FLAMINGO in the environment, is where `open_flamingo` is importable with a transformers that it works
with, which is another than ours: so each side is a child process, and the two work in turns, never at once. On `cuda`
there is no peer: step time, tokens/s, share of the device's peak, and memory for the shapes that were released.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))  # before this folder, whose model.py is not the package

import torch  # noqa: E402
from children import Child  # noqa: E402
from model_work import (  # noqa: E402
    GENERATION,
    IMAGE,
    JOBS,
    LANGUAGE,
    SIDE,
    TEXT,
    TRAINING,
    VISION,
    VISION_WIDTH,
    own_stdout,
    prompt_batch,
    serve,
    training_batch,
    weights,
)
from timing import installed, report  # noqa: E402

HOW_TO_GET_PEER = """OpenFlamingo is not there. To get it, into a folder of its own:
    pip install --no-deps --target FOLDER open_flamingo==2.0.1 einops einops-exts transformers==4.33.3 \\
        tokenizers==0.13.3 "huggingface_hub<0.20" open_clip_torch==2.20.0 ftfy wcwidth sentencepiece
and then: python benchmarks/model.py --peer FOLDER"""
GOALS = {"train": 1.3, "generate": 3.0}


# Ours, as a child


def build_small(folder: Path) -> Any:
    """The peer's weights in our model, through its own checkpoint."""
    import transformers
    from open_clip.model import CLIP

    from model.config import VisionConfig
    from model.openflamingo import load_openflamingo
    from model.vision import clip_tower

    files = weights(folder)
    lm = transformers.MptForCausalLM(transformers.MptConfig(**LANGUAGE))
    lm.load_state_dict(torch.load(files["language"], weights_only=True))
    visual: Any = CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT).visual  # type: ignore[arg-type]
    visual.load_state_dict(torch.load(files["vision"], weights_only=True))
    config = VisionConfig(
        library="open_clip", name="small", pretrained=None, width=VISION_WIDTH, image_size=SIDE, final_norm=False
    )
    tower = clip_tower(visual, config, (0.0,) * 3, (1.0,) * 3)
    return load_openflamingo(files["checkpoint"], lm, config, tower=tower)


def train_small(model: Any, images: tuple[int, ...]) -> float:
    from model.masking import previous_image
    from model.targets import target_places

    batch = training_batch(images)
    ids = batch["input_ids"]
    slots = torch.arange(batch["pictures"].shape[1]).expand(len(images), -1)
    present = slots < torch.tensor(images)[:, None]
    model.train()
    model.zero_grad(set_to_none=True)
    loss = model(
        ids,
        images=batch["pictures"][present],
        image_rows=torch.where(present, present.flatten().cumsum(0).view_as(present) - 1, -1),
        phi=previous_image(ids, IMAGE),
        attention_mask=torch.ones_like(ids),
        labels=batch["labels"],
        places=target_places(batch["labels"]),
    ).loss
    loss.backward()
    return float(loss.detach())


def generate_small(model: Any, shots: int) -> list[list[int]]:
    from model.generation import generate
    from model.masking import previous_image
    from model.prefix import Prompts, VisualCache

    batch = prompt_batch(shots)
    ids, pictures = batch["input_ids"], batch["pictures"]
    model.eval()
    rows = torch.arange(pictures.shape[0] * pictures.shape[1]).view(pictures.shape[:2])
    with torch.inference_mode():
        prompts = Prompts(
            input_ids=ids,
            attention_mask=batch["attention_mask"],
            visual=VisualCache(model).encode(list(pictures.flatten(0, 1))),
            image_rows=rows,
            phi=previous_image(ids, IMAGE),
        )
        found = generate(model, prompts, **GENERATION)
    written: list[list[int]] = found[:, ids.shape[1] :].tolist()
    return written


def child(folder: Path, threads: int, compiled: bool) -> None:
    answers = own_stdout()
    torch.set_num_threads(threads)
    model = build_small(folder)
    training = torch.compile(model) if compiled else model

    def job(name: str) -> Callable[[], Any]:
        kind, what = name.split()
        if kind == "train":
            return lambda: train_small(training, TRAINING[what])
        return lambda: generate_small(model, int(what))

    serve(job, answers)


# Both, in turns


def compare(peer: str, *, rounds: int, threads: int, compiled: bool, jobs: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # The peer first: it writes the weights.
        theirs = Child([str(HERE / "openflamingo_peer.py"), folder, str(threads)], peer, threads)
        flags = ["--compile"] if compiled else []
        ours = Child([__file__, "--child", folder, "--threads", str(threads), *flags], None, threads)
        sides = {"ours": ours, "open_flamingo": theirs}
        for job in jobs:
            show(job, {name: [] for name in sides}, sides, rounds)
        for side in sides.values():
            side.close()


def show(job: str, taken: dict[str, list[dict[str, Any]]], sides: Mapping[str, Child], rounds: int) -> None:
    """One untimed run each, which must agree; then rounds in alternating order."""
    first = {name: side.run(job)["result"] for name, side in sides.items()}
    same = agree(first["ours"], first["open_flamingo"])
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            taken[name].append(sides[name].run(job))
    speed = {name: JOBS[job] / median(run["cpu"] for run in runs) for name, runs in taken.items()}
    for name, runs in taken.items():
        cpu, wall = (median(run[kind] for run in runs) for kind in ("cpu", "wall"))
        print(f"{job:<14}{name:<16}{cpu:>9.2f} s CPU{wall:>9.2f} s wall{speed[name]:>10.1f} tokens/s", file=sys.stderr)
    ratio, goal = speed["ours"] / speed["open_flamingo"], GOALS[job.split()[0]]
    print(f"{job:<14}{ratio:.2f}x (goal {goal}x); results {'agree' if same else 'DIFFER'}", file=sys.stderr)
    report(
        claim=f"{job}: tokens per CPU second, results {'agree' if same else 'differ'}",
        ours=speed["ours"],
        peer=speed["open_flamingo"],
        peer_name="open_flamingo 2.0.1",
        unit="tokens/s",
    )


def agree(ours: Any, theirs: Any) -> bool:
    return abs(ours - theirs) < 1e-4 if isinstance(ours, float) else bool(ours == theirs)


# On a GPU, ours alone


def released_shape(shape: str, device: str) -> Any:
    """The model with random weights: what is frozen in bf16, what is trained in fp32."""
    import transformers

    from model import config as configs
    from model.flamingo import Flamingo
    from model.vision import build

    config = getattr(configs, shape)()
    size = {"n_layers": config.language.layers, "d_model": config.language.width}
    heads = config.language.width // 128
    with torch.device(device):
        mpt = transformers.MptConfig(**size, n_heads=heads, vocab_size=50_432, max_seq_len=2048)
        lm = transformers.MptForCausalLM(mpt).bfloat16()
        tower = build(configs.with_vision(config, _random(config.vision)).vision).bfloat16().to(device)
        model = Flamingo(config, tower, lm)
    for name, parameter in model.named_parameters():
        if name.endswith("gate.value"):
            torch.nn.init.constant_(parameter, 0.5)
    return model.to(device).train()


def _random(vision: Any) -> Any:
    from dataclasses import replace

    return replace(vision, pretrained=None)


def step_table(shape: str, device: str, *, sequences: int, steps: int) -> None:
    from model.flops import Batch, flops_per_batch
    from train.metrics import peak

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    most = peak(torch.device(device))
    for compiled in (False, True):
        model = released_shape(shape, device)
        flops = flops_per_batch(model, Batch(sequences=sequences, tokens=256, slots=6, images=6 * sequences)).total
        seconds, memory = timed_steps(model, device, sequences, steps, compiled)
        row = {
            "shape": shape,
            "device": name,
            "compile": compiled,
            "step_seconds": round(seconds, 4),
            "tokens_per_second": round(sequences * 256 / seconds, 1),
            "mfu": round(flops / seconds / most, 4),
            "peak_gib": round(memory / 2**30, 2),
            "torch": torch.__version__,
            "transformers": installed("transformers"),
        }
        print(json.dumps(row), flush=True)
        del model


def timed_steps(model: Any, device: str, sequences: int, steps: int, compiled: bool) -> tuple[float, float]:
    """Median seconds of forward, backward and AdamW; and the peak of allocated memory."""
    from model.masking import previous_image

    ids = torch.randint(3, 50_000, (sequences, 256), device=device)
    image = model.config.language.vocab_size + 1
    ids[:, :: 256 // 6 + 1] = image
    size = model.vision.image_size
    images = torch.randn(6 * sequences, 1, 3, size, size, device=device, dtype=torch.bfloat16)
    rows = torch.arange(6 * sequences, device=device).view(sequences, 6)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=device == "cuda")
    run = torch.compile(model) if compiled else model
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps + 3):
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16):
            found = run(ids, images=images, image_rows=rows, phi=previous_image(ids, image), labels=ids)
            loss = found.loss_sum / found.loss_tokens
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return median(seconds[3:]), torch.cuda.max_memory_allocated() if device == "cuda" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=os.environ.get("OPEN_FLAMINGO"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile, in training steps")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--shape", help="openflamingo_3b or openflamingo_9b, with --device cuda")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        child(given.child, given.threads, given.compile)
    elif given.shape is not None:
        step_table(given.shape, given.device, sequences=given.sequences, steps=given.steps)
    elif given.peer is None or not Path(given.peer, "open_flamingo").is_dir():
        print(HOW_TO_GET_PEER, file=sys.stderr)
        sys.exit(2)
    else:
        compare(given.peer, rounds=given.rounds, threads=given.threads, compiled=given.compile, jobs=given.jobs)


if __name__ == "__main__":
    main()
