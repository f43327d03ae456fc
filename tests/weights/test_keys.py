"""Key tables: bijective, bit-exact, and equal to what diffusers' own converters do."""

import pytest
import torch

from stable_diffusion.errors import BrokenModel
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.keys import KeyTable, Op, Rule, apply
from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers
from stable_diffusion.weights.networks.unet import unet_diffusers, unet_ldm
from stable_diffusion.weights.networks.vae import vae_diffusers, vae_ldm

UNETS = {
    "sd1": UNetConfig(channels=(16, 24, 40, 48), heads=4, context_dim=20, groups=8),
    "sd2": UNetConfig(channels=(16, 24, 40, 48), head_dim=8, context_dim=28, linear_projection=True, groups=8),
    "sdxl": UNetConfig(
        channels=(16, 24, 40), transformer_depth=(0, 1, 3), head_dim=8, vector_dim=13, linear_projection=True, groups=4
    ),
    "no_middle_transformer": UNetConfig(
        channels=(8, 8), blocks_per_stage=(1, 3), transformer_depth=(2, 0), mid_depth=0, groups=4
    ),
}
VAES = {
    "sd": VAEConfig(channels=(16, 24, 40), groups=8),
    "ours": VAEConfig(
        image_channels=4,
        latent_channels=8,
        channels=(8, 16, 24, 32),
        decoder_channels=(16, 8, 8, 24),
        decoder_blocks=1,
        mid_attention=False,
        quant_conv=False,
        patch_size=2,
        groups=8,
    ),
}
CLIPS = {
    "sd1": CLIPTextConfig(vocab_size=30, width=12, layers=2, heads=3, mlp_width=20, context_length=7, eos_token_id=29),
    "sd2": CLIPTextConfig(
        vocab_size=30, width=12, layers=3, heads=4, mlp_width=20, context_length=7, eos_token_id=29, projection_dim=10
    ),
}
CASES = [
    *((UNet, table, config) for config in UNETS.values() for table in (unet_ldm, unet_diffusers)),
    *((VAE, table, config) for config in VAES.values() for table in (vae_ldm, vae_diffusers)),
    *((CLIPText, table, config) for config in CLIPS.values() for table in (clip_transformers, clip_openclip)),
]


