"""A GPU that is lent for minutes, used to the last of them.

    python -m tools.lease pack
    python -m tools.lease run --call N --out FOLDER

`pack`, beforehand, puts the commit and the data sets into build/lease-1 and build/lease-2, one for
each of two commands; results/ stands aside meanwhile, or a part doesn't fit beside the tree. `run`,
on the card's machine, does the steps of calls 1 to N: each is a process with a time limit, what it
found is written to FOLDER when it ends, and one that fails is noted and left. Killed at any moment,
the same command goes on: a step is lost at most, and trainings go on from their last checkpoint.
"""

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

from bnnlib.files import atomic_write
from study import ROOT, data
from study.data import store
from study.train import provenance, runs
from tools import lease_data

PARTS = (ROOT / "build" / "lease-1", ROOT / "build" / "lease-2")
STATE = ROOT / "build" / "lease"  # kept on the machine from call to call
LARGEST_PART = 58_000_000  # bytes: 64 MiB hold a part and the tracked files without results/
LARGEST_FILE = 16 * 2**20  # bytes of one file that comes back
LAST_START, LIMIT = 560.0, 590.0  # seconds after a call's start
PACED = ("mnist-theano", "mnist-torch7", "cifar10-theano", "cifar10-torch7")
GPU_TESTS = [
    f"tests/bnnlib/kernels/test_{name}.py"
    for name in ("gpu", "gpu_b1", "gpu_b1_convolution", "update")
]


@dataclass(frozen=True)
class Step:
    """A command, relative to the repository; `lasting`: cut off, it goes on in the next call."""

    name: str
    call: int
    command: tuple[str, ...]
    seconds: float  # at most
    lasting: bool = False


def plan(state: Path, profile: str = "paper") -> list[Step]:
    """All steps in their order. smoke: as many, of small sizes, to rehearse them."""
    small = profile == "smoke"
    ask = lambda what, *rest: (  # noqa: E731
        "-m", "tools.lease_steps", what, str(state / f"{'-'.join((what, *rest))}.json"), *rest,
        "--profile", profile,
    )  # fmt: skip
    steps = [
        Step("facts", 1, ask("facts"), 60),
        Step("tests", 1, ("-m", "pytest", "-q", *GPU_TESTS, *["--co"] * small), 150),
        Step("checks", 1, ask("checks"), 60),
    ]
    sizes = {"squares": (8192, 1024, 4096), "rows": (1, 16, 128), "mlp": (10_000, 1)}
    sizes |= {"convnet": (100, 1)}
    if small:
        sizes = {"squares": (64,), "rows": (1,)}
    steps += [_bench(state, kind, size, small) for kind, each in sizes.items() for size in each]
    steps += [Step(f"pace {name}", 1, ask("pace", name), 60) for name in PACED[: 1 if small else 4]]
    trained = (("mnist-theano", 1), ("cifar10-theano", 2), ("mnist-torch7", 3))
    for name, call in trained[: 1 if small else 3]:
        command = ("-m", "study.train", name, "--profile", profile)
        steps.append(Step(f"train {name}", call, command, LIMIT, lasting=True))
    return steps


def _bench(state: Path, kind: str, size: int, small: bool) -> Step:
    out = state / "bench" / f"{kind}-{size}.json"
    command = ("-m", "study.bench", *["--plan", "smoke"] * small, "--only", kind, str(size))
    return Step(f"bench {kind} {size}", 1, (*command, "--out", str(out)), 90)


def run(
    steps: list[Step],
    call: int,
    state: Path,
    out: Path,
    last_start: float = LAST_START,
    limit: float = LIMIT,
) -> dict[str, dict]:
    """Do what calls up to this one still lack, while there is time. Returns what is known of all.

    A step's entry holds its end (done, failed or unfinished), its seconds and its last lines.
    """
    began = time.monotonic()
    known = _known(state)
    for step in steps:
        before = known.get(step.name, {})
        if step.call > call or before.get("end") in ("done", "failed"):
            continue
        if time.monotonic() - began >= last_start:
            break
        left = limit - (time.monotonic() - began)
        known[step.name] = _do(step, min(step.seconds, left), state)
        known[step.name]["seconds"] += before.get("seconds", 0)
        _write(state / "lease.json", json.dumps(known, indent=1).encode())
        bring_out(known, state, out)
    bring_out(known, state, out)
    return known


def _known(state: Path) -> dict[str, dict]:
    try:
        return json.loads((state / "lease.json").read_bytes())
    except FileNotFoundError:
        return {}


