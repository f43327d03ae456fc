"""Files and folders of Stable Diffusion XL: what they are recognised as, and what they are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_xl as xl
from stable_diffusion.errors import BrokenModel, InvalidRequest, ModelFileError, UnknownModel
from stable_diffusion.models.unet import UNet
from stable_diffusion.weights.checkpoints.blueprint import Overrides
from stable_diffusion.weights.checkpoints.native import save_native
from stable_diffusion.weights.checkpoints.single import read_single
from stable_diffusion.weights.containers.tensors import TensorFile, TensorInfo
from stable_diffusion.weights.describe import inspect
from stable_diffusion.weights.load import load_parts

FIRST = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return xl.write_folder(xl.BASE, tmp_path_factory.mktemp("xl"))


@pytest.fixture(scope="module")
def single(folder: Path) -> Path:
    return xl.write_single(xl.BASE, folder, folder.parent / "single.safetensors")


def test_folder_and_single_file_are_the_same_model(folder: Path, single: Path) -> None:
    one, two = load_parts(folder), load_parts(single)
    for name in ("unet", "vae", "clip", "clip2"):
        state = getattr(two, name).state_dict()
        assert all(torch.equal(tensor, state[key]) for key, tensor in getattr(one, name).state_dict().items()), name
    for parts in (one, two):
        assert (parts.family, parts.prediction, parts.clip_layer, parts.text_norm) == ("sdxl", "eps", -2, False)
        assert (parts.size_numbers, parts.zero_empty, parts.latents.scale) == (6, True, 0.13025)
        assert parts.clip.config.projection_dim is None and not parts.guesses
    assert (one.defaults.width, two.defaults.width, two.defaults.steps, two.defaults.guidance) == (64, 1024, 30, 5.0)
    assert two.tokenizer2 is not None and (two.tokenizer.pad_token_id, two.tokenizer2.pad_token_id) == (None, 0)


def test_what_info_says(folder: Path, single: Path) -> None:
    for place, layout, size in ((folder, "diffusers", 64), (single, "ldm", 1024)):
        found = inspect(place, hashes=False)
        assert (found["family"], found["label"], found["layout"]) == ("sdxl", "Stable Diffusion XL", layout)
        assert (found["width"], found["height"], found["steps"], found["sampler"]) == (size, size, 30, "dpmpp_2m")
        assert set(found["parameters"]) == {"unet", "vae", "clip", "clip2"} and found["guesses"] == []


def test_v_prediction_and_zero_terminal_snr_are_marked_by_tensors(folder: Path, tmp_path: Path) -> None:
    path = xl.write_single(xl.V_ZERO, folder, tmp_path / "a.safetensors")
    parts = load_parts(path)
    assert parts.prediction == inspect(path, hashes=False)["prediction"] == "v"
    assert parts.schedule.sigma_max > 1000 and parts.family == "sdxl" and parts.defaults.width == 1024


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"edm_mean": torch.zeros(4), "edm_std": torch.zeros(4)}, BrokenModel, "latents_std is"),
        ({FIRST: torch.zeros(32, 6, 3, 3)}, UnknownModel, "its U-Net takes 6 channels instead of 4"),
        ({FIRST: torch.zeros(32, 5, 3, 3)}, UnknownModel, "its U-Net takes 5 channels instead of 4"),
        (
            {"model.diffusion_model.label_emb.0.0.weight": torch.zeros(128, 1700)},
            BrokenModel,
            "a vector of 1700 numbers; expected 1584",
        ),
        (
            {"conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": torch.zeros(49408, 8)},
            UnknownModel,
            "tokens of width 192, and its text encoders together make 136",
        ),
    ],
)
def test_what_is_refused(
    single: Path, tmp_path: Path, change: dict[str, torch.Tensor], error: type[Exception], says: str
) -> None:
    save_file({**load_file(single), **change}, tmp_path / "a.safetensors")
    for look in (inspect, load_parts):
        with pytest.raises(error) as caught:
            look(tmp_path / "a.safetensors")
        reasons = caught.value.reasons if isinstance(caught.value, UnknownModel) else {}
        assert says in str(caught.value) or says in reasons["sdxl"]


def test_a_model_that_edits_pictures(single: Path, tmp_path: Path) -> None:
    save_file({**load_file(single), FIRST: torch.zeros(32, 8, 3, 3)}, tmp_path / "a.safetensors")
    parts = load_parts(tmp_path / "a.safetensors")
    assert inspect(tmp_path / "a.safetensors")["family"] == parts.family == "sdxl-pix2pix"
    assert isinstance(parts.unet, UNet) and parts.unet.config.in_channels == 8


def test_a_file_without_one_text_encoder(single: Path, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in load_file(single).items() if "embedders.1" not in name}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(BrokenModel, match="not its second text encoder; --text-encoder gives it one") as caught:
        inspect(tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_a_folder_says_what_it_wants(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    index = copy / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "force_zeros_for_empty_prompt": False}))
    scheduler = copy / "scheduler" / "scheduler_config.json"
    told = {**json.loads(scheduler.read_text()), "_class_name": "EulerAncestralDiscreteScheduler"}
    scheduler.write_text(json.dumps({**told, "timestep_spacing": "trailing"}))
    parts = load_parts(copy)
    assert not parts.zero_empty and (parts.defaults.steps, parts.defaults.guidance) == (4, 1.0)
    assert (parts.defaults.sampler, parts.defaults.schedule) == ("euler_ancestral", "sgm_uniform") and not parts.guesses
    shutil.rmtree(copy / "text_encoder_2")
    with pytest.raises(BrokenModel, match="lacks the folder text_encoder_2"):
        inspect(copy)


@pytest.mark.parametrize(
    ("file", "changes", "says"),
    [
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EDMDPMSolverMultistepScheduler", "sigma_data": 0.5, "rho": 5.0},
            "has rho 5.0; this version runs 7.0 only",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EDMEulerScheduler", "prediction_type": "sample"},
            "has prediction_type 'sample'; known are epsilon, v_prediction",
        ),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "EDMEulerScheduler", "sigma_schedule": "beta"},
            "has sigma_schedule 'beta'; known are karras, exponential",
        ),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMEulerScheduler", "sigma_max": -1}, "sigma_max -1"),
        ("vae/config.json", {"latents_mean": [-1.6, 2.3, 2.5, -4.2]}, "latents_std is None; expected 4 numbers"),
        ("vae/config.json", {"latents_mean": [0, 0, 0], "latents_std": [1, 1, 1]}, "expected 4 numbers"),
    ],
)
def test_noise_levels_and_latents_that_are_not_run_are_said(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, object], says: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / file).write_text(json.dumps({**json.loads((copy / file).read_text()), **changes}))
    for look in (inspect, load_parts):
        with pytest.raises(ModelFileError, match=says):
            look(copy)


def test_our_own_format_does_not_hold_it_yet(single: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="family 'sdxl' cannot be written in our own format yet"):
        save_native(tmp_path / "a.safetensors", load_parts(single))


class Shapes(TensorFile):
    """A file of which only the shapes are known."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        infos = {name: TensorInfo(torch.float16, shape) for name, shape in shapes.items()}
        super().__init__(Path("a.safetensors"), infos, lambda name: torch.empty(0), kind="safetensors")


@pytest.mark.parametrize(
    "kind", [xl.BASE, xl.PRUNED, xl.KOALA, xl.INPAINT, xl.EDIT, xl.REFINER], ids=lambda kind: kind.name
)
def test_shapes_give_the_config(kind: xl.Kind, tmp_path: Path) -> None:
    folder = xl.write_folder(kind, tmp_path)
    state = xl.single_state(kind, folder)
    found = read_single(Shapes({name: tuple(tensor.shape) for name, tensor in state.items()}), {}, Overrides())
    for side in ("down_stages", "up_stages", "mid_stage"):
        assert getattr(found.networks["unet"].config, side)() == getattr(kind.config, side)()
    assert found.family == xl.FAMILIES.get(kind.name, kind.name)
