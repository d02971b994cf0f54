"""Files that hold their old content or the whole new one, whatever happens meanwhile."""

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name once all of it is on disk; two writers can't collide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with partial.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        with suppress(OSError):  # what a process that was killed left here goes after a day
            for left in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 16}"):
                if left.stat().st_mtime < time.time() - 86_400:
                    left.unlink()
    finally:
        partial.unlink(missing_ok=True)
