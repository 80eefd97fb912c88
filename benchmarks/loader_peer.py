"""OpenFlamingo's side of the loader's benchmark: a child of benchmarks/loader.py, on OpenFlamingo's own code."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from loader_work import BATCH, END, MAX_IMAGES, SIDE, THRESHOLD, serve


def documents(folder: Path, *, batch: int, side: int, workers: int = 1) -> Any:
    """Its loader of documents; `dataloader` gives (pictures, [(ids, mask)]) of a batch."""
    import open_flamingo

    sys.path.insert(0, str(Path(open_flamingo.__file__).parent / "train"))  # it imports its neighbours by bare names
    from open_clip.transform import image_transform
    from open_flamingo.train.data import get_mmc4_dataset
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer-old.json"), eos_token=END)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|endofchunk|>", "<image>"], "pad_token": "<PAD>"})
    last = max(int(path.stem) for path in (folder / "peer" / "shards").glob("*.tar"))
    args = argparse.Namespace(
        mmc4_shards=f"{folder}/peer/shards/{{000000000..{last:09d}}}.tar",
        train_num_samples_mmc4=10**9,
        mmc4_textsim_threshold=THRESHOLD,
        mmc4_min_num_images=1,
        mmc4_max_num_images=MAX_IMAGES,
        batch_size_mmc4=batch,
        workers=workers,
        world_size=1,
        seed=0,
    )
    data = get_mmc4_dataset(args, image_transform(side, is_train=False), tokenizer)
    data.set_epoch(0)
    return data


def main() -> None:
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    batches = iter(documents(Path(sys.argv[1]), batch=BATCH, side=SIDE).dataloader)

    def take() -> tuple[int, int, int]:
        _, texts = next(batches)  # its training loop stacks them
        masks = torch.cat([mask for _, mask in texts])
        return len(masks), int(masks.sum()), masks.numel()

    serve(take)


if __name__ == "__main__":
    main()
