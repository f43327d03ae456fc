"""Windows, weights, layers and the report of the text encoder."""

from __future__ import annotations

import math

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.clip import CLIPText
from stable_diffusion.text.encode import TextEncoder, from_empty, restore_mean
from stable_diffusion.text.tokenizer import Tokenizer
from stable_diffusion.text.windows import ALONE, BATCH, Window, split_windows


@pytest.fixture(scope="module")
def encoder(tiny_clip: CLIPText) -> TextEncoder:
    return TextEncoder(tiny_clip, Tokenizer.clip())


@pytest.fixture(scope="module")
def native(tiny_native_clip: CLIPText, tiny_native_tokenizer: Tokenizer) -> TextEncoder:
    return TextEncoder(tiny_native_clip, tiny_native_tokenizer, vector=True, emphasis="from_empty")


def test_one_window_is_what_the_model_gives(encoder: TextEncoder, tiny_clip: CLIPText) -> None:
    ids = torch.tensor([[49406, 320, 1125, 539, 320, 2368, 49407] + [49407] * 70])
    expected = tiny_clip(ids)
    got = encoder("a photo of a cat")
    assert torch.equal(got.tokens, expected.tokens) and torch.equal(got.pooled, expected.pooled)
    assert got.vector is None and got.tokens.shape == (1, 77, 24)


def test_a_prompt_alone_equals_the_prompt_in_a_list(encoder: TextEncoder) -> None:
    prompts = ["a cat", "a (dog:1.4)", "red " * 100]
    together = encoder(prompts)
    assert together.tokens.shape == (3, 154, 24)
    for index, prompt in enumerate(prompts):
        alone = encoder(prompt)
        assert torch.equal(together.tokens[index : index + 1, : alone.tokens.shape[1]], alone.tokens)


def test_short_prompts_are_filled_with_empty_windows(encoder: TextEncoder) -> None:
    together = encoder(["a cat", "red " * 100])
    assert torch.equal(together.tokens[:1, 77:], encoder("").tokens)


def test_windows_break_after_a_near_comma() -> None:
    word, comma = 7, 267
    tokens = [(word, 1.0)] * 60 + [(comma, 1.0)] + [(word, 1.0)] * 20
    first, second = split_windows(tokens, 75, comma)
    assert (len(first.ids), len(second.ids)) == (61, 20) and first.ids[-1] == comma
    tokens = [(word, 1.0)] * 50 + [(comma, 1.0)] + [(word, 1.0)] * 30
    assert [len(w.ids) for w in split_windows(tokens, 75, comma)] == [75, 6]
    assert [len(w.ids) for w in split_windows([(word, 1.0)] * 75, 75, comma)] == [75]
    assert split_windows([], 75, comma) == [Window((), ())]


def test_windows_keep_every_token_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        length, capacity = int(torch.randint(0, 200, (), generator=generator)), 30
        ids = torch.randint(0, 6, (length,), generator=generator).tolist()
        tokens = [(i, float(n)) for n, i in enumerate(ids)]
        windows = split_windows(tokens, capacity, 3)
        assert [pair for w in windows for pair in zip(w.ids, w.weights, strict=True)] == tokens
        assert all(0 < len(w.ids) <= capacity for w in windows if tokens)


def test_a_word_of_several_vectors_is_never_cut_in_two() -> None:
    word, first, inner, comma = 7, 900, 901, 267

    def lengths(ids: list[int], capacity: int = 75) -> list[int]:
        windows = split_windows([(i, 1.0) for i in ids], capacity, comma, lambda token: token == inner)
        assert [i for w in windows for i in w.ids] == ids
        return [len(w.ids) for w in windows]

    learned = [first, *[inner] * 7]
    assert lengths([word] * 70 + learned + [word] * 5) == [70, 13]
    assert lengths([word] * 67 + learned) == [75]
    assert lengths([word] * 60 + [comma] + [word] * 10 + learned) == [71, 8], "A1111 moves the word alone"
    assert lengths([word] * 60 + [comma] + [word] * 14 + learned) == [61, 22], "a full window breaks after its comma"
    assert lengths(learned * 10) == [72, 8]
    assert lengths([word] * 3 + [first] + [inner] * 80) == [75, 9], "longer than a window: there is no whole to keep"


def test_a_learned_word_stays_whole_in_a_long_prompt(encoder: TextEncoder) -> None:
    width = encoder.clip.config.width
    knowing = encoder.with_embeddings({"easy": torch.randn(8, width, generator=torch.Generator().manual_seed(0))})
    windows = knowing.windows("red " * 70 + "easy blue")
    assert [len(w.ids) for w in windows] == [70, 9]


