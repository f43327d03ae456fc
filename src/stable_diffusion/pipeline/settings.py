"""Fields of a request for special tasks, all off by default, and their checks in plain sentences."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidRequest, unknown_choice
from .checks import number, whole
from .hires import upscaler_name
from .masks import FILLS, Fill, Margins
from .tiling import TILINGS, Tiling

MAX_SEED = 2**63 - 1
MAX_STEPS = 1000
MAX_SIDE = 8192
MAX_HIRES = 8.0
MAX_BLUR = 256.0


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What `Request` takes besides the common settings.

    tiling                "x", "y" or "both": these edges meet, so that copies of the picture fit side by side
    panorama              a whole sphere as one picture twice as wide as high, and marked as such in its file
    variation_seed        another seed, and `variation_strength` (0 to 1), how far to go from the one to the other;
                          picture k of `count` then has this seed + k, and all have the same `seed`
    seed_resize           (width, height) of the picture whose composition the seed is to keep
    hires                 factor (above 1 to 8): paint small, enlarge, paint again; only from text
    hires_steps           steps of the second pass (as many as the first)    hires_strength   0 to 1 (0.7)
    hires_upscaler        "Latent", "Latent (bicubic)", "Latent (nearest-exact)" or "Lanczos"
    mask_blur             0 to 256 pixels: standard deviation by which the mask's edge is made soft
    only_masked           paint the masked part alone, at the whole size, and set it into the picture
    mask_padding          pixels around the masked part that the model sees then (32)
    soft_mask             grey in the mask is strength: half grey is painted anew at half the strength
    fill                  what the masked part starts as: "original", "fill", "latent noise", "latent nothing"
    outpaint              pixels to add at the left, top, right and bottom of `image`
    window                side in pixels of overlapping windows in which a canvas of any size is painted
    window_overlap        pixels that neighbouring windows share (half a window)
    """

    tiling: Tiling | None = None
    panorama: bool = False
    variation_seed: int | None = None
    variation_strength: float = 0.0
    seed_resize: tuple[int, int] | None = None
    hires: float | None = None
    hires_steps: int | None = None
    hires_strength: float | None = None
    hires_upscaler: str | None = None
    mask_blur: float = 0.0
    only_masked: bool = False
    mask_padding: int | None = None
    soft_mask: bool = False
    fill: Fill | None = None
    outpaint: Margins | None = None
    window: int | None = None
    window_overlap: int | None = None

    def _replace(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_tasks(self, *, image: bool, mask: bool, count: int) -> None:
        """InvalidRequest where a value is unusable, or two do not go together."""
        for name in ("panorama", "only_masked", "soft_mask"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidRequest(f"{name} is {getattr(self, name)!r}; expected True or False")
        self._check_edges()
        self._check_variation(count)
        self._check_hires(image)
        self._check_masks(image, mask)
        self._replace(
            window=whole("window", self.window, 16, MAX_SIDE),
            window_overlap=whole("window_overlap", self.window_overlap, 0, MAX_SIDE),
        )
        if self.window_overlap is not None and self.window is None:
            raise InvalidRequest("window_overlap was given without window; give the size of a window too")
        if self.window_overlap is not None and self.window is not None and self.window_overlap >= self.window:
            raise InvalidRequest(
                f"window_overlap is {self.window_overlap}; expected less than the window, which is {self.window}"
            )

    def _check_edges(self) -> None:
        tiling: Any = self.tiling
        if isinstance(tiling, bool):
            tiling = "both" if tiling else None
        if tiling is not None and tiling not in TILINGS:
            raise unknown_choice("tiling", str(tiling), TILINGS)
        if self.panorama and tiling not in (None, "x"):
            raise InvalidRequest(f"a panorama is a sphere, whose poles are no edges; leave out tiling {tiling!r}")
        self._replace(tiling=None if self.panorama else tiling)

    def _check_variation(self, count: int) -> None:
        seed: Any = self.variation_seed
        seed = None if seed == -1 and not isinstance(seed, bool) else seed
        strength = number("variation_strength", self.variation_strength, 0, 1)
        if strength is None:
            raise InvalidRequest("variation_strength is None; expected a number from 0 to 1")
        seed = whole("variation_seed", seed, 0, MAX_SEED)
        if seed is not None and seed > MAX_SEED - (count - 1):
            raise InvalidRequest(
                f"variation_seed {seed} leaves no room for {count} pictures; expected at most 2^63 - {count}"
            )
        self._replace(variation_seed=seed, variation_strength=strength)
        if self.seed_resize is not None:
            width, height = _numbers("seed_resize", self.seed_resize, 2, 1, "(width, height)")
            self._replace(seed_resize=(width, height))

    def _check_hires(self, image: bool) -> None:
        self._replace(
            hires=number("hires", self.hires, 1, MAX_HIRES),
            hires_steps=whole("hires_steps", self.hires_steps, 1, MAX_STEPS),
            hires_strength=number("hires_strength", self.hires_strength, 0, 1),
        )
        if self.hires_upscaler is not None:
            self._replace(hires_upscaler=upscaler_name(str(self.hires_upscaler)))
        if self.hires == 1:
            raise InvalidRequest(f"hires is 1; expected a factor above 1 and at most {MAX_HIRES:g}")
        for name in ("hires_steps", "hires_strength", "hires_upscaler"):
            if self.hires is None and getattr(self, name) is not None:
                raise InvalidRequest(f"{name} was given without hires; give the factor of the second pass, such as 2")
        if self.hires is not None and (image or self.outpaint is not None):
            raise InvalidRequest("hires starts from text alone; leave out image, or hires")

    def _check_masks(self, image: bool, mask: bool) -> None:
        blur = number("mask_blur", self.mask_blur, 0, MAX_BLUR)
        self._replace(
            mask_blur=0.0 if blur is None else blur,
            mask_padding=whole("mask_padding", self.mask_padding, 0, MAX_SIDE),
        )
        if self.outpaint is not None:
            left, top, right, bottom = _numbers("outpaint", self.outpaint, 4, 0, "(left, top, right, bottom)")
            self._replace(outpaint=(left, top, right, bottom))
            if not any((left, top, right, bottom)):
                raise InvalidRequest("outpaint is 0 on every side; expected pixels to add on one at least")
            if mask or self.only_masked:
                raise InvalidRequest("outpaint makes its own mask; leave out mask and only_masked")
        if self.fill is not None and self.fill not in FILLS:
            raise unknown_choice("fill", str(self.fill), FILLS)

    def _check_mask_there(self, image: bool, mask: bool) -> None:
        """Called where the picture is known to be final: a request read from a file gets its picture later."""
        if self.outpaint is not None and not image:
            raise InvalidRequest("outpaint was given without an image; give the image to paint around")
        if mask or self.outpaint is not None:
            return
        for name in ("only_masked", "soft_mask", "fill", "mask_blur", "mask_padding"):
            if getattr(self, name) not in (None, False, 0):
                raise InvalidRequest(f"{name} was given without a mask; give the mask whose white parts are repainted")


def _numbers(name: str, values: Any, count: int, low: int, form: str) -> list[int]:
    expected = f"{name} is {values!r}; expected {count} whole numbers {form} from {low} to {MAX_SIDE}"
    try:
        if any(isinstance(value, bool) for value in values):
            raise TypeError
        found = [operator.index(value) for value in values]
    except TypeError:
        raise InvalidRequest(expected) from None
    if len(found) != count or not all(low <= value <= MAX_SIDE for value in found):
        raise InvalidRequest(expected)
    return found
