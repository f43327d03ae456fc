"""Entries of `frozen` made by the command line: every option once, files of prompts, axes, latents, metadata."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import frozen_adapters
import frozen_hooks as hooks
from frozen_commands import shown
from frozen_files import parts_of_one, run
from frozen_paint import Entries, Entry, digest
from frozen_shop import Shop, mask, noise, picture
from PIL import Image
from safetensors.torch import load_file

GENERATE: dict[str, str] = {
    "plain": "cat",
    "common": "cat --negative dog --guidance 4 --sampler euler_ancestral --schedule karras -n 2",
    "cfg": "cat --negative-prompt dog --cfg 2.5 --sampler 'DPM++ 2M Karras'",
    "picture": "cat --image picture.png --strength 0.6",
    "mask": "cat --image picture.png --mask mask.png --mask-blur 1.5 --fill fill --soft-mask --invert-mask",
    "only-masked": "cat --image picture.png --mask mask.png --only-masked --mask-padding 4",
    "background": "cat --background #ff8800 -m native.safetensors",
    "prompts": "'a (cat:1.3) {red|blue}' --clip-skip 2 --emphasis comfyui --no-variants",
    "styles": "'a __colour__ cat' --style ink --styles-file styles.csv --wildcards-dir cards",
    "lora": "'cat <lora:dora:0.4>' --lora loras/lora.safetensors:0.7 --lora-dir loras",
    "embeddings": "'a fuzzy cat' --embeddings-dir embeddings",
    "outpaint": "cat --image picture.png --outpaint 8,0,8,0 --size 64x32",
    "tiling": "cat --tiling x --window 32 --window-overlap 8",
    "panorama": "cat --panorama --size 64x32",
    "hires": "cat --hires 1.5 --hires-steps 2 --hires-strength 0.6 --hires-upscaler lanczos",
    "noise": "cat --rng nv --ensd 5 --eta 0.5 --sampler euler_ancestral",
    "churn": "cat --sampler heun --s-churn 3 --s-tmin 0.1 --s-tmax 20 --s-noise 1.01",
    "variation": "cat --variation-seed 4 --variation-strength 0.4 --seed-resize 64x64",
    "guidance": "cat --guidance-rescale 0.5 --guidance-interval 0.2,0.8",
    "shift": "cat --shift 2 -m native.safetensors",
    "edit": "cat --image picture.png --image-guidance 1.2 -m sd1-pix2pix.safetensors",
    "depth": "cat --depth depth.png -m sd2-depth.safetensors",
    "xl": "cat -m sdxl.safetensors --original-size 640x512 --crop 3,4 --target-size 64 "
    "--refiner sdxl-refiner.safetensors --refiner-switch 0.6 --aesthetic-score 7 --negative-aesthetic-score 2",
    "control": "cat --control controls/sd1-plain1.safetensors --control-image picture.png --control-weight 0.7 "
    "--control-start 0.1 --control-end 0.9 --control-mode prompt --control-resize fill --control-preprocessor canny "
    "--control-threshold-a 50 --control-threshold-b 150",
    "controls": "cat --image picture.png --control controls/sd1-plain1.safetensors "
    "--control controls/ip-sd1.safetensors --image-encoder controls/image_encoder --control-image mask.png",
    "union": "cat -m sdxl.safetensors --control controls/union.safetensors --control-task depth "
    "--control-image depth.png",
    "parts": "cat --vae parts/vae.safetensors --text-encoder parts/text.safetensors --dtype bfloat16",
    "precision": "cat --device cpu --dtype float32 --json",
    "webp": "cat --out out/cat.webp",
    "jpeg": "'a 猫' --out out/cat.jpg --overwrite",
    "preview": "cat --preview --preview-vae taesd.safetensors",
    "sides": "cat --width 32 --height 48",
}
"""Name -> words after `generate`; the model is sd1 where none is named."""

OUTPAINT: dict[str, str] = {
    "all": "picture.png tree --all 8",
    "sides": "picture.png tree --left 8 --top 16 --right 0 --bottom 8 --mask-blur 2 --fill original --strength 0.9",
    "written": "written.png --all 8 --guidance 2 -n 2",
}
GRID: dict[str, str] = {
    "lists": "cat --seeds 1-2,5 --samplers euler,ddim",
    "more-lists": "cat --schedules karras,simple --steps 1,2 --cfg 2,3 --seeds 1",
    "xyz": "'red cat' --x 'prompt=red,blue' --y steps=1,2 --z sampler=euler,heun",
    "picture": "cat --image picture.png --x strength=0.3,0.9 --y mask-blur=0 --seeds 1",
}
AXES: dict[str, str] = {
    "seed": "1,3-4", "steps": "1-2", "guidance": "1,2.5", "cfg": "1-2 (+0.5)", "sampler": "euler,lms",
    "schedule": "karras,beta", "prompt": "cat,dog", "negative": "dog,bird", "width": "32,48", "height": "32,40",
    "clip-skip": "1,2", "guidance-rescale": "0,0.5", "emphasis": "Original,None", "eta": "0,1", "s-churn": "0,3",
    "s-noise": "1,1.1", "variation-seed": "1,2", "variation-strength": "0.2-0.4 [2]", "hires": "1,1.5",
    "hires-steps": "1,2", "hires-strength": "0.5,0.9", "hires-upscaler": "Latent,Lanczos", "fill": "original,fill",
    "tiling": "x,both", "window": "16,32", "strength": "0.3,0.8", "mask-blur": "0,2", "shift": "1,2",
    "refiner": "small-sd.safetensors", "refiner-switch": "0.3,0.6", "image-guidance": "1,2",
    "background": "white,scene", "style": "ink",
}  # fmt: skip
EXTRA = {
    "variation-seed": "--variation-strength 0.3",
    "variation-strength": "--variation-seed 5",
    "hires-steps": "--hires 1.5",
    "hires-strength": "--hires 1.5",
    "hires-upscaler": "--hires 1.5",
    "strength": "--image picture.png",
    "image-guidance": "--image picture.png",
    "eta": "--samplers euler_ancestral",
    "s-churn": "--samplers heun",
    "s-noise": "--samplers dpmpp_2s_ancestral",
    "refiner-switch": "--refiner small-sd.safetensors",
    "style": "--styles-file styles.csv",
}
"""Axis -> the options without which it says nothing."""
LINES = """# a comment
a cat on a roof

