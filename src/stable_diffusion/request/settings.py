"""Groups of a request's settings beyond the common ones: frozen, checked in plain sentences, and off by default.

Every group can also be given as a mapping of its fields. `None` means "not given": the model's own then holds, or what
the help says. What a line says is explained in `group`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from ..errors import InvalidRequest
from .fields import Choice, FilePath, Flag, Model, Number, Upscaler, Whole
from .group import SettingGroup, described, documented, setting
from .sequences import MAX_SIDE, Names, Pixels

MAX_SEED = 2**64 - 1
MAX_DELTA = 2**63 - 1
MAX_STEPS = 1000
MAX_HIRES = 8.0
MAX_SIGMA = 100_000.0

Compat = Literal["a1111"]
COMPATS: tuple[Compat, ...] = ("a1111",)
"""Programs whose way of counting steps and placing levels can be asked for."""
Source = Literal["cpu", "device", "nv"]
SOURCES: tuple[Source, ...] = ("cpu", "device", "nv")
Emphasis = Literal["Original", "ComfyUI", "No norm", "Ignore", "None"]
EMPHASES: tuple[Emphasis, ...] = ("Original", "ComfyUI", "No norm", "Ignore", "None")
"""How weights in prompts act, by A1111's names (and ComfyUI's way by its own)."""
Fill = Literal["fill", "original", "latent noise", "latent nothing"]
FILLS: tuple[Fill, ...] = ("fill", "original", "latent noise", "latent nothing")
"""What the masked part holds at the start, by A1111's names, in its order (its numbers 0 to 3)."""
Margins = tuple[int, int, int, int]
"""Pixels added at the left, top, right and bottom."""
Pair = tuple[int, int]
Tiling = Literal["x", "y", "both"]
TILINGS: tuple[Tiling, ...] = ("x", "y", "both")
Speed = Literal["exact", "fast", "fastest"]
SPEEDS: tuple[Speed, ...] = ("exact", "fast", "fastest")
"""How much of the work may be left out."""
UPSCALERS = (
    *("Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)", "Latent (nearest)"),
    *("Latent (nearest-exact)", "Lanczos", "Nearest"),
)
"""Ways to enlarge before the second pass: the latent, or (the last two) the decoded picture. Names are A1111's."""
RESAMPLERS = ("Lanczos", "Nearest", "Bicubic", "Bilinear")
"""Ways to enlarge a finished picture without a network."""
TRANSPARENT, WHITE, SCENE = "transparent", "white", "scene"
BACKGROUNDS = (TRANSPARENT, WHITE, SCENE)


@dataclass(frozen=True)
class Wrap:
    """Which edges meet: left and right (`x`), top and bottom (`y`), or every pole with itself (`sphere`, with `x`).

    On the sphere the row above the top one is the top one seen from the other side: rolled by half the width. Networks
    lose their sense of up and down by it, so that no request has it: panoramas join left and right alone.
    """

    x: bool = False
    y: bool = False
    sphere: bool = False

    def __bool__(self) -> bool:
        return self.x or self.y or self.sphere

    @staticmethod
    def of(tiling: Tiling | None, panorama: bool = False) -> Wrap:
        """The wrap of a request."""
        return Wrap(x=panorama or tiling in ("x", "both"), y=tiling in ("y", "both"))

    def check(self, width: int, height: int, step: int) -> None:
        """InvalidRequest where a side that wraps is no multiple of `step` pixels, the grid of the coarsest features.

        An odd number of coarse columns has no even spacing around the ring: the seam would be narrower than the rest.
        """
        for name, side, wraps in (("width", width, self.x), ("height", height, self.y)):
            if wraps and side % step:
                near = max(1, round(side / step)) * step
                raise InvalidRequest(
                    f"{name} {side} cannot wrap without a seam with this model; expected a multiple of {step}, "
                    f"the nearest is {near}"
                )


FLAT = Wrap()
"""No edges meet."""


