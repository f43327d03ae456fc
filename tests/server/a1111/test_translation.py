"""What clients of A1111 send, as settings of the server's own requests: no server and no model is needed."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stable_diffusion import InvalidRequest, Request
from stable_diffusion.server.a1111.answers import text_parameters
from stable_diffusion.server.a1111.bodies import Extras, Img2Img, Txt2Img
from stable_diffusion.server.a1111.extras import enlarged_picture, enlarging
from stable_diffusion.server.a1111.generating import in_their_words
from stable_diffusion.server.a1111.img2img import fit_pictures, img2img_settings, needs_fitting
from stable_diffusion.server.a1111.options import Options, checkpoint, with_options
from stable_diffusion.server.a1111.txt2img import Translated, txt2img_settings
from stable_diffusion.server.errors import ApiError
from stable_diffusion.server.library import Library
from stable_diffusion.server.settings import ServerSettings


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("listed")
    for kind, name in (
        ("loras", "ink"),
        ("controls", "edges_canny"),
        ("upscalers", "tall_x4"),
        ("models", "meadow_v2"),
    ):
        (folder / kind).mkdir()
        (folder / kind / f"{name}.safetensors").write_bytes(b"never read here")
    styles = folder / "styles.csv"
    styles.write_text("name,prompt,negative_prompt\nwoodcut,{prompt} as a woodcut,photo\n")
    kinds = {kind: (folder / kind,) for kind in ("loras", "controls", "upscalers", "models")}
    return Library(ServerSettings(**kinds, styles_file=styles))


def text_to_image(library: Library, options: Options | None = None, **fields: Any) -> Translated:
    body = Txt2Img.model_validate({"prompt": "a kite", **fields})
    chosen = with_options(options or Options(), body.override_settings, library)
    return txt2img_settings(body, chosen, library)


def image_to_image(library: Library, **fields: Any) -> Translated:
    body = Img2Img.model_validate({"prompt": "a kite", "init_images": ["PICTURE"], **fields})
    return img2img_settings(body, Options(), library)


def test_plain_fields(library: Library) -> None:
    found = text_to_image(
        library, negative_prompt="fog", seed=4, steps=9.0, cfg_scale=5, width=64.0, height=96, batch_size=2, n_iter=3
    )
    assert found.settings == {
        "prompt": "a kite",
        "negative_prompt": "fog",
        "seed": 4,
        "steps": 9,
        "guidance": 5.0,
        "width": 64,
        "height": 96,
        "count": 6,
    }
    assert found.notes == () and isinstance(found.settings["steps"], int)
    Request(**found.settings)


def test_null_and_missing_fields_are_the_models_own(library: Library) -> None:
    names = ("steps", "cfg_scale", "width", "height", "sampler_name", "styles", "seed", "eta", "override_settings")
    assert text_to_image(library, **dict.fromkeys(names)).settings == text_to_image(library).settings
    assert text_to_image(library).settings == {"prompt": "a kite", "negative_prompt": "", "count": 1}


@pytest.mark.parametrize(
    "fields, wanted",
    [
        ({"sampler_name": "Euler a", "scheduler": "Automatic"}, {"sampler": "Euler a"}),
        ({"sampler_index": "Heun"}, {"sampler": "Heun"}),
        ({"sampler_name": "DPM++ 2M", "sampler_index": "Heun"}, {"sampler": "DPM++ 2M"}),
        ({"sampler_name": "DPM++ 2M Karras", "scheduler": "automatic"}, {"sampler": "DPM++ 2M Karras"}),
        ({"sampler_name": "euler_a", "scheduler": "karras"}, {"sampler": "euler_a", "schedule": "karras"}),
        ({"sampler_name": "Euler", "scheduler": "Uniform"}, {"sampler": "Euler", "schedule": "normal"}),
    ],
)
def test_samplers(library: Library, fields: dict[str, Any], wanted: dict[str, Any]) -> None:
    found = text_to_image(library, **fields).settings
    assert {name: found[name] for name in ("sampler", "schedule", "noise") if name in found} == wanted


@pytest.mark.parametrize(
    "fields, wanted",
    [
        ({"sampler_name": "Euler a", "eta": 1.0, "s_noise": 1}, None),
        ({"sampler_name": "Euler", "eta": 1.0, "s_tmax": 0, "s_churn": 0, "s_tmin": 0}, None),
        ({"sampler_name": "Euler a", "eta": 0}, {"eta": 0.0}),
        ({"sampler_name": "DDIM", "eta": 1.0}, {"eta": 1.0, "compat": "a1111"}),
        ({"sampler_name": "Euler", "s_churn": 2, "s_tmax": 5}, {"s_churn": 2.0, "s_tmax": 5.0}),
        ({"sampler_name": "Euler", "scheduler": "SGM Uniform"}, {"compat": "a1111"}),
        ({"sampler_name": "UniPC"}, {"compat": "a1111"}),
        ({"sampler_name": "Heun", "prompt": "[a dog:a cat:4]"}, {"compat": "a1111"}),
        ({"sampler_name": "Euler", "prompt": "[a dog:a cat:4]"}, None),
    ],
)
def test_noise_says_only_what_differs(library: Library, fields: dict[str, Any], wanted: dict[str, Any] | None) -> None:
    """Clients send `eta` and the like whatever the sampler: a plain request stays as plain as that of the CLI."""
    assert text_to_image(library, **fields).settings.get("noise") == wanted


def test_options_and_overrides(library: Library) -> None:
    stored = Options(CLIP_stop_at_last_layers=2, sd_model_checkpoint="meadow_v2.safetensors")
    assert text_to_image(library, stored).settings["clip_skip"] == 2
    assert text_to_image(library, stored).settings["model"] == "meadow_v2"
    over = {"CLIP_stop_at_last_layers": 1.0, "sd_model_checkpoint": "Meadow_V2 [0123456789]", "nonsense": [1]}
    found = text_to_image(library, override_settings=over, clip_skip=3).settings
    assert "clip_skip" not in found and found["model"] == "meadow_v2"
    assert text_to_image(library, clip_skip=3).settings["clip_skip"] == 3
    noisy = {"eta_noise_seed_delta": 31337.0, "randn_source": "NV", "emphasis": "No norm"}
    found = text_to_image(library, override_settings=noisy).settings
    assert found["noise"] == {"source": "nv", "seed_delta": 31337}
    assert found["prompting"] == {"emphasis": "No norm"}


def test_all_options_may_be_posted_back(library: Library) -> None:
    given = Options().as_json(library)
    assert with_options(Options(), given, library).as_json(library) == given


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("sd_model_checkpoint", "meadow_v3", "did you mean 'meadow_v2.safetensors'"),
        ("CLIP_stop_at_last_layers", 1.5, "expected a whole number"),
        ("CLIP_stop_at_last_layers", True, "expected a whole number"),
        ("randn_source", "TPU", "choose from CPU, GPU, NV"),
        ("sd_vae", "sharp.pt", "expected 'Automatic'"),
        ("samples_format", "gif", "choose from png"),
    ],
)
def test_unusable_options(library: Library, name: str, value: object, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        with_options(Options(), {name: value}, library)


def test_checkpoints_by_any_of_their_names(library: Library) -> None:
    for name in ("meadow_v2", "meadow_v2.safetensors", "MEADOW_V2.safetensors [abcdef0123]", "meadow_v2.ckpt"):
        assert checkpoint(library, name).name == "meadow_v2"
    assert checkpoint(library, "embedded.safetensors [0123456789]").name == "embedded"
    with pytest.raises(InvalidRequest) as caught:
        checkpoint(library, "../../meadow_v2")
    assert "/meadow" not in str(caught.value).split(";")[1]


def test_hires(library: Library) -> None:
    fields = {"enable_hr": True, "width": 64, "height": 96, "denoising_strength": 0.5, "hr_second_pass_steps": 3}
    found = text_to_image(library, **fields, hr_scale=1.5, hr_upscaler="latent (bicubic)").settings
    assert found["hires"] == {"scale": 1.5, "strength": 0.5, "steps": 3, "upscaler": "Latent (bicubic)"}
    assert "strength" not in found
    assert text_to_image(library, **fields, hr_resize_x=128).settings["hires"]["scale"] == 2
    assert text_to_image(library, **fields, hr_resize_x=128, hr_resize_y=192).settings["hires"]["scale"] == 2
    with pytest.raises(InvalidRequest, match="such as 128x192"):
        text_to_image(library, **fields, hr_resize_x=128, hr_resize_y=128)
    former = text_to_image(library, **fields, firstphase_width=32, firstphase_height=48).settings
    assert (former["width"], former["height"], former["hires"]["scale"]) == (32, 48, 2)
    assert "hires" not in text_to_image(library, **{**fields, "enable_hr": False}).settings
    noted = text_to_image(library, **fields, hr_prompt="a boat", hr_sampler_name="Heun", hr_scheduler="Automatic")
    assert [note.split()[0] for note in noted.notes] == ["hr_sampler_name", "hr_prompt"]


def test_upscalers(library: Library) -> None:
    fields = {"enable_hr": True, "width": 64, "height": 64}
    found = text_to_image(library, **fields, hr_upscaler="R-ESRGAN 4x+")
    assert found.settings["hires"]["upscaler"] == "Lanczos"
    assert found.notes == ("the upscaler 'R-ESRGAN 4x+' is not installed; Lanczos took its place",)
    assert text_to_image(library, **fields, hr_upscaler="None").settings["hires"]["upscaler"] == "Lanczos"
    assert text_to_image(library, **fields, hr_upscaler="tall_x4").settings["hires"]["upscaler"] == "tall_x4"
    with pytest.raises(InvalidRequest, match="did you mean 'tall_x4'"):
        text_to_image(library, **fields, hr_upscaler="tal_x4")


def test_variation_seeds(library: Library) -> None:
    found = text_to_image(library, seed=-1, subseed=8, subseed_strength=0.25).settings
    assert found["variation"] == {"strength": 0.25, "seed": 8} and "seed" not in found
    assert "variation" not in text_to_image(library, subseed=8).settings
    sizes = {"seed_resize_from_w": 64, "seed_resize_from_h": 96}
    assert text_to_image(library, **sizes).settings["variation"] == {"resize_from": [64, 96]}
    assert "variation" not in text_to_image(library, seed_resize_from_w=0, seed_resize_from_h=0).settings


def test_prompts(library: Library) -> None:
    hidden = 'a kite <sd_cpp_extra_args>{"seed": 3}</sd_cpp_extra_args> at sea'
    found = text_to_image(library, prompt=hidden)
    assert found.settings["prompt"] == "a kite at sea" and "stable-diffusion.cpp" in found.notes[0]
    loras = [{"path": "ink.safetensors", "multiplier": 0.8}, {"name": "ink"}]
    assert text_to_image(library, lora=loras).settings["prompt"] == "a kite <lora:ink:0.8> <lora:ink:1>"
    for wrong in ("../ink", "/etc/ink", "inkk"):
        with pytest.raises(InvalidRequest):
            text_to_image(library, lora=[{"path": wrong}])
    assert text_to_image(library, prompt="<lora:ink:1> a kite").settings["prompt"] == "<lora:ink:1> a kite"
    with pytest.raises(InvalidRequest, match="did you mean 'ink'"):
        text_to_image(library, prompt="a kite <lora:inks:0.5>")
    plain = text_to_image(library, prompt="a kite <lora:ink:1>", disable_extra_networks=True)
    assert plain.settings["prompt"] == "a kite"
    assert text_to_image(library, styles=["woodcut"]).settings["prompting"] == {"styles": ["woodcut"]}
    with pytest.raises(InvalidRequest, match="did you mean 'woodcut'"):
        text_to_image(library, styles=["woodcuts"])


def test_infotext_fills_what_is_not_given(library: Library) -> None:
    values = "Steps: 7, Sampler: Heun, CFG scale: 4, Seed: 12, Size: 64x96, Denoising strength: 0.4"
    text = f"a tent\nNegative prompt: rain\n{values}"
    found = text_to_image(library, prompt="", infotext=text, steps=5).settings
    assert (found["prompt"], found["negative_prompt"], found["steps"], found["seed"]) == ("a tent", "rain", 5, 12)
    assert (found["guidance"], found["width"], found["sampler"]) == (4, 64, "heun") and "strength" not in found
    Request(**found)


def test_what_only_a_start_picture_has(library: Library) -> None:
    found = image_to_image(library, denoising_strength=0.6, image_cfg_scale=1.5, inpainting_fill=0)
    assert found.settings["image"] == "PICTURE" and found.settings["strength"] == 0.6
    assert "inpaint" not in found.settings and "image_guidance" not in found.settings
    assert found.settings["noise"] == {"compat": "a1111"}
    assert image_to_image(library, image_cfg_scale=2).settings["image_guidance"] == 2
    with pytest.raises(ApiError) as caught:
        image_to_image(library, init_images=[])
    assert caught.value.status == 404


def test_masks(library: Library) -> None:
    usual = image_to_image(library, mask="MASK").settings
    assert usual["inpaint"] == {"blur": 4.0, "fill": "fill", "invert": False, "only_masked": True, "padding": 0}
    fields = {"mask_blur": 2, "inpainting_fill": 3, "inpaint_full_res": False, "inpainting_mask_invert": 1}
    found = image_to_image(library, mask="MASK", **fields, mask_round=False).settings["inpaint"]
    assert found == {"blur": 2.0, "fill": "latent nothing", "invert": True, "only_masked": False, "soft": True}
    scripts = {"Soft Inpainting": {"args": [True, 1, 0.5, 4, 0, 0.5, 2]}}
    soft = image_to_image(library, mask="MASK", alwayson_scripts=scripts)
    assert soft.settings["inpaint"]["soft"] is True and soft.notes == ()
    assert "inpaint" not in image_to_image(library, alwayson_scripts=scripts).settings


@pytest.mark.parametrize("mode, corner", [(0, (255, 0, 0)), (1, (0, 0, 255)), (2, (255, 0, 0))])
def test_resize_modes(mode: int, corner: tuple[int, int, int]) -> None:
    """A wide picture, red at its ends and blue in the middle: stretched and filled it keeps its ends, cropped not."""
    wide = Image.new("RGB", (96, 32), "red")
    wide.paste("blue", (32, 0, 64, 32))
    body = Img2Img(init_images=["x"], width=32, height=32, resize_mode=mode, mask="m", inpaint_full_res=False)
    assert needs_fitting(body, wide.size) and not needs_fitting(body, (32, 32))
    found = fit_pictures(body, {"image": "x"}, wide, Image.new("L", wide.size, 255))
    from stable_diffusion.request.json import open_text

    fitted, mask = (Image.open(io.BytesIO(open_text(found[name], name))) for name in ("image", "mask"))
    assert fitted.size == mask.size == (32, 32) and fitted.getpixel((0, 16)) == corner
    assert not needs_fitting(Img2Img(init_images=["x"], width=32, height=32, mask="m"), wide.size)


def test_controlnet_units(library: Library) -> None:
    unit = {
        "enabled": True,
        "image": "PICTURE",
        "mask": None,
        "module": "canny",
        "model": "edges_canny [d14c016b]",
        "weight": 0.7,
        "resize_mode": "Resize and Fill",
        "guidance_start": 0.1,
        "guidance_end": 0.8,
        "control_mode": "My prompt is more important",
        "threshold_a": 64,
        "threshold_b": 300,
        "hr_option": "Both",
    }
    found = text_to_image(library, alwayson_scripts={"ControlNet": {"args": [unit]}})
    assert found.notes == ()
    assert found.settings["controls"] == [
        {
            "name": "edges_canny",
            "preprocessor": "canny",
            "image": "PICTURE",
            "weight": 0.7,
            "start": 0.1,
            "end": 0.8,
            "mode": "prompt",
            "resize": "fill",
            "threshold_a": 64,
            "threshold_b": 255,
        }
    ]
    for off in ([], [{**unit, "enabled": False}], [{"module": "none", "model": "None"}]):
        assert "controls" not in text_to_image(library, alwayson_scripts={"controlnet": {"args": off}}).settings
    other = {**unit, "module": "none", "control_mode": 2, "resize_mode": 0, "image": {"image": "P", "mask": "M"}}
    made = text_to_image(library, alwayson_scripts={"controlnet": {"args": [other]}}).settings["controls"][0]
    assert (made["mode"], made["resize"], made["image"]) == ("control", "stretch", "P") and "threshold_a" not in made


@pytest.mark.parametrize(
    "change, said",
    [
        ({"model": "edges_cany"}, "did you mean 'edges_canny'"),
        ({"module": "depth_midas"}, "no ControlNet module 'depth_midas'"),
        ({"model": "None"}, "no model"),
        ({"control_mode": "Loud"}, "control_mode is"),
        ({"image": 3}, "expected a picture in base64"),
    ],
)
def test_unusable_units(library: Library, change: dict[str, Any], said: str) -> None:
    unit = {"module": "canny", "model": "edges_canny", **change}
    with pytest.raises(InvalidRequest, match=said):
        text_to_image(library, alwayson_scripts={"controlnet": {"args": [unit]}})


def test_other_scripts_are_refused_by_name(library: Library) -> None:
    for fields in (
        {"alwayson_scripts": {"ADetailer": {"args": [True, {"ad_model": "face_yolov8n.pt"}]}}},
        {"script_name": "Loopback"},
    ):
        with pytest.raises(ApiError, match=r"there is no script '(ADetailer|Loopback)'") as caught:
            text_to_image(library, **fields)
        assert caught.value.status == 422
    assert text_to_image(library, alwayson_scripts={"ADetailer": {"args": [False]}}, script_name="None").notes == ()


def test_what_is_ignored_is_said(library: Library) -> None:
    notes = text_to_image(library, restore_faces=True, s_min_uncond=0.5, distilled_cfg_scale=3.5).notes
    assert [note.split()[0] for note in notes] == ["restore_faces", "s_min_uncond", "distilled_cfg_scale"]


def test_errors_name_the_clients_fields() -> None:
    assert in_their_words("guidance is 500; expected 1") == "cfg_scale is 500; expected 1"
    assert in_their_words("steps is 0") == "steps is 0"


def no_network(image: Image.Image, name: str, size: tuple[int, int]) -> Image.Image:
    raise AssertionError(f"{name} is no file")


def test_enlarging(library: Library) -> None:
    image = Image.effect_noise((20, 10), 60).convert("RGB")
    image.info["parameters"] = "a kite\nSteps: 3, Seed: 4, Size: 20x10"
    twice = Extras(upscaling_resize=2, upscaler_1="Nearest")
    made = enlarged_picture(image, twice, enlarging(twice, library), no_network)
    assert made.size == (40, 20) and made.getpixel((7, 5)) == image.getpixel((3, 2))
    assert made.info["parameters"].startswith("a kite\nSteps: 3") and "upscaler: Nearest" in made.info["parameters"]
    to_size = {"resize_mode": 1, "upscaling_resize_w": 30, "upscaling_resize_h": 30, "upscaler_1": "Lanczos"}
    for crop, size in ((True, (30, 30)), (False, (60, 30))):
        body = Extras(**to_size, upscaling_crop=crop)
        assert enlarged_picture(image, body, enlarging(body, library), no_network).size == size
    mixed = Extras(upscaler_1="Nearest", upscaler_2="Lanczos", extras_upscaler_2_visibility=0.5)
    both = enlarged_picture(image, mixed, enlarging(mixed, library), no_network)
    assert both.tobytes() != made.tobytes()
    assert "Lanczos took its place" in enlarging(Extras(upscaler_1="SwinIR 4x"), library).notes[0]


def test_a_text_taken_apart() -> None:
    found = text_parameters("a kite\nNegative prompt: fog\nSteps: 3, Sampler: Euler, Seed: 4, Size: 64x96")
    assert found["Prompt"] == "a kite" and found["Negative prompt"] == "fog" and found["Steps"] == "3"
    assert (found["Size-1"], found["Size-2"]) == ("64", "96")
    assert text_parameters("just words") == {}


def test_nothing_is_a_path(library: Library, tmp_path: Path) -> None:
    """No field takes the name of a file: what is not listed is refused before anything is opened."""
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(b"x")
    for fields in (
        {"override_settings": {"sd_model_checkpoint": str(secret)}},
        {"refiner_checkpoint": str(secret)},
        {"lora": [{"path": str(secret)}]},
        {"alwayson_scripts": {"controlnet": {"args": [{"model": str(secret)}]}}},
    ):
        with pytest.raises(InvalidRequest):
            text_to_image(library, **fields)
