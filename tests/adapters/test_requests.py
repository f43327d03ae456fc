"""Adapters of one request: tags, folders, what the picture says of them, and that the model stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from adapter_files import ALL, FC, QUERY
from PIL import Image

from stable_diffusion.adapters.folder import joined
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.events import Images
from stable_diffusion.pipeline.generate import generate, generate_image
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.metadata import read_metadata
from stable_diffusion.request.request import Request
from stable_diffusion.weights.containers.hashes import adapter_hash

WriteLora = Callable[..., Path]


def paint(model: StableDiffusion, prompt: str, **settings: object) -> Image.Image:
    image = generate_image(prompt, model=model, seed=1, steps=2, **settings)  # type: ignore[arg-type]
    assert isinstance(image, Image.Image)
    return image


def bits(model: StableDiffusion) -> list[bytes]:
    return [p.detach().numpy().tobytes() for part in (model.parts.unet, model.parts.clip) for p in part.parameters()]


def test_a_tag_a_file_and_an_attachment_paint_the_same(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path, before = lora_file(tiny_model), bits(tiny_model)
    plain = paint(tiny_model, "a red cat")
    by_tag = paint(tiny_model, "a red cat <lora:style:0.8>", lora_dir=path.parent)
    by_file = paint(tiny_model, "a red cat", loras=[(path, 0.8)])
    by_text = paint(tiny_model, "a red cat", loras=f"{path}:0.8")
    with tiny_model.attach(path, 0.8):
        attached = paint(tiny_model, "a red cat")
    fused = tiny_model.attach(path, 0.8)
    assert plain.tobytes() != by_tag.tobytes()
    for image in (by_file, by_text, attached):
        assert image.tobytes() == by_tag.tobytes()
    fused.detach()
    assert paint(tiny_model, "a red cat").tobytes() == plain.tobytes() and bits(tiny_model) == before


def test_the_picture_says_which_adapters_made_it(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path = lora_file(tiny_model)
    digits = adapter_hash(path)[:12]
    for image in (
        paint(tiny_model, "a red cat <lora:style:0.8>", lora_dir=path.parent),
        paint(tiny_model, "a red cat", loras=[(path, 0.8)]),
    ):
        info = read_metadata(image)
        assert info.request.prompt == "a red cat <lora:style:0.8>"
        assert info.values["Lora hashes"] == f"style: {digits}"
        assert f'Lora hashes: "style: {digits}"' in image.info["parameters"] and info.notes == ()
    two = paint(tiny_model, "a cat", loras=[(path, 0.8, 0.5), lora_file(tiny_model, "more", paths=(FC,))])
    info = read_metadata(two)
    assert info.request.prompt == "a cat <lora:style:0.5:0.8> <lora:more:1>"
    assert info.values["Lora hashes"].startswith(f"style: {digits}, more: ")


def test_the_hash_of_an_adapter_is_not_changed_by_its_header(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    plain, named = lora_file(tiny_model, "plain"), lora_file(tiny_model, "named", title="another")
    assert plain.read_bytes() != named.read_bytes() and adapter_hash(plain) == adapter_hash(named)
    told = lora_file(tiny_model, "told", sshs_model_hash="ab" * 32)
    image = paint(tiny_model, "a cat", loras=[told])
    assert read_metadata(image).values["Lora hashes"] == f"told: {'ab' * 6}"


def test_two_streams_on_one_model_do_not_see_each_other(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path = lora_file(tiny_model)
    alone = [paint(tiny_model, "a cat"), paint(tiny_model, "a cat", loras=[path])]
    streams = [generate(tiny_model, Request("a cat", seed=1, steps=2, loras=loras)) for loras in ((), (path,))]
    found: list[Image.Image] = []
    for plain, styled in zip(*streams, strict=True):
        if isinstance(plain, Images) and isinstance(styled, Images):
            found += [*plain.images, *styled.images]
    assert [image.tobytes() for image in found] == [image.tobytes() for image in alone]


def test_an_abandoned_stream_leaves_the_model_clean(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    before = bits(tiny_model)
    stream = generate(tiny_model, Request("a cat", seed=1, steps=3, loras=(lora_file(tiny_model),)))
    next(stream)
    assert bits(tiny_model) == before
    stream.close()  # type: ignore[attr-defined]
    assert bits(tiny_model) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../secret", "is a path; expected the name of a file"),
        ("..", "is a path"),
        ("/etc/passwd", "is a path"),
        ("sub/style", "is a path"),
        ("sub\\style", "is a path"),
        ("stile", "did you mean 'style'?"),
        ("link", "leads out of the folder"),
    ],
)
def test_a_tag_stays_inside_the_folder(
    name: str, words: str, tiny_model: StableDiffusion, lora_file: WriteLora, tmp_path: Path
) -> None:
    folder = tmp_path / "loras"
    (folder / "sub").mkdir(parents=True)
    path = lora_file(tiny_model)
    (tmp_path / "secret.safetensors").write_bytes(path.read_bytes())
    path.rename(folder / "style.safetensors")
    (folder / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(InvalidRequest, match=words.replace("?", r"\?")) as caught:
        paint(tiny_model, f"a cat <lora:{name}:1>", lora_dir=folder)
    assert "\n" not in str(caught.value)


def test_a_tag_finds_files_of_subfolders_and_of_several_folders(
    tiny_model: StableDiffusion, lora_file: WriteLora, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "sub").mkdir(parents=True)
    second.mkdir()
    path = lora_file(tiny_model)
    (first / "sub" / "style.safetensors").write_bytes(path.read_bytes())
    (second / "ink.safetensors").write_bytes(path.read_bytes())
    both, plain = joined([first, second]), paint(tiny_model, "a cat").tobytes()
    names = ("style", "sub/style", "sub/style.safetensors", "ink")
    found = [paint(tiny_model, f"a cat <lora:{name}:1>", lora_dir=both).tobytes() for name in names]
    assert len(set(found)) == 1 and found[0] != plain
    for wrong in ("sub/ink", "second/ink", "sub/../sub/style", "../first/sub/style"):
        with pytest.raises(InvalidRequest, match="is a path"):
            paint(tiny_model, f"a cat <lora:{wrong}:1>", lora_dir=both)


def test_a_tag_needs_a_folder(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="no folder of adapters is given; set lora_dir"):
        paint(tiny_model, "a cat <lora:style:1>")
    with pytest.raises(InvalidRequest, match="does not exist"):
        paint(tiny_model, "a cat <lora:style:1>", lora_dir=tmp_path / "nowhere")


def test_files_in_subfolders_and_in_any_case_are_found(
    tiny_model: StableDiffusion, lora_file: WriteLora, tmp_path: Path
) -> None:
    folder = tmp_path / "loras" / "people"
    folder.mkdir(parents=True)
    lora_file(tiny_model).rename(folder / "My Style.safetensors")
    for name in ("My Style", "my style", "My Style.safetensors"):
        image = paint(tiny_model, f"a cat <lora:{name}:0.5>", lora_dir=tmp_path / "loras")
        assert read_metadata(image).values["Lora hashes"].startswith("My Style: ")


def test_what_fits_nothing_is_a_note(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path = lora_file(tiny_model)
    from safetensors.torch import load_file, save_file

    more = {f"lora_unet_other_{k}.lora_{side}.weight": torch.ones(2, 2) for k in range(5) for side in ("up", "down")}
    save_file({**load_file(path), **more}, path)
    with pytest.warns(UserWarning, match="style: 5 parts fit nothing in this model .* and 2 more"):
        paint(tiny_model, "a cat", loras=[path])
    with pytest.warns(UserWarning, match="in the negative prompt is ignored"):
        paint(tiny_model, "a cat", negative_prompt="dog <lora:style>", lora_dir=path.parent)


def test_unusable_values(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path = lora_file(tiny_model)
    for loras in ([(path, "much")], [(path, float("inf"))], [(path, True)], [3], [(path, 1, 2, 3)], 7):
        with pytest.raises(InvalidRequest, match="expected"):
            Request("a cat", loras=loras)  # type: ignore[arg-type]
    assert Request("a cat", loras=str(path)).loras[0].strength == 1.0  # type: ignore[arg-type]
    assert Request("a cat", loras=[f"{path}:-0.5"]).loras[0].strength == -0.5  # type: ignore[list-item, arg-type]


def test_text_strength_alone_changes_only_the_text(tiny_model: StableDiffusion, lora_file: WriteLora) -> None:
    path, folder = lora_file(tiny_model, "query", paths=(QUERY,)), lora_file(tiny_model, paths=ALL).parent
    plain = paint(tiny_model, "a cat").tobytes()
    assert paint(tiny_model, "a cat <lora:query:1:0>", lora_dir=folder).tobytes() == plain
    assert (
        paint(tiny_model, "a cat <lora:query:0:1>", lora_dir=folder).tobytes()
        == paint(tiny_model, "a cat", loras=[(path, 1.0)]).tobytes()
    )
    assert paint(tiny_model, "a cat <lora:style:1:0>", lora_dir=folder).tobytes() != plain
