"""Files of requests of every kind, and what is said of wrong ones."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from stable_diffusion import Request
from stable_diffusion.bulk.plan import Shard, requests_of
from stable_diffusion.bulk.read import read_lines
from stable_diffusion.errors import InvalidRequest
from stable_diffusion.request.axes import Axis
from stable_diffusion.request.json import picture_base64

CAT = Request('a cat, "red"', steps=7, seed=3, hires={"scale": 1.5})
DOG = Request("a dog", negative_prompt="blurry", guidance=5.0, seed=4)


def read(path: Path, text: str | bytes, **base: object) -> list[Request]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [line.request(**base) for line in read_lines(path)]


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    cat = {"prompt": 'a cat, "red"', "steps": 7, "seed": 3, "hires": {"scale": 1.5}}
    dog = {"prompt": "a dog", "negative_prompt": "blurry", "guidance": 5, "seed": 4, "steps": None}
    lines = f"{json.dumps(cat)}\n\n{json.dumps(dog)}\n"
    assert read(tmp_path / "a.jsonl", "\ufeff" + lines) == [CAT, DOG]
    assert read(tmp_path / "a.json", json.dumps([cat, dog])) == [CAT, DOG]
    table = 'Prompt,negative_prompt,steps,cfg_scale,seed,hires\n"a cat, ""red""",,7,,3,1.5\n\n a dog ,blurry,,5,4,\n'
    assert read(tmp_path / "a.csv", table) == [CAT, DOG]
    assert read(tmp_path / "a.tsv", "prompt\tseed\na dog\t4\n") == [Request("a dog", seed=4)]
    a1111 = "# two\n--prompt 'a cat, \"red\"' --steps 7 --seed 3 --hires 1.5\n"
    a1111 += '--prompt "a dog" --negative_prompt "blurry" --cfg_scale 5 --seed 4 --outpath_samples x\n'
    assert read(tmp_path / "a.txt", a1111) == [CAT, DOG]
    assert read(tmp_path / "b.jsonl", '"a dog"') == [Request("a dog")]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    rows = [{"prompt": "a cat", "steps": 7, "image": file.getvalue(), "hires": None},
            {"prompt": "a dog", "steps": None, "image": None, "hires": {"scale": 1.5, "steps": None}}]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    cat, dog = (line.request() for line in read_lines(tmp_path / "a.parquet"))
    assert cat.steps == 7 and cat.image is not None and cat.image.getpixel((0, 0)) == (255, 0, 0)
    assert dog == Request("a dog", hires={"scale": 1.5})
    with pytest.raises(InvalidRequest, match="is not a Parquet file"):
        read(tmp_path / "b.parquet", b"PAR1 nonsense")


def test_a_line_goes_before_what_holds_for_all(tmp_path: Path) -> None:
    lines = '{"prompt": "a", "steps": 3, "hires": {"steps": 2}}\n"b"\n'
    found = read(tmp_path / "a.jsonl", lines, steps=9, guidance=2.0, hires={"scale": 2.0, "steps": 5})
    assert found[0] == Request("a", steps=3, guidance=2.0, hires={"scale": 2.0, "steps": 2})
    assert found[1] == Request("b", steps=9, guidance=2.0, hires={"scale": 2.0, "steps": 5})


def test_pictures_in_lines(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 8), "blue")
    image.save(tmp_path / "blue.png")
    inside, named = (
        {"prompt": "a", "image": picture_base64(image)},
        {"prompt": "a", "image": str(tmp_path / "blue.png")},
    )
    one, two = read(tmp_path / "a.jsonl", f"{json.dumps(inside)}\n{json.dumps(named)}")
    assert one.image is not None and two.image is not None and one.image.tobytes() == two.image.tobytes()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.jsonl", '"a"\n{"prompt": "a", "stebs": 3}', ["line 2", "steps"]),
        ("a.jsonl", '{"prompt": "a", "steps": "many"}', ["line 1", "steps"]),
        ("a.jsonl", '{"steps": 3}', ["line 1", "no prompt"]),
        ("a.jsonl", "{nonsense", ["line 1", "not JSON"]),
        ("a.jsonl", "[" * 100_000, ["line 1", "not JSON"]),
        ("a.jsonl", "7", ["line 1", "int"]),
        ("a.json", '{"prompt": "a"}', ["expected a list"]),
        ("a.json", "nonsense", ["not JSON"]),
        ("a.csv", "prompt,stebs\na,3\n", ["line 2", "--steps"]),
        ("a.csv", "prompt,steps\na,many\n", ["line 2", "'many'"]),
        ("a.csv", "prompt\na,b\n", ["line 2", "2 cells"]),
        ("a.csv", "steps\n3\n", ["line 2", "no --prompt"]),
        ("a.txt", "--steps 3", ["line 1", "no --prompt"]),
        ("a.txt", b"\xff\xfe", ["not text in UTF-8"]),
        ("a.yaml", "x", ["did you mean", ".jsonl"]),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, name: str, text: str | bytes, words: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(tmp_path / name, text)
    if name != "a.yaml":
        assert all(word in str(caught.value) for word in words), caught.value
    else:
        assert ".jsonl" in str(caught.value)
    with pytest.raises(InvalidRequest, match="does not exist"):
        list(read_lines(tmp_path / "missing.csv"))


def test_axes_and_seeds() -> None:
    from stable_diffusion.request.prompt_file import PromptLine

    lines = [PromptLine(1, {"prompt": "a cat"}), PromptLine(2, {"prompt": "a cat"}), PromptLine(3, {"prompt": "a dog"})]
    axes = [Axis.parse("steps=5,10"), Axis.parse("cfg=1-3")]
    found = list(requests_of(lines, {}, axes))
    assert [(number, request.steps, request.guidance) for number, request in found][:7] == [
        *((1, steps, guidance) for steps in (5, 10) for guidance in (1, 2, 3)),
        (2, 5, 1),
    ]
    seeds = [request.seed for _, request in found]
    assert len(set(seeds)) == 18 and None not in seeds  # a line that occurs again has seeds of its own
    assert [request.seed for _, request in requests_of(lines, {}, axes)] == seeds
    later = [request.seed for _, request in requests_of([PromptLine(9, {"prompt": "new"}), *lines], {}, axes)]
    assert later[6:] == seeds  # and a line more changes no other's
    replaced = requests_of([PromptLine(1, {"prompt": "a red cat"})], {"seed": 1}, [Axis.parse("prompt=red,blue")])
    assert [request.prompt for _, request in replaced] == ["a red cat", "a blue cat"]


def test_shards_share_everything_out() -> None:
    import hashlib

    digests = [hashlib.sha256(bytes([n])).hexdigest() for n in range(200)]
    parts = [[digest for digest in digests if Shard(n, 3).has(digest)] for n in (1, 2, 3)]
    assert sorted(itertools.chain(*parts)) == sorted(digests) and min(map(len, parts)) > 40
    assert Shard.parse("3/64") == Shard(3, 64)
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0", "-1/3"):
        with pytest.raises(InvalidRequest, match="third of 64 parts"):
            Shard.parse(wrong)
