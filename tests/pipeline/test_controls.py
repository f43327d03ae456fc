"""Controls of a request: what is checked, how pictures come to size, modes and step ranges, and what is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel
from stable_diffusion.events import Images
from stable_diffusion.models.controlnet import ControlNet
from stable_diffusion.pipeline.generate import generate, generate_image
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.pipeline.tasks.control import SOFT, ControlUnit, Hint, controlled
from stable_diffusion.pipeline.tasks.preprocess import canny, preprocessed
from stable_diffusion.pipeline.tasks.windows import windowed
from stable_diffusion.request.control import Control, checked_controls
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.pictures import RESIZES
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import FLAT
from stable_diffusion.request.writers.forms import KEY
from stable_diffusion.types import Conditioning, Residuals
from stable_diffusion.weights.control import load_control_network

WriteControl = Callable[..., Path]
RUN: dict[str, Any] = {"seed": 3, "steps": 4, "sampler": "euler", "guidance": 4.0}


def square(width: int = 60, height: int = 40) -> Image.Image:
    """A white rectangle on dark blue."""
    image = Image.new("RGB", (width, height), (10, 20, 60))
    ImageDraw.Draw(image).rectangle((20, 10, 40, 30), fill="white")
    return image


def painted(model: StableDiffusion, *controls: Control, **changes: Any) -> torch.Tensor:
    *_, last = generate(model, Request("a house", controls=controls, **{**RUN, **changes}), output="straight")
    assert isinstance(last, Images) and last.tensor is not None
    return last.tensor


def test_a_control_leads_and_leaves_the_model_alone(tiny_model: StableDiffusion, control_file: WriteControl) -> None:
    path = control_file(tiny_model)
    before = {name: tensor.clone() for name, tensor in tiny_model.parts.unet.state_dict().items()}
    plain = painted(tiny_model)
    led = painted(tiny_model, Control(path, square()))
    assert float((led - plain).abs().mean()) > 0.005
    assert torch.equal(painted(tiny_model, Control(path, square())), led)
    assert torch.equal(painted(tiny_model, Control(path, square(), weight=0)), plain)
    assert torch.equal(painted(tiny_model), plain)
    for name, tensor in tiny_model.parts.unet.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_the_picture_of_the_request_is_followed_where_there_is_no_other(
    tiny_model: StableDiffusion, control_file: WriteControl
) -> None:
    path, image = control_file(tiny_model), square(48, 32)
    settings = {"image": image, "strength": 0.75}
    assert torch.equal(
        painted(tiny_model, Control(path), **settings), painted(tiny_model, Control(path, image), **settings)
    )


def test_a_picture_alone_and_in_a_batch_are_the_same(tiny_model: StableDiffusion, control_file: WriteControl) -> None:
    control = Control(control_file(tiny_model), square())
    both = generate_image("a house", model=tiny_model, controls=[control], count=2, **RUN)
    alone = generate_image("a house", model=tiny_model, controls=[control], **{**RUN, "seed": 4})
    assert both[1].tobytes() == alone.tobytes()


# --- modes and step ranges, on the residuals themselves -------------------------------------------------------------


@pytest.fixture
def network(tiny_model: StableDiffusion, control_file: WriteControl) -> ControlNet:
    found = load_control_network(control_file(tiny_model), tiny_model.parts.unet)
    assert isinstance(found, ControlNet)
    return found


def told(tiny_model: StableDiffusion) -> tuple[torch.Tensor, torch.Tensor, Conditioning]:
    """Two rows: the prompt's and the negative prompt's."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 4, 4, 6, generator=generator).repeat(2, 1, 1, 1)
    tokens = torch.randn(2, 5, tiny_model.parts.unet.config.context_dim, generator=generator)
    return x, torch.full((2,), 500.0), Conditioning(tokens=tokens, negative=torch.tensor([0.0, 1.0]))


def shown(picture: torch.Tensor) -> Hint:
    """A picture that is there at one size."""

    def at(width: int, height: int) -> torch.Tensor:
        assert picture.shape[-2:] == (height, width)
        return picture

    return at


def unit(network: ControlNet, hint: Hint | None = None, **settings: Any) -> ControlUnit:
    return ControlUnit(control=Control(Path("edges.safetensors"), **settings), network=network, hint=hint)


def all_of(residuals: Residuals) -> list[torch.Tensor]:
    assert residuals.mid is not None
    return [*residuals.down, residuals.mid]


@torch.no_grad()
def test_modes_weaken_fine_features_and_spare_the_negative_prompt(
    tiny_model: StableDiffusion, network: ControlNet
) -> None:
    given = told(tiny_model)
    picture = shown(torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(2)))
    plain, half, soft, spared = (
        all_of(unit(network, picture, **settings).residuals(*given))
        for settings in ({}, {"weight": 0.5}, {"mode": "prompt"}, {"mode": "control"})
    )
    for index, parts in enumerate(zip(plain, half, soft, spared, strict=True)):
        whole, halved, weak, one_sided = parts
        torch.testing.assert_close(halved, whole / 2)
        torch.testing.assert_close(weak, whole * SOFT ** (12 - index))
        assert torch.equal(one_sided[0], weak[0]) and not one_sided[1].any()


