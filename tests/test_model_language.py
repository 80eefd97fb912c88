"""Language models whose interface is not transformers' own: what works, and what is said of those that cannot."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from first_mpt import FirstMpt, FirstMptConfig
from small_flamingos import batch, flamingo, language_model, tower
from torch import nn

from model import config as configs
from model import language
from model.config import ConfigError
from model.flamingo import Flamingo
from model.openflamingo import load_openflamingo, to_openflamingo
from model.prefix import to_cache


def test_a_language_model_without_an_output_layer_loads_openflamingos_checkpoints() -> None:
    """OpenFlamingo-3B's: names as they are in its checkpoint, and back."""
    base = configs.tiny()
    cross = replace(base.cross_attention, placement="last", head_dim=64, media_norm=False, activation="gelu")
    perceiver = replace(base.resampler, width=64, head_dim=64, frames=0, activation="gelu")
    config = replace(base, cross_attention=cross, resampler=perceiver)
    model = flamingo("first_mpt", config, gates=0.7)
    state = to_openflamingo(model)
    assert "lang_encoder.transformer.blocks.3.gated_cross_attn_layer.attn_gate" in state
    assert state["lang_encoder.transformer.wte.weight"].shape == (98, 32)
    again = load_openflamingo(
        state, language_model("first_mpt"), config.vision, tower=model.vision, new_tokens=2
    ).eval()
    data = batch()
    with torch.no_grad():
        assert torch.equal(again(**data.arguments()).logits, model(**data.arguments()).logits)


def test_what_it_is_asked_for_stays_as_it_was() -> None:
    model, data = flamingo("first_mpt", gates=1.0), batch()
    before = dict(model.lm.__dict__), list(model.lm.state_dict())
    with torch.no_grad():
        first = model(**data.arguments()).logits
        assert torch.equal(first, model(**data.arguments()).logits)
    assert (dict(model.lm.__dict__), list(model.lm.state_dict())) == before
    assert first.shape[-1] == 98 and model.new_tokens.output is None


def _more_after(lm: Any) -> None:
    lm.transformer.update({"projection": nn.Linear(32, 32)})


def _scaled(lm: Any) -> None:
    lm.config.logit_scale = 0.5


def _two_tables(lm: Any) -> None:
    lm.transformer.update({"other": nn.Embedding(100, 32)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_more_after, r"after the layers: \['ln_f', 'projection'\]"),
        (_scaled, "get_output_embeddings"),
        (_two_tables, "input embeddings"),
    ],
)
def test_what_cannot_work_is_named(change: Any, message: str) -> None:
    lm = FirstMpt(FirstMptConfig())
    change(lm)
    with pytest.raises(ConfigError, match=message):
        Flamingo(configs.tiny(), tower(configs.tiny()), lm)


def test_sizes_that_the_configuration_does_not_have() -> None:
    lm = FirstMpt(FirstMptConfig())
    del lm.config.n_layers
    with pytest.raises(ConfigError, match="num_hidden_layers or n_layers"):
        language.layer_count(lm)


def test_an_unknown_kind_of_cache() -> None:
    with pytest.raises(ConfigError, match="no known kind of cache"):
        to_cache([(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))])