# fmt: off
@documented
@dataclass(frozen=True, kw_only=True)
class Prompting(SettingGroup):
    """How prompts are read. All but `emphasis` is done before generating, and the picture's text holds the result."""

    SECTION = "Prompts"

    emphasis: Emphasis | None = setting(
        Choice(EMPHASES, folded=True), flag="--emphasis", key="Emphasis", usual="the model's own",
        help="How weights such as (word:1.3) act; None makes brackets plain text.")
    styles: tuple[str, ...] = setting(
        Names(), (), flag="--style", also="styles", metavar="NAME",
        help="Name of a style in --styles-file; may be repeated.")
    styles_file: Path | None = setting(FilePath(), flag="--styles-file", help="A styles.csv of A1111.")
    wildcards_dir: Path | None = setting(
        FilePath(), flag="--wildcards-dir", help="Folder in which __name__ finds name.txt.")
    variants: bool = setting(
        Flag(), True, flag="--no-variants", key="Variants", help="Read {a|b} and __name__ as plain text.")


@documented
@dataclass(frozen=True, kw_only=True)
class Noise(SettingGroup):
    """Random numbers, and the sampler's own settings; those that a sampler does not have are ignored with a note.

    Sources are "cpu", "device", the generator of the device, and "nv", the numbers of an NVIDIA card made anywhere.
    `s_churn` to `s_noise` are those of Karras et al. 2022, algorithm 2.
    """

    SECTION = "Noise and guidance"

    source: Source = setting(
        Choice(SOURCES), "cpu", flag="--rng", key="RNG", also="randn_source", label="noise source", usual="cpu",
        help="Random number generator.")
    seed_delta: int = setting(
        Whole(-MAX_DELTA, MAX_DELTA), 0, flag="--ensd", key="ENSD", also="eta_noise_seed_delta", nullable=True,
        help="Added to the seed for all noise after the start (31337 for some pictures of A1111).")
    compat: Compat | None = setting(
        Choice(COMPATS), flag="--compat", key="Compat", metavar="PROGRAM", usual="as diffusers",
        help="Count steps and place noise levels as this program does: a1111.")
    shift: float | None = setting(
        Number(0.01, 100), flag="--shift", key="Shift", usual="the model's own",
        help="Shift of the noise levels of Stable Diffusion 3: more stays longer at high noise.")
    eta: float | None = setting(
        Number(0, 10), flag="--eta", key="Eta", usual="the sampler's own",
        help="Amount of fresh noise in each step: 0 is none, 1 as much as the SDE has.")
    s_churn: float | None = setting(
        Number(0, 1000), flag="--s-churn", key="Sigma churn", help="Extra noise before each step.")
    s_tmin: float | None = setting(
        Number(0, MAX_SIGMA), flag="--s-tmin", key="Sigma tmin", help="Lowest sigma at which --s-churn acts.")
    s_tmax: float | None = setting(
        Number(0, MAX_SIGMA, endless=True), flag="--s-tmax", key="Sigma tmax",
        help="Highest sigma at which --s-churn acts.")
    s_noise: float | None = setting(
        Number(0, 10), flag="--s-noise", key="Sigma noise", help="Scale of the sampler's noise.")

    @property
    def options(self) -> dict[str, float]:
        """The sampler's settings that were given."""
        names = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@documented
@dataclass(frozen=True, kw_only=True)
class VariationSeed(SettingGroup):
    """Start noise between two seeds. Where `strength` is not 0, all pictures of `count` have the same `seed`, and
    picture k has this seed + k."""

    SECTION = "Noise and guidance"

    strength: float = setting(
        Number(0, 1), 0.0, flag="--variation-strength", key="Variation seed strength", also="subseed_strength",
        label="variation strength", help="How far to go from the seed to the variation seed.")
    seed: int | None = setting(
        Whole(0, MAX_SEED, random=True), flag="--variation-seed", key="Variation seed", also="subseed",
        label="variation seed", usual="random", help="A second seed.")
    resize_from: Pair | None = setting(
        Pixels(), flag="--seed-resize", key="Seed resize from",
        help="Keep the composition that the seed has at this size.")


