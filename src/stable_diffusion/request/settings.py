"""Groups of a request's settings beyond the common ones: frozen, checked in plain sentences, and off by default.

Every group can also be given as a mapping of its fields. `None` means "not given": `resolve` fills it in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ..diffusion.noise import NOISE_KINDS, NoiseKind
from ..errors import InvalidRequest, unknown_choice
from ..pipeline.tasks.micro_conditioning import SizeConditioning
from ..pipeline.tasks.hires import upscaler_name
from ..pipeline.tasks.masks import FILLS, Fill, Margins
from ..pipeline.tasks.seamless import TILINGS, Tiling, Wrap
from .fields import MAX_SIDE, number, whole, whole_numbers
from .group import Group

MAX_SEED = 2**63 - 1
MAX_STEPS = 1000
MAX_HIRES = 8.0
MAX_BLUR = 256.0
MAX_SIGMA = 100_000.0

Emphasis = Literal["Original", "ComfyUI", "No norm", "Ignore", "None"]
EMPHASES: tuple[Emphasis, ...] = ("Original", "ComfyUI", "No norm", "Ignore", "None")
"""How weights in prompts act, by A1111's names (and ComfyUI's way by its own)."""


@dataclass(frozen=True, kw_only=True)
class Noise(Group):
    """Random numbers, and the sampler's own settings; those that a sampler does not have are ignored with a note.

    source      "cpu"; "device", the generator of the device; "nv", the numbers of an NVIDIA card, made anywhere
    seed_delta  added to the seed for all noise after the start (A1111's ENSD; 31337 for pictures of other tools)
    shift       0.01 to 100, of the noise levels of flow models (Stable Diffusion 3: 3); more stays longer at high noise
    eta         how much fresh noise a stochastic sampler adds, 0 to 10; 1 is the SDE's own, 0 none
    s_churn, s_tmin, s_tmax, s_noise   Karras et al. 2022, algorithm 2: extra noise between two sigmas, and its scale
    """

    source: NoiseKind = "cpu"
    seed_delta: int = 0
    shift: float | None = None
    eta: float | None = None
    s_churn: float | None = None
    s_tmin: float | None = None
    s_tmax: float | None = None
    s_noise: float | None = None

    def __post_init__(self) -> None:
        if self.source not in NOISE_KINDS:
            raise unknown_choice("noise source", str(self.source), NOISE_KINDS)
        delta = whole("seed_delta", self.seed_delta, -MAX_SEED, MAX_SEED)
        s_tmax: Any = self.s_tmax
        unbounded = isinstance(s_tmax, float) and s_tmax == math.inf
        self._replace(
            seed_delta=0 if delta is None else delta,
            shift=number("shift", self.shift, 0.01, 100),
            eta=number("eta", self.eta, 0, 10),
            s_churn=number("s_churn", self.s_churn, 0, 1000),
            s_tmin=number("s_tmin", self.s_tmin, 0, MAX_SIGMA),
            s_tmax=None if unbounded else number("s_tmax", s_tmax, 0, MAX_SIGMA),
            s_noise=number("s_noise", self.s_noise, 0, 10),
        )

    @property
    def options(self) -> dict[str, float]:
        """The sampler's settings that were given."""
        names = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, kw_only=True)
class VariationSeed(Group):
    """Start noise between two seeds.

    strength     0 to 1, how far to go from the request's seed to this one; where it is not 0, all pictures of `count`
                 have the same `seed`, and picture k has this seed + k
    seed         the other seed; None or -1 for a random one
    resize_from  (width, height) of the picture whose composition the seed is to keep
    """

    strength: float = 0.0
    seed: int | None = None
    resize_from: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        strength = number("variation strength", self.strength, 0, 1)
        if strength is None:
            raise InvalidRequest("variation strength is None; expected a number from 0 to 1")
        seed = None if self.seed == -1 and not isinstance(self.seed, bool) else self.seed
        self._replace(strength=strength, seed=whole("variation seed", seed, 0, MAX_SEED))
        if self.resize_from is not None:
            width, height = whole_numbers("resize_from", self.resize_from, 2, 1, "(width, height)")
            self._replace(resize_from=(width, height))


