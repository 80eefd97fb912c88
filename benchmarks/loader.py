"""The loader beside OpenFlamingo's own, on the same documents: sequences for each second of CPU time, and padding.

    python benchmarks/loader.py --peer FOLDER[:FOLDER] [--rounds 5] [--documents 400]

FOLDER, or OPEN_FLAMINGO in the environment, is where `open_flamingo` is importable with what it works with, as for
benchmarks/model.py, and beside that webdataset 0.2.86: later ones break it.
Each side is a child with one worker; the CPU time of all its processes counts. Both decode to 224 px and 256 tokens.
Pictures are those of a corpus of real pages where it is at hand, 560 to 800 px on the longer side, else drawn ones.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from string import ascii_lowercase
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tests")]

from children import Child  # noqa: E402
from loader_work import BATCH, END, MAX_IMAGES, MIN_BYTES, SIDE, THRESHOLD, TOKENS, serve  # noqa: E402
from model_work import VOCABULARY  # noqa: E402
from timing import report  # noqa: E402

SHARED = HERE.parents[1] / "shared"
PICTURES, SENTENCES, PER_SHARD = 4, 20, 50  # of a document on average; documents of a tar
HOW_TO_GET_PEER = """OpenFlamingo is not there. To get it, into a folder of its own:
    pip install --no-deps --target FOLDER open_flamingo==2.0.1 einops einops-exts transformers==4.33.3 \\
        tokenizers==0.13.3 "huggingface_hub<0.20" open_clip_torch==2.20.0 ftfy wcwidth sentencepiece braceexpand \\
        webdataset==0.2.86
and then: python benchmarks/loader.py --peer FOLDER"""


# The documents


def real_pictures() -> Iterator[bytes]:
    """As a build would have stored them."""
    from fastwarc.warc import ArchiveIterator

    from mmc4_builder.images import ImageError, normalise

    path = SHARED / "corpora" / "manuals.warc.gz"
    for record in ArchiveIterator(path.open("rb")) if path.exists() else ():
        if record.http_headers and record.http_headers.get("Content-Type", "").startswith("image"):
            try:
                stored = normalise(record.reader.read())
            except ImageError:
                continue
            if max(stored.width, stored.height) >= 560 and len(stored.data) > MIN_BYTES:
                yield stored.data


def real_sentences() -> Iterator[str]:
    path = SHARED / "data" / "mmc4_docs.jsonl"
    for line in path.open() if path.exists() else ():
        yield from json.loads(line)["doc"]["text_list"]


def invented_sentences() -> list[str]:
    """Of ten thousand words, a few of them frequent: enough for all pieces of the tokenizer."""
    draw = random.Random(0)
    words = ["".join(draw.choices(ascii_lowercase, k=draw.randint(2, 9))) for _ in range(10_000)]
    shares = [1 / (rank + 10) for rank in range(len(words))]
    return [" ".join(draw.choices(words, shares, k=16)).capitalize() + "." for _ in range(5000)]


def write_corpus(folder: Path, count: int) -> dict[str, float]:
    """The same documents in both layouts, and a tokenizer of their text; returns what they are like."""
    from training_data import photograph

    from mmc4_builder.shards import Sample, shard_name, sizes_json, write_shard

    pictures = list(real_pictures()) or [photograph(seed) for seed in range(64)]
    sentences = list(real_sentences()) or invented_sentences()
    draw = random.Random(0)
    samples = [
        Sample(key=f"{number:011d}", doc=doc, images=tuple(draw.choices(pictures, k=len(doc["image_info"]))))
        for number in range(count)
        for doc in [one_document(number, draw, sentences)]
    ]
    for name, fmt in (("ours", "mmc4"), ("peer", "openflamingo")):
        shards = folder / name / "shards"
        shards.mkdir(parents=True)
        parts = [samples[at : at + PER_SHARD] for at in range(0, count, PER_SHARD)]
        for number, part in enumerate(parts):
            with (shards / shard_name(number, fmt)).open("wb") as stream:  # type: ignore[arg-type]
                write_shard(stream, part, fmt)  # type: ignore[arg-type]
        (shards / "sizes.json").write_text(sizes_json([len(part) for part in parts], fmt))  # type: ignore[arg-type]
    write_tokenizer(folder, sentences)
    return {
        "documents": count,
        "sentences": sum(len(sample.doc["text_list"]) for sample in samples) / count,
        "pictures": sum(len(sample.images) for sample in samples) / count,
        "kilobytes a picture": sum(map(len, pictures)) / len(pictures) / 1000,
    }


def one_document(number: int, draw: random.Random, sentences: list[str]) -> dict[str, Any]:
    """Lengths as on the web: many short ones and a few long ones."""
    text = draw.choices(sentences, k=min(80, max(4, round(draw.lognormvariate(2.8, 0.65)))))
    places = sorted(draw.sample(range(len(text)), k=min(len(text), draw.randint(1, 2 * PICTURES - 1))))
    similarity = [[0.35 if place == column else 0.15 for column in range(len(text))] for place in places]
    info = [
        {"image_name": f"{image}.jpg", "raw_url": f"http://example.com/{number}/{image}.jpg",
         "matched_text_index": place, "matched_sim": 0.35, "face_detections": None}
        for image, place in enumerate(places)
    ]  # fmt: skip
    return {"url": f"http://example.com/{number}", "text_list": text, "image_info": info,
            "similarity_matrix": similarity, "could_have_url_duplicate": 0}  # fmt: skip


def write_tokenizer(folder: Path, sentences: list[str]) -> None:
    """One byte-level BPE in two spellings: tokenizers before 0.20 want merges as texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(sentences, trainer)
    assert made.get_vocab_size() == VOCABULARY  # or markers would have other numbers than the model expects
    made.save(str(folder / "tokenizer.json"))
    spelled = json.loads((folder / "tokenizer.json").read_text())
    spelled["model"]["merges"] = [" ".join(pair) for pair in spelled["model"]["merges"]]
    spelled["model"].pop("ignore_merges", None)
    (folder / "tokenizer-old.json").write_text(json.dumps(spelled))


