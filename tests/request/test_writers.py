"""One text of each writer and version, in its own form and words of ours: the request that it means, and the notes."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from foreign_files import PLACES, png, stealth, utf8, with_exif
from foreign_objects import FOOOCUS, graph
from foreign_texts import CASES, Case
from stable_diffusion.request.metadata import parse_parameters, read_metadata
from stable_diffusion.request.names import SAMPLERS
from stable_diffusion.request.request import Request


def written(case: Case, folder: Path) -> Path:
    path = folder / "a.png"
    path.write_bytes(png(*(utf8(key, text) for key, text in case.texts.items() if key != "UserComment")))
    if "UserComment" in case.texts:
        path = folder / "a.jpg"
        path.write_bytes(with_exif("JPEG", b"ASCII\0\0\0" + case.texts["UserComment"].encode()))
    if "alpha" in case.texts:
        path.write_bytes(stealth(case.texts["alpha"], pack=True, alpha=True))
    return path


@pytest.mark.parametrize("name", CASES)
def test_each_writer_is_read(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    info = read_metadata(written(case, tmp_path))
    request = info.request
    if "braces" in name:
        assert request.prompt == "a {cat|dog} __x__" and request.prompting.variants is False
    else:
        assert (request.prompt, request.negative_prompt) == case.prompts
    usual = {"steps": 20, "seed": 5, "guidance": 7.0, "width": 512, "height": 768, "strength": None}
    for key, value in {**usual, **case.wanted}.items():
        assert getattr(request, key) == value, (key, info.notes)
    assert request.noise.eta is None
    assert len(info.notes) == len(case.notes), info.notes
    for word in case.notes:
        assert any(word in note for note in info.notes), (word, info.notes)


@pytest.mark.parametrize("name", CASES)
def test_like_paints_what_can_be_painted(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    path = written(CASES[name], tmp_path)
    request = Request.like(path)
    assert request.strength is None and request.image is None
    assert Request.like(path, image=Image.new("RGB", (8, 8)), strength=0.5).strength == 0.5
    assert len([each for each in recwarn if "not taken over: no image" in str(each.message)]) == ("txt2img" in name)


def test_adapters_are_left_out_with_a_note_where_there_is_no_folder(tmp_path: Path) -> None:
    path = written(CASES["InvokeAI 3"], tmp_path)
    with pytest.warns(UserWarning, match="'<lora:l:0.5>' is not taken over: no folder of LoRAs"):
        assert Request.like(path).prompt == "a cat on a mat"
    assert Request.like(path, lora_dir=tmp_path).prompt == "a cat on a mat <lora:l:0.5>"
    assert read_metadata(path).request.prompt == "a cat on a mat <lora:l:0.5>"


def test_what_was_off_is_no_note() -> None:
    off = "freeu_enabled: False, Face restoration: None, Dynamic thresholding enabled: False, Tiling: False"
    assert parse_parameters(f"a\nSteps: 1, Seed: 2, RNG: CPU, {off}").notes == ()


@pytest.mark.parametrize(
    "pair", ["Clip skip: 0", "Eta: 99", "Mask blur: x", "Denoising strength: 7", "Hires steps: many"]
)
def test_a_value_beside_the_point_does_not_cost_the_picture(pair: str) -> None:
    info = parse_parameters(f"a\nSteps: 1, Sampler: Euler, Seed: 2, RNG: CPU, {pair}")
    assert info.request.seed == 2 and len(info.notes) == (pair != "Hires steps: many" or 1)


WORDS = (
    "a cat",
    "(red:1.2)",
    "é",
    "海",
    "Ã©",
    "\n",
    ", ",
    "Steps: 3",
    "x: 1, y: 2, z: 3",
    '"',
    "{",
    "[a|b]",
    "\\(",
    "<lora:x:1>",
)


def random_words(rng: random.Random) -> str:
    return " ".join("".join(rng.choice(WORDS) for _ in range(rng.randint(1, 5))).split(" ")).strip()


def writers(values: dict[str, Any], prompt: str, negative: str) -> dict[str, str]:
    """The same settings in each writer's form."""
    line = (
        f"Steps: {values['steps']}, Sampler: {values['label']}, CFG scale: {values['cfg']}, Seed: {values['seed']}, "
        f"Size: {values['width']}x{values['height']}"
    )
    head = f"{prompt}\n" + (f"Negative prompt: {negative}\n" if negative else "")
    nodes = graph(
        seed=values["seed"], steps=values["steps"], cfg=values["cfg"], sampler_name=values["id"], model=["4", 0]
    )
    nodes["10"]["inputs"]["value"], nodes["7"]["inputs"]["text"] = prompt, negative
    nodes["5"]["inputs"] |= {"width": values["width"], "height": values["height"]}
    size = {"width": values["width"], "height": values["height"]}
    common = {"seed": values["seed"], "steps": values["steps"], **size}
    return {
        "A1111": f"{head}{line}, RNG: CPU, Version: v1.10.1",
        "Forge": f"{head}{line}, RNG: CPU, Version: f2.0.1v1.10.1-previous-1-gabc",
        "a template behind": f"{head}{line}, RNG: CPU, Version: v1.5.1\nTemplate: {prompt.splitlines()[0]}",
        "ComfyUI": json.dumps({key: node for key, node in nodes.items() if key != "9"}),
        "SwarmUI": json.dumps(
            {
                "sui_image_params": {
                    "prompt": prompt,
                    "negativeprompt": negative,
                    "cfgscale": values["cfg"],
                    "sampler": values["id"],
                    **common,
                }
            }
        ),
        "Fooocus": json.dumps(
            {
                **FOOOCUS,
                "loras": [],
                "full_prompt": prompt,
                "full_negative_prompt": negative,
                "guidance_scale": values["cfg"],
                "sampler": values["id"],
                "seed": values["seed"],
                "steps": values["steps"],
                "resolution": f"({values['width']}, {values['height']})",
            }
        ),
    }


def test_random_settings_come_back_from_every_writer_and_place(tmp_path: Path) -> None:
    rng = random.Random(7)
    places = [name for name in PLACES if not any(word in name for word in ("JIS", "damaged", "cut off"))]
    path = tmp_path / "a.png"
    for _ in range(60):
        sampler = rng.choice([each for each in SAMPLERS.values() if each.id not in ("lcm", "tcd")])
        values = {
            "id": sampler.id,
            "label": sampler.label,
            "steps": rng.randint(1, 150),
            "cfg": rng.choice([1, 4.5, 7, 12.25]),
            "seed": rng.choice([0, 5, 2**32 - 1, 2**63 + 9, rng.randrange(2**64)]),
            "width": 8 * rng.randint(8, 99),
            "height": 8 * rng.randint(8, 99),
        }
        prompt, negative = f"x{random_words(rng)}", rng.choice(["", random_words(rng)])
        for writer, text in writers(values, prompt, negative).items():
            place = rng.choice(places)
            path.write_bytes(PLACES[place](text))
            found = read_metadata(path).request
            told = (found.prompt, found.negative_prompt, found.steps, found.sampler, found.guidance, found.seed)
            wanted = (prompt, negative, values["steps"], sampler.id, values["cfg"], values["seed"])
            assert told == wanted, (writer, place, text)
            assert (found.width, found.height) == (values["width"], values["height"])
