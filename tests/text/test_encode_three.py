"""Prompts for three text encoders: order, filling, windows and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tiny_sd3 as sd3
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.text.encode_three import TripleTextEncoder
from stable_diffusion.text.t5_tokenizer import t5_tokenizer
from stable_diffusion.text.tokenizer import Tokenizer

WIDTH, CLIP, T5 = 24, 8, 256
PROMPT = "a beautiful sunset over the ocean"


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> tuple[TripleTextEncoder, TripleTextEncoder]:
    """The same with T5 and without."""
    torch.manual_seed(3)
    config = CLIPTextConfig(width=CLIP, layers=2, heads=2, mlp_width=16, projection_dim=5)
    towers = [(CLIPText(config).eval(), Tokenizer.clip()), (CLIPText(config).eval(), Tokenizer.clip(pad=0))]
    t5 = T5Encoder(T5Config(vocab_size=256, width=WIDTH, layers=1, heads=2, head_dim=8, mlp_width=16)).eval()
    folder = tmp_path_factory.mktemp("t5")
    sd3.write_t5_tokenizer(folder)
    pair = (t5, t5_tokenizer(folder))
    return TripleTextEncoder(towers, pair, width=WIDTH), TripleTextEncoder(towers, None, width=WIDTH)


def test_order_and_filling(encoders: tuple[TripleTextEncoder, TripleTextEncoder]) -> None:
    full, without = encoders
    made, bare = full.encode(PROMPT).conditioning, without.encode(PROMPT).conditioning
    assert made.tokens.shape == bare.tokens.shape == (1, 77 + T5, WIDTH)
    assert made.vector is not None and made.vector.shape == (1, 10)
    torch.testing.assert_close(made.tokens[:, :77], bare.tokens[:, :77])
    assert not made.tokens[:, :77, 2 * CLIP :].any() and made.tokens[:, :77, : 2 * CLIP].all(dim=-1).any()
    assert made.tokens[:, 77:].any() and not bare.tokens[:, 77:].any()


def test_long_prompts_take_windows_of_their_own(encoders: tuple[TripleTextEncoder, TripleTextEncoder]) -> None:
    full, _ = encoders
    assert full.t5 is not None
    long = ", ".join(["quicksilver waterfall beyond yesterday"] * 8)  # T5's small vocabulary spells it letter by letter
    assert T5 - 1 < len(full.t5[1].encode(long)) < 2 * T5 - 20
    read = full.encode(long)
    start = len(read.windows) * 77
    assert read.conditioning.tokens.shape[1] == start + 2 * T5
    rows = full([long, PROMPT])
    assert rows.tokens.shape == (2, start + 2 * T5, WIDTH)
    torch.testing.assert_close(rows.tokens[:1], read.conditioning.tokens)
    alone = full.encode(PROMPT).conditioning.tokens
    torch.testing.assert_close(rows.tokens[1:, start : start + T5], alone[:, 77:])


def test_weights_of_t5_lead_away_from_the_empty_prompt(encoders: tuple[TripleTextEncoder, TripleTextEncoder]) -> None:
    full, _ = encoders
    plain, empty = (full.encode(text).conditioning.tokens[:, 77:] for text in ("the ocean", ""))
    assert full.t5 is not None
    count = len(full.t5[1].encode("the ocean"))
    for weight in (0.0, 1.5):
        made = full.encode(f"(the ocean:{weight})").conditioning.tokens[:, 77:]
        torch.testing.assert_close(made[:, :count], (empty + weight * (plain - empty))[:, :count])
        torch.testing.assert_close(made[:, count:], plain[:, count:])
    torch.testing.assert_close(full.encode("(the ocean:1.0)").conditioning.tokens[:, 77:], plain)


def test_break_starts_a_new_window_everywhere(encoders: tuple[TripleTextEncoder, TripleTextEncoder]) -> None:
    full, _ = encoders
    tokens = full.encode("the ocean BREAK canvas").conditioning.tokens
    assert tokens.shape[1] == 2 * 77 + 2 * T5
    torch.testing.assert_close(tokens[:, -T5:], full.encode("canvas").conditioning.tokens[:, -T5:])


def test_the_empty_prompt(encoders: tuple[TripleTextEncoder, TripleTextEncoder], tmp_path: Path) -> None:
    full, _ = encoders
    made = full.encode("", negative=True).conditioning
    assert made.tokens.shape == (1, 77 + T5, WIDTH) and made.tokens[:, 77:].any()
