"""Attention against a formula written out, and its probabilities against its output."""

import pytest
import torch

from stable_diffusion.nn.attention import Attention, GatedMLP, SpatialTransformer, attend


def written_out(query, key, value, causal):
    logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    if causal:
        logits = logits.masked_fill(torch.ones(logits.shape[-2:]).triu(1) > 0, float("-inf"))
    return logits.softmax(-1) @ value


@pytest.mark.parametrize("causal", [False, True])
def test_attend(causal):
    query = torch.randn(2, 3, 7, 5)
    key, value = torch.randn(2, 2, 3, 7 if causal else 11, 5).unbind()
    torch.testing.assert_close(attend(query, key, value, causal=causal), written_out(query, key, value, causal))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_upcast_keeps_the_dtype(dtype):
    query, key, value = torch.randn(3, 1, 2, 6, 4).to(dtype)
    made = attend(query, key, value, upcast=True)
    assert made.dtype == dtype
    torch.testing.assert_close(
        made.float(), written_out(query.float(), key.float(), value.float(), False), atol=2e-2, rtol=0
    )


def test_upcast_survives_logits_beyond_float16():
    query = torch.full((1, 1, 2, 64), 200.0, dtype=torch.float16)  # logits of 320,000; float16 ends at 65,504
    value = torch.randn(1, 1, 2, 64).half()
    assert attend(query, query, value, upcast=True).isfinite().all()


@pytest.mark.parametrize(("context", "causal"), [(False, False), (False, True), (True, False)])
def test_weights_are_those_of_the_output(context, causal):
    attention = Attention(12, 3, context_width=10 if context else None, bias=True, causal=causal)
    x = torch.randn(2, 5, 12)
    other = torch.randn(2, 7, 10) if context else None
    weights = attention.weights(x, other)
    assert weights.shape == (2, 3, 5, 7 if context else 5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5))
    value = attention.split_heads(attention.value(x if other is None else other))
    torch.testing.assert_close(attention.out((weights @ value).transpose(1, 2).flatten(2)), attention(x, other))


def test_gated_mlp():
    mlp = GatedMLP(6)
    x = torch.randn(2, 3, 6)
    inner = x @ mlp.up.weight.T + mlp.up.bias
    value, gate = inner[..., :24], inner[..., 24:]
    torch.testing.assert_close(mlp(x), mlp.down(value * torch.nn.functional.gelu(gate)))


def test_new_spatial_transformer_is_the_identity_and_keeps_the_layout():
    transformer = SpatialTransformer(16, 2, 2, 10, groups=4)
    x, tokens = torch.randn(2, 16, 5, 7), torch.randn(2, 3, 10)
    assert torch.equal(transformer(x, tokens), x)
    torch.nn.init.normal_(transformer.proj_out.weight)
    for layout in (torch.contiguous_format, torch.channels_last):
        made = transformer(x.to(memory_format=layout), tokens)
        assert made.is_contiguous(memory_format=layout)
