"""Disks, networks, homes, programs and clocks as they are on another machine, for one process."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ONLY_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as any:  # SIOCSIFFLAGS: up, as it is on a machine without a network
    fcntl.ioctl(any, 0x8914, struct.pack("16sh", b"lo", 1))
os.execv(sys.argv[1], sys.argv[1:])
"""
# $1: the folder that alone can still be written, the rest: a command
ONLY_WRITABLE = """
mount --bind "$HOME" "$HOME" && mount -o remount,bind,ro "$HOME" && mount -o remount,bind,ro / &&
mount --bind "$1" "$1" && mount -o remount,bind,rw "$1" && cd "$1" && shift && exec "$@"
"""
CLOCK = """
import itertools, time

real, calls = time.time, itertools.count()
time.time = lambda: real() - 3600 * next(calls)
time.time_ns = lambda: int(time.time() * 1e9)
"""


# Disks


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes at an empty folder; skips where none may be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs takes root and the right to mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def little_room(folder: Path, left: int) -> Iterator[None]:
    """All but so many bytes of a small disk are taken."""
    ballast = folder / "ballast"
    free = os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - left))
    try:
        yield
    finally:
        ballast.unlink()


def disk_use(*folders: Path) -> int:
    """Bytes that the files below these folders take."""
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*"))


# Machines that lack something


def without_network() -> list[str]:
    """What to put before a command so that it has loopback alone; skips where that is refused."""
    return _unshared("--net", sys.executable, "-c", ONLY_LOOPBACK)


def with_only(folder: Path) -> list[str]:
    """What to put before a command so that it can write this folder alone, and not its home."""
    return _unshared("--mount", "sh", "-c", ONLY_WRITABLE, "sh", str(folder))


def _unshared(what: str, *then: str) -> list[str]:
    """In a namespace of its own, which root may have, and often anyone."""
    unshare, true = (
        shutil.which(name) or pytest.skip(f"no {name}") for name in ("unshare", "true")
    )
    for namespace in ([unshare, what], [unshare, "--user", "--map-root-user", what]):
        command = [*namespace, *then]
        if subprocess.run([*command, true], capture_output=True, check=False).returncode == 0:
            return command
    return pytest.skip(f"unshare {what} is not allowed here")


def path_with(*names: str, folder: Path) -> str:
    """A PATH on which these programs are, as far as they are on this one, and no other."""
    folder.mkdir()
    for name in names:
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return str(folder)


# Clocks


def clock_backwards(folder: Path) -> None:
    """In a copy, every process's clock falls by an hour each time that it is read."""
    (folder / "sitecustomize.py").write_text(CLOCK)
