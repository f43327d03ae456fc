"""The end of a process that has made its pictures: torch and the model are not taken apart object by object (0.4 s)."""

from __future__ import annotations

import atexit
import os
import sys
import threading

_finished = False


def finished() -> None:
    """Everything that the process was started for is done and written: it may end at once."""
    global _finished
    _finished = True


def leave(code: object) -> None:
    """End the process with this code of `SystemExit`, where it has `finished`; else return.

    Threads are waited for and exit handlers run, as at every end of a process.
    """
    if not _finished or not (code is None or isinstance(code, int)):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # a broken pipe, or a stream that is closed or not there
        return  # the usual end says what is to be said
    os._exit(code or 0)
