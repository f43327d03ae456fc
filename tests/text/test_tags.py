"""`<lora:...>` tags: what they mean, and that they are taken out."""

from __future__ import annotations

import pytest

from stable_diffusion.errors import InvalidRequest
from stable_diffusion.text.lora_tags import LoraTag, take_tags


@pytest.mark.parametrize(
    ("prompt", "left", "tags"),
    [
        ("a cat", "a cat", ()),
        ("a cat <lora:x>", "a cat", (LoraTag("x"),)),
        ("a cat <lora:x:0.8>, red", "a cat, red", (LoraTag("x", 0.8, 0.8),)),
        ("<lyco:x:.5:-1> a", "a", (LoraTag("x", -1.0, 0.5),)),
        ("a<LORA:my style v1.0:unet=0.3>", "a", (LoraTag("my style v1.0", 0.3, 1.0),)),
        ("a <lora:x:te=0.3> <lora:y:2>", "a", (LoraTag("x", 0.3, 0.3), LoraTag("y", 2.0, 2.0))),
        ("a <b> <c:d>", "a <b> <c:d>", ()),
        ("  spaces stay <where they are>  ", "  spaces stay <where they are>  ", ()),
    ],
)
def test_reading(prompt: str, left: str, tags: tuple[LoraTag, ...]) -> None:
    assert take_tags(prompt) == (left, tags)


@pytest.mark.parametrize("tag", ["<lora:>", "<lora:x:much>", "<lora:x:nan>", "<lora:x:1:1:8>", "<lora:x:dyn=4>"])
def test_what_cannot_be_read_is_one_sentence(tag: str) -> None:
    with pytest.raises(InvalidRequest, match="expected") as caught:
        take_tags(f"a cat {tag}")
    assert tag in str(caught.value)


def test_a_prompt_of_tags_only_is_bounded() -> None:
    with pytest.raises(InvalidRequest, match="at most 32"):
        take_tags("<lora:x>" * 33)