def test_break_starts_a_window(encoder: TextEncoder) -> None:
    assert [len(w.ids) for w in encoder.windows("a cat BREAK a red dog")] == [2, 3]
    assert [len(w.ids) for w in encoder.windows("a cat BREAK")] == [2]
    assert [len(w.ids) for w in encoder.windows("BREAK a cat")] == [0, 2]
    joined = encoder("a cat BREAK a red dog").tokens
    assert torch.equal(joined, torch.cat([encoder("a cat").tokens, encoder("a red dog").tokens], dim=1))


def test_the_report_counts_and_names_what_was_dropped(encoder: TextEncoder) -> None:
    short = encoder.encode("a cat")
    assert (short.tokens, len(short.windows), short.dropped, short.note()) == (2, 1, "", None)
    long = encoder.encode("red " * 75 + "blue bird")
    assert (long.tokens, len(long.windows), long.dropped) == (77, 2, "")
    assert long.note() == "the prompt's 77 tokens were read in 2 windows; nothing was dropped"
    cut = encoder.encode("red " * 75 + "blue bird", max_windows=1)
    assert cut.dropped == "blue bird" and "blue bird" in (cut.note() or "")
    assert cut.conditioning.tokens.shape[1] == 77


def test_neutral_weights_change_nothing(encoder: TextEncoder, native: TextEncoder) -> None:
    for each in (encoder, native):
        assert torch.equal(each("a (cat:1.0)").tokens, each("a cat").tokens)


def test_restore_mean_keeps_the_mean_and_the_direction() -> None:
    tokens = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0)) + 0.5
    factors = torch.tensor([1.0, 1.0, 2.0, 1.0, 0.5])[None, :, None]
    out = restore_mean(tokens, factors)
    assert out.mean().item() == pytest.approx(tokens.mean().item(), rel=1e-5)
    ratio = out / (tokens * factors)
    assert torch.allclose(ratio, ratio[0, 0, 0].expand_as(ratio), rtol=1e-4)


def test_a_weight_moves_only_its_word_before_the_mean_is_restored(encoder: TextEncoder) -> None:
    plain, heavy = encoder("a red cat").tokens[0], encoder("a (red:1.5) cat").tokens[0]
    scale = heavy / plain
    others = torch.cat([scale[:2], scale[3:]])
    assert torch.allclose(others, others[0, 0].expand_as(others), rtol=1e-3)
    assert torch.allclose(scale[2] / others[0, 0], torch.tensor(1.5), rtol=1e-3)


def test_from_empty_is_affine_between_empty_and_token(native: TextEncoder) -> None:
    plain, empty = native("a red cat").tokens, native("").tokens
    assert torch.allclose(native("(a red cat:0)").tokens[:, 1:8], empty[:, 1:8], atol=1e-6)
    assert torch.allclose(native("(a red cat:2)").tokens[:, 1:8], (2 * plain - empty)[:, 1:8], atol=1e-5)
    assert torch.equal(from_empty(plain, empty, torch.ones(1, 32, 1)), plain) or torch.allclose(
        from_empty(plain, empty, torch.ones(1, 32, 1)), plain, atol=1e-6
    )


def test_emphasis_none_reads_signs_as_text(tiny_clip: CLIPText) -> None:
    literal = TextEncoder(tiny_clip, Tokenizer.clip(), emphasis="none")
    assert literal.windows("(a:2)")[0].ids == tuple(Tokenizer.clip().encode("(a:2)"))


def test_clip_skip_counts_from_the_last_layer(encoder: TextEncoder, tiny_clip: CLIPText) -> None:
    ids = torch.tensor([Tokenizer.clip().window(Tokenizer.clip().encode("a cat"))])
    assert torch.equal(encoder("a cat", clip_skip=2).tokens, tiny_clip(ids, layer=-2).tokens)
    assert torch.equal(encoder("a cat", clip_skip=1).tokens, encoder("a cat").tokens)
    penultimate = TextEncoder(tiny_clip, Tokenizer.clip(pad=0), layer=-2)
    padded = torch.tensor([Tokenizer.clip(pad=0).window(Tokenizer.clip().encode("a cat"))])
    assert torch.equal(penultimate("a cat").tokens, tiny_clip(padded, layer=-2).tokens)
    for wrong in (0, 4):
        with pytest.raises(InvalidRequest, match="expected 1 to 3"):
            encoder("a cat", clip_skip=wrong)