@dataclass(frozen=True, kw_only=True)
class Hires(Group):
    """Hires fix: paint small, enlarge, paint again at part of the noise; from text alone.

    scale     1 to 8 (2)        steps     of the second pass, all of them made (as many as the first)
    strength  0 to 1 (0.7)      upscaler  one of `hires.UPSCALERS` ("Latent")
    """

    scale: float = 2.0
    steps: int | None = None
    strength: float | None = None
    upscaler: str | None = None

    def __post_init__(self) -> None:
        scale = number("hires scale", self.scale, 1, MAX_HIRES)
        if scale is None:
            raise InvalidRequest(f"hires scale is None; expected a factor from 1 to {MAX_HIRES:g}")
        self._replace(
            scale=scale,
            steps=whole("hires steps", self.steps, 1, MAX_STEPS),
            strength=number("hires strength", self.strength, 0, 1),
        )
        if self.upscaler is not None:
            self._replace(upscaler=upscaler_name(str(self.upscaler)))

    @classmethod
    def of(cls, value: object, name: str, base: Self | None = None) -> Self:
        """As for every group; a number alone is the scale."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return cls(scale=value)
        return super().of(value, name, base)


@dataclass(frozen=True, kw_only=True)
class Refiner(Group):
    """Another model that paints the last steps: of Stable Diffusion XL its refiner, or any with the same latents.

    model   path or name, as of the request's own
    switch  0 to 1 (0.8): the share of the steps that are painted before; with hires, of those of the second pass
    """

    model: str
    switch: float = 0.8

    def __post_init__(self) -> None:
        if not isinstance(self.model, (str, os.PathLike)) or not str(self.model):
            raise InvalidRequest(f"the refiner's model is {self.model!r}; expected a path or name")
        switch = number("refiner switch", self.switch, 0, 1)
        if switch is None:
            raise InvalidRequest("refiner switch is None; expected a number from 0 to 1")
        self._replace(model=str(self.model), switch=switch)

    @classmethod
    def of(cls, value: object, name: str, base: Self | None = None) -> Self:
        """As for every group; a path or name alone is the model."""
        if isinstance(value, (str, os.PathLike)):
            value = {"model": value}
        if isinstance(value, Mapping) and base is None and "model" not in value:
            raise InvalidRequest(f"{name} has no model; expected the path or name of one")
        return super().of(value, name, base)


@dataclass(frozen=True, kw_only=True)
class Inpaint(Group):
    """How a mask is used.

    blur         0 to 256 pixels: standard deviation by which the mask's edge is made soft
    only_masked  paint the masked part alone, at the whole size, and set it into the picture
    padding      pixels around the masked part that the model sees then (32)
    invert       repaint where the mask is black
    soft         grey in the mask is strength: half grey is painted anew at half the strength
    fill         what the masked part starts as: "original", "fill" (colours from around), "latent noise",
                 "latent nothing"
    """

    blur: float | None = None
    only_masked: bool = False
    padding: int | None = None
    invert: bool = False
    soft: bool = False
    fill: Fill | None = None

    def __post_init__(self) -> None:
        self._check_flags("only_masked", "invert", "soft")
        self._replace(
            blur=number("mask blur", self.blur, 0, MAX_BLUR),
            padding=whole("mask padding", self.padding, 0, MAX_SIDE),
        )
        if self.fill is not None and self.fill not in FILLS:
            raise unknown_choice("fill", str(self.fill), FILLS)


@dataclass(frozen=True, kw_only=True)
class Canvas(Group):
    """The shape of what is painted.

    tiling          "x", "y" or "both": these edges meet, so that copies of the picture fit side by side
    panorama        a whole sphere as one picture twice as wide as high, and marked as such in its file
    outpaint        pixels to add to `image` at the left, top, right and bottom
    window          side in pixels of overlapping windows in which a canvas of any size is painted (MultiDiffusion)
    window_overlap  pixels that neighbouring windows share (half a window)
    """

    tiling: Tiling | None = None
    panorama: bool = False
    outpaint: Margins | None = None
    window: int | None = None
    window_overlap: int | None = None

    def __post_init__(self) -> None:
        self._check_flags("panorama")
        self._check_edges()
        if self.outpaint is not None:
            left, top, right, bottom = whole_numbers("outpaint", self.outpaint, 4, 0, "(left, top, right, bottom)")
            self._replace(outpaint=(left, top, right, bottom))
            if not any((left, top, right, bottom)):
                raise InvalidRequest("outpaint is 0 on every side; expected pixels to add on one at least")
        self._replace(
            window=whole("window", self.window, 8, MAX_SIDE),
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

    @property
    def wrap(self) -> Wrap:
        """Which edges meet."""
        return Wrap.of(self.tiling, self.panorama)


@dataclass(frozen=True, kw_only=True)
class Prompting(Group):
    """How prompts are read; all but `emphasis` is done before painting, and the picture's text holds the result.

    emphasis       "Original" (A1111), "ComfyUI", "No norm", "Ignore" or "None" (brackets are text); None the model's
    styles         names of rows of `styles_file`, joined to the prompts in this order
    styles_file    an A1111 styles.csv      wildcards_dir  the folder in which `__name__` finds name.txt
    variants       whether `{a|b}` and `__name__` are read; one is chosen by the picture's seed
    """

    emphasis: Emphasis | None = None
    styles: tuple[str, ...] = ()
    styles_file: Path | None = None
    wildcards_dir: Path | None = None
    variants: bool = True

    def __post_init__(self) -> None:
        self._check_flags("variants")
        if self.emphasis is not None:
            folded = {name.casefold(): name for name in EMPHASES}
            name = folded.get(str(self.emphasis).strip().casefold())
            if name is None:
                raise unknown_choice("emphasis", str(self.emphasis), EMPHASES)
            self._replace(emphasis=name)
        styles: Any = (self.styles,) if isinstance(self.styles, str) else self.styles
        names = tuple(styles) if isinstance(styles, Iterable) else (None,)
        if not all(isinstance(name, str) for name in names):
            raise InvalidRequest(f"styles is {self.styles!r}; expected names of styles")
        self._replace(styles=names)
        for field in ("styles_file", "wildcards_dir"):
            value = getattr(self, field)
            if value is not None and not isinstance(value, (str, os.PathLike)):
                raise InvalidRequest(f"{field} is {value!r}; expected a path")
            self._replace(**{field: None if value is None else Path(value).expanduser()})


GROUPS: dict[str, type[Group]] = {
    "prompting": Prompting,
    "noise": Noise,
    "variation": VariationSeed,
    "hires": Hires,
    "refiner": Refiner,
    "told_size": SizeConditioning,
    "inpaint": Inpaint,
    "canvas": Canvas,
}
"""Field of `Request` -> its group."""
ABSENT = ("hires", "refiner")
"""Groups that a request may be without."""
