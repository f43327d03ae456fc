"""The U-Net against diffusers with equal random weights, and what it promises on its own."""

import dataclasses

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.nn.patches import detail_velocity
from stable_diffusion.types import Residuals
from stable_diffusion.weights.networks.unet import unet_diffusers

TINY = UNetConfig(
    in_channels=5,
    out_channels=3,
    channels=(16, 24, 40),
    blocks_per_stage=1,
    transformer_depth=(1, 2, 0),
    heads=4,
    context_dim=20,
    groups=8,
)

# Each entry: our config, and diffusers' arguments that do not follow from it. Together they hold every block type.
VARIANTS = {
    "sd1": (
        UNetConfig(in_channels=5, out_channels=3, channels=(16, 24, 40, 48), heads=4, context_dim=20, groups=8),
        {"attention_head_dim": 4, "layers_per_block": 2},
    ),
    "sd2": (
        UNetConfig(
            in_channels=9,
            channels=(16, 24, 40, 48),
            head_dim=8,
            context_dim=28,
            linear_projection=True,
            upcast_attention=True,
            groups=8,
        ),
        {"attention_head_dim": (2, 3, 5, 6), "layers_per_block": 2},
    ),
    "sdxl": (
        UNetConfig(
            channels=(16, 24, 40),
            transformer_depth=(0, 1, 3),
            head_dim=8,
            context_dim=28,
            vector_dim=13,
            linear_projection=True,
            groups=4,
        ),
        {
            "attention_head_dim": (2, 3, 5),
            "layers_per_block": 2,
            "transformer_layers_per_block": (1, 1, 3),
            "class_embed_type": "projection",
            "projection_class_embeddings_input_dim": 13,
        },
    ),
    "uneven": (
        UNetConfig(
            channels=(16, 40, 24),
            blocks_per_stage=(1, 3, 2),
            transformer_depth=(2, 0, 1),
            mid_depth=1,
            heads=(2, 4, 3),
            context_dim=12,
            groups=8,
        ),
        {
            "attention_head_dim": (2, 4, 3),
            "layers_per_block": (1, 3, 2),
            "transformer_layers_per_block": (2, 1, 1),
        },
    ),
    "ssd-1b": (
        UNetConfig(
            channels=(16, 24, 40),
            transformer_depth=(0, 2, 4),
            up_depth=(0, (2, 1, 1), (4, 4, 5)),
            mid_depth=0,
            mid_blocks=1,
            head_dim=8,
            context_dim=28,
            linear_projection=True,
            groups=4,
        ),
        {
            "attention_head_dim": (2, 3, 5),
            "layers_per_block": 2,
            "transformer_layers_per_block": [1, [2, 2], [4, 4]],
            "reverse_transformer_layers_per_block": [[4, 4, 5], [2, 1, 1], 1],
            "mid_block_type": "UNetMidBlock2D",
        },
    ),
    "koala": (
        UNetConfig(
            channels=(16, 24, 40), blocks_per_stage=1, transformer_depth=(0, 2, 5), mid_depth=0, mid_blocks=0,
            head_dim=8, context_dim=28, linear_projection=True, groups=4,
        ),
        {
            "attention_head_dim": (2, 3, 5),
            "layers_per_block": 1,
            "transformer_layers_per_block": (1, 2, 5),
            "mid_block_type": None,
        },
    ),
}  # fmt: skip


@pytest.fixture(params=VARIANTS)
def pair(request, randomise):
    """(ours, diffusers') with equal random weights."""
    diffusers = pytest.importorskip("diffusers")
    config, arguments = VARIANTS[request.param]
    depths = [stage.attends for stage in config.down_stages()]
    reference = diffusers.UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        cross_attention_dim=config.context_dim,
        use_linear_projection=config.linear_projection,
        upcast_attention=config.upcast_attention,
        norm_num_groups=config.groups,
        down_block_types=["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths],
        up_block_types=["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in reversed(depths)],
        **arguments,
    )
    randomise(reference)
    with torch.device("meta"):
        ours = UNet(config)
    ours.load_state_dict(unet_diffusers(config).convert(reference.state_dict()), assign=True)
    assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))
    return ours.eval(), reference


def inputs(config, height=16, width=24, batch=2, tokens=7):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.in_channels, height, width, generator=generator)
    context = torch.randn(batch, tokens, config.context_dim, generator=generator)
    vector = None
    if config.vector_dim is not None:
        vector = torch.randn(batch, config.vector_dim, generator=generator)
    return x, torch.tensor([981.0, 17.25])[:batch], context, vector


