"""The table of docs/checkpoints.md on networks beside the U-Net: ControlNets, T2I-Adapters, IP-Adapters and tiny
autoencoders, each built from a file of small tensors in every layout and wrapper.

Like those of `checkpoint_matrix`, every cell is the answer of the package itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stable_diffusion.errors import ModelFileError
from stable_diffusion.models.controlnet import ControlNet, ControlNetConfig
from stable_diffusion.models.ip_adapter import IPAdapter, IPAdapterConfig, cross_attentions
from stable_diffusion.models.t2i_adapter import T2IAdapter, T2IAdapterConfig
from stable_diffusion.models.tiny_vae import TinyVAE, TinyVAEConfig
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.weights.containers.tensors import TensorFile, TensorInfo
from stable_diffusion.weights.containers.wrappers import BEFORE, INSIDE, without_wrappers
from stable_diffusion.weights.control import control_kind
from stable_diffusion.weights.foreign import refuse_foreign
from stable_diffusion.weights.keys import KeyTable
from stable_diffusion.weights.networks.controlnet import build_controlnet, controlnet_diffusers, controlnet_ldm
from stable_diffusion.weights.networks.ip_adapter import build_ip_adapter, ip_adapter_table
from stable_diffusion.weights.networks.t2i_adapter import build_t2i_adapter, t2i_adapter_table
from stable_diffusion.weights.networks.tiny_vae import LAYOUTS, tiny_config, tiny_layout, tiny_table

Shapes = Mapping[str, tuple[int, ...]]
WRAPPERS = ("", *(f"{word}." for word in (*INSIDE, *BEFORE)))
BASE = UNetConfig(channels=(32, 64), transformer_depth=(1, 0), mid_depth=1, heads=8, context_dim=64)
FIELDS = {name: getattr(BASE, name) for name in UNetConfig.__dataclass_fields__}
CONTROL = ControlNetConfig(**{**FIELDS, "out_channels": 4, "up_depth": None})
UNION = ControlNetConfig(**{**FIELDS, "out_channels": 4, "up_depth": None}, tasks=6)
T2I = T2IAdapterConfig(channels=(32, 64))
T2I_LIGHT = T2IAdapterConfig(kind="light", channels=(32, 64))
IP, IP_PLUS = (
    IPAdapterConfig(context_dim=64, feature_width=32, depth=depth, width=128, mlp_width=64) for depth in (0, 1)
)
TINY = TinyVAEConfig(width=8, encoder_blocks=(1, 1), decoder_blocks=(1, 1))
TINY_DECODER = TinyVAEConfig(width=8, encoder_blocks=(), decoder_blocks=(1, 1))


def sides() -> str:
    """The table, as text of the page."""
    lines = ["| network beside the U-Net | layout | `info` calls it | answer |", "|---|---|---|---|"]
    lines += [f"| {network} | {layout} | {named(shapes)} | {answer(shapes)} |" for network, layout, shapes in rows()]
    wrapped = ", ".join(f"`{word}`" for word in WRAPPERS if word)
    return "\n".join(lines) + f'\n\n"reads (N)" counts the forms that were built: bare, and inside {wrapped}.\n'


def rows() -> list[tuple[str, str, Shapes]]:
    """(network, layout, its tensors)."""
    unet = _meta(lambda: UNet(BASE))
    widths = [attention.query.out_features for attention in cross_attentions(unet)]
    control, union = (_meta(lambda config=config: ControlNet(config)) for config in (CONTROL, UNION))
    ldm, released = _shapes(control, controlnet_ldm(CONTROL)), {"released": True}
    found: list[tuple[str, str, Shapes]] = [
        ("ControlNet", "LDM, under `control_model.`", {f"control_model.{name}": shape for name, shape in ldm.items()}),
        ("ControlNet", "LDM, its own tensors alone", ldm),
        ("ControlNet", "LDM, as the difference from a U-Net", {**ldm, "difference": (0,)}),
        ("ControlNet", "diffusers", _shapes(control, controlnet_diffusers(CONTROL))),
        ("union ControlNet", "diffusers", _shapes(union, controlnet_diffusers(UNION))),
        ("control-LoRA", "Stability AI's", {**_low_rank(ldm), "lora_controlnet": (0,)}),
    ]
    for config in (T2I, T2I_LIGHT):
        module, what = _meta(lambda config=config: T2IAdapter(config)), f"T2I-Adapter, {config.kind}"
        plain = _shapes(module, t2i_adapter_table(config, released=False))
        found += [
            (what, "diffusers", {f"adapter.{name}": shape for name, shape in plain.items()}),
            (what, "first releases", _shapes(module, t2i_adapter_table(config, **released))),
        ]
    for name, config in (("plain", IP), ("plus", IP_PLUS)):
        module = _meta(lambda config=config: IPAdapter(config, widths))
        found.append(
            (f"IP-Adapter, {name}", "the released one", _shapes(module, ip_adapter_table(config, len(widths))))
        )
    for layout, said in zip(
        LAYOUTS, ("diffusers", "`taesd_encoder.`", "first release", "a decoder alone"), strict=True
    ):
        config = TINY_DECODER if layout[0] == "-" else TINY
        found.append(
            (
                "tiny autoencoder",
                said,
                _shapes(_meta(lambda config=config: TinyVAE(config)), tiny_table(config, layout)),
            )
        )
    return found


def _meta(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return make()


def _shapes(module: nn.Module, table: KeyTable) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in table.invert(module.state_dict()).items()}


def _low_rank(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """Every matrix of the way down as two factors of rank 2, all else as it is."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        own = name.startswith(("input_hint_block", "zero_convs", "middle_block_out"))
        if own or len(shape) < 2 or not name.endswith(".weight"):
            found[name] = shape
        else:
            stem = name.removesuffix(".weight")
            found |= {f"{stem}.up": (shape[0], 2, *([1] * (len(shape) - 2))), f"{stem}.down": (2, *shape[1:])}
    return found


def _file(shapes: Shapes, wrapper: str = "") -> TensorFile:
    infos = {wrapper + name: TensorInfo(torch.float32, shape) for name, shape in shapes.items()}
    file = TensorFile(Path("FILE"), infos, lambda name: torch.zeros(infos[name].shape), "safetensors")
    return without_wrappers(file)


def named(shapes: Shapes) -> str:
    """What the package calls such a file."""
    file = _file(shapes)
    tiny = tiny_layout({name: file.info(name).shape for name in file})
    return control_kind(file) or ("tiny autoencoder" if tiny else "-")


def answer(shapes: Shapes) -> str:
    """In how many wrappers it is read; the sentence of the first refusal where it is not in all."""
    read, said = 0, ""
    for wrapper in WRAPPERS:
        try:
            _built(_file(shapes, wrapper))
            read += 1
        except ModelFileError as error:
            said = said or f"; with `{wrapper}`: {error}"
    return f"reads ({read}){said}"


def _built(file: TensorFile) -> None:
    refuse_foreign(file)
    kind = control_kind(file)
    unet = UNet(BASE)
    options: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}
    if kind is None:
        shapes = {name: file.info(name).shape for name in file}
        layout = tiny_layout(shapes)
        if layout is None:
            raise ModelFileError("not known")
        tiny_table(tiny_config(shapes, layout), layout).convert({name: file[name] for name in file})
    elif kind.startswith("IP"):
        build_ip_adapter(file, unet, **options)
    elif kind == "T2I-Adapter":
        build_t2i_adapter(file, BASE, **options)
    else:
        build_controlnet(file, BASE, dict(unet.named_parameters()), **options)