--prompt "a dog" --negative_prompt "blurry" --steps 2 --cfg_scale 5 --seed 9 --size 32x48
--prompt a long dog --negative blurry thing --sampler_name "DPM++ 2M Karras" --width 32 --height 32 --n_iter 2
--prompt x --subseed 3 --subseed_strength 0.4 --seed_resize_from_w 64 --seed_resize_from_h 32 --scheduler simple
--prompt y --clip_skip 2 --tiling true --eta 0.5 --sampler ddim --batch_size 2 --restore_faces false
--prompt z --hires 1.5 --styles ink --cfg 2 --guidance 2.5 --count 1 --outpath_samples there
"""
WORDS = """{prompt}
Negative prompt: bad, worse
{values}"""
VALUES = (
    "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 5, Size: 512x768, Model hash: abcdef0123, Model: x",
    "Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.5, Seed: 5, Size: 512x512, Clip skip: 2, "
    "ENSD: 31337, Version: v1.10.1",
    "Steps: 8, Sampler: UniPC, CFG scale: 4, Seed: 1, Size: 64x64, Denoising strength: 0.4, Hires upscale: 2, "
    "Hires steps: 5, Hires upscaler: Latent, Version: v1.9.4",
    "Steps: 8, Sampler: DDIM, CFG scale: 4, Seed: 1, Size: 64x64, Variation seed: 8, Variation seed strength: 0.3, "
    "Seed resize from: 32x48, RNG: NV, Eta: 0.4",
    "Steps: 8, Sampler: unheard of, Schedule type: odd, CFG scale: 4, Seed: 1, Size: 64x64, Denoising strength: 0.5, "
    "Mask blur: 4, Inpaint area: Only masked, Masked area padding: 16, Soft inpainting enabled: True",
    "Steps: 8, Sampler: Euler, CFG scale: 4, Seed: 1, Size: 64x64, Refiner: ref [0123456789], Refiner switch at: 0.7, "
    'Lora hashes: "a: 0123456789ab", TI hashes: "b: 0123456789ab", Tiling: True',
    "Steps: 20, Sampler: dpmpp_2m, CFG Scale: 6, seed: 12, Size: 512x512, Model: y, Version: ComfyUI",
    "Steps: 8, Sampler: Euler, CFG scale: 4, Seed: 1, Size: 64x64, Emphasis: No norm, s_churn: 1.5, Sigma churn: 2, "
    "Sigma tmin: 0.1, Sigma noise: 1.02, Guidance rescale: 0.5, Guidance interval: 0.1 to 0.8, Background: white, "
    'ControlNet 0: "Module: canny, Model: x, Weight: 1"',
    "no values at all",
)


def prepare(shop: Shop) -> Path:
    """The folder in which the commands run, with the files that they name."""
    place = shop.folder("cli")
    for name in ("sd1", "sd1-pix2pix", "sd2-depth", "sdxl", "sdxl-refiner", "native", "small-sd"):
        _link(place / f"{name}.safetensors", shop.single(name))
    picture().save(place / "picture.png")
    picture(seed=4).convert("L").save(place / "depth.png")
    mask().save(place / "mask.png")
    (place / "styles.csv").write_text("name,prompt,negative_prompt\nink,ink of {prompt},photo\n")
    (place / "prompts.txt").write_text(LINES)
    shop.text("cli/cards/colour.txt", "red\nblue\n")
    for kind in ("lora", "dora"):
        _link(place / "loras" / f"{kind}.safetensors", frozen_adapters.lora_file(shop, kind))
    shop.save("cli/embeddings/fuzzy", {"emb_params": noise(8, 3, 64, size=1.0)})
    made = frozen_adapters.Networks(shop)
    for path in (made.plain("sd1"), made.ip("sd1", False), made.union()):
        _link(place / "controls" / path.name, path)
    tiny = frozen_adapters.tiny_decoder(shop)
    _link(place / "taesd.safetensors", tiny)
    _link(place / "controls" / "image_encoder", shop.place / "controls" / "image_encoder")
    for name, path in parts_of_one(shop, load_file(shop.single("sd1"))).items():
        _link(place / "parts" / f"{name}.safetensors", path)
    return place


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.hardlink_to(target) if target.is_file() else shutil.copytree(target, path)


def ran(name: str, *words: str, stdin: str | None = None) -> Entry:
    """A command's exit status, and every picture or latent that it writes into `out`."""
    shutil.rmtree("out", ignore_errors=True)
    Path("out").mkdir()
    result = run(name, *words, stdin=stdin)
    entry: Entry = {"exit": result.exit_code, "answer": digest(_answer(result.stdout))}
    for index, path in enumerate(sorted(Path("out").iterdir())):
        made = shown(path) if path.suffix != ".safetensors" else {"file": digest(path.read_bytes())}
        entry |= {f"{key} {index}" if index else key: value for key, value in made.items()}
    return entry


