"""The kinds of files that docs/checkpoints.md shows: how each is made, in the current folder, and what is typed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import released_shapes as shapes
import sample_adapters as adapters
import sample_files as sample
import torch
from sample_files import model, write_header

from stable_diffusion.diffusion.schedule import FlowSchedule, ddpm_schedule
from stable_diffusion.latents import LatentFormat
from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.models.vae import VAE, VAEConfig
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.checkpoints.save_ldm import ldm_state
from stable_diffusion.weights.networks.clip import clip_transformers
from stable_diffusion.weights.networks.t5 import t5_transformers
from stable_diffusion.weights.networks.vae import vae_ldm
from stable_diffusion.weights.parts import Card, Defaults, Parts

SHORT = "^(family|label|prediction|parameters)"
RUN = "^(steps|guidance|sampler|width|guesses)"
GGUF = "^(layout|container|family|dtype|parameters)"
ENDINGS = ("/", ".ckpt", ".pt", ".bin", ".gguf")
FEW_STEPS = ("sd_xl_turbo_1.0_fp16", "sdxl_lightning_4step", "Hyper-SDXL-8steps", "LCM_Dreamshaper_v7")
SAID = "^(label|prediction|width|guesses)"


@dataclass(frozen=True)
class Kind:
    """One heading of the page."""

    title: str
    says: str
    make: Callable[[], None]
    commands: tuple[str, ...]


def info(*words: str, only: str = "") -> str:
    """The command for a file (.safetensors if nothing else), with other words behind it; `only` keeps some lines."""
    name, *others = words
    file = name if name.endswith(ENDINGS) else f"{name}.safetensors"
    return " ".join(["stable-diffusion info", file, *others, "--no-hash"]) + (f" | grep -E '{only}'" if only else "")


def single(name: str, parts: Callable[[], Parts], dtype: torch.dtype = torch.float16, **metadata: str) -> None:
    write_header(Path(f"{name}.safetensors"), ldm_state(parts()), dtype, **metadata)


def sd1() -> None:
    state = ldm_state(model("sd1", shapes.SD1))
    write_header(Path("v1-5-pruned.safetensors"), {**state, **sample.averaged(state)}, torch.float32)


def few_steps() -> None:
    parts = model("sdxl", shapes.SDXL)
    for name in FEW_STEPS[:3]:
        write_header(Path(f"{name}.safetensors"), ldm_state(parts))
    single(FEW_STEPS[3], partial(model, "sd1", shapes.SD1))


def xl() -> None:
    said = {"modelspec.title": "Stable Diffusion XL 1.0 Base", "modelspec.architecture": "stable-diffusion-xl-v1-base"}
    single("sd_xl_base_1.0", partial(model, "sdxl", shapes.SDXL), **said)


def with_channels() -> None:
    """The U-Nets that see a picture beside the noise."""
    for name, family, base, channels in (
        ("sd-v1-5-inpainting", "sd1-inpaint", shapes.SD1, 9),
        ("512-depth-ema", "sd2-depth", shapes.SD2, 5),
        ("instruct-pix2pix-00-22000", "sd1-pix2pix", shapes.SD1, 8),
    ):
        single(name, partial(model, family, replace(base, in_channels=channels)))


def zero_snr() -> None:
    # both are said by tensors without elements, `v_pred` and `ztsnr`
    parts = model("sdxl", shapes.SDXL, prediction="v", schedule=ddpm_schedule(zero_terminal_snr=True))
    write_header(Path("noobai-xl-vpred.safetensors"), ldm_state(parts))


def sd3() -> None:
    title = {"modelspec.title": "Stable Diffusion 3 Medium"}
    single("sd3_medium_incl_clips", partial(model, "sd3", shapes.SD3), **title)


def sd35() -> None:
    whole = {
        "sd3.5_large": ldm_state(model("sd3.5-large", shapes.SD35_LARGE, t5=True)),
        "sd3.5_medium": ldm_state(model("sd3.5-medium", shapes.SD35_MEDIUM)),
    }
    for name, state in whole.items():
        own = {key: tensor for key, tensor in state.items() if not key.startswith("text_encoders.")}
        write_header(Path(f"{name}.safetensors"), own, torch.bfloat16)
    for text in ("clip_l", "clip_g", "t5xxl"):
        prefix = f"text_encoders.{text}.transformer."
        held = {key.removeprefix(prefix): t for key, t in whole["sd3.5_large"].items() if key.startswith(prefix)}
        write_header(Path("text_encoders") / f"{text}.safetensors", held)
    sample.write_json(Path("tokenizer_3/tokenizer.json"), {})


def folders() -> None:
    sample.write_folder(Path("stable-diffusion-xl-base-1.0"), model("sdxl", shapes.SDXL), variants=(None, "fp16"))
    sample.write_folder(Path("stable-diffusion-3.5-large"), model("sd3.5-large", shapes.SD35_LARGE), shards=2)


def checkpoint() -> None:
    """A small one with all its numbers."""
    sample.write_checkpoint(Path("dreamy.ckpt"), small("sd1"), global_step=840_000)


def gguf() -> None:
    sample.write_gguf(Path("sd3-medium-Q8_0.gguf"), ldm_state(model("sd3", shapes.SD3)), "sd3")


def small(family: str, **changes: object) -> Parts:
    """A model that is small enough to be written with all its numbers."""
    denoiser = UNetConfig(channels=(32, 64), transformer_depth=(1, 1), mid_depth=1, heads=8, context_dim=64)
    nets = {
        "unet": UNet(denoiser),
        "vae": VAE(VAEConfig(channels=(32, 32, 64, 64), blocks_per_stage=1)),
        "clip": CLIPText(CLIPTextConfig(width=64, layers=2, heads=1, mlp_width=128)),
    }
    return model(family, denoiser, **nets, **changes)


def autoencoder() -> None:
    state = vae_ldm(shapes.SD_VAE).invert(sample.network(shapes.SD_VAE).state_dict())
    write_header(Path("vae-ft-mse-840000.safetensors"), state)


def text_encoders() -> None:
    t5 = t5_transformers(shapes.T5).invert(sample.network(shapes.T5).state_dict())
    write_header(Path("t5xxl_fp8_e4m3fn.safetensors"), t5, torch.float8_e4m3fn)
    for name, config in (("clip_l", shapes.CLIP_L), ("clip_g", shapes.OPENCLIP_G)):
        state = clip_transformers(config).invert(sample.network(config).state_dict())
        write_header(Path(f"{name}.safetensors"), state)


def native() -> None:
    parts = small(
        "sd1",
        latents=LatentFormat(channels=4, downscale=8),
        schedule=FlowSchedule(),
        prediction="flow",
        defaults=Defaults(width=256, height=256, steps=24, guidance=3.0, sampler="euler", schedule="normal"),
        card=Card(name="harbour", version="0.1", licence="CC0-1.0"),
    )
    save_native(Path("harbour.safetensors"), replace(parts, family="embedded"), dtype="int8")


def useless() -> None:
    names = {f"double_blocks.0.{stream}_attn.qkv.weight": (9216, 3072) for stream in ("img", "txt")}
    write_header(Path("flux1-dev.safetensors"), sample.of_shapes(names))
    state = ldm_state(model("sd1", shapes.SD1))
    bare = {name: tensor for name, tensor in state.items() if not name.startswith("first_stage_model.")}
    write_header(Path("without-a-vae.safetensors"), bare)
    write_header(Path("half-a-download.safetensors"), state)
    os.truncate("half-a-download.safetensors", 2**30)
    Path("free-money.ckpt").write_bytes(pickle.dumps({"state_dict": Trap()}, protocol=2))


def leading() -> None:
    adapters.write_ip_adapter(Path("ip-adapter_sd15.safetensors"))
    adapters.write_image_tower(Path("image_encoder.safetensors"))


class Trap:
    """What a pickle makes of this asks its reader to call a function."""

    def __reduce__(self) -> tuple[object, ...]:
        return print, ("this would have run",)


KINDS: tuple[Kind, ...] = (
    Kind(
        "Stable Diffusion 1.x",
        "The second, averaged copy of the U-Net that some files carry (EMA) is counted and not used.",
        sd1,
        (info("v1-5-pruned"),),
    ),
    Kind(
        "Stable Diffusion 2.x, eps and v",
        "Nothing in such a file tells the two apart. Loading it asks the network itself; `--set` says which it is.",
        partial(single, "v2-1_768-ema-pruned", partial(model, "sd2", shapes.SD2)),
        (info("v2-1_768-ema-pruned"), info("v2-1_768-ema-pruned", "--set prediction=eps", only=SAID)),
    ),
    Kind(
        "Inpainting, depth, instruct-pix2pix",
        "Told by the channels that go into the U-Net: nine, five, eight.",
        with_channels,
        tuple(info(name, only=SHORT) for name in ("sd-v1-5-inpainting", "512-depth-ema", "instruct-pix2pix-00-22000")),
    ),
    Kind("Stable Diffusion XL", "Two text encoders.", xl, (info("sd_xl_base_1.0"),)),
    Kind(
        "The refiner of XL",
        "One text encoder, and a vector that holds an aesthetic score.",
        partial(single, "sd_xl_refiner_1.0", partial(model, "sdxl-refiner", shapes.REFINER)),
        (info("sd_xl_refiner_1.0", only=SHORT),),
    ),
    Kind(
        "XL of v-prediction and zero terminal SNR",
        "Said by two tensors without elements, `v_pred` and `ztsnr`.",
        zero_snr,
        (info("noobai-xl-vpred", only="^(family|prediction|zero|guesses)"),),
    ),
    Kind(
        "Pruned U-Nets",
        "Which blocks are there is read from the shapes. This is SSD-1B.",
        partial(single, "SSD-1B", partial(model, "sdxl", shapes.SSD_1B)),
        (info("SSD-1B", only=SHORT),),
    ),
    Kind(
        "Turbo, Lightning, Hyper, LCM",
        "Only the name tells, or the scheduler of a folder.",
        few_steps,
        tuple(info(name, only=RUN) for name in FEW_STEPS),
    ),
    Kind("Stable Diffusion 3", "With both CLIP encoders and without T5.", sd3, (info("sd3_medium_incl_clips"),)),
    Kind(
        "Stable Diffusion 3.5",
        "The text encoders are files of their own, here in `text_encoders/`; T5's vocabulary is in `tokenizer_3/`.",
        sd35,
        (info("sd3.5_large"), info("sd3.5_medium", "--set t5=false", only="^(label|steps|guidance|parameters)")),
    ),
    Kind(
        "Diffusers folders",
        "Full precision is read where a folder has several variants; `--set variant=` chooses. Shards are read as one.",
        folders,
        (
            info("stable-diffusion-xl-base-1.0/"),
            info("stable-diffusion-xl-base-1.0/", "--set variant=fp16", only="^(family|dtype)"),
            info("stable-diffusion-3.5-large/", only="^(layout|container|family|parameters)"),
        ),
    ),
    Kind("Pickles", "A .ckpt, .pt or .bin is read without running it.", checkpoint, (info("dreamy.ckpt"),)),
    Kind("GGUF", "As stable-diffusion.cpp names tensors.", gguf, (info("sd3-medium-Q8_0.gguf", only=GGUF),)),
    Kind(
        "This package's own format",
        "One file with configs, tokenizer and card. The built-in model is one: `stable-diffusion info` alone shows it.",
        native,
        (info("harbour"),),
    ),
    Kind("Autoencoders", "", autoencoder, (info("vae-ft-mse-840000"),)),
    Kind("TAESD", "", partial(adapters.write_taesd, Path("taesd.safetensors")), (info("taesd"),)),
    Kind(
        "Text encoders",
        "",
        text_encoders,
        (info("t5xxl_fp8_e4m3fn"), *(info(name, only="^(kind|names|for)") for name in ("clip_l", "clip_g"))),
    ),
    Kind(
        "LoRA",
        "Its hash is that of the tensors, as A1111 computes it.",
        partial(adapters.write_lora, Path("ink.safetensors")),
        ("stable-diffusion info ink.safetensors",),
    ),
    Kind(
        "The names in a LoRA",
        "The same layer as six tools write it.",
        partial(adapters.write_spellings, Path()),
        tuple(info(name, only="^(names|for)") for name in adapters.SPELLINGS),
    ),
    Kind(
        "LoCon, LoHa, LoKr, IA3, OFT, BOFT, GLoRA, DoRA, full differences, norms",
        "",
        partial(adapters.write_lycoris, Path()),
        tuple(info(name, only="^(adapter|rank|for|guesses)") for name in adapters.LYCORIS),
    ),
    Kind(
        "Textual inversion",
        "As A1111 writes it, as diffusers does, and for the two encoders of XL.",
        partial(adapters.write_embeddings, Path()),
        tuple(info(name) for name in ("old-photo.pt", "learned_embeds.bin", "xl-word")),
    ),
    Kind(
        "ControlNet, union ControlNet, control-LoRA",
        "",
        partial(adapters.write_controlnets, Path()),
        tuple(info(name) for name in ("control_v11p_sd15_canny", "union_sdxl", "control-lora-canny-rank128")),
    ),
    Kind(
        "T2I-Adapter",
        "",
        partial(adapters.write_t2i_adapter, Path("t2iadapter_canny_sd15v2.safetensors")),
        (info("t2iadapter_canny_sd15v2"),),
    ),
    Kind("IP-Adapter and its image tower", "", leading, (info("ip-adapter_sd15"), info("image_encoder"))),
    Kind(
        "Files that cannot be used",
        "One of another family, with the reason for each of ours; one that is recognised and broken; one that ends too "
        "early; one that asks to run code.",
        useless,
        (info("flux1-dev"), info("without-a-vae"), info("half-a-download"), info("free-money.ckpt")),
    ),
)
