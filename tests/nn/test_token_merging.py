"""Token merging: what is merged, how it comes back, and that it changes nothing where nothing is merged."""

from __future__ import annotations

import pytest
import torch

from stable_diffusion.nn.attention import SpatialTransformer
from stable_diffusion.nn.text_memory import TextMemory
from stable_diffusion.nn.token_merging import Merging, MergingTransformer, places


def transformer() -> SpatialTransformer:
    torch.manual_seed(0)
    made = SpatialTransformer(16, 2, 2, 12, groups=4)
    torch.nn.init.normal_(made.proj_out.weight, std=0.1)
    return made.requires_grad_(False)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 3)])
def test_every_token_is_merged_or_kept_once(size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, size[0] * size[1], 8)
    merging = Merging(x, *size, ratio=0.5)
    for row in range(2):
        numbers = torch.cat((merging.merged[row], merging.kept[row], merging.target[row])).tolist()
        assert sorted(numbers) == list(range(size[0] * size[1]))
    assert merging.merge(x).shape[1] == x.shape[1] - merging.merged.shape[1]


def test_equal_tokens_are_merged_without_loss() -> None:
    torch.manual_seed(2)
    patches = torch.randn(1, 3, 4, 8)
    x = patches.repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1, 2)  # every 2x2 places alike: [1, 48, 8]
    merging = Merging(x, 6, 8, ratio=0.75)
    merged = merging.merge(x)
    assert merged.shape[1] == 12
    torch.testing.assert_close(merging.unmerge(merged), x)


def test_the_likest_are_merged_first() -> None:
    torch.manual_seed(3)
    x = torch.randn(1, 16, 8)
    _, target = places(4, 4, x.device)
    x[0, 5] = 3 * x[0, target[2]]  # the same direction: cosine 1
    assert Merging(x, 4, 4, ratio=1 / 16).merged.tolist() == [[5]]


def test_a_ratio_of_none_is_the_plain_transformer_and_a_row_never_sees_another() -> None:
    plain = transformer()
    x, context = torch.randn(2, 16, 6, 4), torch.randn(2, 5, 12)
    torch.testing.assert_close(MergingTransformer(plain, 0.0)(x, context), plain(x, context))
    merged = MergingTransformer(plain, 0.5)
    together = merged(x, context)
    alone = torch.cat([merged(x[row : row + 1], context[row : row + 1]) for row in range(2)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together, plain(x, context), atol=1e-4)


def test_text_memory_gives_the_same_bits_and_knows_texts_apart() -> None:
    attention = transformer().blocks[0].cross_attention
    memory = TextMemory(attention)
    texts = [torch.randn(1, 5, 12) for _ in range(6)]
    x = torch.randn(1, 24, 16)
    with torch.no_grad():
        for text in [*texts, *texts, texts[0], texts[1]]:
            assert torch.equal(memory(x, text), attention(x, text))
    assert len(memory._texts) == 4


def test_text_memory_reads_a_text_once() -> None:
    attention, count = transformer().blocks[0].cross_attention, [0]
    attention.key.register_forward_hook(lambda *_: count.__setitem__(0, count[0] + 1))
    memory, text = TextMemory(attention), torch.randn(1, 5, 12)
    with torch.no_grad():
        for _ in range(3):
            memory(torch.randn(1, 24, 16), text)
    assert count == [1]
