"""Pictures led by ControlNets, T2I-Adapters and IP-Adapters, against diffusers' own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers

import tiny_checkpoints as tiny
import tiny_controls as controls
import tiny_xl
from stable_diffusion.errors import BrokenModel
from stable_diffusion.events import Images
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion, load
from stable_diffusion.request.control import Control
from stable_diffusion.request.request import Request
from stable_diffusion.weights.networks.unet import unet_ldm

PROMPT, NEGATIVE = "a beautiful sunset over the ocean, oil on canvas", "blurry"
STEPS, GUIDANCE, SEED = 4, 5.0, 1234
WIDTH, HEIGHT = 48, 64
FLOOR = 55.0  # dB
RUN: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "steps": STEPS, "guidance": GUIDANCE, "seed": SEED}
RUN |= {"sampler": "euler", "schedule": "ddim_uniform", "negative_prompt": NEGATIVE}
SHOWN = controls.picture(WIDTH, HEIGHT)


class Pair:
    """A tiny model in diffusers' hands and in ours."""

    def __init__(self, kind: str, place: Path) -> None:
        self.xl, self.place = kind == "sdxl", place
        if self.xl:
            folder = tiny_xl.write_folder(tiny_xl.BASE, place)
            self.pipeline, self.config = tiny_xl.read_folder(tiny_xl.BASE, folder), tiny_xl.BASE.config
        else:
            self.pipeline, self.config = tiny.make_pipeline(tiny.SD1, place / "work"), tiny.SD1.ours
            self.pipeline.scheduler = tiny_xl.scheduler(tiny_xl.BASE)
            self.pipeline.save_pretrained(folder := place / "sd1")
        self.folder = folder
        self.model: StableDiffusion = load(folder, device="cpu")
        self.before = {name: tensor.clone() for name, tensor in self.model.parts.unet.state_dict().items()}
        self.plain = self.ours()

    def theirs(self, kind: str, parts: dict[str, Any], **settings: Any) -> torch.Tensor:
        """The picture of the pipeline of this kind ("ControlNet", "Adapter", ""), made of the same networks."""
        name = f"StableDiffusion{'XL' if self.xl else ''}{kind}Pipeline"
        own = {name: part for name, part in self.pipeline.components.items() if name not in parts}
        if self.xl and kind != "Adapter":
            parts = {**parts, "add_watermarker": False}
        elif kind == "Adapter":
            own.pop("image_encoder", None)
        made = getattr(diffusers, name)(**own, **parts, **({} if self.xl else {"requires_safety_checker": False}))
        made.set_progress_bar_config(disable=True)
        found = made(
            PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, guidance_scale=GUIDANCE, height=HEIGHT,
            width=WIDTH, generator=torch.Generator("cpu").manual_seed(SEED), output_type="pt", **settings,
        ).images  # fmt: skip
        return found if isinstance(found, torch.Tensor) else torch.from_numpy(found).permute(0, 3, 1, 2)

    def ours(self, *given: Control, **changes: Any) -> torch.Tensor:
        *_, last = generate(self.model, Request(PROMPT, controls=given, **{**RUN, **changes}), output="straight")
        assert isinstance(last, Images) and last.tensor is not None
        return last.tensor

    def file(self, state: controls.State, name: str) -> Path:
        return controls.write(state, self.place / f"{name}.safetensors")

    def compare(self, reference: torch.Tensor, *given: Control, matters: float = 40.0) -> None:
        """Equal pictures; far from the one without; and the base untouched."""
        found = self.ours(*given)
        assert psnr(reference, self.plain) < matters, f"it changes too little: {psnr(reference, self.plain):.1f} dB"
        value = psnr(found, reference)
        print(f"{value:.1f} dB; without {psnr(reference, self.plain):.1f} dB")
        assert value > FLOOR, f"{value:.1f} dB"
        for name, tensor in self.model.parts.unet.state_dict().items():
            assert torch.equal(tensor, self.before[name]), name


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Peak signal to noise ratio in dB of pictures in [0, 1]."""
    assert a.shape == b.shape == (1, 3, HEIGHT, WIDTH)
    return float(-10 * (a - b).square().mean().log10())


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(request.param, tmp_path_factory.mktemp(request.param))


def test_one_controlnet_and_two_at_once(pair: Pair) -> None:
    first, second = (controls.controlnet(pair.config, seed) for seed in (1, 2))
    paths = [pair.file(network.state_dict(), f"control{index}") for index, network in enumerate((first, second))]
    reference = pair.theirs("ControlNet", {"controlnet": first}, image=SHOWN, controlnet_conditioning_scale=0.8)
    pair.compare(reference, Control(paths[0], SHOWN, weight=0.8))
    other = controls.picture(WIDTH, HEIGHT, 6)
    reference = pair.theirs(
        "ControlNet", {"controlnet": diffusers.MultiControlNetModel([first, second])}, image=[SHOWN, other],
        controlnet_conditioning_scale=[0.7, 1.2], control_guidance_start=[0.0, 0.25], control_guidance_end=[0.5, 1.0],
    )  # fmt: skip
    pair.compare(
        reference, Control(paths[0], SHOWN, weight=0.7, end=0.5), Control(paths[1], other, weight=1.2, start=0.25)
    )


def test_a_controlnet_whose_features_are_means(pair: Pair, tmp_path: Path) -> None:
    """That of shuffled pictures: told by diffusers' config, and by the name of a single file."""
    network = controls.controlnet(pair.config, 1, global_pool_conditions=True)
    reference = pair.theirs("ControlNet", {"controlnet": network}, image=SHOWN)
    network.save_pretrained(tmp_path / "folder")
    state = controls.ldm_state(pair.config, network.state_dict())
    for path in (tmp_path / "folder", pair.file(state, "control_v11e_sd15_shuffle_fp16")):
        pair.compare(reference, Control(path, SHOWN))


