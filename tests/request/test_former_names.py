"""Settings under the names of the last release: they work for one version, and warn."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.pipeline.generate import generate
from stable_diffusion.pipeline.models import StableDiffusion
from stable_diffusion.request.group import FORMER
from stable_diffusion.request.json import from_json, to_json
from stable_diffusion.request.request import Request
from stable_diffusion.request.settings import SizeConditioning

SIZES = {"crop": (8, 4), "original": (64, 32)}
NOW = Request("a cat", micro_conditioning=SIZES)
WARNING = "told_size is now .*micro_conditioning; the old name goes with the next version"


def test_a_request_is_made_changed_and_read_by_an_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=WARNING):
        assert Request("a cat", told_size=SIZES) == NOW  # type: ignore[call-arg]
    with pytest.warns(DeprecationWarning, match=WARNING):
        assert Request("a cat").with_changes(told_size=SIZES) == NOW
    with pytest.warns(DeprecationWarning, match=WARNING):
        assert NOW.told_size == SizeConditioning(**SIZES)  # type: ignore[attr-defined]
    with pytest.warns(DeprecationWarning, match=WARNING):
        assert from_json({"prompt": "a cat", "told_size": {"crop": [8, 4], "original": [64, 32]}}) == NOW
    assert "micro_conditioning" in to_json(NOW) and not FORMER.keys() & to_json(NOW).keys()


def test_the_warning_names_the_line_that_uses_it() -> None:
    with pytest.warns(DeprecationWarning) as found:
        Request("a cat", told_size=SIZES)  # type: ignore[call-arg]
        Request("a cat").with_changes(told_size=SIZES)
        NOW.told_size  # type: ignore[attr-defined]  # noqa: B018
    assert [each.filename for each in found] == [__file__] * 3


def test_both_names_at_once_are_one_too_many() -> None:
    both: dict[str, Any] = {"told_size": SIZES, "micro_conditioning": SIZES}
    with pytest.raises(InvalidRequest, match="one setting; give micro_conditioning alone"):
        Request("a cat", **both)


def test_runs_take_an_old_name(tiny_model: StableDiffusion) -> None:
    with pytest.warns(DeprecationWarning, match=WARNING):
        *_, done = generate(tiny_model, "a cat", steps=1, seed=1, told_size=SIZES)
    assert done.requests[0].micro_conditioning == NOW.micro_conditioning
    with pytest.warns(DeprecationWarning, match=WARNING):
        *_, old = tiny_model.denoising_process("a cat", steps=1, seed=1, told_size=SIZES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, new = tiny_model.denoising_process("a cat", steps=1, seed=1, micro_conditioning=SIZES)
    assert torch.equal(old.x, new.x)


def test_a_server_takes_an_old_name() -> None:
    schema = pytest.importorskip("stable_diffusion.server.schema")
    with pytest.warns(DeprecationWarning, match=WARNING):
        made = schema.job_settings().model_validate({"prompt": "a cat", "told_size": {"crop": [8, 4]}})
    assert schema.given(made)["micro_conditioning"] == {"crop": (8, 4)}
    with pytest.raises(ValueError, match="unknown setting 'told_size'"):
        schema.control_choice().model_validate({"name": "x", "told_size": {}})
