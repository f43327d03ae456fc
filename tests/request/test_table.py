"""One table of settings: checks, command line, text of pictures, grids, prompt files, JSON and schema agree on each."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from stable_diffusion.cli.commands.generate import command as generate_command
from stable_diffusion.cli.given import Given
from stable_diffusion.cli.setting_options import parameter
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.request import fields, sequences
from stable_diffusion.request.axes import Axis, settings_by_axis
from stable_diffusion.request.control import Control
from stable_diffusion.request.group import Setting, own_settings
from stable_diffusion.request.json import from_json, schema, to_json
from stable_diffusion.request.lora import Lora
from stable_diffusion.request.metadata import has_choices, parameters_text, parse_parameters
from stable_diffusion.request.prompt_file import parse_line, settings_by_name
from stable_diffusion.request.request import Request, all_settings
from stable_diffusion.request.settings import GROUPS
from stable_diffusion.text.variants import has_variants

BASE = Request("a cat {a|b}", image=Image.new("RGB", (8, 8)), width=64, height=64, sampler="euler", schedule="normal")
NEEDED: dict[str, dict[str, Any]] = {
    "mask": {},
    "hires": {"image": None},
    "refiner.switch": {"refiner": {"model": "r"}},
    "canvas.window_overlap": {"canvas": {"window": 8192}},
    "variation.seed": {"variation": {"strength": 0.5}},
}
"""Path of a setting, or its group -> what it needs beside it."""
SETTINGS = all_settings()
EACH = pytest.mark.parametrize("each", SETTINGS, ids=lambda each: each.path)
RULES = schema()["properties"]


def values(each: Setting) -> list[Any]:
    """Values at the ends of the setting's range, as a request holds them."""
    kind = each.kind
    match kind:
        case fields.Whole():
            return [kind.low, kind.low + 1, min(kind.high, 8191)]
        case fields.Number():
            return [float(kind.low), kind.low + 0.25, float(kind.high)]
        case fields.Flag():
            return [not each.default]
        case fields.Choice() | fields.Named() | fields.Colour():
            return [*kind.names, *(["#0088ff"] if isinstance(kind, fields.Colour) else [])]
        case fields.Picture():
            return [Image.new("RGB", (8, 8), "red")]
        case fields.FilePath():
            return [Path("folder/file.txt")]
        case sequences.Pixels():
            return [tuple(range(kind.low + 1, kind.low + 1 + len(kind.names)))]
        case sequences.Span():
            return [(0.0, 1.0), (0.25, 0.75)]
        case sequences.Names():
            return [("one",), ("one", "two words")]
        case fields.Upscaler():
            return list(kind.names)
        case sequences.Items():
            return [(Lora(Path("a.safetensors"), 0.5),)] if each.name == "loras" else []
    return ["some words"]


def as_text(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(number, int) for number in value):
        return f"{value[0]}x{value[1]}"
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, Lora):
        return f"{value.path}:{value.strength:g}"
    return repr(value) if isinstance(value, float) else str(value)


def request_with(each: Setting, value: Any) -> Request:
    """A request that has this value, and what it needs."""
    changes: dict[str, Any] = {
        name: dict(found) if isinstance(found, dict) else found
        for name, found in {**NEEDED.get(each.group, {}), **NEEDED.get(each.path, {})}.items()
    }
    each.put(changes, value)
    return BASE.with_changes(**changes)


@EACH
def test_a_value_is_kept_and_comes_back_from_json(each: Setting) -> None:
    for value in values(each):
        check_json(each, value)


def check_json(each: Setting, value: Any) -> None:
    request = request_with(each, value)
    assert each.of(request) == value or isinstance(value, Image.Image)
    written = json.loads(json.dumps(to_json(request)))
    again = from_json(written)
    assert to_json(again) == written
    for other in SETTINGS:
        old, new = other.of(request), other.of(again)
        same = old.tobytes() == new.tobytes() if isinstance(old, Image.Image) else old == new
        assert same, other.path


@EACH
def test_a_value_that_pictures_keep_is_written_and_read(each: Setting) -> None:
    for value in values(each):
        check_text(each, value)


def check_text(each: Setting, value: Any) -> None:
    if each.key is None and each.path not in ("width", "height", "hires.strength"):
        return
    request = request_with(each, value)
    text = parameters_text(request)
    found = each.of(parse_parameters(text).request)
    off = each.path == "inpaint.blur" and value == 0
    assert found == (None if off else value), text
    unusual = not off and value != each.default and each.of(request) is not None
    if each.key is not None and unusual:
        assert f"{each.key}: " in text


@EACH
def test_the_command_line_gives_the_value(each: Setting) -> None:
    for value in values(each):
        check_options(each, value)


