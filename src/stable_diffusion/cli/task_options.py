"""Options for everything beyond the common settings, under headings of their own in help.

`GROUP__FIELD` is the name of a parameter that belongs to a group of the request; `options.given` puts it there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from .command import Number, SectionOption, Size, Values
from .options import MAX_GUIDANCE, MAX_SEED, MAX_SIDE, MAX_STEPS, OWN, apply

UPSCALERS = (
    *("Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)", "Latent (nearest)"),
    *("Latent (nearest-exact)", "Lanczos", "Nearest"),
)
FILLS = ("fill", "original", "latent noise", "latent nothing")
EMPHASES = ("Original", "ComfyUI", "No norm", "Ignore", "None")
"""The choices of `pipeline`, repeated here because that room takes long to import; a test compares them."""

PATH = click.Path(path_type=Path)
THIS = "the picture's own"


def section(heading: str) -> Callable[..., Any]:
    """`click.option` for options under this heading."""
    return partial(click.option, cls=SectionOption, section=heading)


def flag(option: Callable[..., Any], name: str, field: str, **settings: Any) -> Any:
    """A switch that says nothing where it is not given."""
    return option(name, field, is_flag=True, default=None, **settings)


_prompts = section("Prompts")
prompt_options = apply(
    [
        _prompts("--clip-skip", type=click.IntRange(1, 100), show_default=OWN, help="1 is the last layer."),
        _prompts(
            "--emphasis",
            "prompting__emphasis",
            type=click.Choice(EMPHASES, case_sensitive=False),
            show_default=OWN,
            help="How `(word:1.3)` acts.",
        ),
        _prompts("--style", "prompting__styles", multiple=True, metavar="NAME", help="Of --styles-file; repeatable."),
        _prompts("--styles-file", "prompting__styles_file", type=PATH, help="A styles.csv of A1111."),
        _prompts("--wildcards-dir", "prompting__wildcards_dir", type=PATH, help="Where `__name__` finds name.txt."),
        _prompts(
            "--no-variants",
            "prompting__variants",
            flag_value=False,
            default=None,
            help="`{a|b}` and `__name__` are text.",
        ),
        _prompts("--lora", "loras", multiple=True, metavar="FILE[:STRENGTH]", help="LoRA or relative; repeatable."),
        _prompts("--lora-dir", type=PATH, help="Where `<lora:name:weight>` in PROMPT is found."),
        _prompts("--embeddings-dir", type=PATH, help="Embeddings, used in PROMPT by file name."),
    ]
)

_mask = section("Pictures and masks")
mask_options = apply(
    [
        _mask("--depth", type=PATH, help="Depth map, near is white, for depth-guided models."),
        _mask("--mask-blur", "inpaint__blur", type=Number(min=0, max=256), help="Softens the mask's edge, in pixels."),
        flag(_mask, "--only-masked", "inpaint__only_masked", help="Paint the masked part alone, at the whole size."),
        _mask(
            "--mask-padding",
            "inpaint__padding",
            type=click.IntRange(0, MAX_SIDE),
            show_default="32",
            help="Pixels around it that are seen then.",
        ),
        flag(_mask, "--invert-mask", "inpaint__invert", help="Paint where the mask is black."),
        flag(_mask, "--soft-mask", "inpaint__soft", help="Grey in the mask is strength."),
        _mask("--fill", "inpaint__fill", type=click.Choice(FILLS), help="What the masked part starts as."),
    ]
)

_hires = section("Hires fix (paint, enlarge, paint again)")
hires_options = apply(
    [
        _hires("--hires", "hires__scale", type=Number(min=1, max=8), help="Factor; 1 paints twice at one size."),
        _hires(
            "--hires-steps",
            "hires__steps",
            type=click.IntRange(1, MAX_STEPS),
            show_default="as --steps",
            help="Of the second pass.",
        ),
        _hires(
            "--hires-strength",
            "hires__strength",
            type=Number(min=0, max=1),
            show_default="0.7",
            help="Of it: how much is painted anew.",
        ),
        _hires(
            "--hires-upscaler",
            "hires__upscaler",
            type=click.Choice(UPSCALERS, case_sensitive=False),
            metavar="NAME",
            show_default="Latent",
            help=f"{', '.join(UPSCALERS[1:-1])} or {UPSCALERS[-1]}.",
        ),
    ]
)

_refiner = section("Stable Diffusion XL")
xl_options = apply(
    [
        _refiner("--refiner", "refiner__model", metavar="PATH", help="Another model that paints the last steps."),
        _refiner(
            "--refiner-switch",
            "refiner__switch",
            type=Number(min=0, max=1),
            show_default="0.8",
            help="Share of the steps before it.",
        ),
        _refiner(
            "--original-size", "told_size__original", type=Size(), show_default=THIS, help="Of the picture to imitate."
        ),
        _refiner("--crop", "told_size__crop", type=Values(int), metavar="LEFT,TOP", help="What it had cut off; 0,0."),
        _refiner("--target-size", "told_size__target", type=Size(), show_default=THIS, help="After cropping."),
        _refiner(
            "--aesthetic-score",
            "told_size__aesthetic_score",
            type=Number(min=1, max=10),
            show_default="6",
            help="What a refiner is told ...",
        ),
        _refiner(
            "--negative-aesthetic-score",
            "told_size__negative_aesthetic_score",
            type=Number(min=1, max=10),
            show_default="2.5",
            help="... and what for the negative prompt.",
        ),
    ]
)

_canvas = section("Canvas")
canvas_options = apply(
    [
        _canvas("--tiling", "canvas__tiling", type=click.Choice(["x", "y", "both"]), help="Edges that meet."),
        flag(_canvas, "--panorama", "canvas__panorama", help="A whole sphere, twice as wide as high."),
        _canvas(
            "--window",
            "canvas__window",
            type=click.IntRange(8, MAX_SIDE),
            help="Paint a large canvas in overlapping windows of this side (MultiDiffusion).",
        ),
        _canvas(
            "--window-overlap",
            "canvas__window_overlap",
            type=click.IntRange(0, MAX_SIDE),
            show_default="half a window",
            help="Pixels that neighbours share.",
        ),
    ]
)

outpaint_option = apply(
    [
        _canvas(
            "--outpaint",
            "canvas__outpaint",
            type=Values(int),
            metavar="L,T,R,B",
            help="Pixels to add to --image at the left, top, right and bottom.",
        )
    ]
)

_noise = section("Noise and guidance")
noise_options = apply(
    [
        _noise(
            "--rng", "noise__source", type=click.Choice(["cpu", "device", "nv"]), show_default="cpu", help="Generator."
        ),
        _noise("--ensd", "noise__seed_delta", type=int, help="Added to the seed after the start noise."),
        _noise(
            "--shift",
            "noise__shift",
            type=Number(min=0.01, max=100),
            show_default=OWN,
            help="Of the noise levels of Stable Diffusion 3.",
        ),
        _noise("--variation-seed", "variation__seed", type=click.IntRange(-1, MAX_SEED), help="A second seed ..."),
        _noise(
            "--variation-strength", "variation__strength", type=Number(min=0, max=1), help="... how far towards it."
        ),
        _noise("--seed-resize", "variation__resize_from", type=Size(), help="Keep the composition of this size."),
        _noise(
            "--eta", "noise__eta", type=Number(min=0, max=10), show_default="the sampler's own", help="Fresh noise."
        ),
        _noise("--s-churn", "noise__s_churn", type=Number(min=0, max=1000), help="Extra noise before each step ..."),
        _noise("--s-tmin", "noise__s_tmin", type=Number(min=0, max=100000), help="... from this sigma ..."),
        _noise("--s-tmax", "noise__s_tmax", type=Number(min=0, max=100000), help="... to this one ..."),
        _noise("--s-noise", "noise__s_noise", type=Number(min=0, max=10), help="... and the scale of noise."),
        _noise(
            "--image-guidance",
            type=Number(min=0, max=MAX_GUIDANCE),
            show_default="1.5",
            help="How closely a model that edits pictures keeps to --image.",
        ),
        _noise("--guidance-rescale", type=Number(min=0, max=1), show_default="0", help="Softens high guidance."),
        _noise(
            "--guidance-interval",
            type=Values(float),
            metavar="FIRST,LAST",
            help="Guide only between these shares of the steps, such as 0.2,0.8.",
        ),
    ]
)
