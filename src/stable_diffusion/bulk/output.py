"""What a bulk run leaves: a manifest with a line for each picture, and tar files where they are wanted."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..atomic import whole_file
from ..jobs.database import Database, sqlalchemy
from ..jobs.records import FINISHED, Job, Picture
from ..jobs.store import JobStore

MANIFEST, TWINS = "manifest.jsonl", "twins.tsv"
PAGE = 500


class BulkOutput:
    """The pictures of a folder, in the order of their lines.

    tar   pictures' jobs a tar file; 0 leaves the pictures as files
    """

    def __init__(self, store: JobStore, folder: Path, tar: int = 0) -> None:
        self.store, self.database, self.folder, self.tar = store, store.database, folder, tar

    def finish(self, *, over: bool) -> None:
        """Packs what is complete, or everything where the run is `over`, and writes the manifest."""
        if self.tar:
            self.pack(over=over)
        self.write_manifest()

    def write_manifest(self) -> None:
        """One line of JSON for each picture and each job without any, whole or not at all."""
        with whole_file(self.folder / MANIFEST) as file:
            for index, job, pictures in self._jobs():
                for row in self._rows(index, job, pictures):
                    file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            for line in self._twins():
                file.write(json.dumps(line).encode() + b"\n")

    def pack(self, *, over: bool) -> int:
        """Tar files in webdataset's form: for each picture KEY.png and KEY.json; returns how many were written.

        A file that is in its tar is removed from the folder; a tar that gets more pictures is written again, whole.
        """
        group: list[tuple[Job, Picture]] = []
        written, ended = 0, True
        for index, job, pictures in self._jobs():
            group += [(job, picture) for picture in pictures]
            ended = ended and job.state in FINISHED
            if (index + 1) % self.tar == 0:
                written += self._pack(index // self.tar, group) if ended else 0
                group, ended = [], True
        if group and over:
            written += self._pack((self.store.total() - 1) // self.tar, group)
        return written

    def _pack(self, number: int, group: list[tuple[Job, Picture]]) -> int:
        path, loose = self.tar_path(number), [self.folder / picture.file for _, picture in group]
        if not any(each.is_file() for each in loose):
            return 0
        known = _members(path)
        with whole_file(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
            for job, picture in group:
                place = self.folder / picture.file
                data = place.read_bytes() if place.is_file() else known.get(place.name)
                if data is not None:
                    _add(tar, place.name, data)
                    _add(tar, f"{place.stem}.json", json.dumps(request_of(job, picture), ensure_ascii=False).encode())
        for each in loose:
            each.unlink(missing_ok=True)
            with suppress(OSError):
                each.parent.rmdir()  # once it is empty
        return 1

    def tar_path(self, number: int) -> Path:
        return self.folder / f"pictures-{number:05d}.tar"

    def _rows(self, index: int, job: Job, pictures: list[Picture]) -> Iterator[dict[str, Any]]:
        base = {"line": int(job.label), "request_hash": job.request_hash, "state": job.state}
        if not pictures or job.state != "done":
            yield {**base, "request": dict(job.body), "error": job.error}
        for picture in pictures:
            place: dict[str, Any] = {"file": picture.file}
            if self.tar and not (self.folder / picture.file).is_file():
                place = {"file": self.tar_path(index // self.tar).name, "member": Path(picture.file).name}
            found: dict[str, Any] = {
                "number": picture.number,
                "seed": picture.seed,
                "sha256": picture.sha256,
                "bytes": picture.bytes,
            }
            found |= {"width": picture.width, "height": picture.height, "seconds": round(picture.seconds, 3)}
            found |= {"finished": picture.created, "attempts": job.attempts, "worker": job.worker}
            yield {**base, **place, **found, "notes": list(job.notes), "request": request_of(job, picture)}

    def _twins(self) -> Iterator[dict[str, int | str]]:
        """Lines that ask for what another line asks for."""
        path = self.folder / TWINS
        if path.is_file():
            with path.open(encoding="utf-8") as file:
                for text in file:
                    line, same = text.split("\t")
                    yield {"line": int(line), "state": "twin", "same_as_line": int(same)}

    def _jobs(self) -> Iterator[tuple[int, Job, list[Picture]]]:
        """Place, job and its pictures, in the order of planning; a few at a time in memory."""
        last, index = -1, 0
        while jobs := self.store.jobs(limit=PAGE, before=last, oldest_first=True):
            pictures = pictures_of(self.database, [job.id for job in jobs])
            for job in jobs:
                yield index, job, pictures.get(job.id, [])
                index += 1
            last = jobs[-1].seq


def request_of(job: Job, picture: Picture) -> dict[str, Any]:
    """The request that makes one picture alone."""
    body = {name: value for name, value in job.body.items() if name != "count"}
    variation = body.get("variation")
    if isinstance(variation, Mapping) and variation.get("strength"):
        return body | {"variation": {**variation, "seed": variation["seed"] + picture.number}}
    return body | {"seed": picture.seed}


def pictures_of(database: Database, jobs: list[str]) -> dict[str, list[Picture]]:
    """The pictures of some jobs, by job and number."""
    sa, table = sqlalchemy(), database.pictures
    found: dict[str, list[Picture]] = {}
    with database.read() as connection:
        query = sa.select(table).where(table.c.job.in_(jobs)).order_by(table.c.job, table.c.number)
        for row in connection.execute(query):
            values = {**row._mapping, "seed": None if row.seed is None else int(row.seed)}
            found.setdefault(row.job, []).append(Picture(**values))
    return found


def _members(path: Path) -> dict[str, bytes]:
    """What is in a tar file already, by name."""
    if not path.is_file():
        return {}
    with tarfile.open(path) as tar:
        read = ((member.name, tar.extractfile(member)) for member in tar.getmembers())
        return {name: file.read() for name, file in read if file is not None}


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """A member without times and owners, so that equal pictures make equal files."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