@documented
@dataclass(frozen=True, kw_only=True)
class Hires(SettingGroup):
    """Hires fix: generate small, enlarge, then generate again from part of the noise; from text alone."""

    SECTION = "Hires fix (generate, enlarge, generate again)"

    scale: float = setting(
        Number(1, MAX_HIRES), 2.0, flag="--hires", key="Hires upscale", also="hr_scale", label="hires scale",
        help="Factor by which to enlarge; 1 generates twice at one size.")
    steps: int | None = setting(
        Whole(1, MAX_STEPS), flag="--hires-steps", key="Hires steps", also="hr_second_pass_steps",
        label="hires steps", usual="as --steps", help="Steps of the second pass.")
    strength: float | None = setting(
        Number(0, 1), flag="--hires-strength", label="hires strength", usual="0.7",
        help="Denoising strength of the second pass.")
    upscaler: str | None = setting(
        Upscaler(UPSCALERS), flag="--hires-upscaler", key="Hires upscaler", also="hr_upscaler",
        label="hires upscaler", usual="Latent", metavar="NAME",
        help="How to enlarge: a way of A1111 (Latent, Lanczos ...), or the file of an upscaler.")

    @classmethod
    def of(cls, value: object, name: str, base: Self | None = None) -> Self:
        """As for every group; a number alone is the scale."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return cls(scale=value)
        return super().of(value, name, base)


@documented
@dataclass(frozen=True, kw_only=True)
class Refiner(SettingGroup):
    """Another model for the last steps: the refiner of Stable Diffusion XL, or any model with the same latents. With
    hires, `switch` is a share of the steps of the second pass."""

    SECTION = "Stable Diffusion XL"

    model: str = field(metadata=described(
        Model(), flag="--refiner", key="Refiner", also="refiner_checkpoint", label="the refiner's model",
        metavar="PATH", help="Another model for the last steps."))
    switch: float = setting(
        Number(0, 1), 0.8, flag="--refiner-switch", key="Refiner switch at", also="refiner_switch_at",
        label="refiner switch", usual="0.8", help="Share of the steps before the refiner takes over.")

    @classmethod
    def of(cls, value: object, name: str, base: Self | None = None) -> Self:
        """As for every group; a path or name alone is the model."""
        if isinstance(value, (str, os.PathLike)):
            value = {"model": value}
        if isinstance(value, Mapping) and base is None and "model" not in value:
            raise InvalidRequest(f"{name} has no model; expected the path or name of one")
        return super().of(value, name, base)


@documented
@dataclass(frozen=True, kw_only=True)
class SizeConditioning(SettingGroup):
    """Micro-conditioning of SDXL (Podell et al. 2023, section 2.2): sizes in pixels that the model reads with the
    text. The refiner reads an aesthetic score in the place of the target size."""

    SECTION = "Stable Diffusion XL"

    original: Pair | None = setting(
        Pixels(), flag="--original-size", key="Original size", usual="the picture's own",
        help="Size of the training pictures to imitate.")
    crop: Pair = setting(
        Pixels(("left", "top"), 0), (0, 0), flag="--crop", key="Crop top left", also="crops_coords_top_left",
        metavar="LEFT,TOP", usual="0,0", help="What was cut off such a picture at the left and top; 0,0 centres.")
    target: Pair | None = setting(
        Pixels(), flag="--target-size", key="Target size", usual="the picture's own", help="Its size after cropping.")
    aesthetic_score: float = setting(
        Number(1, 10), 6.0, flag="--aesthetic-score", key="Aesthetic score", usual="6",
        help="Score that the refiner aims at.")
    negative_aesthetic_score: float = setting(
        Number(1, 10), 2.5, flag="--negative-aesthetic-score", key="Negative aesthetic score", usual="2.5",
        help="Score that the refiner avoids, for the negative prompt.")

    def numbers(self, size: Pair, count: int, *, negative: bool) -> list[float]:
        """The `count` numbers for a picture of `size` (width, height), heights first as the models were trained."""
        originally, target = self.original or size, self.target or size
        start = [originally[1], originally[0], self.crop[1], self.crop[0]]
        if count == 5:
            return [*start, self.negative_aesthetic_score if negative else self.aesthetic_score]
        return [*start, target[1], target[0]]


@documented
@dataclass(frozen=True, kw_only=True)
class Inpaint(SettingGroup):
    """How a mask is used."""

    SECTION = "Inpainting and outpainting"

    blur: float | None = setting(
        Number(0, 256), flag="--mask-blur", key="Mask blur", label="mask blur",
        help="Blur the mask's edge by this many pixels (standard deviation).")
    only_masked: bool = setting(
        Flag(), False, flag="--only-masked", key="Inpaint area",
        help="Generate the masked part alone, at the full size, and put it into the picture.")
    padding: int | None = setting(
        Whole(0, MAX_SIDE), flag="--mask-padding", key="Masked area padding", label="mask padding", usual="32",
        help="Pixels around the masked part that the model sees with --only-masked.")
    invert: bool = setting(
        Flag(), False, flag="--invert-mask", key="Mask mode", help="Repaint where the mask is black.")
    soft: bool = setting(
        Flag(), False, flag="--soft-mask", key="Soft mask",
        help="Grey in the mask is strength: half grey changes half as much.")
    fill: Fill | None = setting(
        Choice(FILLS), flag="--fill", key="Masked content", usual="original",
        help="What the masked part starts as; 'fill' is the colours around it.")


@documented
@dataclass(frozen=True, kw_only=True)
class Canvas(SettingGroup):
    """The shape of the picture."""

    SECTION = "Canvas"

    tiling: Tiling | None = setting(
        Choice(TILINGS, on="both"), flag="--tiling", key="Tiling",
        help="Edges that meet, so that copies of the picture fit side by side.")
    panorama: bool = setting(
        Flag(), False, flag="--panorama", key="Panorama",
        help="A whole sphere as one picture twice as wide as high, marked as such in its file.")
    outpaint: Margins | None = setting(
        Pixels(("left", "top", "right", "bottom"), 0), flag="--outpaint", key="Outpaint", metavar="L,T,R,B",
        section="Inpainting and outpainting", help="Pixels to add to --image at the left, top, right and bottom.")
    window: int | None = setting(
        Whole(8, MAX_SIDE), flag="--window", key="Window",
        help="Generate a large canvas in overlapping windows of this side (MultiDiffusion).")
    window_overlap: int | None = setting(
        Whole(0, MAX_SIDE), flag="--window-overlap", key="Window overlap", usual="half a window",
        help="Pixels that neighbouring windows share.")
# fmt: on

    def _check_together(self) -> None:
        if self.panorama and self.tiling not in (None, "x"):
            raise InvalidRequest(f"a panorama is a sphere, whose poles are no edges; leave out tiling {self.tiling!r}")
        self._put(tiling=None if self.panorama else self.tiling)
        if self.outpaint is not None and not any(self.outpaint):
            raise InvalidRequest("outpaint is 0 on every side; expected pixels to add on one at least")
        if self.window_overlap is not None and self.window is None:
            raise InvalidRequest("window_overlap was given without window; give the size of a window too")
        if self.window_overlap is not None and self.window is not None and self.window_overlap >= self.window:
            raise InvalidRequest(
                f"window_overlap is {self.window_overlap}; expected less than the window, which is {self.window}"
            )

    @property
    def wrap(self) -> Wrap:
        """Which edges meet."""
        return Wrap.of(self.tiling, self.panorama)


GROUPS: dict[str, type[SettingGroup]] = {
    "prompting": Prompting,
    "noise": Noise,
    "variation": VariationSeed,
    "hires": Hires,
    "refiner": Refiner,
    "micro_conditioning": SizeConditioning,
    "inpaint": Inpaint,
    "canvas": Canvas,
}
"""Field of `Request` -> its group."""
ABSENT = ("hires", "refiner")
"""Groups that a request may be without."""