def _answer(text: str) -> Any:
    """What is on stdout, without times."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if isinstance(found, Mapping):
        return {key: value for key, value in found.items() if key != "seconds"}
    return found


def words(text: str, paint: str = "--steps 2 --seed 3 --size 48x32") -> list[str]:
    """The words of a command with what it does not say itself: model, seed, size, steps, and where it writes."""
    found = shlex.split(text)
    if "-m" not in found:
        found += ["-m", "sd1.safetensors"]
    if "--out" not in found:
        found += ["--out", "out"]
    given = shlex.split(paint)
    for option, value in zip(given[::2], given[1::2], strict=True):
        if option not in found and not (option == "--size" and {"--width", "--height"} & set(found)):
            found += [option, value]
    return found


def commands(shop: Shop) -> Entries:
    with chdir(prepare(shop)):
        for name, text in GENERATE.items():
            yield f"generate/{name}", ran("generate", *words(text))
        yield "generate/stdin", ran("generate", "-", *words(""), stdin="a cat from afar")
        yield "generate/default", ran("a cat", *words(""))
        yield "generate/file-of-prompts", ran("generate", *words("--prompts prompts.txt --styles-file styles.csv"))
        run("generate", *words("'a (red) cat' --negative dog --out written.png --eta 0.5 --sampler ddim"))
        yield "generate/like", ran("generate", *words("--like written.png --steps 3"))
        yield "generate/like-prompt", ran("generate", "a dog", *words("--like written.png"))
        for name, text in OUTPAINT.items():
            yield f"outpaint/{name}", ran("outpaint", *words(text, "--steps 2 --seed 3"))
        for name, text in GRID.items():
            yield f"sample-grid/{name}", ran("sample-grid", *words(text, "--size 48x32"))
        yield from _latents()


def _latents() -> Entries:
    """The halves of the autoencoder and the forward process; what is known of the files that were written."""
    model = ("-m", "sd1.safetensors", "--out", "out", "--json")
    yield "encode", ran("encode", "picture.png", *model)
    yield "encode/sample", ran("encode", "picture.png", "--seed", "4", *model)
    run("encode", "picture.png", "-m", "sd1.safetensors", "--out", "latent.safetensors")
    yield "decode", ran("decode", "latent.safetensors", *model)
    yield "noise", ran("noise", "picture.png", "--timesteps", "0,300,999", *model)
    yield "noise/pixels", ran("noise", "picture.png", "--pixels", "--seed", "5", *model)
    yield "info/latent", ran("info", "latent.safetensors", "--json")
    yield "info/picture", ran("info", "written.png", "--json")
    for what in ("samplers", "schedules", "all"):
        yield f"list/{what}", ran("list", what, "--json")


def axes(shop: Shop) -> Entries:
    """Every axis of a grid."""
    with chdir(prepare(shop)):
        for name, values in AXES.items():
            model = "-m native.safetensors" if name in ("background", "shift") else ""
            model = "-m sd1-pix2pix.safetensors" if name == "image-guidance" else model
            text = f"'a cat' --negative dog --x '{name}={values}' --seeds 1 {EXTRA.get(name, '')} {model}"
            found = words(text, "--size 48x32")
            yield name, ran("sample-grid", *found, *(() if "steps" in name else ("--steps", "2")), "--json")


def metadata(shop: Shop) -> Entries:
    """Texts as other programs write them, read into requests."""
    import stable_diffusion as sd

    for number, values in enumerate(VALUES):
        image = Image.new("RGB", (8, 8))
        image.info["parameters"] = WORDS.format(prompt="a (cat:1.2) <lora:x:1>,\non a mat", values=values)
        try:
            info = sd.read_metadata(image)
        except sd.StableDiffusionError as error:
            yield str(number), {"refused": type(error).__name__}
            continue
        yield str(number), {"read": digest(hooks.plain(info.request), info.values), "notes": len(info.notes)}
