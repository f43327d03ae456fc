"""Text to image with latent diffusion: a small model of its own, and Stable Diffusion 1.x to 3.x checkpoints.

    import stable_diffusion

    image = stable_diffusion.generate_image("a beautiful sunset over the ocean")
    image.save("sunset.png")

The parts of a model can be used alone:

    model = stable_diffusion.load()
    words = model.text_encoder("a beautiful sunset over the ocean")
    noisy = model.diffusion_process.add_gaussian_noise(image)         # one step into noise
    for step in model.denoising_process(words, seed=7):               # out of noise, guided by the text
        latent = step.x
    (picture,) = model.image_decoder(latent)

`help(stable_diffusion.generate_image)` names every setting. Every public name is found here and resolved on first use
(PEP 562), so that `import stable_diffusion` costs no import of torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bulk.many import generate_many
    from .errors import (
        BrokenModel,
        InvalidRequest,
        ModelFileError,
        StableDiffusionError,
        TrainingDiverged,
        UnknownModel,
        UnsafeFile,
    )
    from .events import Images, Progress
    from .images import save_image
    from .notebook.widget import widget
    from .pipeline.generate import generate, generate_image
    from .pipeline.models import StableDiffusion, load
    from .pipeline.renamed import SAMPLERS, SCHEDULES
    from .request.control import Control
    from .request.metadata import read_metadata
    from .request.request import Request
    from .request.settings import Canvas, Hires, Inpaint, Noise, Prompting, Refiner, SizeConditioning, VariationSeed

__version__ = "0.1.0"

_HOMES = {
    "stable_diffusion.bulk.many": ("generate_many",),
    "stable_diffusion.request.control": ("Control",),
    "stable_diffusion.pipeline.generate": ("generate", "generate_image"),
    "stable_diffusion.pipeline.models": ("StableDiffusion", "load"),
    "stable_diffusion.events": ("Images", "Progress"),
    "stable_diffusion.request.request": ("Request",),
    "stable_diffusion.request.settings": (
        *("Canvas", "Hires", "Inpaint", "Noise", "Prompting", "Refiner", "SizeConditioning", "VariationSeed"),
    ),
    "stable_diffusion.request.metadata": ("read_metadata",),
    "stable_diffusion.images": ("save_image",),
    "stable_diffusion.notebook.widget": ("widget",),
    "stable_diffusion.pipeline.renamed": ("SAMPLERS", "SCHEDULES"),
    "stable_diffusion.errors": (
        "BrokenModel",
        "InvalidRequest",
        "ModelFileError",
        "StableDiffusionError",
        "TrainingDiverged",
        "UnknownModel",
        "UnsafeFile",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "SAMPLERS",
    "SCHEDULES",
    "BrokenModel",
    "Canvas",
    "Control",
    "Hires",
    "Images",
    "Inpaint",
    "InvalidRequest",
    "ModelFileError",
    "Noise",
    "Progress",
    "Prompting",
    "Refiner",
    "Request",
    "SizeConditioning",
    "StableDiffusion",
    "StableDiffusionError",
    "TrainingDiverged",
    "UnknownModel",
    "UnsafeFile",
    "VariationSeed",
    "__version__",
    "generate",
    "generate_image",
    "generate_many",
    "load",
    "read_metadata",
    "save_image",
    "widget",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # torch reads this with its first tensor. Large tensors then lie in huge pages where the system has them: a
    # decoder's activations take 0.07 s to touch and not 0.12, and no number changes.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
