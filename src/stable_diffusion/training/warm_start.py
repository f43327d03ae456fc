"""Starting a new run from weights that exist: a model file in the package's own format, or another run's folder.

Unlike a resume nothing but weights is taken: the optimiser, the step count and the learning-rate plan start from zero.
A U-Net that folds patches of latents into channels may start from one that does not: its coarser grid then begins with
the features that the other had on its own, and only the two ends are new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ..data.tower_file import TowerFile, read_tower_file
from ..errors import InvalidRequest, unknown_choice
from ..models.unet import UNet
from .checkpoint import assign, find_checkpoint, load_part, read_state


def warm_start(modules: Mapping[str, nn.Module], source: str | Path, parts: Sequence[str] = ()) -> tuple[str, ...]:
    """Load the weights of `parts` (empty: all that `source` has) from `source` into `modules`; returns their names.

    source: a run folder (its averaged weights), a model file with "unet", "vae" and "text", or a tower file with
    "tower" and "text" (its own, or the embedded model's). Errors: InvalidRequest for a part that is not there and where
    nothing fits, BrokenModel for weights of another shape.
    """
    for part in parts:
        if part not in modules:
            raise unknown_choice("part to start from", part, modules)
    path = Path(source)
    found = _of_run(path, modules) if path.is_dir() else _of_file(path)
    wanted = parts or [name for name in modules if name in found]
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        lacking = ", ".join(missing or modules)
        raise InvalidRequest(f"start_from = {str(source)!r} holds no {lacking}, only {', '.join(found) or 'nothing'}")
    for name in wanted:
        assign(modules[name], folded(modules[name], found[name]), f"{name} of {source}")
    return tuple(wanted)


def folded(module: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The weights of a U-Net without patches for a U-Net that folds p x p latents, and of one without a fine stage for
    one that has it, which begins as it is made and adds nothing at first; all else comes back as it is.

    Way in: what a latent said is now said by each of the p x p of its patch, divided by p, so that noise comes in with
    the spread that it had. Way out: each latent of a patch gets what its place got.
    """
    if not isinstance(module, UNet):
        return weights
    patch, own = module.config.patch_size, module.state_dict()
    new = {name: value for name, value in own.items() if name.startswith("fine.") and name not in weights}
    weights = {**weights, **new}
    first, last = weights.get("conv_in.weight"), weights.get("conv_out.weight")
    if patch == 1 or first is None or last is None or first.shape[1] * patch**2 != own["conv_in.weight"].shape[1]:
        return weights
    ends = {"conv_in.weight": first.repeat_interleave(patch**2, dim=1) / patch}
    for name in ("conv_out.weight", "conv_out.bias"):
        ends[name] = weights[name].repeat_interleave(patch**2, dim=0)
    return {**weights, **ends}


def _of_run(folder: Path, modules: Mapping[str, nn.Module]) -> dict[str, dict[str, Tensor]]:
    path = find_checkpoint(folder)
    if path is None:
        raise InvalidRequest(f"start_from = {str(folder)!r} is not the folder of a training run: it has no checkpoint")
    held = read_state(path)["modules"]
    return {name: load_part(folder, name)[0] for name in modules if name in held}


def _of_file(path: Path) -> dict[str, dict[str, Tensor]]:
    from ..weights.load import load_parts

    towers = towers_of(path)
    if towers is not None:
        return {"text": dict(towers.text()[0].state_dict()), "tower": towers.tower}
    loaded = load_parts(path)
    networks: dict[str, nn.Module] = {"unet": loaded.unet, "vae": loaded.vae, "text": loaded.clip}
    return {name: dict(network.state_dict()) for name, network in networks.items()}


def towers_of(path: Path) -> TowerFile | None:
    """The tower file at `path`; None where there is none, or a file of another kind."""
    return read_tower_file(path) if path.is_file() and path.suffix == ".safetensors" else None
