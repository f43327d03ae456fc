"""Networks of which one block at a time is in memory calculate what whole ones do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.weights.networks.t5 import t5_transformers

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.skipif(not SCRIPTS.is_dir(), reason="scripts are not shipped with the tests")

CONFIG = T5Config(vocab_size=40, width=16, layers=3, heads=2, head_dim=8, mlp_width=24)
IDS = torch.randint(0, 40, (1, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import random_networks

    return random_networks


def reference(tools: Any, *, streamed: bool) -> Any:
    config = transformers.T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=3, num_heads=2, feed_forward_proj="gated-gelu"
    )
    made = tools.empty(lambda: transformers.T5EncoderModel(config), streamed=streamed)
    made.tie_weights()
    tools.randomise(made)
    return made


@torch.no_grad()
def test_a_streamed_pair_agrees_and_keeps_no_block(tools: Any) -> None:
    theirs = reference(tools, streamed=True)
    with torch.device("meta"):
        ours = T5Encoder(CONFIG)
    tools.stream(theirs, ours.eval(), t5_transformers(CONFIG))
    expected = theirs(IDS).last_hidden_state
    for _ in range(2):
        torch.testing.assert_close(ours(IDS), expected, rtol=1e-5, atol=1e-5)
        assert all(parameter.is_meta for parameter in (*ours.layers.parameters(), *theirs.encoder.block.parameters()))
    assert not ours.position_bias.weight.is_meta and float(expected.std()) > 0.01
    # what holds the same weights and is whole says the same
    whole = reference(tools, streamed=False)
    whole.load_state_dict(theirs.state_dict(), strict=False, assign=True)
    for index, block in enumerate(whole.encoder.block):
        tools._fill(block, index)
    torch.testing.assert_close(whole(IDS).last_hidden_state, expected)
    tools._fill(whole.encoder.block[1], 7)
    assert not torch.allclose(whole(IDS).last_hidden_state, expected, atol=1e-2)
