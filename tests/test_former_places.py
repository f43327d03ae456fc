"""What the last release had elsewhere is still found there, with a warning that names today's place."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from house import PACKAGE

NAMES = {
    "pipeline.metadata": ("read_metadata", "parse_parameters", "parameters_text", "KEY"),
    "pipeline.request": ("Request", "Images", "Progress"),
    "pipeline.settings": ("Canvas", "Hires", "Inpaint", "Noise", "Prompting", "Refiner", "VariationSeed"),
    "pipeline.control": ("Control",),
    "pipeline.files": ("save_image",),
    "pipeline.model": ("StableDiffusion", "load"),
    "pipeline.size": ("SizeConditioning",),
    "pipeline.convert": ("convert",),
    "pipeline.hires": ("UPSCALERS",),
    "pipeline.masks": ("FILLS",),
    "pipeline.tiling": ("Wrap",),
    "weights.detect": ("inspect",),
    "weights.native": ("save_native",),
    "weights.hub": ("pull",),
    "weights.files": ("read_tensors",),
}


@pytest.mark.parametrize("place", NAMES)
def test_names_are_found_at_their_former_place(place: str) -> None:
    module = importlib.import_module(f"stable_diffusion.{place}")
    for name in NAMES[place]:
        with pytest.warns(DeprecationWarning, match=rf"{place}.{name} is stable_diffusion\.[\w.]+\.{name} now"):
            assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(module, "nothing")  # noqa: B009


def test_every_former_module_is_tried_here() -> None:
    folder = PACKAGE / "former"
    found = {f"{path.parent.name}.{path.stem}" for path in folder.glob("*/*.py")}
    assert found == set(NAMES)


def test_nothing_of_today_uses_them() -> None:
    """Importing all that a picture needs warns of nothing."""
    script = "import stable_diffusion as sd\nfor name in sd.__all__: getattr(sd, name)"
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning:stable_diffusion", "-c", script], check=True)