@torch.no_grad()
def test_a_range_of_steps_is_the_only_time_it_acts(tiny_model: StableDiffusion, network: ControlNet) -> None:
    process = tiny_model.denoising_process
    sigmas = process.sigmas("euler", "karras", 4, "zero")
    x, _, conditioning = told(tiny_model)
    acting = unit(network, shown(torch.rand(1, 3, 32, 48)), start=0.25, end=0.75)
    denoise = controlled(process.denoiser, [acting], sigmas)
    for step, sigma in enumerate(sigmas[:-1]):
        level = sigma.to(torch.float32).expand(2)
        changed = not torch.equal(denoise(x, level, conditioning), process.denoiser(x, level, conditioning))
        assert changed == (step in (1, 2)), step
    with pytest.raises(InvalidRequest, match=r"from 0\.3 to 0\.4 covers none of 4 steps"):
        controlled(process.denoiser, [unit(network, start=0.3, end=0.4)], sigmas)


@torch.no_grad()
def test_a_window_sees_its_part_of_the_picture(tiny_model: StableDiffusion, network: ControlNet) -> None:
    """Two windows that do not overlap are two small canvases with their own halves of the picture."""
    process = tiny_model.denoising_process
    sigmas = process.sigmas("euler", "karras", 4, "zero")
    x, level = torch.randn(1, 4, 4, 12), torch.tensor([2.0])
    picture = torch.rand(1, 3, 32, 96)
    conditioning = Conditioning(tokens=torch.randn(1, 5, tiny_model.parts.unet.config.context_dim))
    whole = controlled(process.denoiser, [unit(network, shown(picture))], sigmas)
    found = windowed(whole, FLAT, 6, 0)(x, level, conditioning)
    halves = [
        controlled(process.denoiser, [unit(network, shown(half))], sigmas)(part, level, conditioning)
        for half, part in zip(picture.chunk(2, dim=-1), x.chunk(2, dim=-1), strict=True)
    ]
    torch.testing.assert_close(found, torch.cat(halves, dim=-1))


# --- pictures --------------------------------------------------------------------------------------------------------


