"""Other words for the things we draw: a lexicon from WordNet, so that "a mallard" means the pictures of a duck.

Every noun of WordNet (Fellbaum 1998) that lies near one of our concepts in its graph of kinds is given to the nearest
one: its own other names first, then its kinds ("mallard" under "duck"), then what it is a kind of or beside. A lexicon
is a table of (word, the name that captions use); the text stage trains on it beside the captions.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

from .concepts import Concept
from .glyphs import Glyph
from .nouns import Noun

FILES_OF_GROUP = {"animal": ("05",), "food": ("13", "20"), "plant": ("20", "13"), "person": ("18",), "family": ("18",)}
"""Part of the emoji list before the hyphen -> the files of WordNet that hold its things (`lexnames` of its manual)."""
DRAWABLE = ("05", "06", "08", "13", "17", "19", "20", "25")
"""The same for all else: animal, artifact, body, food, object, phenomenon, plant, shape."""
FARTHEST = 3
PER_CONCEPT = 60
SPECIFIC = 10
"""A thing's own kind and its cousins count only where that kind has at most so many kinds: no "bird" is a penguin."""


@dataclass(eq=False, kw_only=True)
class Synset:
    """One meaning: its words, its file, what it is a kind of, and its kinds."""

    words: tuple[str, ...]
    file: str
    above: tuple[str, ...]
    below: tuple[str, ...]


@dataclass(eq=False, kw_only=True)
class WordNet:
    """The nouns. senses: word -> meanings, the most frequent first; frequency: (word, meaning) -> count in texts."""

    synsets: dict[str, Synset]
    senses: dict[str, list[str]]
    frequency: dict[tuple[str, str], int] = field(default_factory=dict)


def read_wordnet(folder: Path) -> WordNet:
    """Read data.noun and index.sense from WordNet's `dict` folder (formats: its manual pages wndb and senseidx)."""
    synsets = {}
    for line in (folder / "data.noun").read_text("utf-8").splitlines():
        if not line.startswith("  "):  # the licence stands at the head, indented
            offset, synset = _synset(line)
            synsets[offset] = synset
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    frequency = {}
    for line in (folder / "index.sense").read_text("utf-8").splitlines():
        key, offset, rank, count = line.split()
        word, _, rest = key.partition("%")
        if rest.startswith("1:"):  # nouns
            found[_plain(word)].append((int(rank), offset))
            frequency[_plain(word), offset] = int(count)
    senses = {word: [offset for _, offset in sorted(entries)] for word, entries in found.items()}
    return WordNet(synsets=synsets, senses=senses, frequency=frequency)


def _synset(line: str) -> tuple[str, Synset]:
    fields = line.partition(" | ")[0].split()
    count = int(fields[3], 16)
    words = tuple(_plain(word) for word in fields[4 : 4 + 2 * count : 2] if word.islower())  # no names, no Latin genus
    pointers = fields[5 + 2 * count :]
    above, below = [], []
    for kind, offset, part in zip(pointers[0::4], pointers[1::4], pointers[2::4], strict=False):
        if part == "n" and kind in ("@", "~"):
            (above if kind == "@" else below).append(offset)
    return fields[0], Synset(words=words, file=fields[1], above=tuple(above), below=tuple(below))


def _plain(word: str) -> str:
    return word.replace("_", " ").lower()


def meaning(net: WordNet, name: str, group: str) -> str | None:
    """The synset of a thing: the most frequent sense of its name that suits its part of the emoji list.

    Where none suits, an animal, plant, food or person has None, anything else ("fire", an event) its first sense.
    """
    kind, senses = group.partition("-")[0], net.senses.get(name.lower(), ())
    files = FILES_OF_GROUP.get(kind, DRAWABLE)
    found = next((offset for offset in senses if net.synsets[offset].file in files), None)
    return found if found is not None or kind in FILES_OF_GROUP or not senses else senses[0]


