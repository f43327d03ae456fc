"""What another program's picture says of its making, on the way to a text in A1111's form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .infotext import write_infotext

OFF: tuple[object, ...] = (None, "", False, "None", "none", "Disabled", "disabled", [], {}, 0, 0.0)
"""Values of what was not used."""
LONGEST = 300
"""Of a value that is not taken over, in characters."""


def words(value: object) -> str:
    """Text of a value that may be a list of texts, or nothing."""
    if isinstance(value, (list, tuple)):
        return ", ".join(words(each) for each in value if words(each))
    return value if isinstance(value, str) else ""


@dataclass
class Facts:
    """Prompts, and values under A1111's keys; what is `left` stands under keys of its own, of which a note is made."""

    program: str
    prompt: str = ""
    negative: str = ""
    version: str = ""
    values: dict[str, object] = field(default_factory=dict)

    def put(self, key: str, value: object) -> None:
        """A value, where there is one."""
        if value is not None and not isinstance(value, (dict, list, bool)):
            self.values[key] = value

    def take(self, source: Mapping[str, Any], keys: Mapping[str, str]) -> None:
        """Values of `source` by its own names -> A1111's keys."""
        for name, key in keys.items():
            self.put(key, source.get(name))

    def size(self, source: Mapping[str, Any], width: str = "width", height: str = "height") -> None:
        sides = [source.get(width), source.get(height)]
        if all(isinstance(side, (int, float)) and side >= 1 for side in sides):
            self.values["Size"] = "x".join(str(int(side)) for side in sides if side is not None)

    def left(self, name: str, value: object) -> None:
        """What has no place here; nothing is said of what was off."""
        if not any(value is off or (value == off and type(value) is type(off)) for off in OFF):
            self.values[f"{self.program} {name}".replace("_", " ")] = str(value)[:LONGEST]

    def adapters(self, entries: object, name: str = "name", weight: str = "weight") -> None:
        """LoRAs as the tags that ask for them: of a list of objects, or of pairs of a name and a weight."""
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, Mapping):
                called, strength = entry.get(name), entry.get(weight, 1)
            elif isinstance(entry, (list, tuple)) and len(entry) >= 2:
                called, strength = entry[0], entry[1]
            else:
                continue
            if (
                isinstance(called, str)
                and called
                and isinstance(strength, (int, float))
                and not isinstance(strength, bool)
            ):
                self.tag(called, float(strength), float(strength))

    def tag(self, path: str, unet: float, text: float) -> None:
        """A LoRA by its file's name."""
        stem = path.replace("\\", "/").rpartition("/")[2]
        stem = stem.removesuffix(".safetensors").removesuffix(".ckpt").removesuffix(".pt")
        if any(sign in stem for sign in ":<>\n"):
            self.left("LoRA", stem)
            return
        self.prompt += f" <lora:{stem}:{text:g}>" if unet == text else f" <lora:{stem}:{text:g}:{unet:g}>"

    def text(self) -> str:
        """All of it in A1111's form."""
        version = f"{self.program} {self.version}".strip()
        return write_infotext(self.prompt.strip(), self.negative.strip(), {**self.values, "Version": version})
