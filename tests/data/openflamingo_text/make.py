"""Makes cases.json and tokenizer.json: made-up documents and captions as OpenFlamingo's own code prepares them.

Run it with OpenFlamingo 2.0.1 and transformers 4.33 in the path, beside this repository's torch and webdataset:

    PYTHONPATH=/path/to/open_flamingo's/site-packages python tests/data/openflamingo_text/make.py

In each document the best cell of an image's row is the stored assignment and images are in sentence order: elsewhere
OpenFlamingo solves anew and confuses images. Labels are those that its training loop hands to the model.
"""

import base64
import io
import json
import sys
import types
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent
WORDS = (
    "The red fox sleeps on the old stone wall beside the garden.",
    "A picture of a dog that runs along the beach in the evening light.",
    "We walked to the market, bought apples, pears and bread, and went home by the river.",
    "This recipe needs two eggs, a cup of flour, some sugar and a little salt.",
    "Don't miss the naïve painter's café – it's 3,50 € for coffee & cake!",
    "In 1998 the museum opened its doors; since then more than 250,000 visitors have come.",
)
Case = list[tuple[int, float, int]]  # an image's sentence, similarity and bytes; no bytes: its file is missing

# (number of sentences, images)
DOCUMENTS: list[tuple[int, Case]] = [
    (4, [(0, 0.3, 20_000), (2, 0.31, 20_000)]),
    (3, [(0, 0.3, 20_000)]),
    (5, [(3, 0.3, 20_000)]),
    (9, [(n, 0.3, 20_000) for n in range(8)]),
    (4, [(1, 0.3, 20_000), (1, 0.35, 20_000), (2, 0.35, 20_000)]),
    (24, [(1, 0.3, 20_000), (5, 0.3, 20_000), (20, 0.3, 20_000)]),
    (5, [(1, 0.3, 20_000), (2, 0.2399, 20_000), (4, 0.24, 20_000)]),
    (5, [(1, 0.3, 10_999), (3, 0.3, 11_000)]),
    (5, [(4, 0.3, 20_000)]),
    (5, [(0, 0.3, 0), (2, 0.3, 20_000)]),
    (5, [(0, 0.1, 20_000), (2, 0.2, 20_000)]),
    (30, [(2, 0.3, 20_000), (9, 0.3, 20_000), (10, 0.3, 20_000)]),
    (30, [(0, 0.3, 20_000), (1, 0.3, 20_000), (1, 0.3, 20_000), (29, 0.3, 20_000)]),
]
CAPTIONS = ("A red fox.", "  a dog on the beach \n", "café & cake, 3,50 €", "two eggs", "x")


def main() -> None:
    peer_data, peer_train = peer()
    tokenizer = made_tokenizer()
    cases = []
    for sentences, images in DOCUMENTS:
        doc = document(sentences, images)
        case: dict[str, Any] = {"doc": doc, "sizes": [size for _, _, size in images]}
        try:
            _, (ids, mask) = peer_data.preprocess_interleaved(
                [json.dumps(with_files(doc, images))], tokenizer, lambda _: torch.zeros(3, 2, 2), 0.24, 1, 6
            )
        except ValueError as error:
            case["refused"] = str(error)
        else:
            pair = peer_data.preprocess_laion_text(["x"], tokenizer)
            case |= {"ids": ids[0][mask[0] == 1].tolist()}
            case["labels"] = labels(peer_train, tokenizer, pair, (ids, mask))[1][0][mask[0] == 1].tolist()
        cases.append(case)
    page = peer_data.preprocess_interleaved(
        [json.dumps(with_files(document(*DOCUMENTS[0]), DOCUMENTS[0][1]))], tokenizer, lambda _: torch.zeros(3, 2, 2),
        0.24, 1, 6,
    )[1]  # fmt: skip
    pairs = []
    for caption in CAPTIONS:
        ids, mask = peer_data.preprocess_laion_text([caption], tokenizer)
        found = labels(peer_train, tokenizer, (ids, mask), page)[0][0]
        pairs.append({"caption": caption, "ids": ids[0].tolist(), "labels": found.tolist()})
    text = json.dumps({"documents": cases, "pairs": pairs}, ensure_ascii=False)
    (FOLDER / "cases.json").write_text(text.replace('{"doc"', '\n{"doc"').replace('{"caption"', '\n{"caption"') + "\n")


def peer() -> tuple[Any, Any]:
    found = find_spec("open_flamingo")
    assert found is not None and found.submodule_search_locations
    sys.path.insert(0, f"{found.submodule_search_locations[0]}/train")
    sys.modules.setdefault("wandb", types.ModuleType("wandb"))
    import data as peer_data
    import train_utils as peer_train

    peer_data.random.random = lambda: 1.0  # keep documents with one image
    return peer_data, peer_train


def made_tokenizer() -> PreTrainedTokenizerFast:
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    engine.save(str(FOLDER / "tokenizer.json"), pretty=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(FOLDER / "tokenizer.json"), eos_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endofchunk|>", "<image>"]})
    tokenizer.add_special_tokens({"pad_token": "<PAD>"})
    return tokenizer


def document(sentences: int, images: Case) -> dict[str, Any]:
    """An MMC4 document; image i is best matched, and assigned, to its sentence."""
    matrix = [[similarity if n == sentence else 0.01 for n in range(sentences)] for sentence, similarity, _ in images]
    info = [
        {"image_name": f"{n}.jpg", "raw_url": f"https://a.example/{n}.jpg", "matched_text_index": s, "matched_sim": m}
        for n, (s, m, _) in enumerate(images)
    ]
    texts = [WORDS[n % len(WORDS)] for n in range(sentences)]
    return {"url": "https://a.example/", "text_list": texts, "image_info": info, "similarity_matrix": matrix}


def with_files(doc: dict[str, Any], images: Case) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "JPEG")
    info = [
        {**entry, "image_base64": base64.b64encode(stream.getvalue().ljust(size, b"\0")).decode()} if size else entry
        for entry, (_, _, size) in zip(doc["image_info"], images, strict=True)
    ]
    return {**doc, "image_info": info}


class Listener(torch.nn.Module):
    """In the place of the model: keeps the labels of a pair's batch and of a document's batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.heard: list[torch.Tensor] = []

    def forward(self, *, labels: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        self.heard.append(labels.clone())
        return (self.weight.sum(),)


class Loader(list[Any]):
    num_batches = 1


def labels(peer_train: Any, tokenizer: Any, pair: Any, page: Any) -> list[torch.Tensor]:
    """[labels of the pair, labels of the page], by the peer's loop."""
    model = Listener()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    args = types.SimpleNamespace(
        num_epochs=1, precision="fp32", fsdp=False, rank=1, gradient_accumulation_steps=1, loss_multiplier_laion=1.0,
        loss_multiplier_mmc4=1.0, freeze_lm_embeddings=True, report_to_wandb=False, logging_steps=1,
    )  # fmt: skip
    picture = torch.zeros(1, 3, 2, 2)
    peer_train.train_one_epoch(
        args=args, model=model, epoch=0, laion_loader=Loader([(picture, pair)]),
        mmc4_loader=Loader([(picture[None], [page])]), tokenizer=tokenizer, optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer), device_id="cpu", wandb=None,
    )  # fmt: skip
    return model.heard


if __name__ == "__main__":
    main()
