"""The documentation holds: linked files exist, Python examples run, both READMEs give the same commands."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from control_files import write_controlnet

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "README.zh.md", *(ROOT / "docs").glob("*.md")])
PAGES += [
    ROOT / "src/stable_diffusion/embedded/model_card.md",
    ROOT / "src/stable_diffusion/embedded/LICENSE-weights.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
SHIPPED = (ROOT / "src/stable_diffusion/embedded/model.safetensors").is_file()


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


EXAMPLES = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_exists(page: Path) -> None:
    links = [link.split("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [link for link in links if link and "://" not in link]
    missing = [link for link in local if not (page.parent / link).exists()]
    if not SHIPPED:  # a working tree before the first training run has no pictures of the built-in model
        missing = [link for link in missing if "images/" not in link]
    assert not missing, f"{page.name} links to {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_named_example_and_page_exists(page: Path) -> None:
    named = re.findall(r"`((?:examples|docs|recipes)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing, f"{page.name} names {missing}"


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.name)
def test_python_examples_run(page: Path, tiny_model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The blocks of a page one after another, as somebody types them, on a tiny model in place of the embedded one,
    with a ControlNet for it and without a screen; nothing else is replaced."""
    from PIL import Image

    from stable_diffusion.pipeline import models as model

    def load(*arguments: Any, **settings: Any) -> Any:
        return tiny_model

    import stable_diffusion

    write_controlnet(tmp_path / "canny.safetensors", tiny_model.parts.unet.config)
    Image.linear_gradient("L").save(tmp_path / "house.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stable_diffusion, "load", load, raising=False)
    monkeypatch.setattr(model, "load", load)
    monkeypatch.setattr(model.ModelCache, "get", load)  # which runners ask
    monkeypatch.setenv("MPLBACKEND", "agg")
    typed: dict[str, Any] = {"__name__": "__main__"}
    for number, code in enumerate(blocks(page, "python")):
        exec(compile(code, f"{page.name} block {number + 1}", "exec"), typed)
    if "np.array_equal" in page.read_text(encoding="utf-8"):
        assert typed["np"].array_equal(typed["mine"], typed["theirs"]), "the road is not the one of generate_image"


def test_both_readmes_give_the_same_commands() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        from readme_command import commands
    finally:
        sys.path.pop(0)
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert commands(english) == commands(chinese)
    first, second = commands(english)
    assert first.endswith('stable-diffusion "a beautiful sunset over the ocean"') and second.endswith("pytest")
    assert blocks(ROOT / "README.md", "console") == blocks(ROOT / "README.zh.md", "console")


def test_commands_in_the_documentation_are_understood() -> None:
    """Every `$ stable-diffusion ...` line parses: the command exists and takes these options."""
    import shlex

    import click

    from stable_diffusion.cli.main import cli

    for page in PAGES:
        for block in blocks(page, "console"):
            for line in re.findall(r"^\$ (.*)$", block.replace("\\\n", " "), re.MULTILINE):
                for words in (shlex.split(part.split(" | grep ")[0]) for part in line.split("&&")):
                    if words[0] == "torchrun":
                        words = words[words.index("-m") + 1 :]
                        words[0] = "stable-diffusion"
                    assert words[0] == "stable-diffusion", line
                    command: click.Command = cli
                    arguments, context = words[1:], None
                    while isinstance(command, click.Group):
                        context = command.make_context(words[0], list(arguments), context)
                        name, found, arguments = command.resolve_command(
                            context, [*context._protected_args, *context.args]
                        )
                        assert found is not None, (page.name, line)
                        command = found
                    command.make_context(str(name), list(arguments), context)


def test_no_page_mentions_absolute_paths_of_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(^|[\s`(])/(home|root|work|tmp)/", page.read_text(encoding="utf-8")), page.name


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda script: script.stem)
def test_example_scripts_draw_their_figure(
    script: Path, tiny_native_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(script.parent))
    spec = importlib.util.spec_from_file_location(f"example_{script.stem}", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__
    if script.stem in ("figure", "notebook"):  # what others draw with; cells to be looked at
        return
    figure = module.draw(tiny_native_model)
    assert figure.width > 32 and figure.height > 16
    assert len(figure.getcolors(10**6) or []) > 20, "the figure is nearly empty"


def test_the_map_of_the_code_is_true() -> None:
    """Its files exist, every room has a section and stands in the drawing, and what it may import is what it may."""
    from house import PACKAGE
    from test_architecture import GROUND, MAY_IMPORT

    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawing = (ROOT / "docs/images/architecture.svg").read_text(encoding="utf-8")
    table, _, rooms = page.partition("## The rooms")
    for name in re.findall(r"`([\w/]+(?:\.py|/))`", table):
        assert (PACKAGE / name).exists(), name
    sections = {title: text for title, text in re.findall(r"^### (.+)\n((?:(?!^##).*\n)*)", rooms, re.MULTILINE)}
    for name in re.findall(r">([\w/]+(?:\.py|/))<", drawing):
        assert (PACKAGE / name).exists(), name
    for room, allowed in MAY_IMPORT.items():
        if room in GROUND or not (PACKAGE / room).is_dir():
            continue
        assert room == "former" or f">{room}<" in drawing, room  # which is no room to live in
        said = sections[room].partition("May import: ")[2]
        assert set(re.findall(r"`(\w+)`", said)) == allowed, room
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", sections[room]):
            assert (PACKAGE / room / name).exists() or (PACKAGE / name).exists(), (room, name)


def test_transcripts_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `info` says of a file of every kind; scripts/checkpoint_page.py writes it anew."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    checkpoint_page = importlib.import_module("checkpoint_page")
    text = checkpoint_page.PAGE.read_text(encoding="utf-8")
    assert checkpoint_page.page(text, checkpoint_page.transcripts()) == text


def test_the_tables_of_layouts_are_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the reader says of every network in every layout; scripts/checkpoint_page.py writes it again."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    checkpoint_page = importlib.import_module("checkpoint_page")
    text = checkpoint_page.PAGE.read_text(encoding="utf-8")
    assert checkpoint_page.page(text, checkpoint_page.tables(), checkpoint_page.TABLES) == text
    assert len(re.findall(r"reads \(\d+\)", text)) == 11 + 16, "every network of a layout, and those beside the U-Net"


@pytest.mark.skipif(not SHIPPED, reason="no built-in model here")
@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_first_picture_is_the_first_command_s(page: str) -> None:
    """Its text says what the README says of it, and it comes from the very model that ships."""
    from stable_diffusion.embedded import recorded_hash
    from stable_diffusion.request.metadata import read_metadata

    text = (ROOT / page).read_text(encoding="utf-8")
    info = read_metadata(ROOT / "docs/images/sunset.png")
    command = blocks(ROOT / page, "sh")[0]
    assert f'"{info.request.prompt}"' in command and str(info.request.seed) in text
    assert info.values["Model hash"] == str(recorded_hash())[:10]
