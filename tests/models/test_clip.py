"""The text encoder against transformers with equal random weights, and what it promises on its own."""

import dataclasses

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.weights.networks.clip import clip_transformers

SD1 = CLIPTextConfig(vocab_size=99, width=24, layers=3, heads=4, mlp_width=40, context_length=17, eos_token_id=98)
SD2 = dataclasses.replace(SD1, activation="gelu", heads=3, layers=4, projection_dim=13)

VARIANTS = {"sd1": SD1, "sd2": SD2}


@pytest.fixture(params=VARIANTS)
def pair(request, randomise):
    """(ours, transformers') with equal random weights."""
    transformers = pytest.importorskip("transformers")
    config = VARIANTS[request.param]
    their_config = transformers.CLIPTextConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        projection_dim=13,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.context_length,
        hidden_act=config.activation,
        bos_token_id=97,
        eos_token_id=98,
    )
    projected = config.projection_dim is not None
    reference = (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(their_config)
    randomise(reference)
    with torch.device("meta"):
        ours = CLIPText(config)
    ours.load_state_dict(clip_transformers(config).convert(reference.state_dict()), assign=True)
    assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))
    return ours.eval(), reference


def sentences(config, length):
    """Three sentences of different lengths, ended and filled up with the end token."""
    ids = torch.randint(0, 97, (3, length), generator=torch.Generator().manual_seed(2))
    for row, end in enumerate((length - 1, length // 2, 3)):
        ids[row, end:] = config.eos_token_id
    return ids


@pytest.mark.parametrize("length", [17, 9])
@torch.no_grad()
def test_equals_transformers(pair, relative_error, length):
    ours, reference = pair
    ids = sentences(ours.config, length)
    expected = reference(ids, output_hidden_states=True)
    last = ours(ids)
    assert relative_error(last.tokens, expected.last_hidden_state) < 1e-5
    pooled = expected.text_embeds if ours.config.projection_dim is not None else expected.pooler_output
    assert relative_error(last.pooled, pooled) < 1e-5
    for layer in range(-2, -ours.config.layers - 2, -1):
        hidden = expected.hidden_states[layer]
        bare, normed = ours(ids, layer=layer, final_norm=False), ours(ids, layer=layer)
        assert relative_error(bare.tokens, hidden) < 1e-5
        text_model = getattr(reference, "text_model", reference)
        assert relative_error(normed.tokens, text_model.final_layer_norm(hidden)) < 1e-5
        assert torch.equal(bare.pooled, last.pooled)


def test_norms_have_the_same_epsilon(pair):
    """A wrong epsilon changes outputs of this size by less than the tolerance above."""
    ours, reference = pair
    norms = 0
    for rule in clip_transformers(ours.config).rules:
        layer = ours.get_submodule(rule.ours[0].rpartition(".")[0])
        if isinstance(layer, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            name = rule.theirs[0].rpartition(".")[0]
            if not hasattr(reference, "text_model"):  # its place differs between versions of transformers
                name = name.removeprefix("text_model.")
            assert layer.eps == reference.get_submodule(name).eps, name
            norms += 1
    assert norms > 4


@torch.no_grad()
def test_layers_count_from_both_ends(randomise):
    clip = randomise(CLIPText(SD1))
    ids = sentences(SD1, 11)
    for layer in range(SD1.layers + 1):
        for final_norm in (True, False):
            first = clip(ids, layer=layer, final_norm=final_norm).tokens
            assert torch.equal(first, clip(ids, layer=layer - SD1.layers - 1, final_norm=final_norm).tokens)


@torch.no_grad()
def test_later_tokens_do_not_matter(randomise):
    clip = randomise(CLIPText(SD2))
    ids = sentences(SD2, 12)
    changed = ids.clone()
    changed[:, 5:] = 1
    before, after = clip(ids).tokens, clip(changed).tokens
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])


@torch.no_grad()
def test_pooled_at_first_end_or_last_token(randomise):
    clip = randomise(CLIPText(SD1))
    ids = torch.randint(0, 97, (2, 8))
    ids[0, 4] = ids[0, 6] = SD1.eos_token_id
    made = clip(ids)
    assert torch.equal(made.pooled, torch.stack((made.tokens[0, 4], made.tokens[1, 7])))


def test_learns_and_every_parameter_takes_part():
    torch.manual_seed(0)
    clip = CLIPText(SD2)
    ids = sentences(SD2, 17)
    target = torch.randn(3, 13)
    optimiser = torch.optim.Adam(clip.parameters(), lr=3e-3)
    losses = []
    for _ in range(20):
        loss = (clip(ids).pooled - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    silent = [name for name, parameter in clip.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not [name for name in silent if not name.endswith("key.bias")]


def test_bad_input_says_why():
    clip = CLIPText(SD1)
    with pytest.raises(InvalidRequest, match="18 tokens were given; this text encoder takes 17"):
        clip(torch.zeros(1, 18, dtype=torch.long))
    for layer in (4, -5):
        with pytest.raises(InvalidRequest, match=f"layer is {layer}; expected -4 to 3"):
            clip(torch.zeros(1, 5, dtype=torch.long), layer=layer)
    with pytest.raises(InvalidRequest, match="did you mean 'gelu'"):
        dataclasses.replace(SD1, activation="gelus")
    with pytest.raises(InvalidRequest, match="token under 99"):
        dataclasses.replace(SD1, eos_token_id=99)
    with pytest.raises(InvalidRequest, match="multiple of 5"):
        dataclasses.replace(SD1, heads=5)


def test_stable_diffusion_size():
    with torch.device("meta"):
        clip = CLIPText(CLIPTextConfig())
    assert sum(parameter.numel() for parameter in clip.parameters()) == 123_060_480
