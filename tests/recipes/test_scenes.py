"""The scene composer: graphs and drawings are determined by their seed, and pictures show what the graph says."""

from __future__ import annotations

import random
from xml.etree import ElementTree

import numpy as np
import pytest
from recipes.embedded.data.render import Picture, frame, premultiplied_resize
from recipes.embedded.data.scenes.compose import compose, layout
from recipes.embedded.data.scenes.graph import RELATIONS, Scene, Thing, read_placeables, sample_large, sample_scene
from recipes.embedded.data.scenes.landscape import GROUNDS, draw_landscape
from recipes.embedded.data.scenes.light import TIMES, WEATHERS, light_of
from recipes.embedded.data.scenes.paint import CANVAS

TABLE = read_placeables()


def disc(concept: str, style: str) -> Picture:
    """A stand-in asset: an opaque red rectangle with an empty border."""
    picture = np.zeros((32, 32, 4), dtype=np.uint8)
    picture[4:28, 6:26] = (255, 0, 0, 255)
    return picture


def test_graphs_are_determined_by_the_seed() -> None:
    for placed in (False, True):
        first = [sample_scene(f"s{n}", placed, TABLE) for n in range(100)]
        assert first == [sample_scene(f"s{n}", placed, TABLE) for n in range(100)]
        assert len(set(first)) > 90
        assert all(bool(scene.things) == placed for scene in first)


def test_sampled_graphs_are_sound() -> None:
    for number in range(500):
        scene = sample_scene(f"sound{number}", True, TABLE)
        assert len(scene.things) == (1 if scene.relation is None else 2)
        assert scene.relation is None or scene.relation in RELATIONS
        assert all(thing.concept in TABLE and 1 <= thing.count <= 3 for thing in scene.things)
        assert len({thing.concept for thing in scene.things}) == len(scene.things)


def test_a_large_thing_fills_half_of_the_picture_and_is_whole() -> None:
    """One thing of a hand that objects are drawn in, whole from top to foot, on every kind of ground and in the air."""
    scenes = [sample_large(f"large{n}", TABLE) for n in range(300)]
    assert scenes == [sample_large(f"large{n}", TABLE) for n in range(300)]
    assert {scene.style for scene in scenes} == {"flat", "3d"}
    assert {TABLE[scene.things[0].concept].habitat for scene in scenes} > {"land", "sky", "water"}
    for scene in scenes:
        assert scene.large and len(scene.things) == scene.things[0].count == 1 and scene.relation is None
        (spot,) = layout(scene, TABLE, random.Random(scene.seed))
        assert CANVAS / 2 <= spot.height <= spot.foot <= CANVAS


@pytest.mark.parametrize("ground", sorted(GROUNDS))
@pytest.mark.parametrize("time", TIMES)
def test_landscapes_are_valid_svg_and_deterministic(ground: str, time: str) -> None:
    for weather in WEATHERS:
        svg, horizon = draw_landscape(time, weather, ground, "full", True, "7")
        assert (svg, horizon) == draw_landscape(time, weather, ground, "full", True, "7")
        root = ElementTree.fromstring(svg)
        names = {element.get("id") for element in root.iter() if element.get("id")}
        used = {part.split(")")[0] for part in svg.split("url(#")[1:]}
        assert used <= names
        assert "nan" not in svg
        assert GROUNDS[ground].horizon[0] <= horizon <= GROUNDS[ground].horizon[1]
    assert (
        draw_landscape(time, "clear", ground, "full", True, "8")[0]
        != draw_landscape(time, "clear", ground, "full", True, "7")[0]
    )


def spots(relation: str) -> list:
    import random

    things = (Thing(concept="cat"), Thing(concept="deciduous-tree"))
    scene = Scene(time="noon", weather="clear", ground="field", things=things, relation=relation, style="flat")
    return sorted(layout(scene, TABLE, random.Random(3)), key=lambda spot: spot.concept)


def test_layout_obeys_the_relation() -> None:
    cat, tree = spots("left of")
    assert cat.x + 40 < tree.x
    cat, tree = spots("right of")
    assert cat.x > tree.x + 40
    cat, tree = spots("in front of")
    assert cat.layer > tree.layer and cat.foot > tree.foot
    cat, tree = spots("behind")
    assert cat.layer < tree.layer
    cat, tree = spots("under")
    assert cat.height < tree.height / 2 and cat.layer > tree.layer
    cat, tree = spots("on")
    assert cat.foot < tree.foot - tree.height / 2
    cat, tree = spots("above")
    assert cat.foot < tree.foot - tree.height


def test_counts_are_drawn() -> None:
    import random

    for count in (1, 2, 3):
        scene = Scene(
            time="noon", weather="clear", ground="field", things=(Thing(concept="cat", count=count),), style="flat"
        )
        found = layout(scene, TABLE, random.Random(0))
        assert len(found) == count
        assert len({round(spot.x) for spot in found}) == count


def test_night_is_darker_than_noon_and_storms_darken() -> None:
    def brightness(light: object) -> float:
        from recipes.embedded.data.scenes.paint import channels

        return float(np.mean([channels(colour) for _, colour in light.sky]))  # type: ignore[attr-defined]

    assert (
        brightness(light_of("night", "clear"))
        < brightness(light_of("sunset", "clear"))
        < brightness(light_of("noon", "clear"))
    )
    assert (
        brightness(light_of("noon", "storm"))
        < brightness(light_of("noon", "rain"))
        < brightness(light_of("noon", "clear"))
    )


def test_composed_pictures() -> None:
    pytest.importorskip("resvg_py")
    scene = Scene(time="noon", weather="clear", ground="field", things=(Thing(concept="cat"),), style="flat", seed="5")
    picture = compose(scene, 48, disc, TABLE)
    assert picture is not None and picture.shape == (48, 48, 4) and (picture[..., 3] == 255).all()
    assert np.array_equal(picture, compose(scene, 48, disc, TABLE))
    red = (picture[..., 0] > 200) & (picture[..., 1] < 40)
    assert red.sum() > 60
    assert compose(scene, 48, lambda concept, style: None, TABLE) is None


def test_frame_centres_and_fills() -> None:
    from PIL import Image

    image = Image.new("RGBA", (100, 80))
    image.paste((0, 0, 255, 255), (10, 5, 50, 25))
    picture = frame(image, 64)
    assert picture is not None
    columns = np.flatnonzero((picture[..., 3] > 128).any(axis=0))
    rows = np.flatnonzero((picture[..., 3] > 128).any(axis=1))
    assert abs((columns[-1] - columns[0] + 1) - 0.92 * 64) <= 1.5
    assert abs((rows[-1] - rows[0] + 1) - 0.46 * 64) <= 1.5
    assert abs(columns[0] - (63 - columns[-1])) <= 1 and abs(rows[0] - (63 - rows[-1])) <= 1
    assert frame(Image.new("RGBA", (8, 8)), 16) is None


def test_resizing_leaves_no_dark_fringe() -> None:
    from PIL import Image

    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (16, 16, 48, 48))
    small = premultiplied_resize(image, (21, 21))
    assert small[small[..., 3] > 20][:, :3].min() >= 250
