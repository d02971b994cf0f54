"""Execute a notebook with papermill: the one path that make and the tests use."""

import ast
import json
import logging
import os
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
import psutil
import yaml
from ipykernel.kernelspec import get_kernel_dict
from IPython.core.profiledir import ProfileDir

from study import ROOT
from tools.files import replace_all
from tools.scrub import scrub
from tools.status import Status

NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"
# Seconds that a kernel may take to start, and to hand over what a cell printed: papermill's own 60
# and 4 are short where other work takes all cores.
PATIENCE = 300


@dataclass(frozen=True)
class Outcome:
    """Outcome of an execution. `error` is one line, empty for a success."""

    notebook: str  # "04_mnist"
    seconds: float
    peak_memory: float  # GB, of the kernel and its children together
    error: str = ""


def find(only: str = "", folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks in number order, or the one with this number. Raises ValueError for none."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    chosen = [path for path in paths if not only or path.stem.split("_")[0] == only]
    if not chosen:
        numbers = ", ".join(path.stem.split("_")[0] for path in paths)
        raise ValueError(f"no notebook has the number {only!r}: choose one of {numbers}")
    return chosen


def parameters(
    notebook: Path, profile: str, retrain: bool, extra: dict[str, str] | None = None
) -> dict:
    """Parameters to inject: the profile's file, then `retrain`, then `extra`.

    extra: name -> what the command line says, YAML but where the notebook's default is a string: a
    folder's name is taken to the letter.

    Raises ValueError for an unknown profile, a file that is none, a name that the notebook has not,
    or a value that is of another kind than the default.
    """
    file = notebook.parent / "params" / f"{profile}.yaml"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
        raise ValueError(f"unknown profile {profile!r}: choose one of {known}")
    tables = _tables(file)
    defaults = defaults_of(notebook)
    shared = {k: v for k, v in tables.get("defaults", {}).items() if k in defaults}
    told = extra or {}
    for name in [*tables.get(notebook.stem, {}), *told]:
        if name not in defaults:
            raise ValueError(
                f"{notebook.stem} has no parameter {name!r}: it has {', '.join(defaults)}"
            )
    read = {name: _read(name, text, defaults[name]) for name, text in told.items()}
    given = shared | tables.get(notebook.stem, {}) | {"retrain": retrain} | read
    values = {name: _typed(name, value, defaults[name]) for name, value in given.items()}
    if values.get("seeds", 1) < 1:
        raise ValueError(f"{notebook.stem} takes at least 1 for seeds, got {values['seeds']}")
    return values


def check_profile_file(profile: str, folder: Path = NOTEBOOKS) -> None:
    """Raise ValueError for a table or a default in the profile's file that fits no notebook."""
    tables = _tables(folder / "params" / f"{profile}.yaml")
    known = {path.stem: defaults_of(path) for path in find(folder=folder)}
    for table in tables.keys() - known.keys() - {"defaults"}:
        raise ValueError(f"params/{profile}.yaml names {table!r}, and no notebook is called so")
    for name in tables.get("defaults", {}):
        if not any(name in defaults for defaults in known.values()):
            raise ValueError(f"params/{profile}.yaml sets {name!r}, and no notebook has it")


def _tables(file: Path) -> dict[str, dict]:
    """A profile's file: notebook, or `defaults` -> its parameters. Raises ValueError."""
    tables = read_yaml(file.read_bytes(), file.name) or {}
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise ValueError(f"{file.name} must name notebooks, each with its parameters")
    return tables


def read_yaml(text: str | bytes, name: str):
    """The value of plain YAML. Raises ValueError, in one sentence, for anything else."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} is no plain YAML: {reason}") from error


def defaults_of(notebook: Path) -> dict:
    """Parameter name -> default value, from the notebook's parameters cell."""
    inspected = papermill.inspect_notebook(notebook)
    return {name: ast.literal_eval(entry["default"]) for name, entry in inspected.items()}


def _read(name: str, text: str, default):
    """Value that the command line gives to a parameter with that default."""
    return text if isinstance(default, str) else read_yaml(text, name)


def _typed(name: str, value, default):
    """The value as the kind that the default has: for YAML, 1e-3 is a string and 3 no float."""
    kind = type(default)
    if type(value) is kind:
        return value
    try:
        if (kind, type(value)) not in ((float, int), (float, str), (str, int), (str, float)):
            raise ValueError
        return kind(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} takes a value like {default!r}, got {value!r}") from None


def execute(
    notebook: Path, values: dict, output: Path, command: str, results: str, expected: float = 0
) -> Outcome:
    """Run a notebook top to bottom in a fresh kernel of this Python.

    A success leaves `output`, scrubbed; a failure leaves the last good `output` as it was, and the
    notebook with its traceback in build/failed/. Standard output can be followed in build/logs/,
    and on a terminal its last line, beside the time left of the `expected` seconds (0: unknown).
    `results` is where the notebook saves and publishes, relative to the repository's root.
    """
    running, failed, log = (
        BUILD / folder / output.parent.name / f"{notebook.stem}{suffix}"
        for folder, suffix in (("running", ".ipynb"), ("failed", ".ipynb"), ("logs", ".log"))
    )
    for path in (running, failed, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with _environment(command, results), peak_memory() as peak, log.open("w") as stdout:
        with Status(notebook.stem, stdout, expected) as status:
            error = _run(notebook, values, running, status)
    outcome = Outcome(notebook.stem, time.monotonic() - started, peak[0] / 1e9, error)
    if error and running.exists():
        running.replace(failed)
    elif not error:
        executed = scrub(nbformat.read(running, as_version=4), outcome.seconds, outcome.peak_memory)
        replace_all({output: (nbformat.writes(executed) + "\n").encode()})
        failed.unlink(missing_ok=True)
    return outcome


def _run(notebook: Path, values: dict, output: Path, status: Status) -> str:
    """Let papermill execute; -> one line that says what went wrong, empty if nothing did."""
    for chatty in ("papermill", "asyncio"):  # asyncio shows a traceback on Ctrl-C
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    others = set(psutil.Process().children(recursive=True))
    try:
        papermill.execute_notebook(
            notebook,
            output,
            values,
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar=False,
            stdout_file=status,
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
            on_notebook_start=status.begin,
            on_cell_start=status.begin_cell,
            # Where other work takes all cores its threads end in the wrong order, with a traceback
            shutdown_kernel="immediate",
            extra_arguments=["--log-level=CRITICAL"],  # it warns of its own loopback
        )
    except papermill.PapermillExecutionError as error:
        return f"{error.ename}: {error.evalue}".strip().split("\n")[0]
    except Exception as error:  # the kernel died, the disk is full: other notebooks may still run
        return f"{type(error).__name__}: {error}".strip().split("\n")[0]
    finally:
        _end_all_but(others)  # a kernel must not outlive an interrupt
    return ""


def _end_all_but(others: set[psutil.Process]) -> None:
    """Kill the children of this process that are not among the others."""
    for child in set(psutil.Process().children(recursive=True)) - others:
        with suppress(psutil.NoSuchProcess):
            child.kill()


@contextmanager
def _environment(command: str, results: str):
    """Set what the kernel inherits: this bnnlib, this Python, none of the user's start-up files."""
    jupyter, ipython = BUILD / "kernel" / "share" / "jupyter", BUILD / "ipython"
    # It names sys.executable. ipykernel's own `install` leaves a folder in /tmp each time.
    kernel = json.dumps(get_kernel_dict()).encode()
    replace_all({jupyter / "kernels" / "python3" / "kernel.json": kernel})
    # A kernel would do this, too, but on a full disk ends with a traceback.
    ipython.mkdir(exist_ok=True)
    ProfileDir.create_profile_dir_by_name(str(ipython), "default")
    before = dict(os.environ)
    os.environ |= {
        "BNN_COMMAND": command,
        "BNN_RESULTS": results,
        "IPYTHONDIR": str(ipython),
        "JUPYTER_PATH": str(jupyter),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": str(BUILD / "matplotlib"),
        "PYTHONPATH": str(ROOT),
    }
    try:
        yield
    finally:
        os.environ.clear()
        os.environ |= before


@contextmanager
def peak_memory():
    """A list whose only element becomes the most bytes that our children held at once."""
    peak, done = [0], threading.Event()

    def watch():
        while not done.wait(0.2):
            try:
                children = psutil.Process().children(recursive=True)
                peak[0] = max(peak[0], sum(child.memory_info().rss for child in children))
            except psutil.Error:
                continue  # one of them ended while we looked

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
