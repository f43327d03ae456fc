"""Agreement with diffusers and transformers at full size: Stable Diffusion 1.5 to 3.5, float32, random weights.

For each network the reference is built with random weights (norms too), run once and saved as a state dict; our network
takes the same tensors through our key tables and runs on the same input. Weights are shared, not copied, where the
layouts allow it, and each pair is freed before the next. Prints one line per network and fails above 1e-5.

    python scripts/parity_full_size.py [--size 32] [--only unet]
    python scripts/parity_full_size.py --family sd3 [--name medium] [--streamed] [--depth 8]

With `--family xl` the largest network has 2.6 G parameters, which is more than 10 GB in float32; with `--family sd3` it
is Stable Diffusion 3.5 large with 8 G (32 GB), and T5 XXL has 4.8 G (19 GB). Those fit with `--streamed`, which makes
the weights of a block when it is called and holds one block at a time (see `random_networks`), or with `--depth`, which
leaves out all but the first blocks, at full width. Tables of positions are float32 there and here.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from random_networks import empty, randomise, stream
from released_shapes import (
    CLIP_L,
    OPENCLIP_G,
    OPENCLIP_H,
    REFINER,
    SD1,
    SD2,
    SD3,
    SD35_LARGE,
    SD35_MEDIUM,
    SD_VAE,
    SDXL,
    SSD_1B,
    T5,
)
from torch import Tensor, nn

from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.config import ModelConfig
from stable_diffusion.models.mmdit import MMDiT, MMDiTConfig
from stable_diffusion.models.t5 import T5Config, T5Encoder
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE
from stable_diffusion.nn.embeddings import timestep_embedding
from stable_diffusion.weights.keys import KeyTable
from stable_diffusion.weights.networks.clip import clip_transformers
from stable_diffusion.weights.networks.mmdit import mmdit_diffusers
from stable_diffusion.weights.networks.t5 import t5_transformers
from stable_diffusion.weights.networks.unet import unet_diffusers
from stable_diffusion.weights.networks.vae import vae_diffusers

TOLERANCE = 1e-5

Outputs = list[tuple[str, Tensor, Tensor]]
"""(what it is, ours, theirs)"""


@dataclass(frozen=True)
class Case:
    """A pair to compare: `reference` has all weights, `build` makes ours from `config`, `table` maps between them."""

    name: str
    reference: Any
    build: Callable[[Any], nn.Module]
    config: ModelConfig
    table: KeyTable
    compare: Callable[[Any, Any], Outputs]


def unet_case(name: str, config: UNetConfig, size: int) -> Case:
    from diffusers import UNet2DConditionModel

    down = ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]
    up = ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3
    heads = tuple(config.heads_at(stage) for stage in range(4))
    reference = empty(
        lambda: UNet2DConditionModel(
            down_block_types=down,
            up_block_types=up,
            attention_head_dim=heads,  # diffusers' name for the number of heads in these models
            cross_attention_dim=config.context_dim,
            use_linear_projection=config.linear_projection,
            upcast_attention=config.upcast_attention,
        )
    )
    x, tokens = torch.randn(1, 4, size, size + 8), torch.randn(1, 77, config.context_dim)

    def compare(ours: Any, theirs: Any) -> Outputs:
        timestep = torch.tensor([681.0])
        return [("output", ours(x, timestep, tokens), theirs(x, timestep, tokens).sample)]

    return Case(name, reference, UNet, config, unet_diffusers(config), compare)


def xl_unet_case(name: str, config: UNetConfig, size: int, **settings: Any) -> Case:
    """A U-Net with size conditioning; `settings` are diffusers' own words for what is uneven."""
    from diffusers import UNet2DConditionModel

    stages = config.down_stages()
    down = ["CrossAttnDownBlock2D" if stage.attends else "DownBlock2D" for stage in stages]
    up = ["CrossAttnUpBlock2D" if stage.attends else "UpBlock2D" for stage in reversed(stages)]
    assert config.vector_dim is not None
    reference = empty(
        lambda: UNet2DConditionModel(
            block_out_channels=config.channels,
            down_block_types=down,
            up_block_types=up,
            attention_head_dim=tuple(stage.heads for stage in stages),
            cross_attention_dim=config.context_dim,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=config.vector_dim,
            **{"transformer_layers_per_block": [max(1, *stage.depths) for stage in stages], **settings},
        )
    )
    x, tokens = torch.randn(1, 4, size, size + 8), torch.randn(1, 77, config.context_dim)
    numbers = (config.vector_dim - OPENCLIP_G.width) // 256
    told = {"text_embeds": torch.randn(1, OPENCLIP_G.width), "time_ids": torch.rand(1, numbers) * 1024}

    def compare(ours: Any, theirs: Any) -> Outputs:
        timestep = torch.tensor([681.0])
        features = timestep_embedding(told["time_ids"].flatten(), 256).reshape(1, -1)
        vector = torch.cat([told["text_embeds"], features], dim=1)
        expected = theirs(x, timestep, tokens, added_cond_kwargs=told).sample
        return [("output", ours(x, timestep, tokens, vector=vector), expected)]

    return Case(name, reference, UNet, config, unet_diffusers(config), compare)


