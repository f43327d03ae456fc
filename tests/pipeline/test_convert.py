"""Models written anew: bits are kept there and back, and diffusers' own loaders paint the same from both forms."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny_checkpoints as tiny
from convert_cases import (
    FLOOR,
    KINDS,
    Case,
    cast,
    from_pretrained,
    from_single_file,
    make_case,
    paint,
    single_in,
)
from painting import psnr
from stable_diffusion.convert import convert
from stable_diffusion.errors import InvalidRequest, ModelFileError
from stable_diffusion.pipeline.models import load
from stable_diffusion.weights.describe import inspect


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(request.param, tmp_path_factory.mktemp("convert"))


UNREAD = ("position_ids", "logit_scale", "alphas_cumprod")
OTHERS = ("model_ema.", "depth_model.")


def of_networks(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a single file that a network is made of: not the training's, not what nothing reads."""
    state = load_file(path)
    return {name: t for name, t in state.items() if not name.startswith(OTHERS) and not name.endswith(UNREAD)}


DTYPES = (torch.float32, torch.float16, torch.bfloat16)
EVERY_DTYPE = ("sd1", "sdxl", "sd3")


def dtypes(case: Case) -> tuple[torch.dtype, ...]:
    """What a kind is tried in: all for one of each family, and in turn for the others, whose tables alone differ."""
    turn = [kind.name for kind in KINDS].index(case.name) % len(DTYPES)
    return DTYPES if case.name in EVERY_DTYPE else DTYPES[turn : turn + 1]


