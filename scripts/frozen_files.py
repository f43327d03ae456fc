"""Entries of `frozen` about files: what `info` says, what `load` makes of them, what `convert` writes; key tables."""

from __future__ import annotations

import json
import shlex
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import frozen_adapters
import frozen_hooks as hooks
import torch
from frozen_paint import Entries, Entry, digest
from frozen_shop import Shop
from safetensors.torch import load_file

SENTENCES = ("guesses", "says", "notes", "unusable", "damage", "reason", "error")
"""Values of `info --json` that are for people, and may be put in other words."""
KINDS = (
    *("sd1", "small-sd", "sd1-inpaint", "sd1-pix2pix", "sd2", "sd2-base", "sd2-inpaint", "sd2-depth", "sdxl", "ssd-1b"),
    *("koala", "sdxl-v-zero-snr", "sdxl-inpaint", "sdxl-pix2pix", "sdxl-refiner", "sd3", "sd3.5-medium", "sd3.5-large"),
)


def run(*words: object, stdin: str | None = None) -> Any:
    """The command line in this process."""
    from click.testing import CliRunner

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(
            hooks.command(), [str(word) for word in words], input=stdin, prog_name="stable-diffusion"
        )


def said(*words: object) -> Entry:
    """What `info --json` says: its values without sentences, whose number alone is kept, and whether it fails."""
    result = run("info", *words, "--json")
    try:
        facts = json.loads(result.stdout)
    except ValueError:
        return {"exit": result.exit_code}
    sentences = {name: facts.pop(name, None) for name in SENTENCES}
    if "path" in facts:
        facts["path"] = Path(facts["path"]).name  # where the package lies is no fact of the model
    count = {name: len(value) for name, value in sentences.items() if isinstance(value, list)}
    return {"exit": result.exit_code, "facts": digest(facts), "keys": " ".join(facts), "sentences": digest(count)}


def samples(shop: Shop) -> Entries:
    """Files of full size without numbers, of every kind that docs/checkpoints.md shows."""
    from page_kinds import KINDS as PAGES

    for kind in PAGES:
        with tempfile.TemporaryDirectory(dir=shop.place) as place, chdir(Path(place)):
            kind.make()
            for command in kind.commands:
                typed = shlex.split(command.partition(" | ")[0])[2:]
                yield " ".join(word for word in typed if word != "--no-hash"), said(*typed)


def told(shop: Shop) -> Entries:
    """`info` of tiny files with all their numbers, hashes included; of adapters too."""
    torch.manual_seed(21)
    for name in KINDS:
        for form, path in (("single", shop.single(name)), ("folder", shop.case(name).folder)):
            with chdir(path.parent):
                yield f"{name}/{form}", machine(said(path.name))
    with chdir(shop.native.parent):
        yield "native", machine(said(shop.native.name))
    yield "embedded", said()
    for kind in frozen_adapters.KINDS:
        path = frozen_adapters.lora_file(shop, kind)
        with chdir(path.parent):
            yield f"lora/{kind}", machine(said(path.name))
    for name, path in frozen_adapters.spelt(shop).items():
        with chdir(path.parent):
            yield f"spelt/{name}", machine(said(path.name))
    made = frozen_adapters.Networks(shop)
    for path in (made.plain("sd1"), made.low_rank(), made.union(), made.t2i("sd1"), made.ip("sd1", True)):
        with chdir(path.parent):
            yield f"control/{path.stem}", machine(said(path.name))


def machine(entry: Entry) -> Entry:
    """An entry whose facts hold hashes of random weights, which depend on the processor."""
    return {("file" if name == "facts" else name): value for name, value in entry.items()}


def loaded(shop: Shop, path: Path, **settings: Any) -> Entry:
    """The weights of a model and what was understood besides."""
    import stable_diffusion as sd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = sd.load(path, device="cpu", **settings)
    except sd.StableDiffusionError as error:
        return {"refused": type(error).__name__}
    state, words = hooks.states(model), hooks.model_words(model)
    return {
        "state": digest(*[part for name in sorted(state) for part in (name, state[name])]),
        "names": digest([(name, list(state[name].shape), str(state[name].dtype)) for name in sorted(state)]),
        "understood": digest(words),
        "family": words["family"],
    }


def loads(shop: Shop) -> Entries:
    """Every kind of model, some as folders too, and Stable Diffusion 1 in every kind of file."""
    torch.manual_seed(22)
    for name in KINDS:
        yield f"{name}/single", loaded(shop, shop.single(name))
    for name in ("sd1", "sd2", "sdxl", "sdxl-refiner", "sd3", "sd3.5-medium"):
        yield f"{name}/folder", loaded(shop, shop.case(name).folder)
    yield "native", loaded(shop, shop.native)
    yield "embedded", loaded(shop, Path("embedded"))
    yield "embedded-fast", loaded(shop, Path("embedded-fast"))
    single, folder = shop.single("sd1"), shop.case("sd1").folder
    for dtype in ("float16", "bfloat16"):
        yield f"sd1/as-{dtype}", loaded(shop, single, dtype=dtype)
        yield f"sd3/as-{dtype}", loaded(shop, shop.case("sd3").folder, dtype=dtype)
    for name, path in files_of_one(shop, load_file(single)):
        yield f"sd1/from-{name}", loaded(shop, path)
    parts = parts_of_one(shop, load_file(single))
    yield "sd1/other-vae", loaded(shop, single, vae=parts["vae"])
    yield "sd1/folder-vae", loaded(shop, folder, vae=parts["vae"])
    others = {"vae": parts["vae"], "text_encoders": [parts["text"]]}
    yield "sd1/unet-alone", loaded(shop, parts["unet"], **others)
    yield "sd1/tiny-vae", loaded(shop, single, vae=frozen_adapters.tiny_decoder(shop))
    yield "sd3/tiny-vae", loaded(shop, shop.single("sd3"), vae=frozen_adapters.tiny_decoder(shop, 16))
    yield "sd1/told-v", loaded(shop, single, prediction="v")
    yield "sd1/told-clip-layer", loaded(shop, single, clip_layer=2)


