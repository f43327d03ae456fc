"""What clients name in their requests: a LoRA of the built-in model, a tiny other model with a ControlNet, a style."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adapter_files import kohya, lora_state, shapes
from safetensors.torch import save_file
from served import FAST

from control_files import write_controlnet
from stable_diffusion import load
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.weights.checkpoints.native import save_native

KINDS = ("loras", "controls", "models")


def write_folders(folder: Path, tiny_model: StableDiffusion) -> dict[str, Any]:
    """Writes `loras/ink`, `models/tiny`, `controls/control_canny` (of tiny) and `styles.csv`; the server's settings."""
    model = load(FAST)
    for name in KINDS:
        (folder / name).mkdir()
    layers = tuple(name for name in shapes(model) if name.endswith(("to_q", "to_v")))
    save_file(lora_state(model, layers, kohya), folder / "loras" / "ink.safetensors")
    save_native(folder / "models" / "tiny.safetensors", tiny_model.parts, dtype="float32")
    write_controlnet(folder / "controls" / "control_canny.safetensors", tiny_model.parts.unet.config)
    (folder / "styles.csv").write_text("name,prompt,negative_prompt\nwoodcut,{prompt} as a woodcut,photo\n")
    return {**{name: (folder / name,) for name in KINDS}, "styles_file": folder / "styles.csv"}
