"""Two text encoders read as one: tokens side by side, one pooled vector, empty negatives, new words."""

from __future__ import annotations

import pytest
import torch

from stable_diffusion.errors import BrokenModel, InvalidRequest
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.text.encode_two import PairedTextEncoder
from stable_diffusion.text.tokenizer import Tokenizer


def clip(**changes: object) -> CLIPText:
    settings = {"width": 8, "layers": 3, "heads": 2, "mlp_width": 12, **changes}
    torch.manual_seed(int(str(settings["width"])))
    return CLIPText(CLIPTextConfig(**settings)).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def encoder() -> PairedTextEncoder:
    second = clip(width=12, activation="gelu", projection_dim=6)
    towers = [(clip(), Tokenizer.clip()), (second, Tokenizer.clip(pad=0))]
    return PairedTextEncoder(towers, zero_empty=True)


def test_each_part_is_its_encoder_s_last_layer_but_one_without_norm(encoder: PairedTextEncoder) -> None:
    made = encoder("a red cat")
    assert made.tokens.shape == (1, 77, 20) and made.vector is not None and made.vector.shape == (1, 6)
    ids = encoder.tokenizer.encode("a red cat")
    start = 0
    for each in (encoder, *encoder.others):
        window = torch.tensor([each.tokenizer.window(ids)])
        with torch.no_grad():
            features = each.clip(window, layer=-2, final_norm=False)
        width = each.clip.config.width
        torch.testing.assert_close(made.tokens[..., start : start + width], features.tokens)
        start += width
    torch.testing.assert_close(made.vector, features.pooled)


def test_pooled_is_the_first_window_s(encoder: PairedTextEncoder) -> None:
    short, long = encoder("a red cat"), encoder("a red cat BREAK a dog")
    assert long.tokens.shape[1] == 154 and torch.equal(short.vector, long.vector)


def test_only_an_empty_negative_prompt_is_zero(encoder: PairedTextEncoder) -> None:
    empty = encoder.encode(" ", negative=True).conditioning
    assert not empty.tokens.any() and not empty.vector.any()
    assert encoder.encode("").conditioning.tokens.any() and encoder.encode("a", negative=True).conditioning.tokens.any()


def test_clip_skip_one_and_two_are_the_model_s_own_layer(encoder: PairedTextEncoder) -> None:
    own, one, two, three = (encoder.encode("a cat", clip_skip=n).conditioning.tokens for n in (None, 1, 2, 3))
    assert torch.equal(own, one) and torch.equal(own, two) and not torch.equal(own, three)


def test_new_words_have_the_columns_of_both(encoder: PairedTextEncoder) -> None:
    before = encoder("a thing").tokens
    knowing = encoder.with_embeddings({"thing": torch.randn(2, 20)})
    assert len(knowing.windows("a thing")[0].ids) == 3
    assert not torch.equal(knowing("a thing").tokens, before)
    assert torch.equal(encoder("a thing").tokens, before) and not encoder.embeddings
    with pytest.raises(InvalidRequest, match=r"\[1, 8\]; expected \[n, 8 \+ 12\]"):
        encoder.embeddings = {"thing": torch.randn(1, 8)}


def test_encoders_that_read_unlike_windows_are_refused() -> None:
    towers = [(clip(), Tokenizer.clip()), (clip(context_length=64), Tokenizer.clip(context_length=64))]
    with pytest.raises(BrokenModel, match="context_length 77 and 64"):
        PairedTextEncoder(towers)
