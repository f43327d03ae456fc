"""Where many requests come from: JSON lines, CSV, Parquet, files of prompts; read a line at a time."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest, StableDiffusionError, brief, unknown_choice
from ..request.json import from_json
from ..request.prompt_file import PromptLine, parse_line, settings_of

Lines = Iterator[PromptLine]
PARQUET = 'Parquet files need pyarrow: pip install "stable-diffusion[parquet]"'


def read_lines(path: Path) -> Lines:
    """The lines of a file that say what to make, each with its number (from 1).

    .jsonl, .ndjson   an object of a request's settings a line, as `request.json.from_json` reads it, or a prompt in
                      quotes
    .json             a list of those
    .csv, .tsv        a heading of names of settings (ours, or those of other programs); an empty cell is not given
    .parquet          columns of those names
    .txt              a prompt a line, or `--prompt "..." --steps 20`, as A1111's script has it

    Raises InvalidRequest that names the line.
    """
    if path.suffix.lower() not in READERS:
        raise unknown_choice("kind of file", path.suffix or str(path), READERS)
    if not path.is_file():
        raise InvalidRequest(f"{str(path)!r} does not exist; expected a file of prompts")
    try:
        yield from READERS[path.suffix.lower()](path)
    except UnicodeDecodeError:
        raise InvalidRequest(f"{str(path)!r} is not text in UTF-8") from None
    except OSError as error:
        raise InvalidRequest(f"{str(path)!r} cannot be read: {error.strerror or error}") from None


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines of a text file, without empty ones."""
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line.strip()


def _prompt_file(path: Path) -> Lines:
    for number, line in _texts(path):
        if not line.startswith("#"):
            yield PromptLine(number, parse_line(line, number))


def _json_lines(path: Path) -> Lines:
    for number, line in _texts(path):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"line {number}: {brief(line, 60)!r} is not JSON: {brief(error)}") from None
        yield json_line(value, number)


def _json_list(path: Path) -> Lines:
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise InvalidRequest(f"{str(path)!r} is not JSON: {brief(error)}") from None
    if not isinstance(values, list):
        raise InvalidRequest(f"{str(path)!r} holds {type(values).__name__}; expected a list of requests")
    return (json_line(value, number) for number, value in enumerate(values, start=1))


def json_line(value: object, number: int) -> PromptLine:
    """What an object of JSON sets, checked; a text is a prompt."""
    if isinstance(value, str):
        return PromptLine(number, {"prompt": value})
    try:
        request = from_json(value)
    except InvalidRequest as error:
        raise InvalidRequest(f"line {number}: {error}") from None
    assert isinstance(value, Mapping)  # from_json takes nothing else
    given = {name: each for name, each in value.items() if each is not None}
    return PromptLine(
        number, {name: each if isinstance(each, Mapping) else getattr(request, name) for name, each in given.items()}
    )


def _table(delimiter: str) -> Callable[[Path], Lines]:
    def read(path: Path) -> Lines:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, delimiter=delimiter)
            names = [f"--{name.strip().lower().replace(' ', '_')}" for name in next(rows, [])]
            for row in rows:
                if any(cell.strip() for cell in row):
                    yield PromptLine(rows.line_num, _row(names, row, rows.line_num))

    return read


def _row(names: list[str], row: list[str], number: int) -> dict[str, Any]:
    if len(row) > len(names):
        raise InvalidRequest(f"line {number} has {len(row)} cells and the heading {len(names)}; expected no more")
    pairs = ((name, cell) for name, cell in zip(names, row, strict=False) if cell.strip())
    return settings_of(pairs, number)


def _parquet(path: Path) -> Lines:
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise StableDiffusionError(PARQUET) from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield json_line(_plain(row), number)
    except pyarrow.ArrowException as error:
        raise InvalidRequest(f"{str(path)!r} is not a Parquet file: {brief(error)}") from None


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what is not given; bytes, which are pictures, in base64."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            value = _plain(value) or None
        if value is not None:
            found[name] = base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value
    return found


READERS: Mapping[str, Callable[[Path], Iterable[PromptLine]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_list,
    ".csv": _table(","),
    ".tsv": _table("\t"),
    ".parquet": _parquet,
    ".txt": _prompt_file,
}
"""Ending of a file's name -> what reads it."""
