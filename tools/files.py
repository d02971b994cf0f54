"""Writing results: all files of a notebook or none, one maker at a time."""

import fcntl
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from bnnlib.files import remove_left


def replace_all(contents: dict[Path, bytes]) -> None:
    """Write every file or none: renamed only when each byte of all of them is on the disk."""
    written: dict[Path, str] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, written[path] = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(written[path], 0o644)  # mkstemp makes files that only their owner may read
        for path, temporary in written.items():
            os.replace(temporary, path)
            remove_left(path.parent, ".new-*")
    finally:
        for temporary in written.values():
            Path(temporary).unlink(missing_ok=True)


def with_part(text: str, part: str, made: str) -> str:
    """A Markdown text with what was made between the markers of a part.

    Raises ValueError unless each marker is there, once.
    """
    begin, end = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the text needs the lines {begin} and {end}, each once")
    head, rest = text.split(begin)
    return f"{head}{begin}\n{made}\n{end}{rest.split(end)[1]}"


def require_writable(folder: Path) -> None:
    """Raise OSError now if the folder can't be written, and not after hours of training."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def only_one(lock: Path):
    """Let one process in at a time; raises RuntimeError with a sentence for the second."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError("another make is executing notebooks here: wait for it") from None
        yield
