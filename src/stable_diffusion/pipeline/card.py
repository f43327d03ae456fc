"""A loaded model as a notebook shows it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import StableDiffusion

LEFT = 'style="text-align:left"'


def model_html(model: StableDiffusion) -> str:
    """A table of what a model is and what it was made for; text is escaped."""
    usual = model.defaults
    weights = sum(each.numel() for each in model.parts.unet.parameters())
    rows = {
        "Family": model.parts.family,
        "Runs on": f"{model.device}, {str(model.dtype).removeprefix('torch.')}, {model.engine.name}",
        "Parameters": f"{weights / 1e6:,.1f} million in the denoising network",
        "Size": f"{usual.width} × {usual.height}",
        "Usual settings": f"{usual.steps} steps, guidance {usual.guidance:g}, {usual.sampler}, {usual.schedule}",
        "Transparency": "yes" if model.has_alpha else "no",
        "Hash": model.hash or "",
        "Adapters": ", ".join(f"{each.name} ({each.strength:g})" for each in model.attachments),
        "Embeddings": ", ".join(name for each in model.embeddings for name in each.names),
    }
    cells = (
        f"<tr><th {LEFT}>{html.escape(name)}</th><td {LEFT}>{html.escape(text)}</td></tr>"
        for name, text in rows.items()
        if text
    )
    return f"<table><caption><b>{html.escape(model.name)}</b></caption><tbody>{''.join(cells)}</tbody></table>"
