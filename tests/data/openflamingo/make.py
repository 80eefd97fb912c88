"""Run OpenFlamingo's own code on the cases of tests/openflamingo_cases.py and store what it answers.

    pip install --no-deps --target OF open_flamingo==2.0.1 einops einops-exts transformers==4.33.3 tokenizers==0.13.3 \
        "huggingface_hub<0.20" open_clip_torch==2.20.0
    PYTHONPATH=OF:tests python tests/data/openflamingo/make.py

open_clip is of the summer of 2023: since 2.23 it normalises patch tokens, which the released weights were not trained
on. For every case there is <name>.npz (logits, loss, generations) and an entry in keys.json (names and shapes of
what OpenFlamingo's own filter leaves in a checkpoint).
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import open_flamingo
import torch
from open_flamingo.src import factory
from open_flamingo.src.flamingo import Flamingo
from open_flamingo.src.flamingo_lm import FlamingoLMMixin
from open_flamingo.src.utils import extend_instance
from openflamingo_cases import (
    BASE,
    CASES,
    ENDOFCHUNK,
    IMAGE,
    NEW_TOKENS,
    PAD,
    TOKENS,
    VISION_WIDTH,
    Case,
    inputs,
    language_model,
    new_rows,
    pixels,
    value,
    vision_model,
)

HERE = Path(__file__).parent


def build(case: Case) -> Flamingo:
    """What OpenFlamingo's factory does, with a model in memory in the place of names on a hub."""
    language = language_model(case.family, case.settings)
    extend_instance(language, FlamingoLMMixin)
    language.set_decoder_layers_attr_name(factory._infer_decoder_layers_attr_name(language))
    language.resize_token_embeddings(TOKENS)
    model = Flamingo(
        vision_model(), language, ENDOFCHUNK, IMAGE, vis_dim=VISION_WIDTH, cross_attn_every_n_layers=case.every
    )
    with torch.no_grad():
        for part, prefix in ((model.perceiver, "perceiver."), (language.gated_cross_attn_layers, "xattn.")):
            for name, parameter in part.named_parameters():
                parameter.copy_(value(prefix + name, tuple(parameter.shape)))
        language.get_input_embeddings().weight[BASE:] = new_rows("input", language.config.hidden_size)
        if not language.config.tie_word_embeddings:
            language.get_output_embeddings().weight[BASE:] = new_rows("output", language.config.hidden_size)
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    language.gated_cross_attn_layers.requires_grad_(True)
    language.get_input_embeddings().requires_grad_(True)
    return model.eval()


def checkpoint_keys(model: Flamingo) -> dict[str, list[int]]:
    """Names and shapes of a released checkpoint, by OpenFlamingo's own filter."""
    from open_flamingo.train.train_utils import filter_state_dict_to_trainable

    state = filter_state_dict_to_trainable(model, model.state_dict())
    return {name: list(tensor.shape) for name, tensor in state.items()}


def answers(model: Flamingo, case: Case) -> dict[str, np.ndarray]:
    batch, pictures = inputs(case), pixels(case)
    prompt = inputs(case, finished=False)
    with torch.no_grad():
        output = model(pictures, batch["input_ids"], batch["attention_mask"], labels=batch["labels"])
    generate = partial(
        model.generate,
        pictures,
        prompt["input_ids"],
        prompt["attention_mask"],
        max_new_tokens=NEW_TOKENS,
        pad_token_id=PAD,
        # After an <image> that it wrote itself, OpenFlamingo sees the first image, in all rows of the batch.
        suppress_tokens=[IMAGE, PAD],
    )
    beams = generate(num_beams=3, length_penalty=0.0).numpy()
    new = beams[0, prompt["input_ids"].shape[1] :]
    stop = int(new[min(2, len(new) - 1)])
    return {
        "stop": np.array(stop),
        "stopped": generate(num_beams=3, length_penalty=0.0, eos_token_id=stop).numpy(),
        "input_ids": batch["input_ids"].numpy(),
        "prompt": prompt["input_ids"].numpy(),
        "logits": output.logits.numpy(),
        "loss": output.loss.numpy(),
        "greedy": generate().numpy(),
        "beams": beams,
    }


def main() -> None:
    keys = {}
    for case in CASES:
        model = build(case)
        keys[case.name] = checkpoint_keys(model)
        stored = answers(model, case)
        np.savez_compressed(HERE / f"{case.name}.npz", **stored)
        print(
            case.name,
            float(stored["loss"]),
            *(stored[kind][:, -NEW_TOKENS:].tolist() for kind in ("greedy", "beams", "stopped")),
        )
    (HERE / "keys.json").write_text(json.dumps(keys) + "\n")
    print("made with", open_flamingo.__path__)


if __name__ == "__main__":
    main()
