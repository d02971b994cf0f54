"""The folder where Numba keeps compiled kernels: one for this very state of all their sources.

By itself Numba notices changes of a function's own file, but not of functions that it calls in
other files; and where its folder can't be written it takes another one, without a word. Both would
go on using what it has made of the old sources. Kept kernels are unpickled, so the folder must be
one that nobody else may write.
"""

import atexit
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent


def choose() -> None:
    """Set Numba's folder, for this process and its children.

    Raises OSError where there is none that can be written.
    """
    given = os.environ.get("NUMBA_CACHE_DIR", "")
    numba = sys.modules.get("numba")
    if numba:
        given = numba.core.config.CACHE_DIR or given
    folder = _first_usable(given, f"bnnlib-{_state()}")
    os.environ["NUMBA_CACHE_DIR"] = folder
    if numba:  # which has read its settings already; the others of them stay
        numba.core.config.CACHE_DIR = folder


def _state() -> str:
    """A hash of all kernels' sources."""
    sources = b"".join(path.read_bytes() for path in sorted(HERE.rglob("*.py")))
    return hashlib.sha256(sources).hexdigest()[:16]


def _first_usable(given: str, name: str) -> str:
    """The folder of this name in the first place where it can be, or else a temporary one."""
    if Path(given).name == name and _is_usable(Path(given)):
        return given  # of the process that started this one
    for place in _places(given):
        folder = (place / name).resolve()  # a link's owner could let it lead elsewhere later
        if _is_usable(folder):
            return str(folder)
    try:
        temporary = tempfile.mkdtemp(prefix="bnnlib-kernels-")  # for its maker alone
    except OSError:
        raise OSError(
            "compiled kernels can be kept nowhere: let NUMBA_CACHE_DIR name a folder of your own"
        ) from None
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    return temporary


def _places(given: str) -> Iterator[Path]:
    """Yield the user's own choice, the package, the user's cache."""
    if given:
        yield Path(given).absolute()
    yield HERE / "__pycache__"
    with suppress(RuntimeError):  # no home
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bnnlib"


def _is_usable(folder: Path) -> bool:
    """Whether it can be written, and belongs to this user, to root or to who owns the package.

    Nobody else may write it, or put another folder in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = folder.stat()
        above = [place.stat().st_mode for place in folder.parents]
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return False
    owners = {os.geteuid(), 0, HERE.stat().st_uid}
    if found.st_uid not in owners or found.st_mode & stat.S_IWOTH:
        return False
    return not any(mode & stat.S_IWOTH and not mode & stat.S_ISVTX for mode in above)