@pytest.mark.parametrize("size", [(16, 24), (13, 11)], ids=["even", "odd"])
@torch.no_grad()
def test_equals_diffusers(pair, relative_error, size):
    ours, reference = pair
    x, timestep, tokens, vector = inputs(ours.config, *size)
    expected = reference(x, timestep, tokens, class_labels=vector).sample
    assert relative_error(ours(x, timestep, tokens, vector=vector), expected) < 1e-5


def test_norms_have_the_same_epsilon(pair):
    """A wrong epsilon changes outputs of this size by less than the tolerance above."""
    ours, reference = pair
    norms = 0
    for rule in unet_diffusers(ours.config).rules:
        layer = ours.get_submodule(rule.ours[0].rpartition(".")[0])
        if isinstance(layer, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
            name = rule.theirs[0].rpartition(".")[0]
            assert layer.eps == reference.get_submodule(name).eps, name
            norms += 1
    assert norms > 4


@torch.no_grad()
def test_residuals_equal_diffusers(pair, relative_error):
    ours, reference = pair
    x, timestep, tokens, vector = inputs(ours.config)
    height, width = x.shape[2:]
    levels = [0]
    for level, stage in enumerate(ours.config.down_stages()):
        levels += [level] * len(stage.blocks) + [level + 1] * stage.resample
    sizes = zip(levels, ours.config.skip_channels(), strict=True)
    down = [torch.randn(2, channels, height >> level, width >> level) for level, channels in sizes]
    mid = torch.randn_like(down[-1])
    expected = reference(
        x,
        timestep,
        tokens,
        class_labels=vector,
        down_block_additional_residuals=tuple(down),
        mid_block_additional_residual=mid,
    ).sample
    made = ours(x, timestep, tokens, vector=vector, residuals=Residuals(tuple(down), mid))
    assert relative_error(made, expected) < 1e-5
    with pytest.raises(InvalidRequest, match=f"1 residuals .* {len(down)} skips"):
        ours(x, timestep, tokens, vector=vector, residuals=Residuals((down[0],), mid))


@pytest.mark.parametrize("mid_depth", [0, 1, 3])
@torch.no_grad()
def test_middle_without_or_with_more_transformer_blocks(mid_depth, randomise):
    config = dataclasses.replace(TINY, mid_depth=mid_depth)
    unet = randomise(UNet(config))
    assert (unet.mid.transformer is None) == (mid_depth == 0)
    x, timestep, tokens, _ = inputs(config)
    made = unet(x, timestep, tokens)
    assert made.shape == (2, 3, 16, 24)
    assert not torch.allclose(made, unet(x, timestep, tokens + 1))


@torch.no_grad()
def test_each_image_and_input_matters(randomise):
    unet = randomise(UNet(dataclasses.replace(TINY, vector_dim=6)))
    x, timestep, tokens, vector = inputs(unet.config)
    made = unet(x, timestep, tokens, vector=vector)
    alone = unet(x[1:], timestep[1:], tokens[1:], vector=vector[1:])
    torch.testing.assert_close(made[1:], alone)
    for changed in (
        unet(x, timestep + 1, tokens, vector=vector),
        unet(x, timestep, tokens.roll(1, dims=1) * 2, vector=vector),
        unet(x, timestep, tokens, vector=vector + 1),
    ):
        assert (changed - made).abs().max() > 1e-3


def test_new_model_starts_at_zero_and_learns():
    torch.manual_seed(0)
    unet = UNet(TINY)
    x, timestep, tokens, _ = inputs(TINY)
    assert unet(x, timestep, tokens).abs().max() == 0
    optimiser = torch.optim.Adam(unet.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = (unet(x, timestep, tokens) - x[:, :3]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    # After a few steps no zero-initialised layer holds the gradient back any more.
    silent = [name for name, parameter in unet.named_parameters() if not parameter.grad.abs().max() > 0]
    assert not silent


def test_runs_in_bfloat16_autocast(randomise, relative_error):
    unet = randomise(UNet(TINY))
    x, timestep, tokens, _ = inputs(TINY)
    with torch.no_grad():
        exact = unet(x, timestep, tokens)
        with torch.autocast("cpu", torch.bfloat16):
            rough = unet(x, timestep, tokens)
    assert rough.dtype == torch.bfloat16
    assert relative_error(rough.float(), exact) < 0.1


def test_channels_last_changes_nothing(randomise, relative_error):
    unet = randomise(UNet(TINY))
    x, timestep, tokens, _ = inputs(TINY)
    with torch.no_grad():
        expected = unet(x, timestep, tokens)
        made = unet.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last), timestep, tokens)
    assert relative_error(made, expected) < 1e-5


def test_patches_are_folded_into_channels(randomise):
    config = dataclasses.replace(TINY, out_channels=5, patch_size=2)
    folded = randomise(UNet(config))
    plain = UNet(dataclasses.replace(config, in_channels=20, out_channels=20, patch_size=1))
    plain.load_state_dict(folded.state_dict())
    x, t, tokens = torch.randn(2, 5, 12, 8), torch.tensor([3.0, 700.0]), torch.randn(2, 4, 20)
    shuffle, unshuffle = torch.nn.functional.pixel_shuffle, torch.nn.functional.pixel_unshuffle
    with torch.no_grad():
        assert torch.equal(folded(x, t, tokens), shuffle(plain(unshuffle(x, 2), t, tokens), 2))
        odd = folded(x[..., :11, :7], t, tokens)  # the last row and column of a patch repeat the edge
        repeated = torch.cat([x[..., :11, :], x[..., 10:11, :]], dim=2)
        repeated = torch.cat([repeated[..., :7], repeated[..., 6:7]], dim=3)
        assert torch.equal(odd, folded(repeated, t, tokens)[..., :11, :7])
    assert config.downscale == 8


def test_the_guess_of_detail_is_added(randomise):
    config = dataclasses.replace(TINY, in_channels=6, out_channels=5, patch_size=2)
    plain = randomise(UNet(config))
    guessing = UNet(dataclasses.replace(config, patch_detail=0.3))
    guessing.load_state_dict(plain.state_dict())
    x, t, tokens = torch.randn(2, 6, 8, 8), torch.tensor([100.0, 900.0]), torch.randn(2, 4, 20)
    with torch.no_grad():
        added = guessing(x, t, tokens) - plain(x, t, tokens)
    torch.testing.assert_close(added, detail_velocity(x[:, :5], t / 1000, 2, 0.3), rtol=1e-4, atol=1e-4)
    with pytest.raises(InvalidRequest, match="patch_detail -1"):
        dataclasses.replace(config, patch_detail=-1)


def test_vector_is_needed_or_refused():
    x, timestep, tokens, _ = inputs(TINY)
    vector = torch.zeros(2, 6)
    with pytest.raises(InvalidRequest, match="takes none"):
        UNet(TINY)(x, timestep, tokens, vector=vector)
    with pytest.raises(InvalidRequest, match="vector of width 6"):
        UNet(dataclasses.replace(TINY, vector_dim=6))(x, timestep, tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ()}, "at least one stage"),
        ({"channels": (16, 25, 40)}, "25; expected a multiple of 8 .*nearest is 24"),
        ({"head_dim": 8}, "both given"),
        ({"heads": 5}, "multiple of 5"),
        ({"heads": None, "head_dim": 16}, "24; expected a multiple of 16"),
        ({"heads": (4, 4)}, "each of the 3 stages"),
        ({"blocks_per_stage": (1, 0, 1)}, "at least 1"),
        ({"transformer_depth": -1}, "at least 0"),
        ({"up_depth": (0, (1, 2, 3, 4), 0)}, "one number for each of 2 blocks"),
        ({"blocks_per_stage": 2, "transformer_depth": (0, (1, 0), 0)}, "none or all of a stage 0"),
        ({"mid_blocks": 1, "mid_depth": 1}, "mid_blocks is 1 with mid_depth 1"),
    ],
)
def test_bad_config_says_why(changes, message):
    with pytest.raises(InvalidRequest, match=message):
        dataclasses.replace(TINY, **changes)


