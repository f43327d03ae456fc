"""T5's encoder against transformers with equal random weights, and its buckets."""

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.t5 import T5Config, T5Encoder, relative_bucket
from stable_diffusion.weights.networks.t5 import t5_transformers

CONFIG = T5Config(vocab_size=61, width=20, layers=3, heads=3, head_dim=8, mlp_width=28, buckets=8, max_distance=20)


@pytest.fixture
def pair(randomise):
    """(ours, transformers') with equal random weights."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=61, d_model=20, d_kv=8, d_ff=28, num_layers=3, num_heads=3, relative_attention_num_buckets=8,
            relative_attention_max_distance=20, feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip
    randomise(reference)
    state = {name: tensor for name, tensor in reference.state_dict().items() if "embed_tokens" not in name}
    with torch.device("meta"):
        ours = T5Encoder(CONFIG)
    ours.load_state_dict(t5_transformers(CONFIG).convert(state), assign=True)
    return ours.eval(), reference


@pytest.mark.parametrize("length", [5, 43])
@torch.no_grad()
def test_equals_transformers(pair, relative_error, length):
    ours, reference = pair
    ids = torch.randint(0, 61, (2, length), generator=torch.Generator().manual_seed(1))
    assert relative_error(ours(ids), reference(ids).last_hidden_state) < 1e-5


@pytest.mark.parametrize(("buckets", "most"), [(32, 128), (8, 20)])
def test_buckets_are_those_of_transformers(buckets, most):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(-300, 301)
    expected = T5Attention._relative_position_bucket(distance, num_buckets=buckets, max_distance=most)
    found = relative_bucket(distance, buckets, most)
    assert torch.equal(found, expected) and set(found.tolist()) == set(range(buckets)) - {buckets // 2}


def test_norms_have_the_same_epsilon(pair):
    ours, reference = pair
    for rule in t5_transformers(CONFIG).rules:
        layer = ours.get_submodule(rule.ours[0].rpartition(".")[0])
        if isinstance(layer, torch.nn.RMSNorm):
            assert layer.eps == reference.get_submodule(rule.theirs[0].rpartition(".")[0]).variance_epsilon


def test_table_takes_both_names_of_the_embedding(pair):
    ours, _ = pair
    table = t5_transformers(CONFIG)
    own = ours.state_dict()
    state = table.invert(own)
    assert sorted(table.our_names()) == sorted(own) and sorted(table.their_names()) == sorted(state)
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    assert table.compare(state) == ([], [])
    del state["shared.weight"]
    back = table.convert(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in own.items())


@torch.no_grad()
def test_half_precision_keeps_what_float16_cannot_hold(randomise):
    """Residuals beyond 65504, as trained T5 has them, stay finite and near the float32 answer."""
    model = randomise(T5Encoder(CONFIG))
    model.token_embedding.weight.mul_(2e4)
    model.layers[0].mlp.down.weight.mul_(3e4)
    ids = torch.randint(0, 61, (1, 9), generator=torch.Generator().manual_seed(1))
    exact = model(ids)
    half = model.half()(ids)
    assert half.dtype == torch.float16 and bool(torch.isfinite(half).all())
    assert float((half.float() - exact).norm() / exact.norm()) < 0.02


def test_bad_config():
    with pytest.raises(InvalidRequest, match="buckets is 7"):
        T5Config(buckets=7)
    with pytest.raises(InvalidRequest, match="max_distance is 8; expected more than 8"):
        T5Config(max_distance=8)
