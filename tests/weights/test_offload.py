"""Networks take turns in memory: the others are put away when one is called, unless somebody is calling them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.mapped_pages import is_mapped, release
from stable_diffusion.nn.sharing import sharing
from stable_diffusion.weights.containers.tensors import MappedBytes
from stable_diffusion.weights.offload import Turns, offloads

GIB = 2**30


class Recorded(Turns):
    """Turns that say who was put away."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__(networks, torch.device("cpu"))
        self.away: list[nn.Module] = []

    def put_away(self, network: nn.Module) -> None:
        self.away.append(network)
        super().put_away(network)


class Halves(nn.Module):
    """As an autoencoder: its halves are called."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = nn.Linear(2, 2)

    def decode(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(x)
        return out


class Calling(nn.Module):
    """A network that calls another one."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.__dict__["other"] = other

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.other(x)
        return out


def test_who_is_called_is_alone_in_memory() -> None:
    text, denoiser, vae = nn.Linear(2, 2), nn.Linear(2, 2), Halves()
    turns, x = Recorded([text, denoiser, vae]), torch.ones(1, 2)
    text(x)
    assert turns.away == [denoiser, vae]
    turns.away.clear()
    sharing(denoiser, {"weight": torch.zeros(2, 2)})(x)  # a run's own weights have the turn of the network
    assert turns.away == [text, vae]
    turns.away.clear()
    vae.decode(x)
    assert turns.away == [text, denoiser]


def test_a_network_that_is_being_called_stays() -> None:
    inner = nn.Linear(2, 2)
    outer = Calling(inner)
    turns = Recorded([outer, inner])
    outer(torch.ones(1, 2))
    assert turns.away == [inner]
    with pytest.raises(RuntimeError):
        inner(torch.ones(1, 3))
    turns.away.clear()
    outer(torch.ones(1, 2))  # a call that failed is over
    assert turns.away == [inner]


def test_memory_of_a_mapped_file_is_let_go_of_unless_it_was_written_to(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(2**20))
    mapped = MappedBytes(path)
    tensor, other = mapped.tensor(64, torch.int16, 2**18), torch.ones(3)
    total = int(tensor.sum())
    assert is_mapped(tensor) and not is_mapped(other)
    if not Path("/proc/self/smaps").is_file():
        pytest.skip("the system does not say which pages were written to")
    assert release([tensor, other]) == tensor.nbytes and int(tensor.sum()) == total
    tensor[5] = 7
    assert release([tensor]) == 0 and int(tensor[5]) == 7


def test_auto_looks_at_what_is_free() -> None:
    assert offloads("auto", 2 * GIB, 16 * GIB) == (False, "offload none: weights take 2.0 GiB, 16.0 GiB are free")
    assert offloads("auto", 7 * GIB, 8 * GIB)[0] and not offloads("auto", 7 * GIB, None)[0]
    assert offloads("model", GIB, 16 * GIB)[0] and not offloads("none", 7 * GIB, GIB)[0]
    with pytest.raises(InvalidRequest, match="'model'"):
        offloads("modell", GIB, GIB)  # type: ignore[arg-type]