def assert_same_networks(case: Case, before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    """Equal bits of all that is read."""
    # Stable Diffusion 2: a folder ends with the layer that is read; what comes after it is filled by the last again
    ends = case.name.startswith("sd2")
    unused = {name for name in before if ends and ("resblocks.2." in name or "text_projection" in name)}
    assert set(before) - unused <= set(after) and set(after) <= set(before)
    for name in set(before) - unused:
        if not before[name].numel():  # a mark without numbers, such as v_pred
            continue
        assert after[name].dtype == before[name].dtype and torch.equal(before[name], after[name]), name


def of_folder(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Folder of a network -> its tensors, in one file or in shards."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for file in sorted(folder.glob("*/*.safetensors")):
        found.setdefault(file.parent.name, {}).update(load_file(file))
    return found


def test_there_and_back_keeps_every_bit(case: Case, tmp_path: Path) -> None:
    """File, folder, file, folder: both files are equal and both folders are."""
    for dtype in dtypes(case):
        (tmp_path / str(dtype)).mkdir()
        there_and_back(case, dtype, tmp_path / str(dtype))


def there_and_back(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    single = single_in(case, dtype, tmp_path)
    convert(single, tmp_path / "folder")
    convert(tmp_path / "folder", tmp_path / "b.safetensors")
    convert(tmp_path / "b.safetensors", tmp_path / "again")
    assert_same_networks(case, of_networks(single), load_file(tmp_path / "b.safetensors"))
    before, after = of_folder(tmp_path / "folder"), of_folder(tmp_path / "again")
    assert set(before) == set(after)
    for part, old in before.items():
        assert set(old) == set(after[part])
        assert all(tensor.dtype == dtype and torch.equal(after[part][name], tensor) for name, tensor in old.items())


def test_a_folder_of_diffusers_to_one_file_and_back_keeps_every_bit(case: Case, tmp_path: Path) -> None:
    convert(case.folder, tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "folder")
    before, after = of_folder(case.folder), of_folder(tmp_path / "folder")
    assert set(before) == set(after)
    for part, old in before.items():
        new = after[part]
        # current transformers leaves `text_model.` out, older ones and every released folder have it
        old = {name if name in new else f"text_model.{name}": tensor for name, tensor in old.items()}
        assert set(old) - set(new) <= {"text_projection.weight"} and set(new) <= set(old)
        assert all(torch.equal(old[name], tensor) for name, tensor in new.items())


def test_another_dtype_is_the_cast_of_every_weight(case: Case, tmp_path: Path) -> None:
    for dtype in dtypes(case):
        (tmp_path / str(dtype)).mkdir()
        in_another_dtype(case, dtype, tmp_path / str(dtype))


def in_another_dtype(case: Case, dtype: torch.dtype, tmp_path: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    source = single_in(case, torch.bfloat16 if dtype == torch.float32 else torch.float32, tmp_path)
    convert(source, tmp_path / "folder", dtype=name)
    convert(tmp_path / "folder", tmp_path / "b.safetensors")
    convert(source, tmp_path / "c.safetensors", dtype=name)
    expected = cast(of_networks(source), dtype)
    for written in ("b", "c"):
        assert_same_networks(case, expected, load_file(tmp_path / f"{written}.safetensors"))


SCHEDULE = ("beta_start", "beta_end", "beta_schedule", "prediction_type", "timestep_spacing", "steps_offset")


def test_diffusers_paints_the_same_from_both_forms(case: Case, tmp_path: Path) -> None:
    reference = paint(from_pretrained(case, case.folder))
    assert float(reference.std()) > 0.02
    convert(case.single, tmp_path / "folder")
    convert(case.folder, tmp_path / "single.safetensors")
    theirs = from_pretrained(case, case.folder)
    ours = from_pretrained(case, tmp_path / "folder")
    assert type(ours.scheduler) is type(theirs.scheduler)
    for name in (*SCHEDULE, "shift", "num_train_timesteps", "use_dynamic_shifting"):
        assert ours.scheduler.config.get(name) == theirs.scheduler.config.get(name), name
    value = psnr(paint(ours), reference)
    print(f"{case.name}: from the folder {value:.1f} dB")
    assert value > FLOOR
    single = from_single_file(case, tmp_path / "single.safetensors", tmp_path / "folder")
    value = psnr(paint(single), reference)
    print(f"{case.name}: from one file {value:.1f} dB")
    assert value > FLOOR


def test_what_is_written_is_recognised_without_guesses(case: Case, tmp_path: Path) -> None:
    convert(case.folder, tmp_path / "single.safetensors")
    found, source = inspect(tmp_path / "single.safetensors", hashes=False), inspect(case.folder, hashes=False)
    assert (found["family"], found["prediction"], found["guesses"]) == (source["family"], source["prediction"], [])
    assert found["metadata"]["modelspec.sai_model_spec"] == "1.0.1"
    told = {"eps": "epsilon", "v": "v", "flow": None}[found["prediction"]]
    assert found["metadata"].get("modelspec.prediction_type") == told
    assert found["metadata"]["modelspec.architecture"].startswith("stable-diffusion-")


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return make_case(tiny.SD1, tmp_path_factory.mktemp("sd1"))


def test_a_variant_is_in_the_names_and_read_by_it(sd1: Case, tmp_path: Path) -> None:
    convert(sd1.single, tmp_path / "half", dtype="fp16", variant="fp16")
    names = sorted(path.name for path in (tmp_path / "half").rglob("*.safetensors"))
    assert names == ["diffusion_pytorch_model.fp16.safetensors"] * 2 + ["model.fp16.safetensors"]
    pipeline = from_pretrained(sd1, tmp_path / "half", variant="fp16", dtype=torch.float32)
    value = psnr(paint(pipeline), paint(from_pretrained(sd1, sd1.folder)))
    assert 25 < value < 80  # rounding to half precision shows, and nothing else does
    convert(tmp_path / "half", tmp_path / "back.safetensors", source_variant="fp16")
    assert load_file(tmp_path / "back.safetensors")["model.diffusion_model.out.2.weight"].dtype == torch.float16


def test_an_adapter_becomes_part_of_the_weights(sd1: Case, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    down, up = (torch.randn(shape, generator=generator) for shape in ((4, 64), (32, 4)))
    lora = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": torch.tensor(2.0)}
    nothing = {"lora_unet_nothing.lora_down.weight": down.clone(), "lora_unet_nothing.lora_up.weight": up.clone()}
    save_file({**lora, **nothing}, tmp_path / "style.safetensors")
    made = convert(sd1.single, tmp_path / "styled.safetensors", loras=[f"{tmp_path / 'style.safetensors'}:0.5"])
    assert len(made.notes) == 1 and "lora_unet_nothing" in made.notes[0]
    before, after = load_file(sd1.single), load_file(tmp_path / "styled.safetensors")
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    expected = before[key] + 0.5 * (2 / 4) * up @ down
    assert torch.allclose(after[key], expected, atol=1e-6)
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items() if name != key)


def test_zero_terminal_snr_and_v_are_said_in_both_forms(sd1: Case, tmp_path: Path) -> None:
    convert(sd1.single, tmp_path / "folder", prediction="v", zero_terminal_snr=True)
    convert(tmp_path / "folder", tmp_path / "back.safetensors")
    for place in (tmp_path / "folder", tmp_path / "back.safetensors"):
        parts = load(place, device="cpu").parts
        assert parts.prediction == "v" and parts.schedule.sigma_max > 4000 and not parts.guesses
    scheduler = from_pretrained(sd1, tmp_path / "folder").scheduler
    assert scheduler.config.prediction_type == "v_prediction" and scheduler.config.rescale_betas_zero_snr


def test_nothing_is_overwritten_and_nothing_half_written(sd1: Case, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    for place in (taken, tmp_path / "folder"):
        with pytest.raises(InvalidRequest, match="exists"):
            convert(sd1.single, place)
    with pytest.raises(InvalidRequest, match="pickle"):
        convert(sd1.single, tmp_path / "model.ckpt")
    with pytest.raises(InvalidRequest, match="float32"):
        convert(sd1.single, tmp_path / "other", dtype="float8")
    with pytest.raises(InvalidRequest, match="no variants"):
        convert(sd1.single, tmp_path / "other.safetensors", variant="fp16")
    (tmp_path / "a file").write_text("")
    with pytest.raises(ModelFileError, match="could not be written"):
        convert(sd1.single, tmp_path / "a file" / "folder")
    assert taken.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "folder", "taken.safetensors"]


def test_what_a_form_cannot_say_is_an_error(sd1: Case, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"scaled by 0\.5"):
        convert(sd1.single, tmp_path / "other.safetensors", latent_scale=0.5)
    convert(sd1.single, tmp_path / "folder", latent_scale=0.5)
    assert load(tmp_path / "folder", device="cpu").parts.latents.scale == 0.5
    with pytest.raises(InvalidRequest, match="embedded"):
        from stable_diffusion.embedded import model_path

        convert(model_path() or "", tmp_path / "embedded")
    assert not (tmp_path / "embedded").exists()