def files_of_one(shop: Shop, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, Path]]:
    """The same weights in files of other kinds: a pickle, GGUF, half precision, 8-bit floats with scales."""
    import gguf
    from gguf_files import write_gguf

    place = shop.folder("files")
    torch.save({"state_dict": dict(state), "global_step": 7}, place / "sd1.ckpt")
    yield "ckpt", place / "sd1.ckpt"
    torch.save({"state_dict": dict(state)}, place / "sd1-old.ckpt", _use_new_zipfile_serialization=False)
    yield "ckpt-old", place / "sd1-old.ckpt"
    torch.save({name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()}, place / "sd1.pt")
    yield "pt-half", place / "sd1.pt"
    for name in ("F16", "Q8_0", "Q5_1", "Q4_0"):
        yield f"gguf-{name}", write_gguf(place / f"sd1-{name}.gguf", state, gguf.GGMLQuantizationType[name])
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    yield "half", shop.save("files/sd1-fp16", half)
    scaled = dict(state)
    for name, tensor in state.items():
        if name.startswith("model.diffusion_model.") and name.endswith(".weight") and tensor.dim() == 2:
            scale = tensor.abs().max() / 448
            scaled[name] = (tensor / scale).to(torch.float8_e4m3fn)
            scaled[f"{name.removesuffix('weight')}scale_weight"] = scale
    scaled["model.diffusion_model.scaled_fp8"] = torch.empty(0, dtype=torch.float8_e4m3fn)
    yield "scaled", shop.save("files/sd1-scaled", scaled)


def parts_of_one(shop: Shop, state: Mapping[str, torch.Tensor]) -> dict[str, Path]:
    """The networks of a single file as files of their own, all numbers halved where they are to be told apart."""
    prefixes = {"unet": "model.diffusion_model.", "vae": "first_stage_model.", "text": "cond_stage_model.transformer."}
    found = {}
    for part, prefix in prefixes.items():
        own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        halved = {name: tensor * 0.5 if tensor.is_floating_point() else tensor for name, tensor in own.items()}
        found[part] = shop.save(f"parts/{part}", own if part == "unet" else halved)
    return found


def converted(place: Path, source: Path, target: str, *words: object) -> Entry:
    """Names and bytes of what `convert` writes."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        result = run("convert", source, Path(folder) / target, *words)
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        names = [str(path.relative_to(folder)) for path in files]
        texts = [path.read_bytes().decode() for path in files if path.suffix in (".json", ".txt")]
        return {
            "exit": result.exit_code,
            "names": digest(names),
            "configs": digest(texts),
            "file": digest(
                *[part for name, path in zip(names, files, strict=True) for part in (name, path.read_bytes())]
            ),
        }


def conversions(shop: Shop) -> Entries:
    torch.manual_seed(23)
    for name in KINDS:
        yield f"{name}/to-folder", converted(shop.place, shop.single(name), "made")
        yield f"{name}/to-single", converted(shop.place, shop.case(name).folder, "made.safetensors")
    single, folder = shop.single("sd1"), shop.case("sd1").folder
    yield "native/to-folder", converted(shop.place, shop.native, "made")
    yield "sd1/half", converted(shop.place, single, "made", "--dtype", "fp16", "--variant", "fp16")
    yield "sd1/bfloat16", converted(shop.place, folder, "made.safetensors", "--dtype", "bf16")
    yield "sd1/same-form", converted(shop.place, single, "made.safetensors")
    for kind in ("lora", "dora", "loha"):
        path = frozen_adapters.lora_file(shop, kind)
        yield f"sd1/{kind}", converted(shop.place, single, "made.safetensors", "--lora", f"{path}:0.7")
    parts = parts_of_one(shop, load_file(single))
    others = ("--vae", parts["vae"], "--text-encoder", parts["text"])
    yield "sd1/other-parts", converted(shop.place, folder, "made", *others)
    yield "sd1/unet-alone", converted(shop.place, parts["unet"], "made.safetensors", *others)
    for name, path in files_of_one(shop, load_file(single)):
        if not name.startswith("gguf-Q5"):
            yield f"sd1/from-{name}", converted(shop.place, path, "made")


def tables(shop: Shop) -> Entries:
    for name, table in hooks.tables():
        lines = hooks.table_lines(table)
        yield name, {"rules": digest(lines), "lines": len(lines)}