def nearest(net: WordNet, seeds: Mapping[str, str], farthest: int = FARTHEST) -> dict[str, tuple[int, str]]:
    """Every synset within reach -> (distance, name of the nearest seed). seeds: synset -> name.

    A step down to a kind costs 1. What a seed is itself a kind of costs 3, and that one's other kinds 4, so that a kind
    of the thing itself always wins over its cousins.
    """
    best: dict[str, tuple[int, str]] = {}
    queue = [(0, name, offset) for offset, name in seeds.items()]
    heapq.heapify(queue)
    while queue:
        distance, name, offset = heapq.heappop(queue)
        if offset in best or distance > farthest:
            continue
        best[offset] = (distance, name)
        synset = net.synsets[offset]
        steps = [(1, kind) for kind in synset.below]
        if distance == 0:
            for kind in synset.above:
                cousins = net.synsets[kind].below
                if len(cousins) <= SPECIFIC and net.synsets[kind].file == synset.file:
                    steps += [(3, kind), *((4, cousin) for cousin in cousins)]
        for cost, other in steps:
            heapq.heappush(queue, (distance + cost, name, other))
    return best


def usual(net: WordNet, word: str, offset: str, distance: int) -> bool:
    """Whether a reader takes `word` in this sense: one of its first two (its own synset: four), and no Latin name."""
    if distance == 0:
        return offset in net.senses[word][:4]
    return offset in net.senses[word][:2] and (" " not in word or net.frequency.get((word, offset), 0) > 0)


def lexicon(net: WordNet, concepts: Iterable[Concept], glyphs: Iterable[Glyph | Noun] = ()) -> list[tuple[str, str]]:
    """(word, the name that captions use) pairs, sorted; Chinese names too. No word is a main name of our own."""
    things = list(_things(concepts, glyphs))
    main = {names[0] for names, _, _ in things}
    pairs: dict[str, str] = {}
    seeds: dict[str, str] = {}
    for place in range(max(len(names) for names, _, _ in things)):  # main names first, then second names, ...
        for names, _, group in things:
            offset = meaning(net, names[place], group) if place < len(names) else None
            if offset is not None:
                seeds.setdefault(offset, names[place])
    for names, chinese, _ in things:
        for other in (*names[1:], *chinese):
            pairs.setdefault(other, names[0])
    by_name: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for offset, (distance, name) in nearest(net, seeds).items():
        for word in net.synsets[offset].words:
            if usual(net, word, offset, distance) and word != name:
                by_name[name].append((distance, -net.frequency.get((word, offset), 0), word))
    for name, words in by_name.items():
        for _, _, word in sorted(words)[:PER_CONCEPT]:
            pairs.setdefault(word, name)
    return sorted((word, _main_name(name, pairs, main)) for word, name in pairs.items() if word not in main)


def _main_name(name: str, pairs: Mapping[str, str], main: Set[str]) -> str:
    """The main name of what a second name means: "espresso" is a kind of "coffee", which captions call a cup of it."""
    return name if name in main else pairs[name]


def unplaced(net: WordNet, known: Iterable[str]) -> list[str]:
    """Single nouns in use that no thing of ours lies near; the text stage asks its teacher what they are like."""
    taken = set(known)
    words = {
        word
        for word, senses in net.senses.items()
        if word.isalpha() and 2 < len(word) < 16 and word not in taken and word in net.synsets[senses[0]].words
        if net.frequency[word, senses[0]] > 0  # of a rare word the teacher knows little but how it is spelt
    }
    return sorted(words)


def lexicon_lines(root: Path, concepts: Iterable[Concept], glyphs: Iterable[Glyph | Noun]) -> list[str]:
    """Rows of lexicon.tsv: word, tab, the name that captions use, or nothing where none is near."""
    net = read_wordnet(root / "dict")
    concepts, glyphs = list(concepts), list(glyphs)
    pairs = lexicon(net, concepts, glyphs)
    main = {names[0] for names, _, _ in _things(concepts, glyphs)}
    rest = unplaced(net, main | {word for word, _ in pairs})
    return [f"{word}\t{name}" for word, name in pairs] + [f"{word}\t" for word in rest]


def _things(
    concepts: Iterable[Concept], glyphs: Iterable[Glyph | Noun]
) -> Iterable[tuple[tuple[str, ...], tuple[str, ...], str]]:
    for concept in concepts:
        yield concept.english, concept.chinese, concept.group
    for glyph in glyphs:
        yield glyph.english, glyph.chinese, ""
