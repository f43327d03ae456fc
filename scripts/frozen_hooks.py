"""The only part of `frozen` that knows the inside of the package: class names, builders, key tables, training.

Everything else uses public names, the command line and the builders of the tests; when modules move or names change,
this file is what has to follow.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "tests" / room) for room in ("", "adapters", "training", "weights")]

COUNTED = {
    "UNet": "network",
    "MMDiT": "network",
    "Encoder": "encodes",
    "TinyEncoder": "encodes",
    "Decoder": "decodes",
    "TinyDecoder": "decodes",
    "CLIPText": "texts",
    "T5Encoder": "texts",
    "ControlNet": "sides",
    "T2IAdapter": "sides",
    "IPAdapter": "sides",
    "CLIPVision": "sides",
}
"""Name of a module's class -> what a call of it is counted as."""
COUNTS = ("network", "encodes", "decodes", "texts", "sides")

RENAMED: dict[str, str] = {"told_size": "micro_conditioning"}
"""Fields of `Request` and of its groups ("group.field") as the cases write them -> their names now."""


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts the calls of whole networks, by class name, while it is open."""
    counts: Counter[str] = Counter()
    plain: Any = nn.Module.__call__

    def call(self: nn.Module, *arguments: Any, **settings: Any) -> Any:
        what = COUNTED.get(type(self).__name__)
        if what is not None:
            counts[what] += 1
        return plain(self, *arguments, **settings)

    nn.Module.__call__ = call  # type: ignore[method-assign]
    try:
        yield counts
    finally:
        nn.Module.__call__ = plain  # type: ignore[method-assign]


def renamed(settings: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """Settings under the names that the package has for them now."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        full = f"{group}.{name}" if group else name
        inner = renamed(value, name) if isinstance(value, Mapping) else value
        found[RENAMED.get(full, full).rpartition(".")[2]] = inner
    return found


def settings_classes() -> dict[str, type]:
    """Field of a request -> the class of its settings; "" is the request itself."""
    import stable_diffusion as sd

    return {
        "": sd.Request,
        "prompting": sd.Prompting,
        "noise": sd.Noise,
        "variation": sd.VariationSeed,
        "hires": sd.Hires,
        "refiner": sd.Refiner,
        "told_size": sd.SizeConditioning,
        "inpaint": sd.Inpaint,
        "canvas": sd.Canvas,
        "controls": sd.Control,
    }


def fields() -> set[str]:
    """The fields of a request and of its groups ("group.field"), as the cases name them."""
    import dataclasses

    names = {
        f"{group}.{field.name}" if group else field.name
        for group, kind in settings_classes().items()
        for field in dataclasses.fields(kind)
    }
    back = {new: old for old, new in RENAMED.items()}
    return {back.get(name, name) for name in names}


def plain(value: Any) -> Any:
    """A request, or a value in one, as JSON: fields that are not at their default, under the names of the cases.

    Of paths the last name, of pictures their kind and size, so that nothing depends on a folder.
    """
    import dataclasses

    from PIL import Image

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        group = next((name for name, kind in settings_classes().items() if isinstance(value, kind)), "")
        found = {}
        for field in dataclasses.fields(value):
            item = getattr(value, field.name)
            default = field.default_factory() if callable(field.default_factory) else field.default
            if item is not None and item != default:
                full = f"{group}.{field.name}" if group else field.name
                found[next((old for old, new in RENAMED.items() if new == full), full)] = plain(item)
        return found
    if isinstance(value, Path):
        return value.name
    if isinstance(value, Image.Image):
        return [value.mode, *value.size]
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter with noise of its own, so that nothing is zero, and signals of about unit size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return module.eval().requires_grad_(False)


