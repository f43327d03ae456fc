"""The tables, and the two databases that hold them: SQLite in a file, PostgreSQL by its URL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StableDiffusionError, what_is
from .errors import FolderInUse, JobError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData

SCHEMA_VERSION = 1
LOCK_KEY = 7_311_094_406
"""Of the lock that a service holds on a PostgreSQL database."""
MISSING = 'the queue needs SQLAlchemy: pip install "stable-diffusion[server]"'


class Database:
    """A database with this room's tables. Its times are seconds since 1970, its texts JSON where they are not plain."""

    def __init__(self, url: str, *, full_sync: bool = False) -> None:
        sa = sqlalchemy()
        self.url = url
        self._held: Connection | None = None
        try:
            self.engine = _engine(url, full_sync)
            self.tables = _tables(sa.MetaData())
            with self.write() as connection:
                self.tables.create_all(connection)
                self._check_version(connection)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise JobError(f"the database cannot be used: {database_words(error)}") from error
        self.jobs, self.pictures = self.tables.tables["jobs"], self.tables.tables["pictures"]
        self.inputs, self.settings = self.tables.tables["inputs"], self.tables.tables["settings"]
        self.owners, self.pruned = self.tables.tables["owners"], self.tables.tables["pruned"]
        self.job_inputs = self.tables.tables["job_inputs"]

    @property
    def is_postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that writes: on SQLite it takes the lock at once, for one that grows into a write fails."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that only reads, and waits for nobody."""
        with self.engine.connect() as connection:
            yield connection.execution_options(reads=True)

    def lock(self) -> None:
        """Keeps other services out of a PostgreSQL database for as long as this program lives; FolderInUse where one
        is in it. The lock of the folder does the same for SQLite."""
        if not self.is_postgresql:
            return
        sa = sqlalchemy()
        self._held = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        if not self._held.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}).scalar():
            self.close()
            raise FolderInUse("another server works on this database; end it first, or use another database")

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
        self.engine.dispose()

    def _check_version(self, connection: Connection) -> None:
        sa, table = sqlalchemy(), self.tables.tables["schema_version"]
        found = connection.execute(sa.select(table.c.version)).scalar()
        if found is None:
            connection.execute(sa.insert(table).values(version=SCHEMA_VERSION))
        elif found != SCHEMA_VERSION:
            raise JobError(
                f"the database has the tables of version {found}, and this program those of version {SCHEMA_VERSION}; "
                "use another folder, or the program that made it"
            )


def sqlalchemy() -> Any:
    """The module, imported when it is needed; StableDiffusionError with the name of the extra where it is missing."""
    try:
        import sqlalchemy
    except ImportError:
        raise StableDiffusionError(MISSING) from None
    return sqlalchemy


def sqlite_url(path: Path) -> str:
    """The URL of the database in a file."""
    return f"sqlite+pysqlite:///{path}"


def dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _engine(url: str, full_sync: bool) -> Engine:
    sa = sqlalchemy()
    if not isinstance(url, str):
        raise JobError(f"the database is {what_is(url)}; expected a URL, as postgresql://user@host/name")
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    if url.startswith("postgresql"):
        made: Engine = sa.create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=24)
        return made
    if not url.startswith("sqlite"):
        raise JobError(f"the database {url.partition(':')[0]!r} is not known; choose sqlite or postgresql")
    made = sa.create_engine(url, connect_args={"timeout": 30.0}, pool_size=8, max_overflow=56)

    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred; ours is below
        connection.create_function("lower", 1, lambda text: text if text is None else str(text).lower())
        for pragma in ("journal_mode=WAL", f"synchronous={'FULL' if full_sync else 'NORMAL'}"):
            connection.execute(f"PRAGMA {pragma}")

    def begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    sa.event.listen(made, "connect", connected)
    sa.event.listen(made, "begin", begun)
    return made


def database_words(error: BaseException) -> str:
    """What a database or its driver says, on one line and without the statement."""
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _tables(metadata: MetaData) -> MetaData:
    """The schema. `owner` is never null, since nulls do not collide in a unique index."""
    sa = sqlalchemy()
    Column, Text, Whole, Real = sa.Column, sa.Text, sa.BigInteger, sa.Double
    sa.Table(
        *("jobs", metadata),
        *(Column("id", Text, primary_key=True), Column("seq", Whole, nullable=False)),
        *(Column(name, Text, nullable=False) for name in ("owner", "kind", "state")),
        Column("priority", Whole, nullable=False, default=0),
        *(Column(name, Text, nullable=False) for name in ("request", "request_hash")),
        Column("idempotency", Text),
        *(Column(name, Text, nullable=False, default="") for name in ("model", "engine", "needs", "label")),
        *(Column("count", Whole, nullable=False), Column("saved", Whole, nullable=False)),
        *(Column("attempts", Whole, nullable=False, default=0), Column("worker", Text), Column("lease", Real)),
        *(Column("cancel", Whole, nullable=False, default=0), Column("error", Text), Column("notes", Text)),
        *(Column("created", Real, nullable=False), Column("started", Real), Column("finished", Real)),
        Column("passed", Real),  # since when jobs of the loaded model overtake it
        sa.UniqueConstraint("owner", "idempotency"),
        sa.Index("jobs_in_line", "state", "owner", sa.text("priority DESC"), "seq"),
        sa.Index("jobs_of_owner", "owner", "created"),
        sa.Index("jobs_ended", "state", "finished"),
    )
    sa.Table(
        *("pictures", metadata),
        *(Column("id", Text, primary_key=True), Column("job", Text, nullable=False)),
        *(Column("number", Whole, nullable=False), Column("owner", Text, nullable=False)),
        *(Column("file", Text, nullable=False, unique=True), Column("seed", Text)),
        *(Column(name, Whole, nullable=False) for name in ("width", "height", "bytes")),
        *(Column(name, Text, nullable=False) for name in ("format", "sha256", "prompt", "parameters")),
        *(Column(name, Whole, nullable=False) for name in ("starred", "saved")),
        *(Column("seconds", Real, nullable=False), Column("deleted", Real), Column("created", Real, nullable=False)),
        sa.UniqueConstraint("job", "number"),
        sa.Index("pictures_by_age", "created"),
    )
    sa.Table(
        *("inputs", metadata),
        *(Column("hash", Text, primary_key=True), Column("bytes", Whole, nullable=False)),
        Column("created", Real, nullable=False),
    )
    sa.Table("job_inputs", metadata, Column("job", Text, primary_key=True), Column("hash", Text, primary_key=True))
    sa.Table("settings", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))
    sa.Table("owners", metadata, Column("owner", Text, primary_key=True), Column("served", Real, nullable=False))
    sa.Table("pruned", metadata, Column("id", Text, primary_key=True), Column("at", Real, nullable=False))
    sa.Table("schema_version", metadata, Column("version", Whole, primary_key=True))
    return metadata