def vae_case(size: int) -> Case:
    from diffusers import AutoencoderKL

    config = SD_VAE
    reference = empty(
        lambda: AutoencoderKL(
            block_out_channels=config.channels,
            layers_per_block=2,
            latent_channels=4,
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
        )
    )
    image, latent = torch.rand(1, 3, 8 * size, 8 * size + 64) * 2 - 1, torch.randn(1, 4, size, size + 8)

    def compare(ours: Any, theirs: Any) -> Outputs:
        made, expected = ours.encode(image), theirs.encode(image).latent_dist
        return [
            ("mean", made.mean, expected.mean),
            ("log variance", made.logvar, expected.logvar),
            ("decoded", ours.decode(latent), theirs.decode(latent).sample),
        ]

    return Case("SD 1.5 and 2.1 VAE", reference, VAE, config, vae_diffusers(config), compare)


def clip_case(name: str, config: CLIPTextConfig) -> Case:
    import transformers

    their_config = transformers.CLIPTextConfig(
        hidden_size=config.width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        hidden_act=config.activation,
        projection_dim=config.width,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    projected = config.projection_dim is not None
    # Not through `empty`: this class keeps a buffer of position numbers, which must have its values.
    reference: Any = (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(
        their_config
    )
    ids = torch.randint(0, 49406, (2, 77))
    ids[0, 12:] = ids[1, 40:] = 49407

    def compare(ours: Any, theirs: Any) -> Outputs:
        expected = theirs(ids, output_hidden_states=True)
        last, before = ours(ids), ours(ids, layer=-2, final_norm=False)
        pooled = expected.text_embeds if projected else expected.pooler_output
        return [
            ("last layer", last.tokens, expected.last_hidden_state),
            ("layer before", before.tokens, expected.hidden_states[-2]),
            ("pooled", last.pooled, pooled),
        ]

    return Case(name, reference.eval(), CLIPText, config, clip_transformers(config), compare)


def mmdit_case(name: str, config: MMDiTConfig, size: int, streamed: bool) -> Case:
    from diffusers import SD3Transformer2DModel

    reference = empty(
        lambda: SD3Transformer2DModel(
            num_layers=config.depth,
            num_attention_heads=config.heads,
            joint_attention_dim=config.context_dim,
            caption_projection_dim=config.width,
            pooled_projection_dim=config.vector_dim,
            pos_embed_max_size=config.positions,
            dual_attention_layers=config.dual_attention,
            qk_norm="rms_norm" if config.qk_norm else None,
        ),
        streamed=streamed,
    )
    reference.pos_embed.pos_embed.normal_(generator=torch.Generator().manual_seed(5))
    x, tokens = torch.randn(1, 16, size, size + 8), torch.randn(1, 333, config.context_dim)
    vector, timestep = torch.randn(1, config.vector_dim), torch.tensor([681.0])

    def compare(ours: Any, theirs: Any) -> Outputs:
        expected = theirs(x, tokens, vector, timestep).sample
        return [("output", ours(x, timestep, tokens, vector=vector), expected)]

    return Case(name, reference, MMDiT, config, mmdit_diffusers(config), compare)


def t5_case(name: str, config: T5Config, streamed: bool) -> Case:
    import transformers

    reference = empty(
        lambda: transformers.T5EncoderModel(
            transformers.T5Config(
                vocab_size=config.vocab_size,
                d_model=config.width,
                d_ff=config.mlp_width,
                num_layers=config.layers,
                num_heads=config.heads,
                feed_forward_proj="gated-gelu",
            )
        ),
        streamed=streamed,
    )
    reference.tie_weights()
    ids = torch.randint(0, 32000, (1, 256))

    def compare(ours: Any, theirs: Any) -> Outputs:
        return [("last layer", ours(ids), theirs(ids).last_hidden_state)]

    return Case(name, reference, T5Encoder, config, t5_transformers(config), compare)


def sd3_cases(size: int, only: str | None, name: str, depth: int | None, streamed: bool) -> Iterator[Case]:
    """Stable Diffusion 3: its networks that no other family has (CLIP-L, CLIP-G and the VAE's blocks are theirs).

    `depth` is the number of blocks; None means all.
    """
    networks = {"SD3 medium": SD3, "SD3.5 medium": SD35_MEDIUM, "SD3.5 large": SD35_LARGE}
    for title, config in networks.items():
        if only in (None, "unet") and name.lower() in title.lower():
            count = config.depth if depth is None else min(depth, config.depth)
            dual = tuple(block for block in config.dual_attention if block < count)
            some = replace(config, depth=count, dual_attention=dual)
            yield mmdit_case(f"{title}, {count} of {config.depth} blocks", some, size, streamed)
    if only in (None, "text") and name.lower() in "t5":
        count = T5.layers if depth is None else min(depth, T5.layers)
        title = f"T5 v1.1 XXL encoder, {count} of {T5.layers} blocks"
        yield t5_case(title, replace(T5, layers=count), streamed)


def xl_cases(size: int, only: str | None) -> Iterator[Case]:
    """SDXL: its second text encoder (the first is that of SD 1.5, the VAE has the same shape) and its U-Nets."""
    if only in (None, "text"):
        yield clip_case("SDXL second text encoder", OPENCLIP_G)
    if only in (None, "unet"):
        yield xl_unet_case("SDXL U-Net", SDXL, size)
        yield xl_unet_case("SDXL refiner U-Net", REFINER, size, transformer_layers_per_block=4)
        yield xl_unet_case(
            "SSD-1B U-Net",
            SSD_1B,
            size,
            transformer_layers_per_block=[1, [2, 2], [4, 4]],
            reverse_transformer_layers_per_block=[[4, 4, 10], [2, 1, 1], 1],
            mid_block_type="UNetMidBlock2D",
        )


def sd_cases(size: int, only: str | None) -> Iterator[Case]:
    """Stable Diffusion 1.5 and 2.1."""
    if only in (None, "text"):
        yield clip_case("SD 1.5 text encoder", CLIP_L)
        yield clip_case("SD 2.1 text encoder", OPENCLIP_H)
    if only in (None, "vae"):
        yield vae_case(size)
    if only in (None, "unet"):
        yield unet_case("SD 1.5 U-Net", SD1, size)
        yield unet_case("SD 2.1 U-Net", replace(SD2, upcast_attention=True), size)


@torch.no_grad()
def run(case: Case, streamed: bool) -> float:
    """The largest relative error of a case, which is printed output by output."""
    start = time.perf_counter()
    randomise(case.reference)
    with torch.device("meta"):
        ours = case.build(case.config)
    if streamed:
        stream(case.reference, ours, case.table)
    else:
        ours.load_state_dict(case.table.convert(case.reference.state_dict()), assign=True)
        assert not any(tensor.is_meta for tensor in (*ours.parameters(), *ours.buffers()))
    parameters = sum(parameter.numel() for parameter in ours.parameters())
    worst = 0.0
    print(f"{case.name}, {parameters / 1e6:.2f} M parameters")
    for what, made, expected in case.compare(ours.eval(), case.reference):
        assert made.dtype == expected.dtype == torch.float32
        assert expected.std() > 1e-2, f"{what} is (almost) constant, so it could hide an error"
        error = ((made - expected).abs().max() / expected.abs().max()).item()
        norm = ((made - expected).norm() / expected.norm()).item()
        shape = "x".join(map(str, expected.shape))
        print(f"  {what:14} {shape:14} largest error / largest value {error:.1e}, in the 2-norm {norm:.1e}", flush=True)
        worst = max(worst, error, norm)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  {time.perf_counter() - start:.0f} s, peak memory of the process {peak:.1f} GiB", flush=True)
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32, help="latent height (default 32); the width is 8 more")
    parser.add_argument("--only", choices=("text", "vae", "unet"), help="run one kind of network")
    parser.add_argument("--family", choices=("sd", "xl", "sd3"), default="sd", help="1.5 and 2.1 (default), XL, or 3")
    parser.add_argument("--name", default="", help="with --family sd3: only networks with this in their name")
    parser.add_argument("--depth", type=int, help="with --family sd3: only this many blocks (default: all)")
    parser.add_argument("--streamed", action="store_true", help="with --family sd3: hold one block at a time")
    told = parser.parse_args()
    torch.manual_seed(1)
    made = {
        "sd": lambda: sd_cases(told.size, told.only),
        "xl": lambda: xl_cases(told.size, told.only),
        "sd3": lambda: sd3_cases(told.size, told.only, told.name, told.depth, told.streamed),
    }
    if told.family != "sd3" and (told.depth is not None or told.streamed):
        parser.error("--depth and --streamed are for --family sd3")
    worst = 0.0
    # one after the other, so that the networks of a case can be freed before those of the next are built
    for case in made[told.family]():
        worst = max(worst, run(case, told.streamed))
        del case
        gc.collect()
    if worst >= TOLERANCE:
        raise SystemExit(f"relative error {worst:.1e} is not under {TOLERANCE:.0e}")
    print(f"all under {TOLERANCE:.0e}: worst {worst:.1e}")


if __name__ == "__main__":
    main()