def write_native(path: Path) -> Path:
    """A model like the embedded one: RGBA, flow prediction, a pooled vector, its own tokenizer, our own format."""
    from conftest import byte_tokenizer_json
    from stable_diffusion.diffusion.schedule import FlowSchedule
    from stable_diffusion.latents import LatentFormat
    from stable_diffusion.models.clip import CLIPText, CLIPTextConfig
    from stable_diffusion.models.unet import UNet, UNetConfig
    from stable_diffusion.models.vae import VAE, VAEConfig
    from stable_diffusion.text.tokenizer import Tokenizer
    from stable_diffusion.weights.checkpoints.native import save_native
    from stable_diffusion.weights.parts import Card, Defaults, Parts, TokenizerSource

    torch.manual_seed(5)
    text = byte_tokenizer_json()
    tokenizer = Tokenizer.from_json(text, context_length=32)
    unet = UNetConfig(
        in_channels=6, out_channels=6, channels=(16, 24), blocks_per_stage=1, transformer_depth=(0, 1), heads=2,
        context_dim=24, vector_dim=12, groups=8,
    )  # fmt: skip
    vae = VAEConfig(
        image_channels=4, latent_channels=6, channels=(8, 16), blocks_per_stage=1, patch_size=4, groups=4,
        quant_conv=False,
    )  # fmt: skip
    clip = CLIPTextConfig(
        vocab_size=tokenizer.vocab_size, width=24, layers=2, heads=3, mlp_width=40, context_length=32,
        activation="gelu", projection_dim=12, eos_token_id=tokenizer.eos,
    )  # fmt: skip
    parts = Parts(
        unet=randomised(UNet(unet), 1),  # type: ignore[arg-type]
        vae=randomised(VAE(vae), 2),  # type: ignore[arg-type]
        clip=randomised(CLIPText(clip), 3),  # type: ignore[arg-type]
        tokenizer=TokenizerSource(json=text, pad_token_id=tokenizer.eos),
        latents=LatentFormat(channels=6, downscale=8, scale=(0.5, 1.0, 2.0, 1.5, 0.7, 0.9), shift=0.1),
        schedule=FlowSchedule(),
        prediction="flow",
        family="embedded",
        defaults=Defaults(width=48, height=32, steps=3, guidance=2.0, sampler="euler", schedule="sgm_uniform"),
        card=Card(name="tiny"),
    )
    save_native(path, parts, dtype="float32")
    return path


def states(model: Any) -> dict[str, Tensor]:
    """All weights of a loaded model, by part."""
    parts = {"unet": model.parts.unet, "vae": model.parts.vae, "clip": model.parts.clip}
    parts |= {"clip2": model.parts.clip2, "t5": model.parts.t5}
    return {
        f"{part}.{name}": tensor
        for part, module in parts.items()
        if module is not None
        for name, tensor in module.state_dict().items()
    }


def model_words(model: Any) -> dict[str, Any]:
    """What was understood of a model's file besides its weights."""
    parts = model.parts
    configs = {
        name: None if (part := getattr(parts, name)) is None else asdict(part.config)
        for name in ("unet", "vae", "clip", "clip2", "t5")
    }
    return {
        "family": parts.family,
        "prediction": parts.prediction,
        "schedule": parts.schedule.to_config(),
        "latents": asdict(parts.latents),
        "defaults": asdict(parts.defaults),
        "clip_layer": parts.clip_layer,
        "configs": configs,
    }


def has_alpha(model: Any) -> bool:
    return bool(model.parts.vae.config.image_channels == 4)


def latent_channels(model: Any) -> int:
    return int(model.parts.latents.channels)


def upscalers() -> tuple[str, ...]:
    """Those of hires."""
    from stable_diffusion.request.settings import UPSCALERS

    return tuple(UPSCALERS)


