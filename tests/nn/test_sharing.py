"""A network over the tensors of another: what is shared, what is exchanged, and that the other never moves."""

from __future__ import annotations

import torch
from torch import nn

from stable_diffusion.models.unet import UNet
from stable_diffusion.nn.sharing import origin, sharing


class Tied(nn.Module):
    """Two names for one weight and for one module, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight
        self.same = self.second
        self.register_buffer("shift", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.same(self.second(self.first(x))) + self.shift


@torch.no_grad()
def test_what_is_exchanged_and_what_is_not(tiny_unet: UNet) -> None:
    given = (torch.randn(1, 4, 4, 6), torch.tensor([5.0]), torch.randn(1, 3, 24))
    before = tiny_unet(*given)
    assert torch.equal(sharing(tiny_unet)(*given), before)
    name = "down.0.resblocks.0.conv1.weight"
    value = tiny_unet.get_parameter(name) * 1.5
    other = sharing(tiny_unet, {name: value})
    assert not torch.equal(other(*given), before) and torch.equal(tiny_unet(*given), before)
    own, theirs = dict(tiny_unet.named_parameters()), dict(other.named_parameters())
    assert [key for key in own if own[key] is not theirs[key]] == [name] and list(own) == list(theirs)
    assert theirs[name].data_ptr() == value.data_ptr(), "no copy of what was given"
    assert theirs[name].requires_grad == own[name].requires_grad
    assert not any(a is b for a, b in zip(tiny_unet.modules(), other.modules(), strict=True))


def test_a_weight_with_two_names_is_exchanged_in_both() -> None:
    module = Tied()
    other = sharing(module, {"first.weight": torch.eye(3) * 2})
    assert other.second is other.same and other.first.weight is other.second.weight
    assert torch.equal(other(torch.ones(1, 3)), torch.full((1, 3), 9.0))


def test_the_original_is_followed() -> None:
    """Moving it, another tensor in a parameter or buffer, and hooks act on both."""
    module = Tied()
    other = sharing(module)
    module.to(torch.float64)
    assert other.first.weight.dtype == other.shift.dtype == torch.float64
    seen = []
    hook = module.same.register_forward_hook(lambda part, given, out: seen.append(origin(part)))
    other(torch.ones(1, 3, dtype=torch.float64))
    hook.remove()
    other(torch.ones(1, 3, dtype=torch.float64))
    assert seen == [module.same, module.same]  # second and same are one module, called twice


def test_the_origin_is_the_first_of_a_line() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    second = sharing(sharing(module, {"0.weight": torch.zeros(2, 2)}))
    assert origin(second) is module and origin(second[0]) is module[0] and origin(module) is module
    assert list(second.state_dict()) == list(module.state_dict()) and next(second.children()) is second[0]
