"""Resampler and cross-attention by themselves."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from model import config as configs
from model import masking
from model.cross_attention import CrossAttention, CrossAttentionBlock
from model.resampler import Resampler, interpolated

CROSS = configs.CrossAttentionConfig(heads=2, head_dim=8)


def test_time_embeddings_stretch_from_8_to_30_frames() -> None:
    """Against the definition: place j of 30 lies at 7 j / 29 among the 8."""
    learnt = torch.randn(8, 5)
    found = interpolated(learnt, 30)
    for j in range(30):
        at = 7 * j / 29
        low = min(math.floor(at), 6)
        torch.testing.assert_close(found[j], learnt[low] * (1 - at + low) + learnt[low + 1] * (at - low))
    assert torch.equal(interpolated(learnt, 8), learnt)
    assert torch.equal(interpolated(learnt, 1), learnt[:1])


@pytest.mark.parametrize("kind", ("perceiver", "mlp", "transformer"))
def test_resampler_takes_any_number_of_patches_and_frames(kind: Any) -> None:
    config = replace(configs.tiny().resampler, kind=kind)
    resampler = Resampler(config, 20)
    for frames, patches in ((1, 9), (4, 5), (30, 2)):
        tokens = frames * patches if kind == "transformer" else config.latents
        assert resampler(torch.randn(2, frames, patches, 20)).shape == (2, tokens, config.width)


def test_order_of_frames_matters_and_order_of_patches_does_not() -> None:
    resampler = Resampler(configs.tiny().resampler, 32)
    torch.nn.init.normal_(resampler.time)
    video = torch.randn(1, 3, 5, 32)
    torch.testing.assert_close(resampler(video.flip(2)), resampler(video), atol=1e-5, rtol=1e-4)
    assert (resampler(video.flip(1)) - resampler(video)).abs().max() > 1e-3


def test_video_without_time_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="3 frames"):
        Resampler(replace(configs.tiny().resampler, frames=0), 32)(torch.randn(1, 3, 5, 32))


@pytest.mark.parametrize("backend", (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, None))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
def test_rows_that_see_nothing_give_exactly_zero(backend: SDPBackend | None, dtype: torch.dtype) -> None:
    layer = CrossAttention(CROSS, 16, 12).to(dtype)
    phi = torch.tensor([[0, 0, 1, 2], [0, 0, 0, 0]])
    view = masking.view(phi, torch.tensor([[True, False], [False, False]]), 3)
    x, media = torch.randn(2, 4, 16, dtype=dtype, requires_grad=True), torch.randn(2, 6, 12, dtype=dtype)
    with sdpa_kernel([backend] if backend is not None else [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]):
        out = layer(x, media, view)
        out.square().sum().backward()
    seen = [[False, False, True, False], [False] * 4]  # the second image of the first sequence is not there
    assert (out != 0).any(-1).tolist() == seen
    assert x.grad is not None and x.grad.isfinite().all() and (x.grad != 0).any(-1).tolist() == seen
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("applied", (True, False))
def test_feed_forward_of_rows_that_see_nothing_is_a_switch(applied: bool) -> None:
    block = CrossAttentionBlock(replace(CROSS, ff_on_empty_rows=applied, gate=False), 16, 12)
    x, media = torch.randn(1, 3, 16), torch.randn(1, 2, 12)
    view = masking.view(torch.tensor([[0, 1, 1]]), torch.tensor([[True]]), 2)
    changed = (block(x, media, view) != x).any(-1)[0].tolist()
    assert changed == [applied, True, True]
    assert (block(x, None, None) != x).any() == applied


def test_attention_is_softmax_over_the_tokens_own_image() -> None:
    """Against the equation, without torch's kernels."""
    layer = CrossAttention(CROSS, 16, 12)
    x, media = torch.randn(1, 2, 16), torch.randn(1, 6, 12)
    out = layer(x, media, masking.view(torch.tensor([[2, 1]]), torch.tensor([[True, True]]), 3))
    q = layer.to_q(layer.norm(x)).view(2, 2, 8)
    assert layer.media_norm is not None
    k, v = layer.to_kv(layer.media_norm(media)).view(6, 2, 2, 8).unbind(1)
    for row, own in ((0, slice(3, 6)), (1, slice(0, 3))):
        weights = torch.einsum("hc,khc->hk", q[row], k[own]).div(8**0.5).softmax(-1)
        expected = layer.to_out(torch.einsum("hk,khc->hc", weights, v[own]).flatten())
        torch.testing.assert_close(out[0, row], expected)
