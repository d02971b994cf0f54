"""Executing notebooks as make does, on toy notebooks in a copy of the repository."""

import errno
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from study import ROOT, data, recipes
from study.train import provenance, runs
from tools import collect, files, reproduce, run_notebooks

PARAMETERS = (
    'profile = "quick"  # which\nretrain = False\nseeds = 3  # runs\nrate = 0.1\nname = "a"'
)
PUBLISH = """
import json, os
from study import ROOT
folder = ROOT / os.environ["BNN_RESULTS"] / profile
for kind in ("figures", "metrics"):
    (folder / kind).mkdir(parents=True, exist_ok=True)
(folder / "figures" / "01_toy-dots.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
claims = [{"id": name, "verdict": verdict, "stand_in": False} for name, verdict in
          (("swar", "not run"), ("energy", "reproduced"), ("energy", "found"))]
metrics = {"schema": 1, "notebook": "01_toy", "profile": profile, "sources": "0" * 64,
           "claims": claims, "findings": {"seeds": seeds}, "records": [],
           "figures": ["smoke/figures/01_toy-dots.svg"]}
(folder / "metrics" / "01_toy.json").write_text(json.dumps(metrics))
"""
SHOW = """
import warnings
warnings.warn("seen")
print(ROOT, os.getcwd(), os.environ["BNN_COMMAND"], profile, retrain, seeds)
"""


def notebook(*sources):
    """A notebook with a title, a parameters cell and these code cells."""
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    cells = [new_markdown_cell("# 01 · Is it so?"), parameters, *map(new_code_cell, sources)]
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def write(folder, name, *sources):
    path = folder / "notebooks" / f"{name}.ipynb"
    nbformat.write(notebook(*sources), path)
    return path


