"""The Makefile and the set-up of an environment, without installing or training anything."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from study import ROOT
from study.recipes import PROFILES
from tools import setup_env

# What an active environment or the make that runs these tests would pass on
ACTIVE = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PROFILE", "PYTHON", "PIP_ARGS")
ACTIVE += ("MAKELEVEL", "MFLAGS", "MAKEFLAGS")


def make(*arguments, **environment):
    """Run make as from a shell, with no environment active and not under another make."""
    kept = {name: value for name, value in os.environ.items() if name not in ACTIVE}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_plain_make_lists_the_targets():
    shown = make().stdout
    listed = ("reproduce", "compare", "test", "render", "results", "data", "nb-04", "lab", "env")
    for target in listed:
        assert f"\n  {target} " in shown


@pytest.mark.parametrize("profile", ["quik", "", "%"])
def test_unknown_profile_ends_at_once(profile):
    done = make("reproduce", f"PROFILE={profile}")
    assert done.returncode != 0 and not done.stdout
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(name in done.stderr for name in PROFILES)


def test_missing_python_ends_in_one_sentence():
    done = make("env", "PYTHON=no-such-python")
    assert done.returncode != 0
    assert "No Python 3.11 to 3.13 found" in done.stdout


@pytest.mark.parametrize(
    ("environment", "python"),
    [
        ({}, ".venv/bin/python"),
        ({"VIRTUAL_ENV": "/some/venv"}, "/some/venv/bin/python"),
        ({"CONDA_PREFIX": "/c/envs/bnn", "CONDA_DEFAULT_ENV": "bnn"}, "/c/envs/bnn/bin/python"),
        ({"CONDA_PREFIX": "/c", "CONDA_DEFAULT_ENV": "base"}, ".venv/bin/python"),
    ],
)
def test_active_environment_is_used_and_conda_base_is_not(environment, python):
    shown = make("-n", "nb-04", "PROFILE=smoke", **environment).stdout
    assert f'"{python}" -m tools.reproduce reproduce --profile "smoke" --only 04' in shown


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0), (2, 7, 18)])
def test_too_old_or_new_a_python_is_refused_in_one_sentence(version):
    refused = r"^Python 3\.11 to 3\.13 is needed and this is {}\.{}:".format(*version)
    with pytest.raises(SystemExit, match=refused):
        setup_env.require_python(version)
    setup_env.require_python((3, 11, 0))
    setup_env.require_python((3, 13, 9))


def set_up(folder, requirements, **environment):
    return subprocess.run(
        [sys.executable, "tools/setup_env.py", str(folder), str(requirements)],
        cwd=ROOT,
        env=os.environ | {"PIP_ARGS": ""} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_environment_is_made_once_and_again_when_the_pins_change(tmp_path):
    venv, requirements = tmp_path / "venv", tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n")
    first = set_up(venv, requirements)
    assert first.returncode == 0, first.stderr
    assert "Making a virtual environment" in first.stdout and (venv / "bin" / "python").exists()
    assert set_up(venv, requirements).stdout == ""
    assert "Installing" in set_up(venv, requirements, PIP_ARGS="--no-cache-dir").stdout
    requirements.write_text("# still nothing\n")
    changed = set_up(venv, requirements).stdout
    assert "Installing" in changed and "Making" not in changed


def test_failed_install_is_said_and_tried_again(tmp_path):
    venv, requirements = tmp_path / "venv", tmp_path / "requirements.txt"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    requirements.write_text("-r missing.txt\n")
    for _ in range(2):
        done = set_up(venv, requirements)
        assert done.returncode == 1 and "pip could not install" in done.stderr


def test_pins_are_exact():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#") and line != "-e ."]
    assert len(pins) > 15 and all(line.count("==") == 1 for line in pins)
    assert "torch==2.13.0" in pins


def test_the_oldest_list_has_the_bounds_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = [line.split(">=") for line in project["dependencies"] if ">=" in line]
    lines = (ROOT / "requirements-oldest.txt").read_text().splitlines()
    oldest = dict(line.split("==") for line in lines if line.count("==") == 1 and ";" not in line)
    assert [name for name, _ in bounds] == ["numpy", "torch"]
    assert all(oldest[name].startswith(f"{version}.0") for name, version in bounds)  # 2 is 2.0.0
    assert "3.11-oldest" in make("-n", "floor").stdout and project["requires-python"] == ">=3.11"


@pytest.mark.parametrize("target", ["versions", "floor"])
def test_other_environments_are_made_where_they_are_wanted(target, tmp_path):
    """Stand-ins of Python write down how they are called, and make nothing."""
    programs, log = tmp_path / "programs", tmp_path / "log"
    programs.mkdir()
    script = f"""#!/bin/sh
[ "$1" = -c ] && exit
echo "$(basename $0) $*" >> {log}
case "$1" in *setup_env.py) mkdir -p "$2/bin"; cp "$0" "$2/bin/python";; esac
"""
    for name in ("python3.11", "python3.12", "python3.13"):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    done = make(target, f"FOLDER={tmp_path}", PATH=path)
    assert done.returncode == 0, done.stderr
    python, first = {"versions": ("3.12", "3.12"), "floor": ("3.11", "oldest")}[target]
    called = log.read_text().splitlines()
    assert called[0].startswith(f"python{python} tools/setup_env.py {tmp_path}/.venv-{first}")
    assert called[1].startswith("python -m pytest") and len(called) == 4


def test_a_python_that_is_missing_ends_in_one_sentence():
    done = make("versions", "VERSIONS=3.99")
    assert done.returncode != 0 and done.stdout == "No Python 3.99 on PATH that starts.\n"


def test_ci_calls_make_test_with_a_browser_and_real_images_and_nothing_else():
    commands = [
        line
        for line in (ROOT / ".ci" / "run").read_text().splitlines()
        if line and not line.startswith(("#", "set ", "cd "))
    ]
    assert commands[0] == "if ! command -v chromium >/dev/null; then"
    assert [line.split()[0] for line in commands[1:-2]] == ["apt-get", "apt-get", "fi"]
    assert commands[-2].startswith("make data || true")
    assert commands[-1] == "make test"
    assert shutil.which("make") and os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in Path(ROOT / "README.md").read_text()


def test_what_a_reader_adds_reaches_jupyterlab():
    added = "--allow-root --no-browser --port 9999"
    assert make("-n", "lab", f"LAB_ARGS={added}").stdout.rstrip().endswith(f"ipynb {added}")
    assert "LAB_ARGS" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("plan", ["quick", "full"])
def test_the_plan_of_timing_is_handed_on(plan):
    assert f'--bench "{plan}"' in make("-n", "reproduce", f"BENCH={plan}").stdout


def test_without_a_home_programs_get_one_in_build():
    database = make("-pn", "help", HOME="").stdout
    assert f"HOME := {ROOT}/build/home" in database


def test_a_clone_that_turns_line_ends_still_runs_the_scripts(tmp_path):
    """As Git for Windows does it, and as a shared folder then shows it to Linux."""
    here, there = tmp_path / "here", tmp_path / "there"
    (here / ".ci").mkdir(parents=True)
    for name in (".gitattributes", ".ci/run", "Makefile", "environment.yml"):
        shutil.copy(ROOT / name, here / name)
    identity = ["-c", "user.name=n", "-c", "user.email=e@invalid"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", *command], cwd=here, check=True)
    subprocess.run(["git", "clone", "-q", "-c", "core.autocrlf=true", here, there], check=True)
    for name in (".ci/run", "Makefile", "environment.yml"):
        assert (there / name).read_bytes() == (ROOT / name).read_bytes()
