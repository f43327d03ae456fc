"""Key tables of a diffusers folder: `unet/`, `vae/` and `text_encoder/` (the latter in the layout of transformers).

Sources: the module trees of diffusers' UNet2DConditionModel and AutoencoderKL, and of transformers' CLIPTextModel and
CLIPTextModelWithProjection, as their checkpoints name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...models.clip import CLIPTextConfig
from ...models.unet import UNetConfig, UNetStage
from ...models.vae import VAEConfig, VAEStage
from ..keys import KeyTable, Rule, module, modules, resblock, spatial_transformer

RESBLOCK = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "skip": "conv_shortcut"}
UNET_RESBLOCK = RESBLOCK | {"time": "time_emb_proj"}
EMBEDDING_MLP = {"linear1": "linear_1", "linear2": "linear_2"}
ENDS = {"conv_in": "conv_in", "norm_out": "conv_norm_out", "conv_out": "conv_out"}

VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
OLD_VAE_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""How diffusers before 0.17 named the same layers."""

CLIP_LAYER = {
    "attention_norm": "layer_norm1",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.out": "self_attn.out_proj",
    "mlp_norm": "layer_norm2",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
}


def unet_diffusers(config: UNetConfig) -> KeyTable:
    """`unet/`; the vector's MLP is `add_embedding`, or `class_embedding` in models conditioned on image vectors."""
    rules = [*encoder_diffusers(config), *_unet_side("up", "upsample", config.up_stages(), config)]
    rules += modules("", "", {name: ENDS[name] for name in ("norm_out", "conv_out")})
    if config.guidance_dim is not None:
        rules += module("guidance_proj", "time_embedding.cond_proj", bias=False)
    vector = [name for rule in rules for name in rule.theirs if name.startswith("add_embedding.")]
    return KeyTable(tuple(rules), {name.replace("add_", "class_", 1): name for name in vector})


def encoder_diffusers(config: UNetConfig) -> Iterator[Rule]:
    """The way down and the middle, which ControlNets have as well."""
    yield from module("conv_in", ENDS["conv_in"])
    yield from modules("time_mlp", "time_embedding", EMBEDDING_MLP)
    if config.vector_dim is not None:
        yield from modules("vector_mlp", "add_embedding", EMBEDDING_MLP)
    yield from _unet_side("down", "downsample", config.down_stages(), config)
    yield from _unet_mid(config)


def _unet_side(side: str, resample: str, stages: Iterable[UNetStage], config: UNetConfig) -> Iterator[Rule]:
    for index, stage in enumerate(stages):
        ours, theirs = f"{side}.{index}", f"{side}_blocks.{index}"
        for block, channels in enumerate(stage.blocks):
            yield from resblock(f"{ours}.resblocks.{block}", f"{theirs}.resnets.{block}", UNET_RESBLOCK, channels)
            if stage.attends:
                yield from spatial_transformer(
                    f"{ours}.transformers.{block}",
                    f"{theirs}.attentions.{block}",
                    stage.depths[block],
                    linear=config.linear_projection,
                )
        if stage.resample:
            yield from module(f"{ours}.{resample}.conv", f"{theirs}.{resample}rs.0.conv")


def _unet_mid(config: UNetConfig) -> Iterator[Rule]:
    stage = config.mid_stage()
    for block, channels in enumerate(stage.blocks):
        yield from resblock(f"mid.resblock{block + 1}", f"mid_block.resnets.{block}", UNET_RESBLOCK, channels)
    if stage.attends:
        depth, linear = stage.depths[0], config.linear_projection
        yield from spatial_transformer("mid.transformer", "mid_block.attentions.0", depth, linear=linear)


def vae_diffusers(config: VAEConfig) -> KeyTable:
    """`vae/`; the stages of both sides are numbered as they run. Old names of the attention are accepted."""
    rules: list[Rule] = []
    if config.quant_conv:
        rules += modules("", "", {"quant_conv": "quant_conv", "post_quant_conv": "post_quant_conv"})
    for index, stage in enumerate(config.encoder_stages()):
        rules += _vae_stage(stage, f"encoder.stages.{index}", f"encoder.down_blocks.{index}", "downsample")
    for index, stage in enumerate(config.decoder_stages()):
        rules += _vae_stage(stage, f"decoder.stages.{index}", f"decoder.up_blocks.{index}", "upsample")
    for side, width in (("encoder", config.channels[-1]), ("decoder", config.decoder_stages()[0].channels)):
        rules += modules(side, side, ENDS)
        rules += _vae_mid(config, side, width)
    return KeyTable(tuple(rules), _old_attention_names(config))


def _vae_stage(stage: VAEStage, ours: str, theirs: str, resample: str) -> Iterator[Rule]:
    for block, channels in enumerate(stage.blocks):
        yield from resblock(f"{ours}.resblocks.{block}", f"{theirs}.resnets.{block}", RESBLOCK, channels)
    if stage.resample:
        yield from module(f"{ours}.{resample}.conv", f"{theirs}.{resample}rs.0.conv")


def _vae_mid(config: VAEConfig, side: str, width: int) -> Iterator[Rule]:
    for block in range(2):
        ours, theirs = f"{side}.mid.resblock{block + 1}", f"{side}.mid_block.resnets.{block}"
        yield from resblock(ours, theirs, RESBLOCK, (width, width))
    if config.mid_attention:
        ours, theirs = f"{side}.mid.attention", f"{side}.mid_block.attentions.0"
        yield from module(f"{ours}.norm", f"{theirs}.group_norm")
        yield from modules(f"{ours}.attention", theirs, VAE_ATTENTION)


def _old_attention_names(config: VAEConfig) -> dict[str, str]:
    if not config.mid_attention:
        return {}
    return {
        f"{side}.mid_block.attentions.0.{old}.{part}": f"{side}.mid_block.attentions.0.{new}.{part}"
        for side in ("encoder", "decoder")
        for new, old in OLD_VAE_ATTENTION.items()
        for part in ("weight", "bias")
    }


def clip_transformers(config: CLIPTextConfig) -> KeyTable:
    """`text_encoder/`, and the text encoder in single files of Stable Diffusion 1 (`cond_stage_model.transformer.`).

    Names begin with `text_model.`; those of files that leave it out are accepted. A projection is ignored where the
    config has none.
    """
    embeddings = {"token_embedding.weight": "token_embedding.weight", "position_embedding": "position_embedding.weight"}
    rules = [Rule((ours,), (f"embeddings.{theirs}",)) for ours, theirs in embeddings.items()]
    for index in range(config.layers):
        rules += modules(f"layers.{index}", f"encoder.layers.{index}", CLIP_LAYER)
    rules += module("final_norm", "final_layer_norm")
    bare = KeyTable(tuple(rules), ignored=frozenset({"embeddings.position_ids"}))
    table = bare.prefixed("text_model.")
    top = frozenset({"text_projection.weight", "logit_scale"})
    projection: tuple[Rule, ...] = ()
    if config.projection_dim is not None:
        projection = tuple(module("projection", "text_projection", bias=False))
        top -= {"text_projection.weight"}
    return KeyTable(
        table.rules + projection,
        dict(zip(bare.their_names(), table.their_names(), strict=True)),
        table.ignored | bare.ignored | top,
    )
