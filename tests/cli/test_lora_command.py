"""Adapters from the command line: `--lora`, tags in the prompt, what fits nothing, and files that are refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from cli_helpers import Run, assert_one_sentence, leftovers
from PIL import Image
from safetensors.torch import load_file, save_file

from stable_diffusion.pipeline.models import load
from stable_diffusion.weights.containers.hashes import adapter_hash

BASE = ("--seed", 4, "--steps", 2)


@pytest.fixture
def lora(here: Path, model_file: Path) -> Path:
    """loras/style.safetensors: every attention query of the denoiser and of the text encoder."""
    model, state = load(model_file, device="cpu"), {}
    generator = torch.Generator().manual_seed(6)
    for role, module in (("unet", model.parts.unet), ("text", model.parts.clip)):
        for name, weight in module.named_parameters():
            if name.endswith("attention.query.weight"):
                stem = f"{role}.{name.removesuffix('.weight')}"
                state[f"{stem}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator)
                state[f"{stem}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator)
    assert {name.split(".")[0] for name in state} == {"unet", "text"}
    (here / "loras").mkdir()
    save_file(state, here / "loras" / "style.safetensors")
    return here / "loras" / "style.safetensors"


def pixels(path: Path | str) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_an_option_and_a_tag_make_the_same_picture(run: Run, here: Path, model_file: Path, lora: Path) -> None:
    made = {
        "plain": ["a cat"],
        "option": ["a cat", "--lora", f"{lora}:0.8"],
        "tag": ["a cat <lora:style:0.8>", "--lora-dir", lora.parent],
        "again": ["a cat", "--lora-dir", lora.parent],
        "weaker": ["a <lora:style:te=0.8:unet=0.2> cat", "--lora-dir", lora.parent],
        "twice": ["a cat <lora:style:0.3>", "--lora", f"{lora}:0.5", "--lora-dir", lora.parent],
    }
    for name, arguments in made.items():
        result = run(*arguments, "-m", model_file, *BASE, "-o", f"{name}.png")
        assert result.exit_code == 0 and "note:" not in result.stderr, result.stderr
    shown = {name: pixels(here / f"{name}.png") for name in made}
    assert shown["option"] == shown["tag"] != shown["plain"] == shown["again"]
    assert shown["weaker"] not in (shown["plain"], shown["tag"])
    told = Image.open(here / "option.png").info["parameters"]
    assert f'Lora hashes: "style: {adapter_hash(lora)[:12]}"' in told and "<lora:style:0.8>" in told
    again = run("generate", "--like", "option.png", "--lora-dir", lora.parent, "-m", model_file, "-o", "like.png")
    assert again.exit_code == 0 and pixels(here / "like.png") == shown["option"], again.stderr


def test_what_fits_nothing_is_listed_and_the_rest_applied(run: Run, here: Path, model_file: Path, lora: Path) -> None:
    assert run("a cat", "--lora", lora, "-m", model_file, *BASE, "-o", "all.png").exit_code == 0
    odd = {
        f"lora_unet_other\x1b[2J_{k}.lora_{side}.weight": torch.ones(2, 2) for k in range(5) for side in ("up", "down")
    }
    save_file({**load_file(lora), **odd}, lora)
    result = run("a cat", "--lora", lora, "-m", model_file, *BASE, "-o", "rest.png")
    assert result.exit_code == 0, result.stderr
    (note,) = [line for line in result.stderr.splitlines() if line.startswith("note:")]
    assert "style: 5 parts fit nothing in this model" in note and "lora_unet_other" in note and "and 2 more" in note
    assert note.isprintable() and pixels(here / "rest.png") == pixels(here / "all.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a cat <lora:../x:1>", "--lora-dir", "loras"], ["'../x' is a path", "expected the name of a file"]),
        (["a cat <lora:/etc/passwd:1>", "--lora-dir", "loras"], ["'/etc/passwd' is a path"]),
        (["a cat <lora:link:1>", "--lora-dir", "loras"], ["'link'", "leads out of the folder"]),
        (["a cat <lora:stile:1>", "--lora-dir", "loras"], ["did you mean 'style'"]),
        (["a cat <lora:style:much>", "--lora-dir", "loras"], ["'much'", "a number such as 0.8"]),
        (["a cat <lora:style:inf>", "--lora-dir", "loras"], ["'inf'", "a number such as 0.8"]),
        (["a cat <lora:style:1000>", "--lora-dir", "loras"], ["1000", "from -100 to 100"]),
        (["a cat <lora:style:1>"], ["no folder of adapters is given", "--lora-dir"]),
        (["a cat <lora:style:1>", "--lora-dir", "nowhere"], ["nowhere"]),
        (["a cat <lora:code:1>", "--lora-dir", "loras"], ["code.pt", "posix.system", "only tensors are read"]),
        (["a cat", "--lora", "loras/stile.safetensors"], ["did you mean loras/style.safetensors"]),
        (["a cat", "--lora", "loras/style.safetensors:1000"], ["1000", "from -100 to 100"]),
        (["a cat", "--lora", "loras/cut.safetensors"], ["cut.safetensors is cut short"]),
        (["a cat", "--lora", "loras/word.safetensors"], ["a textual inversion embedding, not an adapter"]),
        (["a cat", "--lora", "loras/other.safetensors"], ["fits nothing in this model", "lora_unet_far"]),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else str(value),
)
def test_refusals(run: Run, here: Path, model_file: Path, lora: Path, arguments: list[str], words: list[str]) -> None:
    (here / "x.safetensors").write_bytes(lora.read_bytes())
    (lora.parent / "link.safetensors").symlink_to(here / "x.safetensors")
    (lora.parent / "cut.safetensors").write_bytes(lora.read_bytes()[:-9])
    save_file({"emb_params": torch.ones(2, 8)}, lora.parent / "word.safetensors")
    save_file({"lora_unet_far.diff": torch.ones(2)}, lora.parent / "other.safetensors")
    with zipfile.ZipFile(lora.parent / "code.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"cposix\nsystem\n(S'touch broken'\ntR.")
    before = leftovers(here)
    result = run(*arguments, "-m", model_file, *BASE, "-o", "out.png")
    assert_one_sentence(result.exit_code, result.stderr, *words)
    assert leftovers(here) == before


def test_info_and_json(run: Run, here: Path, lora: Path) -> None:
    save_file(
        load_file(lora), lora, metadata={"ss_output_name": "wild\x1b]0;title\x07\u202e", "modelspec.title": "a\nb"}
    )
    shown = run("info", lora)
    assert shown.exit_code == 0, shown.stderr
    assert all(line.isprintable() for line in shown.stdout.splitlines()) and "LoRA" in shown.stdout
    facts = json.loads(run("info", lora, "--json").stdout)
    assert (facts["kind"], facts["adapter"], facts["rank"]) == ("adapter", "LoRA", "2")
