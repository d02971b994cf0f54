"""What reading a folder of pictures takes: seconds for small PNG files, memory for large JPEGs.

    python -m benchmarks.bench_pictures [--png 60000] [--jpeg 50000] [--folder DIR] [--output FILE]

The folders are made first, of noise on a slope, each file another picture: PNG files of 28 x 28
grey pixels, read at that size, and JPEG files of 500 x 500 in colour, read at 32 x 32. Each folder
is read in a process of its own, whose largest memory counts. Needs 2.5 GB below DIR, which is
cleared afterwards, and for the seconds a quiet machine. Prints a line for each folder and leaves
results/bench/pictures-cpu.json.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from study import ROOT
from study.train import provenance, runs

RESULT = ROOT / "results" / "bench" / "pictures-cpu.json"
DRAWN = 200  # large pictures; a comment in each file makes it one of its own
CLASSES = 10
# Run in a process of its own: reads a folder at a shape and prints what that took.
READ = """
import json, resource, sys, time
from study.data import own
started = time.perf_counter()
read = own.read(sys.argv[1], tuple(json.loads(sys.argv[2])))
seconds = time.perf_counter() - started
unit = 1 if sys.platform == "darwin" else 1024
peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"pictures": len(read.images), "skipped": len(read.skipped),
                  "seconds": seconds, "peak_bytes": peak}))
"""


def small(number: int) -> bytes:
    """A PNG file of 28 x 28 grey pixels."""
    return _coded(_drawn(number, (28, 28)), "PNG")


def large() -> Callable[[int], bytes]:
    """A function that makes JPEG files of 500 x 500 pixels in colour."""
    files = [_coded(_drawn(number, (500, 500, 3)), "JPEG", quality=75) for number in range(DRAWN)]

    def make(number: int) -> bytes:
        comment = b"%08d" % number
        return b"\xff\xd8\xff\xfe\x00\x0a" + comment + files[number % DRAWN][2:]

    return make


def _drawn(number: int, shape: tuple[int, ...]) -> Image.Image:
    noise = np.random.default_rng(number).integers(40, size=shape, dtype=np.uint8)
    slope = np.linspace(0, 200, shape[0]).astype(np.uint8)
    return Image.fromarray(noise + slope.reshape(-1, *[1] * (len(shape) - 1)))


def _coded(picture: Image.Image, kind: str, **options) -> bytes:
    picture.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def fill(folder: Path, count: int, make: Callable[[int], bytes]) -> int:
    """Write so many pictures into ten classes; -> their bytes."""
    size = 0
    for label in range(CLASSES):
        (folder / str(label)).mkdir(parents=True)
    for number in range(count):
        content = make(number)
        (folder / str(number % CLASSES) / str(number)).write_bytes(content)
        size += len(content)
    return size


def measure(
    what: str, count: int, make: Callable[[int], bytes], shape: tuple[int, ...], within: str | None
) -> dict:
    """Make a folder of pictures, read it, and clear it away; a row of the record."""
    with tempfile.TemporaryDirectory(dir=within) as name:
        size = fill(Path(name), count, make)
        command = [sys.executable, "-c", READ, name, json.dumps(shape)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    row = {"what": what, "file_bytes": size, "shape": list(shape), **found}
    print(
        f"{what}: {row['pictures']:,} read, {row['skipped']} skipped, {row['seconds']:.1f} s, at "
        f"most {row['peak_bytes'] / 1e9:.2f} GB of memory",
        flush=True,
    )
    return row


def main() -> int:
    options = _options()
    rows = [
        measure("PNG of 28 x 28", options.png, small, (28, 28), options.folder),
        measure("JPEG of 500 x 500", options.jpeg, large(), (3, 32, 32), options.folder),
    ]
    made = provenance.gather("cpu")
    made["command"] = provenance.command_line("benchmarks.bench_pictures")
    content = {"schema": runs.SCHEMA, "provenance": made, "rows": rows}
    runs.write_record(options.output, content)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--png", type=int, default=60_000, help="files of 28 x 28")
    parser.add_argument("--jpeg", type=int, default=50_000, help="files of 500 x 500")
    parser.add_argument("--folder", help="where the pictures lie meanwhile; default: /tmp or such")
    parser.add_argument("--output", type=Path, default=RESULT)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