def copy_repository(folder):
    """The repository's code with toy notebooks instead of its own."""
    (folder / "notebooks").mkdir()
    for name in ("bnnlib", "study", "tools"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    shutil.copy(ROOT / "notebooks" / "claims.toml", folder / "notebooks")
    params = folder / "notebooks" / "params"
    params.mkdir()
    (params / "quick.yaml").write_text("defaults: {profile: quick}\n")
    (params / "smoke.yaml").write_text("defaults: {profile: smoke}\n01_toy: {seeds: 2}\n")
    write(folder, "01_toy", PUBLISH, SHOW)
    write(folder, "02_fails", "print('fine')")


def call(folder, *arguments, stdout=subprocess.PIPE, **environment):
    """Start tools.reproduce of the copy in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tools.reproduce", "reproduce", "--profile", "smoke", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)} | environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(making):
    """Wait for it; -> standard output and all that can be said of how it ended."""
    stdout, stderr = making.communicate()
    status = f"exit status {making.returncode}"
    return stdout, f"{status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A copy of the repository in which `make reproduce PROFILE=smoke` has gone well."""
    folder = tmp_path_factory.mktemp("repository")
    copy_repository(folder)
    stdout, said = end(call(folder))
    assert said.startswith("exit status 0\n") and said.endswith("--- stderr\n"), said
    name, *line = next(row for row in stdout.splitlines() if "01_toy " in row).split()
    verdicts = "GB arithmetic: 1 reproduced, 1 not run".split()
    assert (name, *line[-7:]) == ("01_toy", *verdicts), said
    opened = stdout.partition("Open in a browser:")[2]
    for page in ("index.html every", "smoke/01_toy.html 01 · Is it so?", "smoke/02_fails.html"):
        assert f"results/local/{page}" in " ".join(opened.split()), said
    assert "make compare" not in opened, said  # nothing of this profile is committed
    return folder


def test_executed_notebook_shows_its_parameters_and_where_it_ran(made):
    executed = nbformat.read(made / "results/local/smoke/01_toy.ipynb", as_version=4)
    printed = "".join(o.text for o in executed.cells[-1].outputs if o.output_type == "stream")
    assert "make reproduce PROFILE=smoke smoke True 2" in printed
    assert "./notebooks" in printed


def test_results_hold_no_path_time_or_machine(made):
    private = [str(made), sys.prefix, "ipykernel_", "start_time"]
    private += [home for home in [str(Path.home())] if home != "/"]
    for path in (made / "results").rglob("*.*"):
        text = path.read_text()
        assert [word for word in private if word in text] == [], path.name


def test_figures_metrics_and_pages_are_put_in_place(made):
    folder = made / "results/local"
    for name in ("01_toy.html", "metrics/01_toy.json", "figures/01_toy-dots.svg", "02_fails.html"):
        assert (folder / "smoke" / name).exists()
    assert "01_toy.html" in (folder / "index.html").read_text()
    timings = json.loads((made / "build/timings/smoke.json").read_bytes())
    assert timings["01_toy"]["seconds"] > 0 and timings["01_toy"]["peak_memory_gb"] > 0.01


def test_failure_is_named_and_kept_while_the_good_page_stays_and_others_are_up_to_date(made):
    pages = made / "results/local/smoke"
    good = {path: path.read_bytes() for path in pages.glob("02_*")}
    source = write(made, "02_fails", "print('fine')", "raise ValueError('epochs must be positive')")
    stdout, said = end(call(made))
    assert said.startswith("exit status 1\n"), said
    assert "02_fails failed: ValueError: epochs must be positive" in said.split("--- stderr")[1]
    uptodate = next(row for row in stdout.splitlines() if "up to date" in row).split()
    assert " ".join(uptodate) == "01_toy up to date arithmetic: 1 reproduced, 1 not run", said
    assert "epochs must be positive" in (made / "build/failed/smoke" / source.name).read_text()
    assert good == {path: path.read_bytes() for path in pages.glob("02_*")}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("reproduce", "--only", "04", "-p", "sedes", "3"), "has no parameter 'sedes'"),
        (("reproduce", "--only", "04", "-p", "retrain", "2"), "retrain takes a value like False"),
        (("reproduce", "--only", "77"), "no notebook has the number '77'"),
        (("render", "--profile", "quik"), "unknown profile 'quik'"),
        (("reproduce", "--only", "04", "-p", "seeds", "0"), "at least 1 for seeds, got 0"),
        (("results", "--profile", "smoke"), "smoke profile"),
        (("results", "--profile", "quick"), "clean tree"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments, sentence, monkeypatch, capsys):
    monkeypatch.setattr("tools.making.provenance.commit", lambda: ("0" * 40, True))
    assert reproduce.main(list(arguments)) == 1
    shown = capsys.readouterr()
    assert sentence in shown.err and len(shown.err.strip().splitlines()) == 1
    assert not shown.out


def test_what_git_says_is_handed_on(tmp_path, monkeypatch, capsys):
    """It refuses the folder of another user, or is not there at all."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", str(bin_folder))
    provenance.commit.cache_clear()
    asked = {"results": tmp_path, "committed": True, "profile": "quick"}
    monkeypatch.setattr(reproduce.Making, "__init__", lambda self, _: vars(self).update(asked))
    assert reproduce.main(["results"]) == 1
    assert "git is not installed" in capsys.readouterr().err
    git = bin_folder / "git"
    refusal = "fatal: detected dubious ownership in repository"
    git.write_text(f"#!/bin/sh\necho '{refusal}' >&2\nexit 128\n")
    git.chmod(0o755)
    provenance.commit.cache_clear()
    assert reproduce.main(["results"]) == 1
    told = capsys.readouterr().err
    assert "dubious ownership" in told and len(told.splitlines()) == 1
    provenance.commit.cache_clear()


def test_what_a_terminal_cannot_show_is_replaced(made):
    """The closing table has a ±, the pages' list a ·."""
    making = call(made, "--only", "01", PYTHONIOENCODING="ascii")
    stdout, said = end(making)
    assert said.startswith("exit status 0\n") and "01 ? Is it so?" in stdout, said


def test_without_a_home_jupyter_gets_one():
    """A user without a name has none, not even in the list of users."""
    code = "import os, pwd; del os.environ['HOME']\ndef unknown(_): raise KeyError\n"
    code += "pwd.getpwuid = unknown\nfrom tools import pages; from pathlib import Path\n"
    code += "from jupyter_core.paths import get_home_dir; print(get_home_dir(), Path.home())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == 2 * [str(ROOT / "build" / "home")], done.stderr


