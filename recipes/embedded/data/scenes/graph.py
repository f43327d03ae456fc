"""The scene graph: what is in a scene, before anything is drawn. The same seed gives the same graph."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ..words import names, rows
from .landscape import GROUNDS, INDOORS, SKYLESS

RELATIONS = ("left of", "right of", "next to", "in front of", "behind", "under", "above", "on")
BACKDROPS = (
    "house",
    "castle",
    "deciduous-tree",
    "evergreen-tree",
    "hut",
    "church",
    "tent",
    "palm-tree",
    "house-with-garden",
)
SHELTERS = ("deciduous-tree", "palm-tree", "umbrella-on-ground")
PERCHES = ("house", "automobile", "tractor", "horse", "elephant", "bus")
PERCHERS = ("bird", "cat", "owl", "rooster", "rabbit", "penguin", "dog")
SMALL = 84  # height at or under which a thing can be under or in front of another
WEATHER_ODDS = {
    "dawn": (("clear", 7), ("clouds", 2), ("fog", 2)),
    "noon": (("clear", 6), ("clouds", 5), ("rain", 3), ("snow", 3), ("storm", 1), ("fog", 2), ("rainbow", 3)),
    "sunset": (("clear", 8), ("clouds", 3)),
    "night": (("clear", 9), ("clouds", 1), ("aurora", 2), ("rain", 1), ("snow", 2), ("storm", 2)),
}
TIME_ODDS = (("noon", 5), ("sunset", 4), ("night", 3), ("dawn", 2))
GROUND_ODDS = (
    ("ocean", 7), ("beach", 5), ("mountains", 4), ("forest", 4), ("hills", 3), ("desert", 3), ("field", 4),
    ("snowfield", 3), ("city", 4), ("lake", 3), ("road", 2), ("island", 2), ("underwater", 2), ("space", 3),
    ("river", 3), ("waterfall", 3), ("volcano", 2), ("jungle", 2), ("canyon", 2), ("cave", 1), ("arctic", 2),
    ("garden", 3), ("park", 3), ("farm", 3), ("village", 3), ("winter village", 2), ("harbour", 2), ("street", 2),
    ("room", 2),
)  # fmt: skip
PLACED_GROUND_ODDS = (
    ("field", 5), ("hills", 3), ("forest", 3), ("beach", 3), ("snowfield", 3), ("ocean", 4), ("desert", 2),
    ("mountains", 2), ("city", 3), ("road", 3), ("lake", 2), ("underwater", 3), ("space", 3), ("river", 1),
    ("waterfall", 1), ("volcano", 1), ("jungle", 2), ("canyon", 1), ("cave", 1), ("arctic", 1), ("garden", 3),
    ("park", 3), ("farm", 3), ("village", 2), ("winter village", 1), ("harbour", 1), ("street", 2), ("room", 4),
)  # fmt: skip
HOT = ("desert", "beach", "volcano", "canyon", "jungle")
MILD = (*HOT, "farm", "garden", "city", "road", "forest", "hills", "field", "park", "village", "river", "waterfall")
DRY_OR_COLD = ("desert", "snowfield", "city", "road", "mountains", "canyon", "volcano", "street")
DRY_WEATHER = {
    "desert": ("rain", "snow", "storm", "fog"),
    "snowfield": ("rain", "storm"),
    "beach": ("snow",),
    "ocean": ("snow",),
    "island": ("snow", "fog"),
    "waterfall": ("snow",),
    "jungle": ("snow", "aurora", "rainbow"),
    "canyon": ("rain", "snow", "storm", "fog"),
    "winter village": ("rain", "storm", "rainbow"),
    "arctic": ("rain", "storm", "rainbow"),
    "volcano": ("snow", "rainbow", "fog"),
    "river": ("snow",),
    "harbour": ("snow",),
}


@dataclass(frozen=True, kw_only=True)
class Placeable:
    """A concept that can stand in a scene: where it belongs, its height in canvas units, its names there."""

    concept: str
    habitat: str
    height: float
    english: tuple[str, ...]
    chinese: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Thing:
    """So many of one concept, one to three."""

    concept: str
    count: int = 1


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A scene graph. With two things the first stands in `relation` to the second. `style` is the art of the things;
    `large` draws the one thing that there is at half the picture's height or more."""

    time: str
    weather: str
    ground: str
    moon: str = "none"
    things: tuple[Thing, ...] = ()
    relation: str | None = None
    style: str | None = None
    seed: str = "0"
    large: bool = False

    @property
    def triple(self) -> tuple[str, str, str] | None:
        """(relation, first, second) for the held-out split; None without a relation."""
        return None if self.relation is None else (self.relation, self.things[0].concept, self.things[1].concept)


