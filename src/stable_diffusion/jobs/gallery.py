"""Finished pictures: found, starred, deleted with a way back, and read by their id."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from ..atomic import whole_file
from ..images import thumbnail_bytes
from ..request.metadata_read import read_text, written_text
from ..request.request import Request
from .database import Database, sqlalchemy
from .errors import UnknownPicture
from .files import NAME, THUMBNAIL, DataFolder, picture_id, sha256
from .records import Limits, Picture

Ids: TypeAlias = list[str]
Found: TypeAlias = list[Picture]
Change: TypeAlias = Callable[[str, str, str], None]
"""Called with (picture's id, its owner, what happened: "starred", "deleted", "restored", "purged")."""


class Gallery:
    """The pictures of a folder. What a picture's row says is written once; files are never changed."""

    def __init__(
        self, database: Database, folder: DataFolder, limits: Limits | None = None, changed: Change | None = None
    ) -> None:
        self.database, self.folder = database, folder
        self.limits, self._changed = Limits() if limits is None else limits, changed

    def list(
        self,
        *,
        owner: str | None = None,
        search: str = "",
        starred: bool | None = None,
        deleted: bool = False,
        job: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Found:
        """Pictures, the newest first; of one job by number, and then those that were not to be saved too.

        search    words that must all occur in the prompt or the settings
        deleted   the bin instead of the gallery
        """
        query = self._where(sqlalchemy().select(self.database.pictures), owner, search, starred, deleted, job)
        pictures = self.database.pictures
        order = [pictures.c.number] if job is not None else [pictures.c.created.desc(), pictures.c.id.desc()]
        with self.database.read() as connection:
            rows = connection.execute(query.order_by(*order).limit(limit).offset(offset)).all()
        return [self._picture(row) for row in rows]

    def count(
        self, *, owner: str | None = None, search: str = "", starred: bool | None = None, deleted: bool = False
    ) -> int:
        """How many pictures `list` would give without a limit."""
        sa = sqlalchemy()
        query = sa.select(sa.func.count()).select_from(self.database.pictures)
        with self.database.read() as connection:
            found: int = connection.execute(self._where(query, owner, search, starred, deleted, None)).scalar_one()
        return found

    def picture(self, picture: str) -> Picture:
        """The row of a picture; UnknownPicture where there is none."""
        sa, pictures = sqlalchemy(), self.database.pictures
        with self.database.read() as connection:
            row = connection.execute(sa.select(pictures).where(pictures.c.id == picture)).one_or_none()
        if row is None:
            raise UnknownPicture(f"there is no picture {str(picture)[:80]!r}")
        return self._picture(row)

    def read(self, picture: str) -> bytes:
        """The bytes of its file, as they were written; UnknownPicture where row or file is missing."""
        found = self.picture(picture)
        data = self.folder.read(self._place(found)) or self.folder.read(found.file)
        if data is None:
            raise UnknownPicture(f"the file of the picture {picture!r} is missing")
        return data

    def thumbnail(self, picture: str) -> bytes:
        """A WebP of at most 256 pixels a side, made when it is first asked for."""
        path = self.folder.thumb_path(self.picture(picture).id)
        with suppress(OSError):
            return path.read_bytes()
        from PIL import Image

        try:
            with Image.open(io.BytesIO(self.read(picture))) as image:
                data = thumbnail_bytes(image, THUMBNAIL)
        except (OSError, SyntaxError, ValueError) as error:
            raise UnknownPicture(f"the file of the picture {picture!r} is damaged") from error
        with suppress(OSError), whole_file(path) as file:
            file.write(data)
        return data

    def request_of(self, picture: str) -> tuple[Request, tuple[str, ...]]:
        """The request that is written in the picture, and notes on what its text does not hold."""
        found = read_text(Request, self.picture(picture).parameters)
        return found.request, tuple(found.notes)

    def star(self, pictures: Iterable[str], starred: bool = True) -> Ids:
        """Stars pictures, or takes the star away; returns the ids of those that there are."""
        return self._update(pictures, "starred", {"starred": int(starred)})

    def delete(self, pictures: Iterable[str]) -> Ids:
        """Moves pictures to the bin, from which `restore` brings them back within 30 days."""
        return self._move(pictures, time.time(), "deleted")

    def restore(self, pictures: Iterable[str]) -> Ids:
        """Brings pictures back from the bin."""
        return self._move(pictures, None, "restored")

    def purge(self, pictures: Iterable[str] | None = None) -> Ids:
        """Removes pictures of the bin for good: those named, or those that have been there for 30 days, and pictures
        that were not to be saved once their time is over."""
        sa, table, now = sqlalchemy(), self.database.pictures, time.time()
        old = table.c.deleted < now - self.limits.bin_days * 86400
        passed = (table.c.saved == 0) & (table.c.created < now - self.limits.unsaved)
        named = table.c.deleted.is_not(None) & table.c.id.in_(list(pictures or ()))
        with self.database.read() as connection:
            query = sa.select(table).where(old | passed if pictures is None else named)
            gone = [self._picture(row) for row in connection.execute(query)]
        for each in gone:
            for path in (self.folder.path / self._place(each), self.folder.thumb_path(each.id)):
                path.unlink(missing_ok=True)
        with self.database.write() as connection:
            for each in gone:
                connection.execute(sa.delete(table).where(table.c.id == each.id))
        self._tell(gone, "purged")
        return [each.id for each in gone]

    def rebuild(self) -> int:
        """Rows for picture files that have none, as after the loss of the database; returns how many.

        Damaged files get a row too, without settings, so that they are seen.
        """
        sa, table, found = sqlalchemy(), self.database.pictures, 0
        with self.database.read() as connection:
            known = set(connection.execute(sa.select(table.c.file)).scalars())
        for root, deleted in ((self.folder.pictures, None), (self.folder.trash, time.time())):
            for path in sorted(root.rglob("*")):
                named, name = NAME.fullmatch(path.name), f"pictures/{path.relative_to(root).as_posix()}"
                if named is None or name in known or not path.is_file():
                    continue
                row = _row_of_file(path.read_bytes(), path.stat().st_mtime)
                row |= {"id": picture_id(named["job"], int(named["number"])), "job": named["job"]}
                row |= {"number": int(named["number"]), "file": name, "deleted": deleted, "format": _kind(named)}
                with self.database.write() as connection:
                    connection.execute(sa.delete(table).where(table.c.id == row["id"]))
                    connection.execute(sa.insert(table).values(**row))
                found += 1
        return found

    def _where(self, query: Any, owner: Any, search: str, starred: Any, deleted: bool, job: Any) -> Any:
        sa, table = sqlalchemy(), self.database.pictures
        query = query.where(table.c.deleted.is_not(None) if deleted else table.c.deleted.is_(None))
        query = query.where(table.c.saved == 1) if job is None else query.where(table.c.job == job)
        if owner is not None:
            query = query.where(table.c.owner == owner)
        if starred is not None:
            query = query.where(table.c.starred == int(starred))
        for word in search.split():
            query = query.where(sa.func.lower(table.c.parameters).contains(word.lower(), autoescape=True))
        return query

    def _place(self, picture: Picture) -> str:
        """Where the file is now."""
        return picture.file if picture.deleted is None else f".trash/{picture.file.removeprefix('pictures/')}"

    def _picture(self, row: Any) -> Picture:
        values = dict(row._mapping)
        values |= {name: bool(values[name]) for name in ("starred", "saved")}
        values["seed"] = None if row.seed is None else int(row.seed)
        picture = Picture(**values)
        there = row.width > 0 and (self.folder.path / self._place(picture)).is_file()
        return picture if there else Picture(**{**values, "available": False})

    def _move(self, pictures: Iterable[str], deleted: float | None, change: str) -> Ids:
        moved: Found = []
        for each in pictures:
            with suppress(UnknownPicture):
                before = self.picture(each)
                if (before.deleted is None) != (deleted is None):
                    moved.append(before)
        done = self._update([each.id for each in moved], change, {"deleted": deleted})
        for picture in moved:
            old = self.folder.path / self._place(picture)
            new = self.folder.path / self._place(self.picture(picture.id))
            new.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                old.rename(new)
        return done

    def _update(self, pictures: Iterable[str], change: str, values: dict[str, Any]) -> Ids:
        sa, table = sqlalchemy(), self.database.pictures
        asked = list(pictures)
        here = table.c.id.in_(asked)
        with self.database.write() as connection:
            update = sa.update(table).where(here).values(**values).returning(table)
            done = [self._picture(row) for row in connection.execute(update).all()]
        done.sort(key=lambda each: asked.index(each.id))
        self._tell(done, change)
        return [each.id for each in done]

    def _tell(self, pictures: Iterable[Picture], change: str) -> None:
        if self._changed is not None:
            for each in pictures:
                self._changed(each.id, each.owner, change)


def _kind(named: Any) -> str:
    return "jpeg" if named["ending"] == "jpg" else str(named["ending"])


def _row_of_file(data: bytes, made: float) -> dict[str, Any]:
    """What a picture's file says of itself; zeros and no text where it is damaged."""
    from PIL import Image

    row: dict[str, Any] = {"owner": "local", "bytes": len(data), "sha256": sha256(data), "created": made}
    row |= {"starred": 0, "saved": 1, "seconds": 0.0, "seed": None, "prompt": "", "parameters": ""}
    row |= {"width": 0, "height": 0}
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            row |= {"width": image.width, "height": image.height}
            text = written_text(image)
        if text is not None:
            request = read_text(Request, text).request
            seed = None if request.seed is None else str(request.seed)
            row |= {"parameters": text, "prompt": request.prompt, "seed": seed}
    except (OSError, SyntaxError, ValueError):
        pass
    return row
