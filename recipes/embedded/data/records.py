"""From rendered items to caption records, one function per kind of picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from .captions import ground_captions, object_captions
from .concepts import Concept
from .counted import group_captions
from .descriptions import described
from .glyphs import Glyph
from .nouns import Noun
from .scenes.graph import Placeable, Scene
from .scenes.phrases import scene_captions
from .split import Split

Record = dict[str, Any]
COMPOSED = "composed scenes"


def object_record(item: dict[str, Any], concept: Concept, split: Split) -> Record:
    """A plain or recoloured emoji. In a recoloured one every caption names the colour; half say more than the noun."""
    named, colour = bool(item.get("recoloured")), item["colour"]
    name = f"{item['source']}/{item['name'] or concept.id}" + (f"/{colour}" if named else "")
    english, chinese, cute = concept.english, concept.chinese, concept.group.startswith("animal")
    captions = object_captions(english, chinese, item["style"], colour, named, name, cute=cute)
    more = described(english, chinese, concept.group, colour, named, name, len(captions["en"]))
    return {
        "id": name,
        "source": item["source"],
        "licence": item["licence"],
        "kind": "object",
        "concept": concept.id,
        "style": item["style"],
        "colour": colour,
        "split": split.of(concept.id, item["style"], colour if named else None),
        "captions": {language: texts + more[language] for language, texts in captions.items()},
    }


def group_record(item: dict[str, Any], concept: Concept, split: Split) -> Record:
    """Two or three of one emoji; held out where its concept is in this style."""
    number, name = item["number"], f"{item['source']}/{concept.id}/{item['number']}/{item['seed']}"
    return {
        "id": name,
        "source": item["source"],
        "licence": item["licence"],
        "kind": "object",
        "concept": f"{number}-{concept.id}",
        "style": item["style"],
        "colour": None,
        "split": split.of(concept.id, item["style"], None),
        "captions": group_captions(concept.english, concept.chinese, item["style"], item["colour"], number, name),
    }


def glyph_record(item: dict[str, Any], glyph: Glyph, split: Split) -> Record:
    """A single-colour icon; its colour is named in every caption."""
    return single_colour_record(item, glyph.concept, glyph.english, glyph.chinese, split)


def emoji_glyph_record(item: dict[str, Any], concept: Concept, split: Split) -> Record:
    """A single-colour emoji; its colour is named in every caption."""
    return single_colour_record(item, concept.id, concept.english, concept.chinese, split)


def noun_record(item: dict[str, Any], noun: Noun, split: Split, kind: str) -> Record:
    """A picture of the larger world: in its own colours, in one named colour, or that on a coloured ground."""
    return {**single_colour_record(item, noun.concept, noun.english, noun.chinese, split), "kind": kind}


def single_colour_record(
    item: dict[str, Any], concept: str, english: Sequence[str], chinese: Sequence[str], split: Split
) -> Record:
    """The record of a picture in one named colour (or in several of its own, when it says none)."""
    colour, ground, style = item["colour"], item.get("ground"), item["style"]
    name = "/".join(part for part in (item["source"], item["name"], colour, ground and f"on {ground}") if part)
    captions = (
        ground_captions(english, chinese, style, colour, ground, name)
        if ground
        else object_captions(english, chinese, style, colour, colour is not None, name, 8)
    )
    return {
        "id": name,
        "source": item["source"],
        "licence": item["licence"],
        "kind": "glyph",
        "concept": concept,
        "style": style,
        "colour": colour,
        "ground": ground,
        "split": split.of(concept, style, colour),
        "captions": captions,
    }


def scene_record(scene: Scene, table: dict[str, Placeable], split: Split, licences: Iterable[str]) -> Record:
    """A composed scene; its licences are those of the pictures placed in it, or CC0 for a bare landscape."""
    return {
        "id": f"scene/{scene.seed}",
        "source": COMPOSED,
        "licence": " AND ".join(sorted(set(licences))) or "CC0-1.0",
        "kind": "scene",
        "concept": "-".join([scene.ground, scene.time, scene.weather, *(thing.concept for thing in scene.things)]),
        "style": "scene",
        "colour": None,
        "split": split.of("", "scene", None, scene.triple),
        "captions": scene_captions(scene, table),
    }