def test_notebooks_find_their_runs_made_and_kernels_are_timed_once(tmp_path, monkeypatch, capsys):
    """The stages before the notebooks, with what they would start."""
    making = reproduce.Making(reproduce.options(["reproduce", "--bench", "full"]))
    making.staged, asked = tmp_path, []
    trained = lambda pairs, *rest: asked.append((pairs, rest)) or ["mnist-theano seed 0: no"]  # noqa: E731
    monkeypatch.setattr(reproduce.side_by_side, "work_through", trained)
    reproduce.train_first(making)
    pairs, (profile, _, command, real) = asked.pop()
    assert (profile, command, real) == ("quick", "make reproduce PROFILE=quick", [])
    assert {recipe.name for recipe, _ in pairs} >= {"mnist-theano", "gaps-cifar10-zca"}
    assert "mnist-theano seed 0: no" in capsys.readouterr().err
    monkeypatch.setattr(
        reproduce.subprocess,
        "run",
        lambda command, **_: asked.append(command) or SimpleNamespace(returncode=0),
    )
    monkeypatch.setattr(reproduce, "BUILD", ROOT / "build")
    reproduce.time_kernels(making)
    (command,) = asked
    assert command[2:5] == ["study.bench", "--plan", "full"]
    assert command[-1].startswith(str(tmp_path / "bench" / "kernels-"))
    for target in (["render", "--only", "04"], ["reproduce", "--only", "04"], ["results"]):
        reproduce.time_kernels(reproduce.Making(reproduce.options(target)))
    assert len(asked) == 1


def test_results_that_cannot_be_written_are_refused_at_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "results").write_text("a file where the folder should be")
    monkeypatch.setattr(reproduce.site, "COMMITTED", tmp_path / "results")
    assert reproduce.main(["reproduce", "--profile", "smoke"]) == 1
    shown = capsys.readouterr()
    assert "results" in shown.err and len(shown.err.strip().splitlines()) == 1
    assert not shown.out


def test_data_that_no_source_has_are_drawn_but_never_for_committed_results(monkeypatch, capsys):
    found = SimpleNamespace(returncode=data.UNAVAILABLE, stdout="mnist: train, test\n")
    monkeypatch.setattr(reproduce.subprocess, "run", lambda *_, **__: found)
    assert reproduce.fetch_data(needed=False) == ["mnist"]
    assert "stand-in" in capsys.readouterr().out
    with pytest.raises(ValueError, match="make results needs the real data"):
        reproduce.fetch_data(needed=True)


def test_a_wrong_data_folder_ends_before_any_notebook(made):
    making = call(made, "--profile", "quick", BNN_DATA="no-such-folder")
    stdout, stderr = making.communicate()
    assert making.returncode == 1 and not stdout
    assert "BNN_DATA names no-such-folder" in stderr and "No notebook was executed" in stderr
    assert len(stderr.splitlines()) == 2


def test_a_page_is_outdated_when_data_records_or_benchmarks_arrive(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce.runs, "COMMITTED", tmp_path)
    monkeypatch.setattr("tools.making.BENCHMARKS", tmp_path)
    making = reproduce.Making(reproduce.options(["reproduce"]))
    notebook = next(iter(making.values))
    keys = [making.key(notebook)]
    making.real_data = ["mnist"]
    keys.append(making.key(notebook))
    (tmp_path / "recipe" / "paper").mkdir(parents=True)
    (tmp_path / "recipe" / "paper" / "cpu-seed0.json").write_text("{}")
    keys.append(making.key(notebook))
    (tmp_path / "kernels-cpu.json").write_text("{}")
    keys.append(making.key(notebook))
    assert len(set(keys)) == 4 and making.key(notebook) == keys[-1]


