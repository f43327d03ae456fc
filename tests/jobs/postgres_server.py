"""A PostgreSQL server of its own for tests: in a temporary folder, on a socket there, with no port open."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def missing() -> str | None:
    """Why no server can be started here; None where one can."""
    if binaries() is None:
        return "PostgreSQL's initdb is not installed (Debian: apt install postgresql)"
    if os.geteuid() == 0 and not any(each.pw_name == "postgres" for each in pwd.getpwall()):
        return "PostgreSQL does not run as root, and there is no user 'postgres'"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    return None


def binaries() -> Path | None:
    """The folder of initdb and postgres."""
    known = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return Path(known).parent if known else found[-1].parent if found else None


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server that ends with the block."""
    place, programs = Path(tempfile.mkdtemp(prefix="pg")), binaries()
    assert programs is not None
    user = {} if os.geteuid() else {"user": "postgres", "group": "postgres", "extra_groups": []}
    if user:
        account = pwd.getpwnam("postgres")
        os.chown(place, account.pw_uid, account.pw_gid)
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": place, **user}
    settings = f"-c listen_addresses='' -c unix_socket_directories={place} -c fsync=off"
    try:
        subprocess.run([programs / "initdb", "-D", place / "data", "-U", "postgres", "-A", "trust", "-N"], **quiet)
        start = ["-D", place / "data", "-l", place / "log", "-w", "-t", "60", "-o", settings, "start"]
        subprocess.run([programs / "pg_ctl", *start], **quiet)
        try:
            yield f"postgresql://postgres@/postgres?host={place}"
        finally:
            subprocess.run([programs / "pg_ctl", "-D", place / "data", "-m", "immediate", "-w", "stop"], **quiet)
    finally:
        shutil.rmtree(place, ignore_errors=True)
