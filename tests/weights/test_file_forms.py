"""A search among layouts, places and wrappers: every form of a file loads to the same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import file_forms as forms
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stable_diffusion.weights.load import load_parts


@st.composite
def files(draw: st.DrawFn) -> tuple[forms.Model, list[forms.State], str]:
    """(model, its networks as a file has them, what stands before all names)."""
    model = draw(st.sampled_from(forms.MODELS))
    outer = draw(st.sampled_from(forms.OUTER))
    parts = []
    for network, (_, _, _, home) in model.networks.items():
        layout = draw(st.sampled_from(forms.layouts_of(model, network)))
        others = forms.PLACES[network] if layout != "cpp" else ()
        place = draw(st.sampled_from((home, *others)))
        if outer == "model." and place == "diffusion_model.":
            place = home  # together they are the place of the released files
        inner = draw(st.sampled_from(forms.INNER))
        parts.append(forms.written(model, network, layout, place, inner, extra=draw(st.booleans())))
    return model, parts, outer


def assert_same(model: forms.Model, path: Path) -> Any:
    parts = load_parts(path, prediction=None if model.family == "sd3" else "eps")
    assert parts.family == model.family
    for network in model.networks:
        ours, wanted = getattr(parts, network).state_dict(), forms.weights(model, network)
        assert ours.keys() == wanted.keys()
        assert all(torch.equal(ours[name], wanted[name]) for name in wanted), network
    return parts


@settings(max_examples=80, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])  # fmt: skip
@given(files())
def test_any_form_of_a_file_is_the_same_model(tmp_path: Path, file: tuple[forms.Model, list[forms.State], str]) -> None:
    model, parts, outer = file
    assert_same(model, forms.write(tmp_path / "a.safetensors", parts, outer))


@pytest.mark.parametrize("model", forms.MODELS, ids=lambda model: model.family)
def test_every_network_alone_in_every_layout_and_place(model: forms.Model, tmp_path: Path) -> None:
    """The others stand as in the released files."""
    tried = 0
    for network, (_, _, _, home) in model.networks.items():
        others = [
            forms.written(model, other, "openclip" if ".model." in place and other != "unet" else released, place, "")
            for other, (_, _, known, place) in model.networks.items()
            if other != network
            for released in ["ldm" if "ldm" in known else "transformers"]
        ]
        for layout in forms.layouts_of(model, network):
            for place in (home, *(forms.PLACES[network] if layout != "cpp" else ())):
                own = forms.written(model, network, layout, place, "", extra=True)
                found = assert_same(model, forms.write(tmp_path / "a.safetensors", [*others, own]))
                told = sum(guess.endswith("is left out") for guess in found.guesses)
                assert told == (1 if network in forms.EXTRA else 0) or not place
                tried += 1
    assert tried >= 20