def test_vector_is_the_pooled_sentence_of_all_windows(native: TextEncoder) -> None:
    one = native("a cat")
    assert one.vector is not None and torch.equal(one.vector, one.pooled) and one.vector.shape == (1, 12)
    first, second = "abcdefghij klmnopqrst uvwxyzabcd", "zzzzzzzzzz"  # 30 tokens, then 10
    assert [len(w.ids) for w in native.windows(f"{first} {second}")] == [30, 10]
    both = native(f"{first} {second}")
    expected = 0.75 * native(first).vector + 0.25 * native(second).vector
    assert both.tokens.shape == (1, 64, 24) and torch.allclose(both.vector, expected, atol=1e-6)


def test_wild_weights_and_no_prompts_are_refused(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidRequest, match="the weight of 'cat' in the prompt is 1000; expected -100 to 100"):
        encoder("a (cat:1000)")
    with pytest.raises(InvalidRequest, match="no prompts"):
        encoder([])
    with pytest.raises(InvalidRequest, match="max_windows is 0"):
        encoder.encode("a", max_windows=0)
    with pytest.raises(InvalidRequest, match="unknown emphasis"):
        TextEncoder(encoder.clip, encoder.tokenizer, emphasis="original")  # type: ignore[arg-type]


def test_words_know_where_their_tokens_lie(encoder: TextEncoder, native: TextEncoder) -> None:
    words = encoder.words("a (photorealistic:1.2) cat, 日落 BREAK don't")
    assert [w.text for w in words] == ["a", "photorealistic", "cat", ",", "日", "落", "don", "'t"]
    ids = [i for window in encoder.windows("a (photorealistic:1.2) cat, 日落 BREAK don't") for i in window.ids]
    places = [p for w in words for p in w.positions]
    assert len(places) == len(ids) and places[0] == 1
    assert words[-2].positions == (78,) and words[-1].positions == (79,)  # the second window
    assert len(words[1].positions) > 1 and encoder.tokenizer.decode([ids[p - 1] for p in words[1].positions]) == (
        "photorealistic"
    )
    assert [(w.text, w.positions) for w in native.words("the 猫")] == [("the", (1, 2)), ("猫", (3, 4, 5))]


def distinct(count: int) -> str:
    return " BREAK ".join(f"a cat number {number}" for number in range(count))


def test_many_windows_run_in_batches_of_one_shape_and_each_distinct_one_once(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[int] = []
    forward = encoder.clip.forward

    def counted(ids: torch.Tensor, **settings: object) -> object:
        shapes.append(len(ids))
        return forward(ids, **settings)

    monkeypatch.setattr(encoder.clip, "forward", counted)
    assert encoder.encode(distinct(ALONE)).conditioning.tokens.shape[1] == ALONE * 77
    assert shapes == [1] * ALONE
    shapes.clear()
    many = encoder.encode(distinct(1000)).conditioning.tokens
    assert many.shape[1] == 77_000 and shapes == [BATCH] * math.ceil(1000 / BATCH)
    shapes.clear()
    same = encoder.encode(" BREAK ".join(["a cat", "a (dog:1.3)"] * 500)).conditioning.tokens
    assert shapes == [1, 1] and torch.equal(same[:, :154], same[:, -154:])


def test_a_window_among_many_is_what_it_is_alone_and_never_depends_on_the_others(encoder: TextEncoder) -> None:
    many = encoder.encode(distinct(40)).conditioning.tokens
    for number in (0, 7, 17, 39):
        alone = encoder.encode(f"a cat number {number}").conditioning.tokens
        torch.testing.assert_close(many[:, number * 77 : (number + 1) * 77], alone, rtol=1e-5, atol=1e-5)
    fewer = encoder.encode(distinct(23)).conditioning.tokens
    assert torch.equal(fewer, many[:, : 23 * 77])


def test_weights_act_on_each_of_many_windows(encoder: TextEncoder) -> None:
    texts = [f"a (cat:{1 + number / 20}) number {number}" for number in range(20)]
    many = encoder.encode(" BREAK ".join(texts)).conditioning.tokens
    for number, text in enumerate(texts):
        alone = encoder.encode(text).conditioning.tokens
        torch.testing.assert_close(many[:, number * 77 : (number + 1) * 77], alone, rtol=1e-5, atol=1e-5)


def test_too_many_windows_are_refused_in_a_sentence(encoder: TextEncoder) -> None:
    with pytest.raises(InvalidRequest, match=r"falls into 2001 windows; expected at most 2000"):
        encoder.encode(" BREAK ".join(["a cat"] * 2001))
