"""What clients of A1111's API send: its fields with its defaults; null means the default, unknown fields are ignored.

Fields whose default is None here (steps, size, guidance, sampler) come from the model where they are not given.
Whole numbers may be written as 7.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Seed = Annotated[int, Field(ge=-1, le=2**63 - 1)]
PICTURE = "A PNG, JPEG or WebP file in base64, with or without `data:image/png;base64,` before it."


def _no_flag(value: Any) -> Any:
    """True is no number, though Python counts it as 1."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_expected", "input should be a number, not true or false")
    return value


def _seed(value: Any) -> Any:
    """An empty text stands for a random seed, as fields of forms send it."""
    return -1 if value == "" else _no_flag(value)


Whole = Annotated[int, BeforeValidator(_no_flag), Field(ge=-(2**53), le=2**53)]
Real = Annotated[float, BeforeValidator(_no_flag)]
AnySeed = Annotated[Seed, BeforeValidator(_seed)]


class LenientBody(BaseModel):
    """A body in which null stands for the default."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None}


class LoraField(LenientBody):
    """A LoRA of a client of stable-diffusion.cpp: by the name that `/sdapi/v1/loras` lists."""

    name: str = ""
    path: str = ""
    multiplier: Real = 1.0


class Generation(LenientBody):
    """The fields that txt2img and img2img share."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[str] = []
    seed: AnySeed = -1
    subseed: AnySeed = -1
    subseed_strength: Real = 0.0
    seed_resize_from_h: Whole = -1
    seed_resize_from_w: Whole = -1
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: Annotated[Whole, Field(ge=1)] = 1
    n_iter: Annotated[Whole, Field(ge=1)] = 1
    steps: Whole | None = None
    cfg_scale: Real | None = None
    distilled_cfg_scale: Real | None = None
    width: Whole | None = None
    height: Whole | None = None
    restore_faces: bool = False
    tiling: bool = False
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    eta: Real | None = None
    denoising_strength: Real | None = None
    s_min_uncond: Real = 0.0
    s_churn: Real = 0.0
    s_tmax: Real = 0.0
    s_tmin: Real = 0.0
    s_noise: Real = 1.0
    override_settings: dict[str, Any] = {}
    override_settings_restore_afterwards: bool = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: Real | None = None
    disable_extra_networks: bool = False
    firstpass_image: str | None = None
    clip_skip: Whole | None = None
    lora: list[LoraField] = []
    force_task_id: str | None = None
    script_name: str | None = None
    script_args: list[Any] = []
    alwayson_scripts: dict[str, Any] = {}
    send_images: bool = True
    save_images: bool = False
    infotext: str | None = None


class Txt2Img(Generation):
    """The body of POST /sdapi/v1/txt2img."""

    enable_hr: bool = False
    firstphase_width: Whole = 0
    firstphase_height: Whole = 0
    hr_scale: Real = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: Whole = 0
    hr_steps: Whole = 0
    hr_resize_x: Whole = 0
    hr_resize_y: Whole = 0
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    hr_cfg: Real | None = None
    hr_distilled_cfg: Real | None = None


class Img2Img(Generation):
    """The body of POST /sdapi/v1/img2img."""

    init_images: list[str] = Field(default=[], description=PICTURE)
    extra_images: list[str] = []
    resize_mode: Annotated[Whole, Field(ge=0, le=3)] = 0
    image_cfg_scale: Real | None = None
    mask: str | None = Field(default=None, description=f"{PICTURE} White is generated again.")
    latent_mask: str | None = None
    mask_blur: Real | None = None
    mask_blur_x: Real = 4
    mask_blur_y: Real = 4
    mask_round: bool = True
    inpainting_fill: Annotated[Whole, Field(ge=0, le=3)] = 0
    inpaint_full_res: bool = True
    inpaint_full_res_padding: Whole = 0
    inpainting_mask_invert: Whole = 0
    initial_noise_multiplier: Real | None = None
    include_init_images: bool = False


class Extras(LenientBody):
    """The fields that both routes for enlarging share."""

    resize_mode: Annotated[Whole, Field(ge=0, le=1)] = 0
    show_extras_results: bool = True
    gfpgan_visibility: Real = 0.0
    codeformer_visibility: Real = 0.0
    codeformer_weight: Real = 0.0
    upscaling_resize: Annotated[Real, Field(gt=0, le=8)] = 2.0
    upscaling_resize_w: Annotated[Whole, Field(ge=1)] = 512
    upscaling_resize_h: Annotated[Whole, Field(ge=1)] = 512
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: Annotated[Real, Field(ge=0, le=1)] = 0.0
    upscale_first: bool = False


class ExtrasSingle(Extras):
    """The body of POST /sdapi/v1/extra-single-image."""

    image: str = Field(default="", description=PICTURE)


class NamedPicture(LenientBody):
    """A picture of a batch, and the name that its client gave it."""

    data: str
    name: str = ""


class ExtrasBatch(Extras):
    """The body of POST /sdapi/v1/extra-batch-images."""

    imageList: list[NamedPicture] = Field(default=[], max_length=16)


class PngInfo(LenientBody):
    """The body of POST /sdapi/v1/png-info."""

    image: str = Field(default="", description=PICTURE)


class Interrogate(LenientBody):
    """The body of POST /sdapi/v1/interrogate."""

    image: str = ""
    model: str = "clip"


class TaskProgress(LenientBody):
    """The body of POST /internal/progress."""

    id_task: str | None = None
    id_live_preview: Whole = -1
    live_preview: bool = True


class Detect(LenientBody):
    """The body of POST /controlnet/detect; some clients say `controlnet_images`, others `controlnet_input_images`."""

    controlnet_module: str = "none"
    controlnet_images: list[str] = Field(default=[], max_length=16)
    controlnet_input_images: list[str] = Field(default=[], max_length=16)
    controlnet_processor_res: Real = -1
    controlnet_threshold_a: Real = -1
    controlnet_threshold_b: Real = -1