def _do(step: Step, seconds: float, state: Path) -> dict:
    """Run a step's command in a process group of its own, ended with all its children in time."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BNN_COMMAND": " ".join(step.command)}
    environment |= {"BNN_RUNS": str(state / "runs"), "BNN_DATA": str(state / "data")}
    (state / "data").mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    log = state / "log.txt"
    with log.open("ab") as file:
        file.write(f"\n== {step.name}\n".encode())
        file.flush()
        start = file.tell()
        process = subprocess.Popen(
            [sys.executable, *step.command],
            cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
        end = _wait(process, step, seconds)
    with log.open("rb") as file:
        file.seek(start)
        tail = file.read()[-1500:].decode(errors="replace")
    return {"end": end, "seconds": round(time.monotonic() - began, 1), "tail": tail}


def _wait(process: subprocess.Popen, step: Step, seconds: float) -> str:
    try:
        return "done" if process.wait(timeout=max(1.0, seconds)) == 0 else "failed"
    except subprocess.TimeoutExpired:
        return "unfinished" if step.lasting else "failed"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def bring_out(known: dict[str, dict], state: Path, out: Path) -> None:
    """Write all that is known so far into `out`, whole: at most eight files of LARGEST_FILE."""
    contents = {"lease.json": json.dumps(known, indent=1).encode(), "log.txt": _log(state)}
    answers = {path.stem: json.loads(path.read_bytes()) for path in sorted(state.glob("*-*.json"))}
    answers |= {
        name: json.loads((state / f"{name}.json").read_bytes())
        for name in ("facts", "checks")
        if (state / f"{name}.json").exists()
    }
    contents["answers.json"] = json.dumps(answers, indent=1).encode()
    if benches := [runs.read_record(path) for path in sorted((state / "bench").glob("*.json"))]:
        rows = [row for each in benches for row in each["rows"]]
        made = benches[0]["provenance"] | {"command": "python -m tools.lease run"}
        kernels = benches[0] | {"provenance": made, "rows": rows}
        kernels["digest"] = runs.digest(kernels)
        contents["kernels.json"] = json.dumps(kernels, indent=1).encode()
    contents["records.tar.gz"] = _archive(state / "runs", "*-seed*.json", "w:gz")
    contents["networks.tar"] = _archive(state / "runs", "*.safetensors", "w")
    for name, content in contents.items():
        if len(content) <= LARGEST_FILE:
            _write(out / name, content)


def _log(state: Path) -> bytes:
    path = state / "log.txt"
    return path.read_bytes()[-LARGEST_FILE:] if path.exists() else b""


def _archive(folder: Path, pattern: str, mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for path in sorted(folder.rglob(pattern)):
            archive.add(path, path.relative_to(folder).as_posix())
    return out.getvalue()


def pack(parts: tuple[Path, Path] = PARTS) -> None:
    """Fill the two folders that travel.

    Raises ValueError for uncommitted sources, altered data, or a part that is too large.
    """
    head, dirty = provenance.commit()
    if dirty:
        raise ValueError("commit first: a record made from uncommitted sources can't be committed")
    for part in parts:
        _write(part / "COMMIT", f"{head}\n".encode())
    for name in ("mnist", "cifar10"):
        found = data.load(name)
        arrays = [getattr(found, key) for key in store.KEYS]
        lease_data.pack(name, arrays, parts)
    for part in parts:
        size = sum(path.stat().st_size for path in part.iterdir())
        if size > LARGEST_PART:
            raise ValueError(f"{part.name} takes {size} bytes, more than {LARGEST_PART}")
        print(f"build/{part.name}: {size / 1e6:.1f} MB")


def unpack(parts: tuple[Path, Path], state: Path) -> None:
    """Keep what came with this command; say which commit this is; install data that are whole."""
    for part in parts:
        for path in sorted(part.glob("*")):
            if path.name == "COMMIT" and not (ROOT / ".git").exists():
                _write(ROOT / "COMMIT", path.read_bytes())
            elif path.name != "COMMIT":
                _write(state / "parts" / path.name, path.read_bytes())
    for name in ("mnist", "cifar10"):
        lease_data.install(name, [state / "parts"], state / "data")


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 if all steps of the calls so far are done, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tools.lease", description=__doc__)
    parser.add_argument("what", choices=("pack", "run"))
    parser.add_argument("--call", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "lease-out")
    parser.add_argument("--profile", choices=("paper", "smoke"), default="paper")
    options = parser.parse_args(arguments)
    if options.what == "pack":
        try:
            pack()
        except (ValueError, data.DataUnavailable) as problem:
            print(problem, file=sys.stderr)
            return 1
        return 0
    unpack(PARTS, STATE)
    steps = plan(STATE, options.profile)
    known = run(steps, options.call, STATE, options.out)
    missing = {"end": "not begun", "seconds": 0}
    so_far = [step.name for step in steps if step.call <= options.call]
    entries = {name: known.get(name, missing) for name in so_far}
    for name, entry in entries.items():
        print(f"{name}: {entry['end']}, {entry['seconds']} s")
    return 0 if all(entry["end"] == "done" for entry in entries.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