def tables() -> Iterator[tuple[str, Any]]:
    """(name, lines of text) of every key table, for released shapes and for tiny ones."""
    import released_shapes as shapes

    import tiny_controls
    import tiny_xl
    from stable_diffusion.models.clip_vision import CLIPVisionConfig
    from stable_diffusion.models.ip_adapter import IPAdapterConfig
    from stable_diffusion.models.t2i_adapter import T2IAdapterConfig
    from stable_diffusion.models.tiny_vae import TinyVAEConfig
    from stable_diffusion.weights.networks.clip import clip_openclip, clip_transformers
    from stable_diffusion.weights.networks.clip_vision import clip_vision_openclip, clip_vision_transformers
    from stable_diffusion.weights.networks.controlnet import controlnet_diffusers, controlnet_ldm
    from stable_diffusion.weights.networks.ip_adapter import ip_adapter_table
    from stable_diffusion.weights.networks.mmdit import mmdit_diffusers, mmdit_ldm
    from stable_diffusion.weights.networks.t2i_adapter import t2i_adapter_table
    from stable_diffusion.weights.networks.t5 import t5_transformers
    from stable_diffusion.weights.networks.tiny_vae import tiny_layout, tiny_table
    from stable_diffusion.weights.networks.unet import unet_diffusers, unet_ldm
    from stable_diffusion.weights.networks.vae import vae_diffusers, vae_ldm

    unets = {"sd1": shapes.SD1, "sd2": shapes.SD2, "sdxl": shapes.SDXL, "refiner": shapes.REFINER}
    unets |= {"ssd-1b": shapes.SSD_1B, "koala": tiny_xl.KOALA.config, "vega": tiny_xl.VEGA.config}
    for name, config in unets.items():
        yield f"unet-ldm/{name}", unet_ldm(config)
        yield f"unet-diffusers/{name}", unet_diffusers(config)
    for name, config in {"sd": shapes.SD_VAE, "sd3": shapes.SD3_VAE}.items():
        yield f"vae-ldm/{name}", vae_ldm(config)
        yield f"vae-diffusers/{name}", vae_diffusers(config)
    for name, config in {"l": shapes.CLIP_L, "h": shapes.OPENCLIP_H, "g": shapes.OPENCLIP_G}.items():
        yield f"clip-transformers/{name}", clip_transformers(config)
        yield f"clip-openclip/{name}", clip_openclip(config)
    mmdits = {"3": shapes.SD3, "3.5-medium": shapes.SD35_MEDIUM, "3.5-large": shapes.SD35_LARGE}
    for name, config in mmdits.items():
        yield f"mmdit-ldm/{name}", mmdit_ldm(config)
        yield f"mmdit-diffusers/{name}", mmdit_diffusers(config)
    yield "t5-transformers/xxl", t5_transformers(shapes.T5)
    for name, tasks in (("sd1", 0), ("sdxl", 0), ("sdxl", 6)):
        config = tiny_controls.shape(unets[name], tasks)
        if not tasks:
            yield f"controlnet-ldm/{name}", controlnet_ldm(config)
        yield f"controlnet-diffusers/{name}-{tasks}", controlnet_diffusers(config)
    for released in (True, False):
        yield f"t2i/{'released' if released else 'diffusers'}", t2i_adapter_table(T2IAdapterConfig(), released=released)
    for name, table in (("transformers", clip_vision_transformers), ("openclip", clip_vision_openclip)):
        yield f"clip-vision/{name}", table(CLIPVisionConfig())
    marks = {"taesd_decoder.1.weight": (64, 4, 3, 3), "taesd_decoder.3.conv.0.weight": (64, 64, 3, 3)}
    layout = tiny_layout(marks)
    assert layout is not None
    yield "taesd", tiny_table(TinyVAEConfig(), layout)
    for name, depth in (("plain", 0), ("plus", 4)):
        yield f"ip-adapter/{name}", ip_adapter_table(IPAdapterConfig(depth=depth), 16)


def table_lines(table: Any) -> list[str]:
    """A key table as text, whatever its class looks like."""
    lines = [f"{' '.join(rule.theirs)} {rule.op.name} {' '.join(rule.ours)}" for rule in table.rules]
    lines += [f"alias {alias} {name}" for alias, name in sorted(table.aliases.items())]
    return lines + [f"ignored {name}" for name in sorted(table.ignored)] + [f"tied {n}" for n in sorted(table.tied)]


CHECKPOINT = "checkpoint.safetensors"
STUDENT = {"jumps": 2, "between": 2, "ways": 40, "rank": 4, "batch_size": 8, "guidance": 2.0}


def train_stages(place: Path, steps: int) -> Iterator[tuple[str, Path]]:
    """(stage, folder of its finished run) of every stage of training, each on what those before it made."""
    import tiny_training

    from stable_diffusion.training import run as module
    from stable_diffusion.training.export import join
    from stable_diffusion.weights.checkpoints.native import save_native

    if hasattr(module, "loss_curve"):
        module.loss_curve = lambda lines, path: None  # type: ignore[assignment]
    pack = tiny_training.write_pack(place / "pack")
    folders = {stage: place / stage for stage in ("vae", "text", "denoiser", "joint")}
    for stage, folder in folders.items():
        overrides = tiny_training.settings(stage, folders, steps=steps)
        module.train(stage, data=pack, out=folder, overrides=overrides, device="cpu")
        yield stage, folder
    parts = join(folders["denoiser"], tokenizer=pack)
    torch.manual_seed(0)
    nn.init.normal_(parts.unet.conv_out.weight, std=0.3)
    teacher = place / "teacher.safetensors"
    save_native(teacher, parts, dtype="float32")
    overrides = tiny_training.settings("student", {}, steps=steps, teacher=str(teacher), **STUDENT)
    module.train("student", data=pack, out=place / "student", overrides=overrides, device="cpu")
    yield "student", place / "student"


def command() -> Any:
    """The command line as a click group."""
    from stable_diffusion.cli.main import cli

    return cli
