"""PEFT's OFT: rotations of columns, against PEFT's own merged weights, and from the folder that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import CONV, QUERY, shapes
from safetensors.torch import save_file
from torch import Tensor, nn

from stable_diffusion.adapters.describe import adapter_facts
from stable_diffusion.adapters.file import read_adapter
from stable_diffusion.adapters.formulas import delta, label
from stable_diffusion.errors import BrokenModel
from stable_diffusion.pipeline.models import StableDiffusion

peft = pytest.importorskip("peft")

SETTINGS: dict[str, dict[str, Any]] = {
    "series": {},
    "3 terms": {"num_cayley_neumann_terms": 3},
    "7 terms": {"num_cayley_neumann_terms": 7},
    "1 term": {"num_cayley_neumann_terms": 1},
    "exact": {"use_cayley_neumann": False},
    "constrained": {"coft": True, "eps": 0.2},
    "one for all": {"block_share": True},
    "exact, constrained, one for all": {"use_cayley_neumann": False, "coft": True, "eps": 0.1, "block_share": True},
}


def adapted(**settings: Any) -> tuple[Any, dict[str, Tensor]]:
    """A linear layer and a convolution under PEFT's OFT with random rotations, and their original weights."""
    torch.manual_seed(4)
    base = nn.Sequential(nn.Linear(12, 10), nn.Conv2d(4, 6, 3))
    original = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    config = peft.OFTConfig(r=0, oft_block_size=6, target_modules=["0", "1"], **settings)
    model = peft.get_peft_model(base, config)
    for name, parameter in model.named_parameters():
        if "oft_R" in name:
            parameter.data = torch.randn_like(parameter) * 0.2
    return model, original


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_difference_is_that_of_the_weights_that_peft_merges(settings: dict[str, Any], tmp_path: Path) -> None:
    model, original = adapted(**settings)
    model.save_pretrained(tmp_path / "rotated")
    file = read_adapter(tmp_path / "rotated")
    merged = model.merge_and_unload().state_dict()
    assert len(file.groups) == 2 and not file.unknown and file.name == "rotated"
    for layer in ("0", "1"):
        group, weight = file.groups[f"base_model.model.{layer}"], original[f"{layer}.weight"]
        wanted = merged[f"{layer}.weight"] - weight
        found = delta(group.tensors, weight, alpha=group.alpha, terms=group.terms)
        assert found is not None and label(group.tensors) == "OFT"
        if settings.get("num_cayley_neumann_terms") != 1:
            assert float(wanted.abs().max()) > 1e-2, "the comparison would be of zeros"
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_rotated_model_comes_back(tiny_model: StableDiffusion, tmp_path: Path) -> None:
    torch.manual_seed(5)
    sizes = shapes(tiny_model)
    columns = {path: torch.Size(sizes[path][1:]).numel() for path in (QUERY, CONV)}
    state = {f"base_model.model.{path}.oft_R.weight": torch.randn(count // 4, 6) for path, count in columns.items()}
    save_file(state, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "OFT", "use_cayley_neumann": False}))
    weight = tiny_model.parts.unet.down[0].transformers[0].blocks[0].cross_attention.query.weight  # type: ignore[union-attr, index]
    before = weight.detach().clone()
    with tiny_model.attach(tmp_path) as attachment:
        assert attachment.kinds == {"OFT": 2} and not attachment.unmatched
        assert not torch.equal(weight, before)
        torch.testing.assert_close(weight.norm(dim=1), before.norm(dim=1))  # a rotation keeps lengths
    assert torch.equal(weight, before)
    facts = adapter_facts(tmp_path / "adapter_model.safetensors", hashes=False)
    assert facts is not None and facts["adapter"] == "OFT"


@pytest.mark.parametrize("shape", [(), (3,), (3, 7), (2, 6), (0, 6), (3, 0), (1, 10**6), (3, 6, 1)])
def test_rotations_that_fit_nothing_are_one_sentence(shape: tuple[int, ...]) -> None:
    with pytest.raises(BrokenModel) as caught:
        delta({"oft_columns": torch.zeros(shape, device="meta")}, torch.empty(5, 12, device="meta"))
    assert "\n" not in str(caught.value)
