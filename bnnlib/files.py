"""Files that hold their old content or the whole new one, whatever happens meanwhile."""

import os
import secrets
import shutil
import sys
import tarfile
import time
import tokenize
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

DAY = 86_400  # seconds
# What decoders of pictures and archives raise beside OSError and ValueError. MemoryError stays: it
# may be the machine's, not the file's.
DECODING = (TypeError, LookupError, ArithmeticError, AttributeError, EOFError, SyntaxError)
DECODING += (RecursionError, zlib.error, tarfile.TarError, tokenize.TokenError)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """A context with a file to write, which gets its name once all of it is on disk.

    Two writers can't collide.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        remove_left(path.parent, f".{path.name}.{'[0-9a-f]' * 16}")
    finally:
        partial.unlink(missing_ok=True)


def print_anywhere() -> None:
    """Let a command print all that it says: `?` stands for what this terminal can't show."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")


def remove_left(folder: Path, pattern: str) -> None:
    """Remove a day later what killed processes have left here; younger files may be in use."""
    with suppress(OSError):
        for left in folder.glob(pattern):
            if left.stat().st_mtime < time.time() - DAY:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