def read_placeables() -> dict[str, Placeable]:
    """words/placeable.tsv by concept."""
    return {
        concept: Placeable(concept=concept, habitat=habitat, height=float(height), english=names(en), chinese=names(zh))
        for concept, habitat, height, en, zh in rows("placeable.tsv")
        if habitat != "none"
    }


def pick(source: random.Random, odds: tuple[tuple[str, int], ...]) -> str:
    """One name by its odds."""
    return source.choices([name for name, _ in odds], [weight for _, weight in odds])[0]


def sample_backdrop(source: random.Random, odds: tuple[tuple[str, int], ...]) -> tuple[str, str, str, str]:
    """(time, weather, ground, moon) that go together."""
    ground, time = pick(source, odds), pick(source, TIME_ODDS)
    if ground == "space":
        return "night", "clear", ground, "none"
    if ground == "underwater":
        return source.choice(("noon", "noon", "noon", "night")), "clear", ground, "none"
    if ground in INDOORS:
        return source.choice(("noon", "noon", "sunset", "night")), "clear", ground, "none"
    refused = DRY_WEATHER.get(ground, ())
    weather = pick(source, tuple(entry for entry in WEATHER_ODDS[time] if entry[0] not in refused))
    moon = (
        source.choice(("full", "crescent", "full", "crescent", "none"))
        if time == "night" and weather in ("clear", "clouds")
        else "none"
    )
    return time, weather, ground, moon


def things_for(*listed: str) -> frozenset[str]:
    """Concepts from words."""
    return frozenset(" ".join(listed).split())


BUILDINGS = things_for("house castle church tent hut house-with-garden automobile bus tractor")
COLD = ("arctic", "winter village")
COLD_THINGS = things_for("penguin snowman dog rabbit deer bear polar-bear fox seal cat evergreen-tree christmas-tree")
CAVE_THINGS = things_for("bear dragon t-rex snake robot ghost cat dog")
JUNGLE_THINGS = things_for("tiger elephant monkey leopard snake gorilla frog parrot crocodile giraffe turtle butterfly")
FARM_THINGS = things_for("cow horse pig ewe goat rooster dog cat rabbit tractor deciduous-tree sunflower")
GARDEN_THINGS = things_for("dog cat rabbit snail turtle deciduous-tree rooster frog rose sunflower tulip")
ROOM_SMALL = things_for("dog cat rabbit turtle penguin robot snail parrot")


def natural(concept: str, ground: str) -> bool:
    """Whether a thing may stand on this ground: no penguins in the desert, no snowmen on the beach."""
    wrong = {
        "penguin": ("desert", "forest", "city", "road", "hills", "field", "canyon", "volcano", "waterfall", "river"),
        "snowman": ("desert", "beach", "road", "field", "canyon", "volcano", "waterfall", "river"),
        "camel": ("snowfield", "forest", "city"),
        "cactus": ("snowfield", "forest", "city", "beach"),
        "umbrella-on-ground": ("snowfield", "forest", "city", "mountains", "desert"),
        "palm-tree": ("snowfield", "mountains", "forest"),
        "dolphin": ("lake",), "whale": ("lake",), "ship": ("lake",), "duck": ("ocean",), "swan": ("ocean",),
        "bear": HOT, "polar-bear": MILD, "seal": (*MILD, "mountains"), "monkey": DRY_OR_COLD, "gorilla": DRY_OR_COLD,
        "parrot": DRY_OR_COLD, "crocodile": DRY_OR_COLD, "frog": DRY_OR_COLD, "fox": ("desert", "beach"),
        "snake": ("snowfield", "beach", "city", "road"),
        "christmas-tree": ("desert", "beach"), "giraffe": ("snowfield", "beach"), "elephant": ("snowfield", "beach"),
    }  # fmt: skip
    if ground in COLD:
        return concept in COLD_THINGS
    if ground in ("cave", "jungle", "garden") and concept in BUILDINGS:
        return False
    likely = {"cave": CAVE_THINGS, "jungle": JUNGLE_THINGS, "farm": FARM_THINGS, "garden": GARDEN_THINGS}.get(ground)
    return (likely is None or concept in likely) and ground not in wrong.get(concept, ())