def check_options(each: Setting, value: Any) -> None:
    if not each.flag:
        assert each.path in ("prompt", "controls")
        return
    flag = each.flags[-1]
    if isinstance(each.kind, fields.Picture):
        value = "picture.png"
    if isinstance(each.kind, fields.Flag):
        words = [flag]
    elif isinstance(each.kind, sequences.Items | sequences.Names):
        words = [part for item in value for part in (flag, as_text(item))]
    elif isinstance(each.kind, sequences.Pixels) and not each.kind.is_size:
        words = [flag, ",".join(map(str, value))]
    else:
        words = [flag, as_text(value)]
    with generate_command.make_context("generate", ["a cat", *words]) as context:
        found = Given.of({name: given for name, given in context.params.items() if name != "prompt"}).settings
    if each.group:
        assert list(found) == [each.group] and list(found[each.group]) == [each.name]
        assert isinstance(each.kind, fields.Picture) or each.check(found[each.group][each.name]) == value
    else:
        assert list(found) == [each.name]
        assert isinstance(each.kind, fields.Picture) or each.check(found[each.name]) == value


@EACH
def test_files_of_prompts_and_grids_give_the_value(each: Setting) -> None:
    for value in values(each):
        check_lines(each, value)


def check_lines(each: Setting, value: Any) -> None:
    if isinstance(each.kind, fields.Picture | sequences.Items) or each.path == "prompt":
        return
    comma = isinstance(each.kind, sequences.Pixels) and not each.kind.is_size
    text = ",".join(map(str, value)) if comma else as_text(value)
    for name in each.names:
        if settings_by_name()[name].path != each.path:
            continue
        line = parse_line(f'--prompt a --{name} "{text}"')
        line.pop("prompt")
        holder = line[each.group] if each.group else line
        assert each.check(holder[each.name]) == value
    if each.is_axis and each.path not in ("negative_prompt", "prompting.styles"):
        axis = Axis.parse(f'{each.names[0].replace("_", "-")}="{text}"')
        base = request_with(each, value)
        assert each.of(axis.applied(base, axis.values[0])) == value


def test_every_setting_says_what_it_is() -> None:
    for each in (*SETTINGS, *own_settings(Control)):
        assert each.help.endswith((".", "...")) and len(each.help) < 110, each.path
        assert each.section or not each.flag, each.path
    flags = [flag for each in (*SETTINGS, *own_settings(Control)) for flag in each.flags]
    keys = [each.key for each in SETTINGS if each.key]
    assert len(set(flags)) == len(flags) and len(set(keys)) == len(keys)
    assert {parameter(each) for each in SETTINGS if each.flag} <= {each.name for each in generate_command.params}


def test_docstrings_name_every_setting() -> None:
    for each in SETTINGS:
        holder = GROUPS[each.group] if each.group else Request
        assert f"\n    {each.name} " in str(holder.__doc__), each.path


def checked(value: Any, rule: dict[str, Any]) -> bool:
    """Whether a value is as a JSON schema of the few words that ours uses says."""
    kinds: dict[str, Any] = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    wanted = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    if not any(isinstance(value, kinds[kind]) for kind in wanted if kind in kinds):
        return False
    if isinstance(value, list):
        size = rule.get("minItems", 0) <= len(value) <= rule.get("maxItems", 99)
        return size and all(checked(item, rule["items"]) for item in value if "items" in rule)
    if isinstance(value, str):
        return "enum" not in rule or value in rule["enum"]
    return rule.get("minimum", value) <= value <= rule.get("maximum", value)


@EACH
def test_the_schema_describes_what_is_taken(each: Setting) -> None:
    for value in values(each):
        check_schema(each, value)


def check_schema(each: Setting, value: Any) -> None:
    rule = (RULES[each.group]["properties"] if each.group else RULES)[each.name]
    written = to_json(request_with(each, value))
    found = written.get(each.group, {}).get(each.name) if each.group else written.get(each.name)
    assert found is None or checked(found, rule), (found, rule)
    assert rule["description"].startswith(each.help)
    if isinstance(each.kind, fields.Number | fields.Whole):
        assert not checked(each.kind.high + 1, rule)
        with pytest.raises(InvalidRequest):
            request_with(each, each.kind.high + 1)


def test_the_schema_is_json_and_says_what_is_needed() -> None:
    found = json.loads(json.dumps(schema()))
    assert found["required"] == ["prompt"] and found["properties"]["refiner"]["required"] == ["model"]
    assert set(found["properties"]) == {field for field in Request.__dataclass_fields__ if field != "_"}