# Ours, as a child


def ours(folder: Path, *, packed: bool) -> None:
    import torch
    from transformers import PreTrainedTokenizerFast

    from model.config import LanguageConfig
    from train import vocabulary
    from train.config import DatasetConfig, ImagesConfig, InterleavedConfig
    from train.loader import Loader

    torch.set_num_threads(1)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token=END)
    language = LanguageConfig(name=None, layers=2, width=16, vocab_size=len(tokenizer), new_tokens=3)
    kind = InterleavedConfig(
        tokens=TOKENS, max_images=MAX_IMAGES, min_similarity=THRESHOLD, min_bytes=MIN_BYTES, packed=packed
    )
    loader = Loader(
        DatasetConfig(name="documents", path=str(folder / "ours"), kind=kind, batch=BATCH),
        vocabulary=vocabulary.of(tokenizer, language),
        images=ImagesConfig(),
        side=SIDE,
        seed=0,
        workers=1,
    )

    def take() -> tuple[int, int, int]:
        (batch,) = next(loader)
        return len(batch.keys), batch.real_tokens, batch.attention_mask.numel()

    serve(take)


# Both, in turns


def compare(peer: str, *, rounds: int, batches: int, documents: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        about = write_corpus(Path(folder), documents)
        print(", ".join(f"{value:.0f} {name}" for name, value in about.items()), file=sys.stderr)
        sides = {
            "ours, windows": Child([__file__, "--child", folder]),
            "ours, packed": Child([__file__, "--child", folder, "--packed"]),
            "OpenFlamingo": Child([str(HERE / "loader_peer.py"), folder], peer),
        }
        found: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
        for number in range(rounds):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                found[name].append(sides[name].run(batches))
        for side in sides.values():
            side.close()
    rates = {name: median(taken["sequences"] / taken["cpu"] for taken in each) for name, each in found.items()}
    fill = {name: sum(t["real"] for t in each) / sum(t["positions"] for t in each) for name, each in found.items()}
    tokens = {name: median(taken["real"] / taken["cpu"] for taken in each) for name, each in found.items()}
    print(f"{'':<16}{'sequences/CPU s':>17}{'tokens/CPU s':>15}{'real tokens a position':>25}", file=sys.stderr)
    for name in sides:
        print(f"  {name:<14}{rates[name]:>17.1f}{tokens[name]:>15.0f}{fill[name]:>25.3f}", file=sys.stderr)
    for name in ("ours, packed", "ours, windows"):
        report(claim=f"loading, real tokens a position, {name}", ours=fill[name], peer=fill["OpenFlamingo"],
               peer_name="open_flamingo 2.0.1", unit="tokens")  # fmt: skip
    report(claim="loading documents (goal 4.0)", ours=rates["ours, windows"], peer=rates["OpenFlamingo"],
           peer_name="open_flamingo 2.0.1", unit="sequences/CPU s")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=os.environ.get("OPEN_FLAMINGO"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=25, help="of 16 sequences, a round")
    parser.add_argument("--documents", type=int, default=400)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--packed", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        ours(args.child, packed=args.packed)
    elif not args.peer:
        sys.exit(HOW_TO_GET_PEER)
    else:
        compare(args.peer, rounds=args.rounds, batches=args.batches, documents=args.documents)


if __name__ == "__main__":
    main()
