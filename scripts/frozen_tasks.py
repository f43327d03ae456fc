"""Cases of `frozen`: every task and every setting of a request that is not an adapter, a control or a word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import frozen_hooks as hooks
from frozen_paint import Case
from frozen_shop import Shop, mask, picture
from PIL import Image

A = "euler_ancestral"
NO_SIZE = {"width": None, "height": None}
PICTURE: dict[str, Any] = {"image": picture(), "strength": 0.7}
MASKED: dict[str, Any] = {**PICTURE, "mask": mask()}


def small_mask(width: int = 120, height: int = 90) -> Image.Image:
    made = Image.new("L", (width, height))
    made.paste(255, (70, 20, 90, 40))
    return made


def text_to_image(shop: Shop) -> Iterator[Case]:
    for model in ("sd1", "native", "sd3", "sd2", "sd2-base", "small-sd", "sdxl", "sdxl-v-zero-snr", "koala", "ssd-1b"):
        yield Case("plain", model)
    for model in ("sd1", "native", "sd3", "sdxl"):
        yield Case("guidance-1", model, {"guidance": 1.0})
        yield Case("guidance-0", model, {"guidance": 0.0})
        yield Case("three", model, {"count": 3})
        yield Case("three-at-once", model, {"count": 3, "sampler": A}, batch=3)
        yield Case("three-by-two", model, {"count": 3}, batch=2)
        yield Case("rescale", model, {"guidance_rescale": 0.7, "guidance": 8.0})
        yield Case("interval", model, {"guidance_interval": (0.2, 0.7), "steps": 5})
        yield Case("clip-skip-2", model, {"clip_skip": 2})
        yield Case("clip-skip-1", model, {"clip_skip": 1})
        yield Case("own", model, {}, base={"seed": 5, "width": 32, "height": 24, "steps": 2})
    yield Case("clip-skip-1", "sd2", {"clip_skip": 1})
    for model in ("sd1", "native"):
        yield Case("fast", model, {"speed": "fast", "steps": 8})
        yield Case("fastest", model, {"speed": "fastest", "steps": 8, "token_merging": 0.4})
    yield Case("named", "sd1", {"model": "another"})
    yield Case("own", "sd3.5-medium", {})
    yield Case("own", "sd3.5-large", {})


def image_to_image(shop: Shop) -> Iterator[Case]:
    for model in ("sd1", "native", "sd3", "sdxl"):
        yield Case("plain", model, PICTURE)
        yield Case("three", model, {**PICTURE, "count": 3, "sampler": A})
    yield Case("three-at-once", "sd1", {**PICTURE, "count": 3, "sampler": A}, batch=3)
    for strength in (0.0, 0.1, 1.0):
        yield Case(f"strength-{strength}", "sd1", {**PICTURE, "strength": strength})
    yield Case("own-strength", "sd1", {"image": picture()})
    yield Case("own-size", "sd1", {"image": picture(40, 56), **NO_SIZE})
    yield Case("own-size", "native", {"image": picture(40, 56), **NO_SIZE})
    yield Case("odd-size", "native", {"image": picture(61, 37), **NO_SIZE})
    yield Case("covered", "sd1", {"image": picture(90, 30)})
    yield Case("alpha", "native", {"image": picture(mode="RGBA")})
    yield Case("alpha-on-white", "sd1", {"image": picture(mode="RGBA")})
    yield Case("grey", "native", {"image": picture().convert("L")})
    yield Case("settings", "sd1", {**PICTURE, "clip_skip": 2, "noise": {"source": "nv"}})


def inpainting(shop: Shop) -> Iterator[Case]:
    for model in ("sd1", "native", "sd3", "sdxl"):
        yield Case("plain", model, MASKED)
        yield Case("soft", model, {**MASKED, "inpaint": {"soft": True}, "steps": 5})
        wide = {"image": picture(96, 64), "mask": mask(96, 64), "width": 96, "height": 64}
        yield Case("blur", model, {**wide, "inpaint": {"blur": 2.5}})
    for fill in ("original", "fill", "latent noise", "latent nothing"):
        yield Case(f"fill-{fill}", "sd1", {**MASKED, "inpaint": {"fill": fill}, "sampler": A})
        yield Case(f"fill-{fill}", "native", {**MASKED, "inpaint": {"fill": fill}, "strength": 1.0})
    yield Case("inverted", "sd1", {**MASKED, "inpaint": {"invert": True}})
    yield Case("soft-blur", "sd1", {**MASKED, "inpaint": {"soft": True, "blur": 1.0}, "steps": 5, "sampler": A})
    large = {"image": picture(120, 90), "mask": small_mask(), "strength": 0.8}
    for model in ("sd1", "native", "sd1-inpaint"):
        yield Case("only-masked", model, {**large, "inpaint": {"only_masked": True}})
        yield Case("only-masked-padding", model, {**large, "inpaint": {"only_masked": True, "padding": 5, "blur": 1}})
    yield Case("only-masked-soft", "sd1", {**large, "inpaint": {"only_masked": True, "soft": True, "fill": "fill"}})
    yield Case("three", "sd1", {**MASKED, "count": 3, "sampler": A})
    yield Case("three-at-once", "sd1", {**MASKED, "count": 3, "sampler": A}, batch=3)
    yield Case("alpha", "native", {"image": picture(mode="RGBA"), "mask": mask()})
    yield Case("sampler", "sd1", {**MASKED, "sampler": "dpmpp_2m", "steps": 5})


def outpainting(shop: Shop) -> Iterator[Case]:
    def wide(**settings: Any) -> dict[str, Any]:
        return {"image": picture(40, 24), **NO_SIZE, **settings}

    for model in ("sd1", "native", "sd1-inpaint", "sd3"):
        yield Case("plain", model, wide(canvas={"outpaint": (8, 0, 16, 8)}))
    for fill in ("original", "fill", "latent noise", "latent nothing"):
        yield Case(f"fill-{fill}", "sd1", wide(canvas={"outpaint": (0, 8, 16, 0)}, inpaint={"fill": fill}))
    yield Case("odd", "sd1", wide(image=picture(30, 21), canvas={"outpaint": (0, 5, 6, 0)}))
    yield Case("blur", "native", wide(canvas={"outpaint": (16, 0, 0, 0)}, inpaint={"blur": 2}))
    yield Case("tiling", "sd1", wide(image=picture(32, 32), canvas={"outpaint": (16, 0, 16, 0), "tiling": "x"}))


def other_inputs(shop: Shop) -> Iterator[Case]:
    """Networks that see a picture beside the noise: of nine, eight and five channels."""
    for model in ("sd1-inpaint", "sdxl-inpaint", "sd2-inpaint"):
        yield Case("text", model)
        yield Case("picture", model, PICTURE)
        yield Case("mask", model, {**MASKED, "strength": 1.0})
    yield Case("four", "sd1-inpaint", {**MASKED, "count": 4})
    yield Case("four-at-once", "sd1-inpaint", {**MASKED, "count": 4}, batch=4)
    yield Case("soft", "sd1-inpaint", {**MASKED, "inpaint": {"soft": True}, "steps": 5})
    yield Case("fill", "sd1-inpaint", {**MASKED, "inpaint": {"fill": "latent noise"}})
    yield Case("window", "sd1-inpaint", {**MASKED, "canvas": {"window": 32}})
    for model in ("sd1-pix2pix", "sdxl-pix2pix"):
        yield Case("edit", model, {"image": picture(), "image_guidance": 1.7})
        yield Case("edit-own", model, {"image": picture()})
        yield Case("edit-guidance-1", model, {"image": picture(), "guidance": 1.0, "image_guidance": 1.0})
    yield Case("edit-three", "sd1-pix2pix", {"image": picture(), "count": 3})
    yield Case("edit-three-at-once", "sd1-pix2pix", {"image": picture(), "count": 3}, batch=3)
    yield Case("edit-and", "sd1-pix2pix", {"image": picture()}, "a cat AND a dog:0.5")
    yield Case("edit-mask", "sd1-pix2pix", MASKED)
    yield Case("depth", "sd2-depth", {**PICTURE, "depth": picture(seed=4).convert("L")})
    yield Case("depth-text", "sd2-depth", {"depth": picture(90, 60, seed=4).convert("L")})
    yield Case("depth-three", "sd2-depth", {**PICTURE, "depth": picture(seed=4).convert("L"), "count": 3})
    yield Case("depth-mask", "sd2-depth", {**MASKED, "depth": picture(seed=4).convert("L")})


def canvas(shop: Shop) -> Iterator[Case]:
    for model in ("sd1", "native", "sd3"):
        for tiling in ("x", "y", "both"):
            yield Case(f"tiling-{tiling}", model, {"canvas": {"tiling": tiling}})
        yield Case("panorama", model, {"canvas": {"panorama": True}, "width": 64})
        yield Case("windows", model, {"canvas": {"window": 32}, "width": 64, "height": 48})
        yield Case("windows-overlap", model, {"canvas": {"window": 32, "window_overlap": 8}, "width": 64})
        yield Case("windows-tiling", model, {"canvas": {"window": 32, "tiling": "x"}, "width": 64})
    yield Case("windows-panorama", "sd1", {"canvas": {"window": 32, "panorama": True}, "width": 96, "height": 48})
    yield Case("windows-none", "sd1", {"canvas": {"window": 32, "window_overlap": 0}, "width": 64})
    yield Case("windows-too-large", "sd1", {"canvas": {"window": 64}})
    yield Case("windows-three", "sd1", {"canvas": {"window": 32}, "width": 64, "count": 3}, batch=3)
    yield Case("windows-picture", "sd1", {**PICTURE, "canvas": {"window": 32}})
    yield Case("tiling-picture", "sd1", {**PICTURE, "canvas": {"tiling": "both"}})
    yield Case("tiling-mask", "native", {**MASKED, "canvas": {"tiling": "both"}})
    yield Case("windows-xl", "sdxl", {"canvas": {"window": 32}, "width": 64})


def hires(shop: Shop) -> Iterator[Case]:
    for model in ("sd1", "native", "sd3", "sdxl"):
        yield Case("plain", model, {"hires": {"scale": 1.5}})
        yield Case("steps", model, {"hires": {"scale": 2, "steps": 2, "strength": 0.4}, "sampler": A})
    for upscaler in hooks.upscalers():
        yield Case(f"upscaler-{upscaler}", "sd1", {"hires": {"scale": 1.5, "upscaler": upscaler}})
    yield Case("three", "sd1", {"hires": {"scale": 1.5}, "count": 3, "sampler": A})
    yield Case("three-at-once", "sd1", {"hires": {"scale": 1.5, "upscaler": "Lanczos"}, "count": 3}, batch=3)
    yield Case("strength-0", "native", {"hires": {"scale": 1.5, "strength": 0}})
    yield Case("scale-1", "sd1", {"hires": 1, "steps": 4})
    yield Case("tiling", "sd1", {"hires": {"scale": 1.5}, "canvas": {"tiling": "both"}})
    yield Case("windows", "sd1", {"hires": {"scale": 2}, "canvas": {"window": 48}})
    yield Case("variation", "sd1", {"hires": {"scale": 1.5}, "variation": {"strength": 0.5, "seed": 1}})
    yield Case("prompt", "sd1", {"hires": {"scale": 1.5}}, "a [cat:dog:1.5]")
    yield Case("inpaint-model", "sd1-inpaint", {"hires": {"scale": 1.5}})


def noise(shop: Shop) -> Iterator[Case]:
    for model in ("sd1", "native", "sd3"):
        for source in ("cpu", "device", "nv"):
            yield Case(f"source-{source}", model, {"noise": {"source": source}, "sampler": A})
        yield Case("seed-delta", model, {"noise": {"seed_delta": 31337}, "sampler": A})
        yield Case("variation", model, {"variation": {"strength": 0.3, "seed": 9}, "count": 2})
        yield Case("variation-all", model, {"variation": {"strength": 1, "seed": 9}, "sampler": A})
        yield Case("resize", model, {"variation": {"resize_from": (32, 64)}})
    yield Case("nv-brownian", "sd1", {"noise": {"source": "nv"}, "sampler": "dpmpp_sde"})
    yield Case("nv-three", "sd1", {"noise": {"source": "nv"}, "count": 3}, batch=3)
    yield Case("resize-larger", "sd1", {"variation": {"resize_from": (16, 16), "strength": 0.2, "seed": 4}})
    yield Case("variation-no-effect", "sd1", {"variation": {"seed": 4}})
    yield Case("eta", "sd1", {"noise": {"eta": 0.5}, "sampler": A})
    yield Case("eta-ddim", "sd1", {"noise": {"eta": 1.0}, "sampler": "ddim"})
    yield Case("eta-no-effect", "sd1", {"noise": {"eta": 0.5}, "sampler": "euler"})
    for name, value in (("s_churn", 5.0), ("s_tmin", 0.5), ("s_tmax", 3.0), ("s_noise", 1.1)):
        yield Case(name, "sd1", {"noise": {"s_churn": 5.0, name: value}, "sampler": "heun", "steps": 5})
    for shift in (1.0, 3.0, 6.0):
        yield Case(f"shift-{shift}", "sd3", {"noise": {"shift": shift}})
    yield Case("shift", "native", {"noise": {"shift": 2.0}})
    for sampler in ("euler", "ddim"):
        yield Case(
            f"compat-{sampler}", "sd1", {**PICTURE, "noise": {"compat": "a1111"}, "sampler": sampler, "steps": 5}
        )
    yield Case("shift-no-effect", "sd1", {"noise": {"shift": 2.0}})
    yield Case("large-seed", "sd1", {"seed": 2**63 - 1})
    yield Case("nv-large-seed", "native", {"seed": 2**40 + 5, "noise": {"source": "nv"}})


def backgrounds(shop: Shop) -> Iterator[Case]:
    for ground in ("transparent", "white", "scene", "#ff8800"):
        for prompt in ("a red apple", "一只猫", "a red apple on a table AND a tree:0.5"):
            yield Case(f"{ground}-{prompt}", "native", {"background": ground}, prompt)
        yield Case(f"{ground}-three", "native", {"background": ground, "count": 3})
        yield Case(f"{ground}-three-at-once", "native", {"background": ground, "count": 3}, batch=3)
        yield Case(f"{ground}-picture", "native", {"background": ground, "image": picture(mode="RGBA")})
    for ground in ("white", "scene", "#00ff00"):
        yield Case(ground, "sd1", {"background": ground})
    yield Case("hires", "native", {"background": "white", "hires": {"scale": 1.5}})
    yield Case("mask", "native", {**MASKED, "background": "#123456"})


def sizes(shop: Shop) -> Iterator[Case]:
    """What XL is told of sizes, and its refiner."""
    told = {"original": (640, 512), "crop": (32, 16), "target": (48, 64)}
    refiner = shop.single("sdxl-refiner")
    for name, value in told.items():
        yield Case(name, "sdxl", {"told_size": {name: value}})
    yield Case("all", "sdxl", {"told_size": told, "count": 2})
    yield Case("no-effect", "sd1", {"told_size": told})
    for switch in (0.0, 0.5, 0.8, 1.0):
        yield Case(f"refiner-{switch}", "sdxl", {"refiner": {"model": refiner, "switch": switch}, "steps": 5})
    scores = {"aesthetic_score": 9.0, "negative_aesthetic_score": 1.0}
    yield Case(
        "refiner-scores", "sdxl", {"refiner": {"model": refiner, "switch": 0.5}, "told_size": {**told, **scores}}
    )
    yield Case("refiner-hires", "sdxl", {"refiner": {"model": refiner, "switch": 0.5}, "hires": {"scale": 2}})
    yield Case("refiner-picture", "sdxl", {**PICTURE, "refiner": refiner, "steps": 6})
    yield Case("refiner-mask", "sdxl", {**MASKED, "refiner": {"model": refiner, "switch": 0.4}, "steps": 5})
    yield Case("refiner-three", "sdxl", {"refiner": {"model": refiner, "switch": 0.6}, "count": 3}, batch=3)
    yield Case("refiner-prompt", "sdxl", {"refiner": {"model": refiner, "switch": 0.6}}, "a [cat:dog:0.4] AND a tree")
    yield Case("refiner-windows", "sdxl", {"refiner": {"model": refiner}, "canvas": {"window": 32}, "width": 64})
    other = shop.single("small-sd")
    yield Case("refiner-of-sd1", "sd1", {"refiner": {"model": other, "switch": 0.5}, "steps": 4, "sampler": A})
