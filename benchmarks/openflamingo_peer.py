"""OpenFlamingo's side of the model's benchmark: a child of benchmarks/model.py, on OpenFlamingo's own code.

Makes random weights, writes them down for the other side, and then does what it is asked on stdin.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from model_work import (
    ENDOFCHUNK,
    EVERY,
    GENERATION,
    IMAGE,
    LANGUAGE,
    TEXT,
    TOKENS,
    TRAINING,
    VISION,
    VISION_WIDTH,
    own_stdout,
    prompt_batch,
    serve,
    training_batch,
    weights,
)


def build(folder: Path) -> Any:
    import transformers
    from open_clip.model import CLIP
    from open_flamingo.src.flamingo import Flamingo
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance
    from open_flamingo.train.train_utils import filter_state_dict_to_trainable

    torch.manual_seed(0)
    language = transformers.MptForCausalLM(transformers.MptConfig(**LANGUAGE))
    vision = CLIP(embed_dim=16, vision_cfg=VISION, text_cfg=TEXT)
    vision.visual.output_tokens = True
    files = weights(folder)
    torch.save(language.state_dict(), files["language"])
    torch.save(vision.visual.state_dict(), files["vision"])
    extend_instance(language, FlamingoLMMixin)
    language.set_decoder_layers_attr_name("transformer.blocks")
    language.resize_token_embeddings(TOKENS)
    model = Flamingo(vision, language, ENDOFCHUNK, IMAGE, vis_dim=VISION_WIDTH, cross_attn_every_n_layers=EVERY)
    for layer in language.gated_cross_attn_layers:
        for gate in (layer.attn_gate, layer.ff_gate):
            torch.nn.init.constant_(gate, 0.5)
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    language.gated_cross_attn_layers.requires_grad_(True)
    language.get_input_embeddings().requires_grad_(True)
    torch.save(filter_state_dict_to_trainable(model, model.state_dict()), files["checkpoint"])
    return model


def train(model: Any, images: tuple[int, ...]) -> float:
    batch = training_batch(images)
    model.train()
    model.zero_grad(set_to_none=True)
    mask = torch.ones_like(batch["input_ids"])
    loss = model(batch["pictures"], batch["input_ids"], mask, labels=batch["labels"]).loss
    loss.backward()
    return float(loss.detach())


def generate(model: Any, shots: int) -> list[list[int]]:
    batch = prompt_batch(shots)
    model.eval()
    with torch.inference_mode():
        found = model.generate(batch["pictures"], batch["input_ids"], batch["attention_mask"], **GENERATION)
    return found[:, batch["input_ids"].shape[1] :].tolist()


def main() -> None:
    answers = own_stdout()
    warnings.simplefilter("ignore")
    torch.set_num_threads(int(sys.argv[2]))
    model = build(Path(sys.argv[1]))

    def job(name: str) -> Callable[[], Any]:
        kind, what = name.split()
        return (lambda: train(model, TRAINING[what])) if kind == "train" else (lambda: generate(model, int(what)))

    serve(job, answers)


if __name__ == "__main__":
    main()
