"""Networks without memory, casting into one block, and letting go of the bytes that were cast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from stable_diffusion.weights.arena import Arena, room_for
from stable_diffusion.weights.containers.open import read_tensors
from stable_diffusion.weights.containers.safetensors import write_safetensors
from stable_diffusion.weights.skeleton import skeleton


def test_a_skeleton_has_names_and_shapes_and_no_memory() -> None:
    made = skeleton(lambda: nn.Sequential(nn.Linear(3, 5), nn.Conv2d(5, 2, 3), nn.Embedding(7, 4), nn.GroupNorm(1, 2)))
    whole = nn.Sequential(nn.Linear(3, 5), nn.Conv2d(5, 2, 3), nn.Embedding(7, 4), nn.GroupNorm(1, 2))
    assert {name: t.shape for name, t in made.state_dict().items()} == {
        name: t.shape for name, t in whole.state_dict().items()
    }
    assert all(tensor.is_meta for tensor in made.state_dict().values())


def test_filling_outside_of_a_skeleton_still_fills() -> None:
    skeleton(lambda: nn.Linear(2, 2))
    assert nn.init.constant_(torch.empty(3), 2.0).tolist() == [2.0, 2.0, 2.0]


def test_loading_the_built_in_model_imports_no_compiler() -> None:
    code = (
        "import sys, stable_diffusion; stable_diffusion.load(device='cpu');"
        "heavy = ('torch._dynamo', 'torch._inductor', 'sympy', 'huggingface_hub');"
        "print([name for name in heavy if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ended.stdout.strip() == "[]"


def test_casts_are_those_of_torch_and_do_not_overlap() -> None:
    given = [torch.randn(3, 5).half(), torch.randn(0, 2).half(), torch.randn(7).half(), torch.randn(4, 4).half().t()]
    arena = Arena(room_for(given, torch.float32))
    made = [arena.cast(tensor, torch.float32) for tensor in given]
    assert all(torch.equal(a, b.float()) and a.is_contiguous() for a, b in zip(made, given, strict=True))
    over = arena.cast(given[0], torch.float32)  # the block is full
    over.zero_()
    assert all(torch.equal(a, b.float()) for a, b in zip(made, given, strict=True))


def test_released_bytes_are_read_again(tmp_path: Path) -> None:
    path, tensor = tmp_path / "x.safetensors", torch.randn(3, 5000)
    write_safetensors(path, {"a": tensor, "b": tensor + 1}, {})
    file, _ = read_tensors(path)
    assert torch.equal(file["a"], tensor)
    file.release("a")
    assert torch.equal(file["a"], tensor) and torch.equal(file["b"], tensor + 1)