def test_a_terminal_shows_where_a_notebook_is_and_ends_with_the_same_lines(made):
    write(made, "03_talks", "print('halfway there')")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    making = call(made, "--only", "03", stdout=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # how a terminal's end is told
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    _, said = end(making)
    for path in made.rglob("03_talks.*"):
        path.unlink()
    assert said.startswith("exit status 0\n"), said
    text = shown.decode()
    assert "03_talks 00:" in text and ", halfway there" in text
    last = next(row for row in text.splitlines() if "GB" in row).rpartition("\r")[2]
    assert last.startswith("  03_talks   ") and "halfway" not in last


def test_a_kernel_that_ends_says_nothing(made):
    """Under load ipykernel's shutdown prints a traceback; what is registered here stands for it."""
    noise = "import atexit, os; atexit.register(os.write, 2, b'Traceback: ZMQError')"
    write(made, "03_ends", noise)
    stdout, said = end(call(made, "--only", "03"))
    for path in made.rglob("03_ends.*"):
        path.unlink()
    assert said.startswith("exit status 0\n") and said.endswith("--- stderr\n"), said


def test_interrupt_leaves_no_kernel(made):
    write(made, "03_sleeps", "import time\ntime.sleep(60)")
    making = call(made, "--only", "03")
    kernels = []
    while not kernels and making.poll() is None:
        time.sleep(0.1)
        kernels = psutil.Process(making.pid).children(recursive=True)
    making.send_signal(signal.SIGTERM)
    _, stderr = making.communicate(timeout=300)
    (made / "notebooks" / "03_sleeps.ipynb").unlink()
    assert making.returncode == 130 and stderr.strip().startswith("Interrupted.")
    _, alive = psutil.wait_procs(kernels, timeout=60)
    assert kernels and not alive


def test_parameters_come_from_the_profile_and_are_of_the_defaults_kind(tmp_path):
    (tmp_path / "notebooks" / "params").mkdir(parents=True)
    path = write(tmp_path, "01_toy")
    profile = path.parent / "params" / "quick.yaml"
    profile.write_text("defaults: {profile: quick, elsewhere: 1}\n01_toy: {rate: 1e-3}\n")
    values = run_notebooks.parameters(path, "quick", True, {"seeds": "5"})
    assert values == {"profile": "quick", "rate": 0.001, "retrain": True, "seeds": 5}
    for name in ("set #2", "007", "no", "2024-05-01", "", "[1]"):  # YAML would read other values
        assert run_notebooks.parameters(path, "quick", True, {"profile": name})["profile"] == name
    for name, value in (("seeds", "1.5"), ("seeds", "yes"), ("retrain", "1"), ("rate", "fast")):
        with pytest.raises(ValueError, match=name):
            run_notebooks.parameters(path, "quick", True, {name: value})
    with pytest.raises(ValueError, match="elsewhere"):
        run_notebooks.check_profile_file("quick", path.parent)
    profile.write_text("05_typo: {seeds: 1}\n")
    with pytest.raises(ValueError, match="05_typo"):
        run_notebooks.check_profile_file("quick", path.parent)


def test_replace_all_writes_all_or_nothing(tmp_path, monkeypatch):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    fill, left = os.fdopen, [1]

    def disk_with_room_for_one(*arguments):
        if not left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left.pop()
        return fill(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", disk_with_room_for_one)
        with pytest.raises(OSError, match="No space"):
            files.replace_all({old: b"1", new: b"2"})
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and old.read_bytes() == b"old"
    files.replace_all({old: b"1", new: b"2"})
    assert old.read_bytes() == b"1" and new.read_bytes() == b"2"


def test_only_one_refuses_a_second(tmp_path):
    with (
        files.only_one(tmp_path / "lock"),
        pytest.raises(RuntimeError, match="another make"),
        files.only_one(tmp_path / "lock"),
    ):
        pass


def test_collect_finds_records_by_digest_and_takes_their_network_along(tmp_path, monkeypatch):
    fresh = tmp_path / "fresh" / "key"
    fresh.mkdir(parents=True)
    (fresh / "cpu-seed0.json").write_text('{"digest": "d"}')
    (fresh / "cpu-seed0.safetensors").write_bytes(b"net")
    monkeypatch.setattr(collect.runs, "FRESH", tmp_path / "fresh")
    monkeypatch.setattr(collect.runs, "COMMITTED", tmp_path / "none")
    record = {"recipe": "r", "profile": "quick", "seed": 0, "device": "cpu", "digest": "d"}
    found = collect.collect({"notebook": "04_n", "records": [record]}, Path("to"))
    assert found == {
        Path("to/runs/r/quick/cpu-seed0.json"): b'{"digest": "d"}',
        Path("to/models/r-quick.safetensors"): b"net",
    }
    with pytest.raises(ValueError, match="r/quick/cpu-seed0"):
        collect.collect({"notebook": "04_n", "records": [record | {"digest": "e"}]}, Path("to"))


@pytest.mark.parametrize(
    ("flag", "sentence"), [("dirty", "uncommitted sources"), ("stand_in", "stand-in data")]
)
def test_a_run_that_is_not_fit_to_be_committed_is_named(flag, sentence, tmp_path, monkeypatch):
    provenance = {"dirty": False, "stand_in": False} | {flag: True}
    fresh = tmp_path / "fresh" / "key" / "cpu-seed0.json"
    fresh.parent.mkdir(parents=True)
    fresh.write_text(json.dumps({"digest": "d", "provenance": provenance}))
    monkeypatch.setattr(collect.runs, "FRESH", tmp_path / "fresh")
    monkeypatch.setattr(collect.runs, "COMMITTED", tmp_path / "none")
    record = {"recipe": "r", "profile": "quick", "seed": 0, "device": "cpu", "digest": "d"}
    metrics = {"notebook": "04_n", "records": [record]}
    assert collect.collect(metrics, Path("local"))
    with pytest.raises(ValueError, match=f"the run r/quick/cpu-seed0 was made .*{sentence}"):
        collect.collect(metrics, Path("results"), to_commit=True)


def test_finished_runs_of_a_recipe_are_collected_if_they_are_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(collect.runs, "FRESH", tmp_path)
    with pytest.raises(ValueError, match="no finished run of mnist-theano at evening"):
        collect.finished("mnist-theano", "evening", Path("to"))
    recipe = recipes.at_profile(recipes.by_name("mnist-theano"), "evening")
    path = runs.fresh_path(recipe, "cpu", 3)
    path.parent.mkdir(parents=True)
    fit = {"dirty": False, "stand_in": False}
    record = {"schema": runs.SCHEMA, "profile": "evening", "provenance": fit}
    runs.write_record(path, record | {"profile": "paper"})
    with pytest.raises(ValueError, match="no finished run"):
        collect.finished("mnist-theano", "evening", Path("to"))
    runs.write_record(path, record)
    path.with_suffix(".safetensors").write_bytes(b"net")
    assert collect.finished("mnist-theano", "evening", Path("to")) == {
        Path("to/runs/mnist-theano/evening/cpu-seed3.json"): path.read_bytes(),
        Path("to/models/mnist-theano-evening-seed3.safetensors"): b"net",
    }
    runs.write_record(path, record | {"provenance": {"dirty": True, "stand_in": False}})
    with pytest.raises(ValueError, match="uncommitted sources"):
        collect.finished("mnist-theano", "evening", Path("to"))


def test_the_index_lists_what_was_collected(tmp_path, monkeypatch):
    monkeypatch.setattr(collect.runs, "FRESH", tmp_path / "fresh")
    recipe = recipes.at_profile(recipes.by_name("open-baseline"), "evening")
    path = runs.fresh_path(recipe, "cpu", 0)
    path.parent.mkdir(parents=True)
    shutil.copy(runs.committed_paths(recipe, "evening", 0)[0], path)
    monkeypatch.setattr(collect.runs, "ROOT", tmp_path)
    monkeypatch.setattr(collect.runs, "NETWORKS", tmp_path / "results" / "models")
    assert collect.main(["open-baseline", "--profile", "evening"]) == 0
    index = (tmp_path / "results" / "index.html").read_text()
    assert "runs/open-baseline/evening/cpu-seed0.json" in index


def test_only_the_network_of_the_most_faithful_profile_is_kept(tmp_path):
    for name in ("a-quick", "a-quick-seed1", "a-paper", "a-paper-seed1", "a-b-quick"):
        (tmp_path / f"{name}.safetensors").touch()
        (tmp_path / f"{name}.md").touch()  # the network's card
    outdated = [path.name for path in collect.superseded(tmp_path)]
    assert sorted(outdated) == ["a-quick-seed1.safetensors", "a-quick.safetensors"]