def test_stable_diffusion_sizes():
    """Parameter counts of the released models."""
    with torch.device("meta"):
        sd1 = UNet(UNetConfig())
        sd2 = UNet(UNetConfig(context_dim=1024, head_dim=64, linear_projection=True))
        sdxl = UNet(
            UNetConfig(
                channels=(320, 640, 1280),
                transformer_depth=(0, 2, 10),
                head_dim=64,
                context_dim=2048,
                vector_dim=2816,
                linear_projection=True,
            )
        )
    counts = [sum(parameter.numel() for parameter in model.parameters()) for model in (sd1, sd2, sdxl)]
    assert counts == [859_520_964, 865_910_724, 2_567_463_684]


class Wrapped(torch.nn.Module):
    """Calls a stage with copies of the lists that it is given, as FSDP, DDP and checkpointing do."""

    def __init__(self, stage: torch.nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, *arguments):
        return self.stage(*(list(each) if isinstance(each, list | tuple) else each for each in arguments))


@torch.no_grad()
def test_stages_may_be_wrapped(randomise) -> None:
    unet = randomise(
        UNet(UNetConfig(channels=(8, 16), blocks_per_stage=2, transformer_depth=1, heads=2, context_dim=6, groups=4))
    )
    given = (torch.randn(1, 4, 5, 7), torch.tensor([5.0]), torch.randn(1, 3, 6))
    plain = unet(*given)
    unet.down = torch.nn.ModuleList(map(Wrapped, unet.down))
    unet.up = torch.nn.ModuleList(map(Wrapped, unet.up))
    assert torch.equal(unet(*given), plain)