def sample_relation(
    source: random.Random, ground: str, table: dict[str, Placeable]
) -> tuple[tuple[Thing, ...], str | None]:
    """One or two things that fit the ground, and their relation."""
    habitat = GROUNDS[ground].habitat
    homes = {"street": ("street", "street", "land"), "indoor": ("land", "indoor")}.get(habitat, (habitat,))
    local = [p for p in table.values() if p.habitat in homes and natural(p.concept, ground)]
    if habitat == "indoor":
        local = [p for p in local if p.habitat == "indoor" or p.concept in ROOM_SMALL]
    flying = [p for p in table.values() if p.habitat == "sky"]
    first = source.choice(local)
    roll = source.random()
    if ground == "space":
        local = [*local, table["rocket"], table["flying-saucer"]]
        first = source.choice(local)
    if roll < 0.5 or (habitat == "street" and roll < 0.6):
        if ground not in SKYLESS + INDOORS and source.random() < 0.18:
            first = source.choice(flying)
        return (
            Thing(concept=first.concept, count=source.choice((1, 1, 1, 2, 2, 3)) if first.height < 105 else 1),
        ), None
    if ground not in SKYLESS + INDOORS and source.random() < 0.2:
        return (Thing(concept=source.choice(flying).concept), Thing(concept=first.concept)), "above"
    small = [p for p in local if p.height <= SMALL]
    if habitat == "land" and small and source.random() < 0.6:
        kind = source.choice(("under", "in front of", "behind", "on"))
        seconds = [c for c in {"under": SHELTERS, "on": PERCHES}.get(kind, BACKDROPS) if natural(c, ground)]
        firsts = [p.concept for p in small] if kind != "on" else [c for c in PERCHERS if natural(c, ground)]
        if seconds and kind == "behind":
            return (Thing(concept=source.choice(seconds)), Thing(concept=source.choice(firsts))), kind
        count = source.choice((1, 1, 2)) if kind == "under" else 1
        a, b = source.choice(firsts or [""]), source.choice(seconds or [""])
        if a != b and a and b:
            return (Thing(concept=a, count=count), Thing(concept=b)), kind
    second = source.choice([p for p in local if p.concept != first.concept])
    return (Thing(concept=first.concept), Thing(concept=second.concept)), source.choice(
        ("left of", "right of", "next to")
    )


def sample_scene(seed: str, placed: bool, table: dict[str, Placeable]) -> Scene:
    """The scene of a seed: a landscape, or with `placed` one with one or two things in it."""
    source = random.Random(seed)
    time, weather, ground, moon = sample_backdrop(source, PLACED_GROUND_ODDS if placed else GROUND_ODDS)
    things, relation = sample_relation(source, ground, table) if placed else ((), None)
    style = source.choice(("flat", "flat", "emoji", "3d", "cartoon")) if placed else None
    return Scene(
        time=time, weather=weather, ground=ground, moon=moon, things=things, relation=relation, style=style, seed=seed
    )


def sample_large(seed: str, table: dict[str, Placeable]) -> Scene:
    """A scene of a seed with one thing in it, drawn large, by one of the two hands that have the same shapes."""
    source = random.Random(seed)
    time, weather, ground, moon = sample_backdrop(source, PLACED_GROUND_ODDS)
    things, _ = sample_relation(source, ground, table)
    return Scene(
        time=time,
        weather=weather,
        ground=ground,
        moon=moon,
        things=(Thing(concept=things[0].concept),),
        style=source.choice(("flat", "3d")),
        seed=seed,
        large=True,
    )
