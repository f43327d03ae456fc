"""Settings that outlive the program: whether the queue is paused, and what a server wants to remember."""

from __future__ import annotations

import json
from typing import Any

from .database import Database, dumps, sqlalchemy


class StoredSettings:
    """Names and JSON values in the database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""
        sa, table = sqlalchemy(), self.database.settings
        with self.database.read() as connection:
            found = connection.execute(sa.select(table.c.value).where(table.c.key == key)).scalar()
        return default if found is None else json.loads(found)

    def set(self, key: str, value: Any) -> None:
        """Keeps a value; None removes the key."""
        sa, table = sqlalchemy(), self.database.settings
        with self.database.write() as connection:
            connection.execute(sa.delete(table).where(table.c.key == key))
            if value is not None:
                connection.execute(sa.insert(table).values(key=key, value=dumps(value)))

    def all(self) -> dict[str, Any]:
        """Every key and its value."""
        sa, table = sqlalchemy(), self.database.settings
        with self.database.read() as connection:
            return {row.key: json.loads(row.value) for row in connection.execute(sa.select(table))}