def test_servers_can_refuse_paths() -> None:
    for data in (
        {"image": "/etc/passwd"},
        {"loras": ["a.safetensors"]},
        {"controls": [{"path": "a", "image": "b"}]},
        {"prompting": {"styles_file": "a.csv"}},
        {"embeddings_dir": "a"},
    ):
        with pytest.raises(InvalidRequest, match=r"base64|paths are not taken"):
            from_json({"prompt": "a", **data}, files=False)
    picture = to_json(BASE)["image"]
    for text in (picture, f"data:image/png;base64,{picture}"):
        found = from_json({"prompt": "a", "image": text}, files=False).image
        assert found is not None and found.size == (8, 8)


@pytest.mark.parametrize("data", [None, 3, [], {}, {"prompt": 3}, {"prompt": "a", "x": 1}, {"prompt": "a", "hires": 0}])
def test_bad_json_is_one_sentence(data: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        from_json(data)
    assert "\n" not in str(caught.value)


def test_controls_go_through_json(tmp_path: Path) -> None:
    control = Control(tmp_path / "edges.safetensors", Image.new("RGB", (9, 5), "blue"), weight=0.5, task=3)
    request = Request("a", controls=[control])  # type: ignore[arg-type]
    (found,) = from_json(json.loads(json.dumps(to_json(request)))).controls
    assert (found.path, found.weight, found.task) == (control.path, 0.5, 3)
    assert found.image is not None and control.image is not None and found.image.tobytes() == control.image.tobytes()


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("guidance_scale", "guidance"),
        ("cfg_scale", "guidance"),
        ("num_inference_steps", "steps"),
        ("num_images_per_prompt", "count"),
        ("negative", "negative_prompt"),
        ("scheduler", "schedule"),
        ("denoising_strength", "strength"),
        ("mask_blur", "inpaint={'blur': ...}"),
        ("eta", "noise={'eta': ...}"),
        ("hr_scale", "hires={'scale': ...}"),
        ("size", "width and height"),
    ],
)
def test_names_of_other_programs_are_answered_with_ours(name: str, ours: str) -> None:
    with pytest.raises(InvalidRequest, match="is called") as caught:
        Request("a", **{name: 1})
    assert str(caught.value) == f"{name} is called {ours} here"


def test_an_unknown_setting_is_told_the_nearest() -> None:
    with pytest.raises(InvalidRequest, match="unknown setting 'step': did you mean 'steps'"):
        Request("a", step=3)  # type: ignore[call-arg]


def test_the_old_names_of_methods_warn_and_work() -> None:
    request = Request("a", seed=5, count=2)
    with pytest.warns(DeprecationWarning, match=r"Request\.one is now called Request\.single"):
        assert request.one(1) == request.single(1) == Request("a", seed=6)
    with pytest.warns(DeprecationWarning, match=r"Request\.changed is now called Request\.with_changes"):
        assert request.changed(hires=2) == request.with_changes(hires=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request.single(0).with_changes(steps=3)


def test_none_is_not_given() -> None:
    request = Request("a", negative_prompt=None, loras=None, controls=None)  # type: ignore[arg-type]
    assert request == Request("a")


def test_choices_are_seen_as_the_reader_of_prompts_sees_them() -> None:
    rng = random.Random(3)
    signs = ["{", "}", "|", "$$", "2", "1-3", "\\", "__", "a", " ", "_", "x/y", "*", "\n"]
    for _ in range(20_000):
        text = "".join(rng.choice(signs) for _ in range(rng.randint(1, 12)))
        assert has_choices(text) == has_variants(text), text


def test_a_request_needs_neither_torch_nor_numpy_nor_pillow() -> None:
    program = (
        "import sys\n"
        "from stable_diffusion.request import axes, json, metadata, prompt_file\n"
        "from stable_diffusion.request.request import Request\n"
        "request = Request('a cat', sampler='DPM++ 2M Karras', hires=1.5, loras=['a.safetensors:0.5'])\n"
        "text = metadata.parameters_text(request)\n"
        "assert metadata.parse_parameters(text).request.hires == request.hires\n"
        "assert json.from_json(json.to_json(request)) == request and json.schema()\n"
        "heavy = {'torch', 'numpy', 'PIL', 'click'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_it_takes_little_time() -> None:
    program = "import time; t = time.process_time()\nimport stable_diffusion.request.request\n"
    program += "print(time.process_time() - t)"
    times = [float(subprocess.check_output([sys.executable, "-c", program], text=True)) for _ in range(3)]
    assert min(times) < 0.15 * 2, times  # twice the target: machines differ


def test_axes_and_names_are_those_of_options() -> None:
    for name, each in settings_by_axis().items():
        assert each.is_axis and name.replace("-", "_") in each.names
    assert settings_by_axis()["cfg"].path == "guidance" and settings_by_axis()["hires"].path == "hires.scale"
    assert settings_by_name()["subseed"].path == "variation.seed"
    assert isinstance(generate_command, click.Command)
