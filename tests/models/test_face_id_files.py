"""IP-Adapters that are known and not run are called what they are, by `info` and by loading, in every container."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stable_diffusion.adapters.describe import adapter_facts
from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.errors import UnknownModel
from stable_diffusion.models.unet import UNet, UNetConfig
from stable_diffusion.weights.control import control_facts, load_control_network

KEYS = {f"ip_adapter.{i}.to_{w}_ip.weight": (32, 32) for i in (1, 3) for w in "kv"}
LORAS = {
    f"ip_adapter.{i}.to_{w}_lora.{end}.weight": (32, 4) if end == "up" else (4, 32)
    for i in range(4) for w in ("q", "k", "v", "out") for end in ("up", "down")
}  # fmt: skip
HEAD = {"image_proj.proj.0.weight": (96, 512), "image_proj.proj.2.weight": (128, 96), "image_proj.norm.weight": (32,)}
RESAMPLER = {"image_proj.perceiver_resampler.proj_in.weight": (32, 1280)}
FORMS = {
    "IP-Adapter FaceID": {**HEAD, **KEYS, **LORAS},
    "IP-Adapter FaceID plus": {**HEAD, **KEYS, **LORAS, **RESAMPLER},
    "IP-Adapter full face": {**HEAD, **KEYS, "image_proj.proj.3.weight": (32,)},
}
PORTRAIT = {**HEAD, **KEYS}


@pytest.mark.parametrize("form", [*FORMS, "portrait", "layers alone"])
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_face_id(form: str, ending: str, tmp_path: Path) -> None:
    shapes = {"portrait": PORTRAIT, "layers alone": LORAS | KEYS}.get(form) or FORMS[form]
    kind = form if form in FORMS else "IP-Adapter FaceID"
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    path = tmp_path / f"face.{ending}"
    if ending == "safetensors":
        save_file(state, path)
    else:
        nested: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in state.items():
            part, _, rest = name.partition(".")
            nested.setdefault(part, {})[rest] = tensor
        torch.save(nested, path)
    assert adapter_facts(path, hashes=False) is None
    facts = control_facts(path, hashes=False)
    assert facts is not None and facts["kind"] == kind and facts["not_run"].startswith("an IP-Adapter")
    unet = UNet(UNetConfig(channels=(32, 64), transformer_depth=(1, 0), heads=4, context_dim=32))
    with pytest.raises(UnknownModel, match=r"is an IP-Adapter .*expected a plain or plus IP-Adapter"):
        load_control_network(path, unet)
    with pytest.raises(UnknownModel, match=r"is an IP-Adapter.*, not an adapter; expected a LoRA"):
        read_adapter(path)