def test_resize_modes() -> None:
    image = Image.new("RGB", (40, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    for how in ("stretch", "crop", "fill"):
        assert RESIZES[how](image, 20, 20).size == (20, 20)
    stretched, cropped, filled = (np.asarray(RESIZES[how](image, 20, 20)) for how in ("stretch", "crop", "fill"))
    assert (stretched[10, 2] == (255, 0, 0)).all() and (stretched[10, 17] == (0, 0, 255)).all()
    assert (cropped[0, 2] == (255, 0, 0)).all() and (cropped[19, 17] == (0, 0, 255)).all()
    assert (filled[0] == filled[6]).all() and (filled[19] == filled[13]).all()  # the border goes on
    tall = np.asarray(RESIZES["fill"](image.transpose(Image.Transpose.ROTATE_90), 20, 20))
    assert (tall[:, 0] == tall[:, 5]).all() and (tall[:, 19] == tall[:, 14]).all()


def test_edges_are_thin_and_where_the_rectangle_is() -> None:
    edges = canny(square(), 100, 200)
    assert set(np.unique(edges)) == {0, 255}
    rows, columns = np.nonzero(edges)
    assert rows.min() >= 8 and rows.max() <= 32 and columns.min() >= 18 and columns.max() <= 42
    assert (np.count_nonzero(edges[15:25], axis=1) == 2).all()  # one left, one right
    assert not canny(Image.new("RGB", (9, 7), "green"), 100, 200).any()
    ramp = Image.fromarray(np.tile(np.arange(0, 180, 3, dtype=np.uint8), (40, 1)))
    assert not canny(ramp, 100, 200).any()


def test_a_weak_edge_counts_where_it_leads_to_a_strong_one() -> None:
    grey = np.zeros((40, 60), dtype=np.uint8)
    grey[:, 30:] = np.linspace(200, 40, 40)[:, None]  # an edge that is strong above and weak below
    image = Image.fromarray(grey)
    assert canny(image, 100, 600)[35, 25:35].any() and not canny(image, 500, 600)[35, 25:35].any()


def test_edges_of_colour_alone_are_found() -> None:
    """Yellow on white, which are almost the same grey."""
    image = Image.new("RGB", (30, 30), "white")
    image.paste((255, 240, 40), (10, 10, 20, 20))
    assert np.count_nonzero(canny(image, 100, 200)[15]) == 2
    assert not canny(image.convert("L"), 100, 200).any()


def test_invert_and_threshold() -> None:
    image = square()
    assert (np.asarray(preprocessed(image, "invert")) == 255 - np.asarray(image)).all()
    flat = np.asarray(preprocessed(image, "threshold"))
    assert set(np.unique(flat)) == {0, 255} and flat[20, 30, 0] == 255 and flat[0, 0, 0] == 0


# --- what is said ----------------------------------------------------------------------------------------------------


def test_the_text_of_a_picture_names_its_controls(tiny_model: StableDiffusion, control_file: WriteControl) -> None:
    path = control_file(tiny_model)
    control = Control(path, square(), weight=0.8, end=0.5, mode="prompt", preprocessor="canny", threshold_a=50)
    image = generate_image("a house", model=tiny_model, controls=[control, Control(path, square())], **RUN)
    info = read_metadata(image)
    values = info.values
    assert values["ControlNet 0"].startswith("Module: canny, Model: edges [")
    assert "], Weight: 0.8, Resize Mode: Crop and Resize, Threshold A: 50, Threshold B: 200, " in values["ControlNet 0"]
    assert values["ControlNet 0"].endswith(
        "Guidance Start: 0, Guidance End: 0.5, Pixel Perfect: True, Control Mode: My prompt is more important"
    )
    assert values["ControlNet 1"].startswith("Module: none, Model: edges [")
    name, digits = values["ControlNet hashes"].split(": ")
    assert name == "edges" and len(digits) == 12
    assert [note.split(":")[0] for note in info.notes] == [f"'ControlNet {n}' is not taken over" for n in (0, 1)]
    assert "ControlNet" not in generate_image("a house", model=tiny_model, **RUN).info[KEY]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 11}, "control weight is 11; expected a number from -10 to 10"),
        ({"weight": None}, "control weight is None; expected a number from -10 to 10"),
        ({"start": 0.5, "end": 0.5}, "starts at 0.5 and ends at 0.5; expected the start to be before the end"),
        ({"mode": "prompts"}, "unknown control mode 'prompts': did you mean 'prompt'"),
        ({"resize": "crops"}, "unknown control resize 'crops': did you mean 'crop'"),
        ({"preprocessor": "cany"}, "unknown control preprocessor 'cany': did you mean 'canny'"),
        ({"threshold_a": 256}, "control threshold_a is 256; expected a number from 0 to 255"),
        ({"image": "nowhere.png"}, "control image 'nowhere.png' does not exist"),
    ],
)
def test_unusable_values(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as error:
        Control(Path("a.safetensors"), **{"image": square(), **settings})
    assert message in str(error.value)


def test_unusable_controls(tiny_model: StableDiffusion, control_file: WriteControl, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="the control 'edges' has no image; give the picture"):
        Request("a house", controls=[Control(Path("edges.safetensors"))])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"expected a list of Control\(file, image\)"):
        checked_controls("edges.safetensors", None)
    with pytest.raises(InvalidRequest, match=r"given as 'x'; expected Control\(file, image\)"):
        checked_controls(["x"], None)
    with pytest.raises(ModelFileError, match=r"there is no file or folder .*edge\.safetensors; did you mean"):
        path = control_file(tiny_model)
        painted(tiny_model, Control(path.with_name("edge.safetensors"), square()))
    other = tmp_path / "ip.safetensors"
    from safetensors.torch import save_file

    save_file({"image_proj.proj.weight": torch.zeros(96, 20), "ip_adapter.1.to_k_ip.weight": torch.zeros(9, 24)}, other)
    with pytest.raises(BrokenModel, match=r"the IP-Adapter .*ip\.safetensors does not fit"):
        painted(tiny_model, Control(other, square()))
    save_file({"something": torch.zeros(3)}, other)
    with pytest.raises(UnknownModel, match="expected a ControlNet, a T2I-Adapter or an IP-Adapter"):
        painted(tiny_model, Control(other, square()))


def test_a_union_is_told_its_task(tiny_model: StableDiffusion, control_file: WriteControl) -> None:
    path = control_file(tiny_model, "union", tasks=6)
    with pytest.raises(InvalidRequest, match="'union' reads many kinds of picture; give its task: openpose, depth"):
        painted(tiny_model, Control(path, square()))
    with pytest.raises(InvalidRequest, match="unknown task of a union ControlNet 'cany': did you mean 'canny'"):
        painted(tiny_model, Control(path, square(), task="cany"))
    with pytest.raises(InvalidRequest, match="the task of 'union' is 6; expected 0 to 5"):
        painted(tiny_model, Control(path, square(), task=6))
    by_name = painted(tiny_model, Control(path, square(), task="canny"))
    assert torch.equal(by_name, painted(tiny_model, Control(path, square(), task=3)))
    assert not torch.equal(by_name, painted(tiny_model, Control(path, square(), task="depth")))


def test_what_has_no_effect_is_noted(tiny_model: StableDiffusion, control_file: WriteControl) -> None:
    control = Control(control_file(tiny_model), square(), task="depth", image_encoder=Path("clip"))
    with pytest.warns(UserWarning, match="the task of 'edges' is ignored: it is no union ControlNet"):
        generate_image("a house", model=tiny_model, controls=[control], **RUN)
