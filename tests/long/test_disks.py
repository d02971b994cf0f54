"""Full disks: one clear sentence, and every result is what it was or wholly new."""

import json
import os
import random
import shutil

import faults
import nbformat
from faults import SEED, anew, contents, files, numbers, reproduce, require_success
from machines import little_room, small_disk

ROOMS = 40
DISK = 2**28  # bytes; holds the copy


def test_rooms_of_all_sizes(tmp_path, report):
    """The whole copy on a tmpfs that fills up at some write or other."""
    undisturbed = faults.small_copy(tmp_path / "undisturbed")
    require_success(reproduce(undisturbed))
    expected = numbers(undisturbed)
    disk = tmp_path / "disk"
    disk.mkdir()
    chance, ends = random.Random(SEED), {0: 0, 1: 0}
    with small_disk(disk, DISK):
        folder = shutil.copytree(undisturbed, disk / "copy")
        (folder / "temporary").mkdir()
        needed = taken_by(disk, folder)
        for _ in range(ROOMS):
            shutil.rmtree(folder / "build")
            before = contents(folder / "results")
            with little_room(disk, int(chance.uniform(0, 1.2) * needed)):
                status, stdout, stderr = reproduce(folder, TMPDIR=str(folder / "temporary"))
            ends[status] += 1
            if status:
                assert stderr.count("\n") == 1, stderr
                assert os.strerror(28) in stderr or "database or disk is full" in stderr, stderr
            assert files(folder / "results") == sorted(before)
            require_whole(folder / "results")
            require_success(reproduce(folder, TMPDIR=str(folder / "temporary")))
            assert numbers(folder) == expected
    assert ends[1]
    report(
        f"A tmpfs that is full at some write (room left by chance, seed {SEED}) of training, "
        "record, notebook or pages",
        ROOMS,
        f"{ends[1]} ended in one sentence, {ends[0]} had room enough; every result was whole, and "
        "a rerun with room has the numbers of an undisturbed one",
    )


def taken_by(disk, folder) -> int:
    """Bytes that a reproduction takes which finds nothing but its last results."""
    anew(folder)
    free = os.statvfs(disk)
    require_success(reproduce(folder, TMPDIR=str(folder / "temporary")))
    now = os.statvfs(disk)
    return (free.f_bavail - now.f_bavail) * free.f_frsize


def require_whole(results) -> None:
    """Every page, notebook and JSON file reads to its end."""
    for path in results.rglob("[!.]*.*"):
        text = path.read_text() if path.suffix in (".html", ".json", ".svg") else ""
        if path.suffix in (".html", ".svg"):
            assert text.rstrip().endswith(f"</{path.suffix[1:]}>"), path.name
        elif path.suffix == ".json":
            json.loads(text)
        elif path.suffix == ".ipynb":
            nbformat.validate(nbformat.read(path, as_version=4))
