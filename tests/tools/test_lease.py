"""A lent GPU's minutes, rehearsed on the CPU: killed anywhere, at most the step at hand is lost."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_captured import Called

from study import ROOT, bench
from study.bench import __main__ as bench_command
from study.data import store
from study.recipes import RECIPES
from study.train import __main__ as train_command
from study.train import runs
from tools import lease, lease_data, lease_steps
from tools.lease import Step

COUNT = 12  # steps of the rehearsal
# Each step leaves a line when it begins and one when it ends.
LIFE = """
import sys
from pathlib import Path
from tools import lease
state, out = Path(sys.argv[1]), Path(sys.argv[2])
mark = "import time; f = open({path!r}, 'a'); f.write('began {n}\\\\n'); f.flush(); "
mark += "time.sleep(0.05); f.write('ended {n}\\\\n')"
steps = [
    lease.Step(f"step {n}", 1, ("-c", mark.format(path=str(state / "marks"), n=n)), 60)
    for n in range(COUNT)
]
state.mkdir(exist_ok=True)
lease.run(steps, 1, state, out)
""".replace("COUNT", str(COUNT))


def test_killed_at_random_moments_it_loses_one_step_at_most(tmp_path):
    state, out, chance = tmp_path / "state", tmp_path / "out", random.Random(2016)
    command = [sys.executable, "-c", LIFE, str(state), str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    kills = 0
    for _ in range(4):
        process = subprocess.Popen(command, env=environment, cwd=ROOT)
        seen = began(state)
        wanted = seen + chance.randint(1, 3)  # kill it after so many more steps have begun
        while process.poll() is None and began(state) < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.1))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if (out / "lease.json").exists():
            json.loads((out / "lease.json").read_bytes())  # whole, whenever it was
    subprocess.run(command, env=environment, cwd=ROOT, check=True)
    known = json.loads((out / "lease.json").read_bytes())
    assert [entry["end"] for entry in known.values()] == ["done"] * COUNT
    assert kills > 0 and COUNT <= began(state) <= COUNT + kills


def began(state: Path) -> int:
    try:
        return (state / "marks").read_text().count("began")
    except FileNotFoundError:
        return 0


def python(name: str, code: str, seconds: float = 60, call: int = 1, lasting: bool = False) -> Step:
    return Step(name, call, ("-c", code), seconds, lasting)


def test_a_failure_is_noted_and_the_next_step_begins(tmp_path):
    steps = [python("bad", "raise SystemExit('no such thing')"), python("good", "print('fine')")]
    known = lease.run(steps, 1, tmp_path / "state", tmp_path / "out")
    assert known["bad"]["end"] == "failed" and "no such thing" in known["bad"]["tail"]
    assert known["good"]["end"] == "done" and known["good"]["tail"] == "fine\n"
    assert b"no such thing" in (tmp_path / "out" / "log.txt").read_bytes()


def test_a_step_past_its_time_is_ended_and_only_a_lasting_one_goes_on_in_the_next_call(tmp_path):
    sleep = "import time; time.sleep(60)"
    short, long = python("short", sleep, 1.0), python("long", sleep, 1.0, lasting=True)
    known = lease.run([short, long], 1, tmp_path / "state", tmp_path / "out")
    assert [known[name]["end"] for name in ("short", "long")] == ["failed", "unfinished"]
    done = python("short", ""), python("long", "", lasting=True), python("later", "", call=2)
    known = lease.run(list(done), 1, tmp_path / "state", tmp_path / "out")
    assert [entry["end"] for entry in known.values()] == ["failed", "done"]
    known = lease.run(list(done), 2, tmp_path / "state", tmp_path / "out")
    assert known["later"]["end"] == "done"


def test_no_step_begins_when_time_is_nearly_over(tmp_path):
    steps = [python("first", ""), python("second", "")]
    known = lease.run(steps, 1, tmp_path / "state", tmp_path / "out", last_start=0.0)
    assert known == {}


@pytest.mark.parametrize(("last_start", "status"), [(60.0, 0), (0.0, 1)])
def test_the_exit_status_is_0_only_if_every_step_so_far_is_done(
    last_start, status, tmp_path, monkeypatch, capsys
):
    steps = [python("now", ""), python("later", "", call=2)]
    monkeypatch.setattr(lease, "plan", lambda state, profile: steps)
    monkeypatch.setattr(lease, "run", partial(lease.run, last_start=last_start))
    monkeypatch.setattr(lease, "PARTS", ())
    monkeypatch.setattr(lease, "STATE", tmp_path / "state")
    monkeypatch.setattr(lease.lease_data, "install", lambda *_: None)
    assert lease.main(["run", "--call", "1", "--out", str(tmp_path / "out")]) == status
    assert ("now: not begun" in capsys.readouterr().out) == bool(status)


def test_what_comes_back_is_few_files_and_small_ones(tmp_path, monkeypatch):
    state, out = tmp_path / "state", tmp_path / "out"
    for kind in ("squares-8", "rows-1"):
        made = {"command": f"python -m study.bench --only {kind}", "started": "2016-02-09"}
        content = {"schema": runs.SCHEMA, "provenance": made, "rows": [{"what": kind}]}
        runs.write_record(state / "bench" / f"{kind}.json", content)
    (state / "runs" / "key").mkdir(parents=True)
    (state / "runs" / "key" / "cuda-seed0.json").write_text("{}")
    (state / "runs" / "key" / "cuda-seed0.safetensors").write_bytes(bytes(5000))
    monkeypatch.setattr(lease, "LARGEST_FILE", 4000)
    lease.bring_out({}, state, out)
    names = {path.name for path in out.iterdir()}
    assert len(names) <= 8 and "networks.tar" not in names and "records.tar.gz" in names
    kernels = runs.read_record(out / "kernels.json")
    assert [row["what"] for row in kernels["rows"]] == ["rows-1", "squares-8"]
    made = {"command": "python -m tools.lease run", "started": "2016-02-09"}
    assert kernels["provenance"] == made  # of all its rows, not of the first one's command


class Understood(Exception):
    """Raised by a command that would now begin its work."""


# Module of a step -> where its `main` is, and what it calls once it has understood its arguments.
MAINS = {
    "study.bench": (bench_command, "run"),
    "study.train": (train_command, "_execute"),
    "tools.lease_steps": (lease_steps, "default_device"),
}


def understood(step: Step, config, monkeypatch) -> bool:
    """Whether the module that a step names knows the arguments that it gets."""
    dash, name, *arguments = step.command
    if name == "pytest":
        config._parser.parse(arguments)  # raises UsageError
        return dash == "-m"
    module, begins = MAINS[name]

    def begin(*_):
        raise Understood

    monkeypatch.setattr(module, begins, begin)
    with pytest.raises(Understood):
        module.main(arguments)
    return dash == "-m"


@pytest.mark.parametrize("profile", ["paper", "smoke"])
def test_a_plan_names_recipes_modules_and_options_that_exist(
    profile, tmp_path, pytestconfig, monkeypatch
):
    monkeypatch.setenv("BNN_COMMAND", "make test")  # study.train puts its own there
    steps = lease.plan(tmp_path, profile)
    assert len({step.name for step in steps}) == len(steps)
    names = {recipe.name for recipe in RECIPES}
    for step in steps:
        if step.name.split()[0] in ("train", "pace"):
            assert step.name.split()[1] in names
        if step.name.startswith("bench"):
            assert step.name.split()[1] in bench.SIZES
        assert understood(step, pytestconfig, monkeypatch)
    assert all((ROOT / path).exists() for path in lease.GPU_TESTS)
    assert sum(step.seconds for step in steps if step.call == 1 and not step.lasting) < 1500


def test_pace_compares_the_eager_step_with_a_fake_graph_s():
    told = lease_steps.pace("mnist-theano", "smoke", "cpu", Called, steps=4)
    assert told["steps"] == "captured" and min(told["eager_ms"], told["captured_ms"]) > 0


def test_facts_are_numbers():
    told = lease_steps.facts("cpu", 64)
    assert set(told["teraops"]) == {"float32", "bfloat16", "TF32", "int8"}
    assert all(rate > 0 for rate in told["teraops"].values())


def drawn(count: int, generator) -> np.ndarray:
    images = generator.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    images[0] = 0
    return images


def test_mosaics_and_labels_come_back_as_they_went(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_data, "IN_A_MOSAIC", 50)
    generator = np.random.default_rng(0)
    arrays = [drawn(610, generator), generator.integers(0, 10, 610, dtype=np.uint8)]
    arrays += [drawn(70, generator), generator.integers(0, 10, 70, dtype=np.uint8)]
    parts = tmp_path / "1", tmp_path / "2"
    lease_data.pack("cifar10", arrays, parts)
    assert len(list(parts[0].iterdir())) == lease_data.FIRST_PART
    assert lease_data.unpacked("cifar10", parts[:1]) is None  # the second part is still to come
    for ours, theirs in zip(lease_data.unpacked("cifar10", parts), arrays, strict=True):
        assert np.array_equal(ours, theirs)
    digits = [arrays[0][:, 0, :28, :28], arrays[1], arrays[2][:, 0, :28, :28], arrays[3]]
    lease_data.pack("mnist", digits, parts)
    monkeypatch.setattr(lease_data, "mosaic", lambda images: MOSAIC(images ^ 1))
    with pytest.raises(ValueError, match="cifar10's train_images are altered"):
        lease_data.pack("cifar10", arrays, (tmp_path / "3", tmp_path / "4"))


MOSAIC = lease_data.mosaic


def test_what_is_packed_is_there_once_it_is_unpacked(tmp_path, monkeypatch, capsys):
    """The whole of `pack` and of `unpack`, on small data sets; sources must be committed."""
    generator = np.random.default_rng(0)
    labels = [generator.integers(0, 10, count, dtype=np.uint8) for count in (610, 70)]
    images = [drawn(count, generator) for count in (610, 70)]
    digits = [each[:, 0, :28, :28] for each in images]
    sets = {
        name: SimpleNamespace(**dict(zip(store.KEYS, (a, labels[0], b, labels[1]), strict=True)))
        for name, (a, b) in {"cifar10": images, "mnist": digits}.items()
    }
    monkeypatch.setattr(lease.data, "load", sets.__getitem__)
    monkeypatch.setattr(lease_data, "IN_A_MOSAIC", 50)
    monkeypatch.setattr(lease.provenance, "commit", lambda: ("abc", True))
    parts = tmp_path / "1", tmp_path / "2"
    with pytest.raises(ValueError, match="commit first"):
        lease.pack(parts)
    monkeypatch.setattr(lease.provenance, "commit", lambda: ("abc", False))
    lease.pack(parts)
    assert capsys.readouterr().out.startswith("build/1: ")
    kept = []
    monkeypatch.setattr(lease_data.store, "keep", lambda name, _, arrays, __: kept.append(name))
    lease.unpack(parts, tmp_path / "state")
    assert kept == ["mnist", "cifar10"]
    monkeypatch.setattr(lease, "LARGEST_PART", 1000)
    with pytest.raises(ValueError, match="1 takes .* bytes, more than 1000"):
        lease.pack(parts)


def test_the_commit_travels_where_git_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "ROOT", tmp_path)
    parts = tmp_path / "1", tmp_path / "2"
    lease._write(parts[0] / "COMMIT", b"abc\n")
    lease.unpack(parts, tmp_path / "state")
    assert (tmp_path / "COMMIT").read_text() == "abc\n"