def random_state(model, config):
    """A state dict of the shapes of a model, built on meta."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in model(config).state_dict().items()}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def assert_same(made, expected):
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(("model", "table", "config"), CASES)
def test_round_trip_is_exact_and_complete(model, table, config):
    ours = random_state(model, config)
    keys = table(config)
    assert sorted(keys.our_names()) == sorted(ours)
    theirs = keys.invert(ours)
    assert sorted(keys.their_names()) == sorted(theirs)
    assert_same(keys.convert(theirs), ours)
    assert_same(keys.invert(keys.convert(theirs)), theirs)


@pytest.mark.parametrize(("model", "table", "config"), CASES)
def test_every_key_counts(model, table, config):
    keys = table(config)
    theirs = keys.invert(random_state(model, config))
    for name in theirs:
        rest = {other: tensor for other, tensor in theirs.items() if other != name}
        assert keys.compare(rest) == ([name], [])
    assert keys.compare([*theirs, "stray"]) == ([], ["stray"])
    with pytest.raises(BrokenModel, match=r"^1 tensors are unexpected: stray$"):
        keys.convert(theirs | {"stray": torch.zeros(1)})


@pytest.mark.parametrize(("model", "table", "config"), CASES)
def test_prefix_aliases_and_ignored_names(model, table, config):
    keys = table(config)
    ours = random_state(model, config)
    theirs = keys.invert(ours)
    by_name = {name: alias for alias, name in keys.aliases.items()}
    assert set(by_name) <= set(theirs)
    renamed = {by_name.get(name, name): tensor for name, tensor in theirs.items()}
    renamed |= {name: torch.zeros(1) for name in keys.ignored}
    assert_same(keys.convert(renamed), ours)
    prefixed = {f"some.prefix.{name}": tensor for name, tensor in renamed.items()}
    assert_same(keys.prefixed("some.prefix.").convert(prefixed), ours)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_unet_ldm_equals_diffusers_converter(name):
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = UNETS[name]
    ours = random_state(UNet, config)
    single = unet_ldm(config).prefixed("model.diffusion_model.").invert(ours)
    their_config = {"layers_per_block": 2, "addition_embed_type": "text_time" if config.vector_dim else None}
    assert_same(utils.convert_ldm_unet_checkpoint(single, their_config), unet_diffusers(config).invert(ours))


def test_vae_ldm_equals_diffusers_converter():
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = VAES["sd"]
    ours = random_state(VAE, config)
    single = vae_ldm(config).prefixed("first_stage_model.").invert(ours)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    made = utils.convert_ldm_vae_checkpoint(single, blocks)
    assert_same(made, vae_diffusers(config).invert(ours))


def test_openclip_equals_diffusers_converter():
    utils = pytest.importorskip("diffusers.loaders.single_file_utils")
    config = CLIPS["sd2"]
    ours = random_state(CLIPText, config)
    prefix = "conditioner.embedders.1.model."  # below SD 2's own prefix that converter drops the projection
    single = clip_openclip(config).prefixed(prefix).invert(ours)
    made = utils.convert_open_clip_checkpoint(None, single, prefix)
    assert_same(made, clip_transformers(config).invert(ours))


def test_clip_without_projection_ignores_one():
    config = CLIPS["sd1"]
    ours = random_state(CLIPText, config)
    for table, name in ((clip_transformers, "text_projection.weight"), (clip_openclip, "text_projection")):
        keys = table(config)
        assert_same(keys.convert(keys.invert(ours) | {name: torch.zeros(5, 12)}), ours)


def test_autoencoder_with_matrices_for_attention_loads():
    """Some public single files hold the attention of the autoencoder as matrices already."""
    keys = vae_ldm(VAES["sd"])
    ours = random_state(VAE, VAES["sd"])
    theirs = {
        name: t[:, :, 0, 0] if ".attn_1." in name and t.dim() == 4 else t for name, t in keys.invert(ours).items()
    }
    assert_same(keys.convert(theirs), ours)


def test_name_goes_before_its_alias():
    keys = KeyTable((Rule(("a",), ("b",)),), aliases={"c": "b"})
    assert keys.compare(["b", "c"]) == ([], ["c"])
    with pytest.raises(BrokenModel, match="1 tensors are missing: b; 1 tensors are unexpected: d"):
        keys.convert({"d": torch.zeros(1)})


def test_a_name_twice_is_our_own_mistake():
    with pytest.raises(AssertionError, match="twice"):
        KeyTable((Rule(("a",), ("b",)), Rule(("c",), ("b",))))


@pytest.mark.parametrize("op", Op)
def test_every_op_has_an_inverse(op):
    count = {Op.SPLIT: 3}.get(op, 1)
    shape = {Op.SQUEEZE: (6, 4, 1, 1)}.get(op, (6, 4))
    tensors = [torch.randn(shape) for _ in range(3 if op is Op.CONCAT else 1)]
    made = apply(op, tensors, count)
    assert len(made) == count
    back = apply(op.inverse, made, len(tensors))
    assert all(torch.equal(a, b) for a, b in zip(tensors, back, strict=True)) and len(back) == len(tensors)
    assert op is Op.SAME or made[0].shape != tensors[0].shape or not torch.equal(made[0], tensors[0])


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (Op.SQUEEZE, [(4, 4, 3, 3)], "expected a 1x1 convolution"),
        (Op.TRANSPOSE, [(4,)], "expected a matrix"),
        (Op.SPLIT, [(7, 4)], "do not split in 3"),
        (Op.CONCAT, [(4, 4), (4, 5)], "expected equal shapes"),
        (Op.SWAP_HALVES, [(7, 4)], "halves"),
    ],
)
def test_shapes_that_do_not_fit_name_the_tensor(op, shapes, message):
    names = tuple(f"theirs{index}" for index in range(len(shapes)))
    ours = ("a", "b", "c") if op is Op.SPLIT else ("a",)
    keys = KeyTable((Rule(ours, names, op),))
    with pytest.raises(BrokenModel, match=f"^theirs0: .*{message}"):
        keys.convert({name: torch.zeros(shape) for name, shape in zip(names, shapes, strict=True)})
