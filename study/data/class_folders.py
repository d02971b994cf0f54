"""The files of a folder that has one sub-folder a class. Opens no file.

Whatever lies there, each file is listed once, in the class below whose sub-folder it lies, and what
can't be listed is told with the reason.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bnnlib.models import MOST_CLASSES

MOST_FILES = 1_000_000  # a network's pictures, and not a whole disk's files


@dataclass(frozen=True)
class Listing:
    """Files with their class's number, the classes' names, and what is no file with the reason."""

    top: Path
    files: list[tuple[Path, int]]
    names: tuple[str, ...]
    skipped: list[tuple[str, str]]  # below the folder


def list_files(folder: str) -> Listing:
    """List the files below each sub-folder, by name; hidden ones are passed over.

    Links are followed, but no folder is entered twice nor from another class, so that links in a
    circle end. Raises ValueError for what is no folder or can't be read, for fewer than 2 or more
    than 1000 classes, for two classes of one name or one folder, and for more than MOST_FILES.
    """
    top = _folder(folder)
    folders = _class_folders(top)
    names = tuple(shown(path.name) for path in folders)
    visited = _visited(top, folders, names)
    skipped: list[tuple[str, str]] = []
    files: list[tuple[Path, int]] = []
    for label, path in enumerate(folders):
        for file in _walk(path, top, visited, skipped):
            files.append((file, label))
            if len(files) + len(skipped) > MOST_FILES:
                raise ValueError(
                    f"{shown(top.name)} has more than {MOST_FILES:,} files: take fewer"
                )
    return Listing(top, files, names, skipped)


def shown(name: str) -> str:
    """A name of any script, composed, on one line; bytes that are no letters become ?."""
    composed = unicodedata.normalize("NFC", name)
    return "".join(letter if letter.isprintable() else "?" for letter in composed)


def below(path: Path, top: Path) -> str:
    """A path as it is told: below the folder that was read."""
    return path.relative_to(top).as_posix()


def _folder(named: str) -> Path:
    try:
        top = Path(named).expanduser()
        if stat.S_ISDIR(os.stat(top).st_mode):
            return top
    except PermissionError as error:
        raise ValueError(f"{named} can't be read: {error.strerror}") from error
    except (OSError, ValueError, RuntimeError):  # a NUL in it; the home of nobody
        pass
    where = "" if Path(named).is_absolute() else f" in {shown(str(Path.cwd()))}"
    raise ValueError(f"{shown(named)} is no folder{where}")


def _class_folders(top: Path) -> list[Path]:
    try:
        found = sorted(path for path in top.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{shown(top.name)} can't be read: {error.strerror}") from error
    folders = [path for path in found if _is_folder(path)]
    if len(folders) < 2:
        only = f"only {shown(folders[0].name)}" if folders else "none"
        raise ValueError(
            f"{shown(top.name)} must have one sub-folder of pictures a class, 2 or more of them: "
            f"it has {only}"
        )
    if len(folders) > MOST_CLASSES:
        raise ValueError(
            f"{shown(top.name)} has {len(folders)} classes, at most {MOST_CLASSES} are told"
        )
    return folders


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        return False


def _visited(top: Path, folders: list[Path], names: tuple[str, ...]) -> set[tuple[int, int]]:
    """Identities of the folder and its classes. Raises ValueError where two are the same."""
    owners = {_identity(os.stat(top)): shown(top.name)}
    for path, name in zip(folders, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"two classes have the name {name}: rename one")
        owner = owners.setdefault(_identity(os.stat(path)), name)
        if owner != name:
            raise ValueError(f"class {name} is a link to {owner}: a class is a folder of its own")
    return set(owners)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _walk(folder: Path, top: Path, visited: set, skipped: list) -> Iterator[Path]:
    """The files below a class's folder, by name."""
    left = _entries(folder, top, skipped)
    while left:
        path = left.pop()
        try:
            found = os.stat(path)
        except OSError as error:
            is_broken = os.path.islink(path) and not isinstance(error, PermissionError)
            reason = "a link to nothing" if is_broken else error.strerror
            skipped.append((below(path, top), reason))
            continue
        if stat.S_ISREG(found.st_mode):
            yield path
        elif not stat.S_ISDIR(found.st_mode):
            skipped.append((below(path, top), "no file"))  # a pipe, say, which would never end
        elif _identity(found) in visited:
            skipped.append((below(path, top), "a link to a folder that is read already"))
        else:
            visited.add(_identity(found))
            left += _entries(path, top, skipped)


def _entries(folder: Path, top: Path, skipped: list) -> list[Path]:
    """List the visible entries of a folder, the last name first."""
    try:
        found = sorted(folder.iterdir(), reverse=True)
    except OSError as error:
        skipped.append((below(folder, top), error.strerror))
        return []
    return [path for path in found if not path.name.startswith(".")]