def test_a_controlnet_stored_as_its_difference_from_the_unet(pair: Pair) -> None:
    network = controls.controlnet(pair.config, 3)
    state = controls.ldm_state(pair.config, network.state_dict())
    unet = unet_ldm(pair.config).invert(pair.before)
    differences = {
        name: tensor - unet[bare] if (bare := name.removeprefix("control_model.")) in unet else tensor
        for name, tensor in state.items()
    }
    assert sum(not torch.equal(state[name], differences[name]) for name in state) > 50
    path = pair.file({**differences, "difference": torch.tensor(1.0)}, "diff_control_sd15_canny_fp16")
    pair.compare(pair.theirs("ControlNet", {"controlnet": network}, image=SHOWN), Control(path, SHOWN))
    first = "control_model.input_blocks.0.0.weight"
    path = pair.file({**differences, first: differences[first][:, :3], "difference": torch.tensor(1.0)}, "narrow")
    with pytest.raises(BrokenModel, match="difference from a U-Net of another shape: input_blocks"):
        pair.ours(Control(path, SHOWN))


def test_a_t2i_adapter(pair: Pair) -> None:
    kind, channels = ("full_adapter", [32, 64]) if not pair.xl else ("full_adapter_xl", [32, 64])
    adapter = controls.t2i_adapter(kind, channels)
    path = pair.file(adapter.state_dict(), "t2i")
    settings = {"adapter_conditioning_scale": 0.9} | ({"adapter_conditioning_factor": 0.5} if pair.xl else {})
    reference = pair.theirs("Adapter", {"adapter": adapter}, image=SHOWN, **settings)
    pair.compare(reference, Control(path, SHOWN, weight=0.9, end=0.5 if pair.xl else 1.0))


@pytest.mark.parametrize("plus", [False, True], ids=["plain", "plus"])
def test_an_ip_adapter(plus: bool, pair: Pair) -> None:
    config = transformers.CLIPVisionConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4, image_size=28, patch_size=7,
        projection_dim=20, hidden_act="gelu",
    )  # fmt: skip
    tower = controls.filled(transformers.CLIPVisionModelWithProjection(config), 4)
    tower.save_pretrained(pair.place / "image_encoder")
    processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    square = processor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    state = controls.ip_adapter_state(pair.pipeline.unet, pair.config.context_dim, 48 if plus else 20, plus=plus)
    path = pair.file(state, f"ip-{plus}")
    shown = controls.picture(90, 70)
    halves: dict[str, controls.State] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in state.items():
        half, _, rest = name.partition(".")
        halves[half][rest] = tensor
    parts = {"image_encoder": tower, "feature_extractor": square}
    plain = dict(pair.pipeline.unet.attn_processors)
    pair.pipeline.load_ip_adapter(halves, subfolder="", weight_name="", image_encoder_folder=None)
    pair.pipeline.set_ip_adapter_scale(0.7)
    try:
        reference = pair.theirs("", parts, ip_adapter_image=shown)
    finally:
        pair.pipeline.unload_ip_adapter()
    assert set(plain) == set(pair.pipeline.unet.attn_processors)
    pair.compare(reference, Control(path, shown, weight=0.7))
    assert torch.equal(pair.ours(), pair.plain)  # the same request without is what it was before


def test_half_precision_is_near(pair: Pair) -> None:
    """bfloat16 networks with a ControlNet and a T2I-Adapter, in the mode that treats both prompts differently."""
    model = load(pair.folder, device="cpu", dtype="bfloat16")
    paths = [
        pair.file(controls.controlnet(pair.config).state_dict(), "half"),
        pair.file(controls.t2i_adapter(f"full_adapter{'_xl' * pair.xl}", [32, 64]).state_dict(), "half-t2i"),
    ]
    given = tuple(Control(path, SHOWN, mode="control") for path in paths)
    *_, last = generate(model, Request(PROMPT, controls=given, **RUN), output="straight")
    assert isinstance(last, Images) and last.tensor is not None
    assert psnr(last.tensor, pair.ours(*given)) > 25


def test_a_union_controlnet(pair: Pair) -> None:
    if not pair.xl:
        pytest.skip("union ControlNets are for XL")
    network = controls.union(pair.config)
    path = pair.file(network.state_dict(), "union")
    reference = pair.theirs(
        "ControlNetUnion", {"controlnet": network}, control_image=[SHOWN], control_mode=[1],
        controlnet_conditioning_scale=0.6,
    )  # fmt: skip
    pair.compare(reference, Control(path, SHOWN, weight=0.6, task="depth"))
