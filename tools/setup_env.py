"""Make an environment ready: `python tools/setup_env.py FOLDER`. A second call does nothing.

FOLDER is an active environment, or one to be made from the Python that runs this script. Standard
library only, and in a syntax that an old Python reads too, so that it can say what is wrong.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# In the environment, so that it goes with it: a deleted and remade one is set up again.
STAMP = ".bnnlib-requirements"


def require_python(version):
    """End with one sentence when this Python can't run the study."""
    if not (3, 11) <= tuple(version[:2]) <= (3, 13):
        sys.exit(
            "Python 3.11 to 3.13 is needed and this is {}.{}: install one and say for example "
            "`make env PYTHON=python3.12`.".format(*version[:2])
        )


def require_venv():
    """End with one sentence where a distribution ships Python without venv or pip's installer."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as missing:
        sys.exit(
            "This Python can't make a virtual environment ({}): on Debian or Ubuntu `apt install "
            "python3-venv`, or activate a conda environment, then repeat.".format(missing)
        )


def runs(python, *arguments):
    """Whether a command of an environment's Python succeeds; what it prints is dropped."""
    with open(os.devnull, "w") as nowhere:
        try:
            return subprocess.call([python] + list(arguments), stdout=nowhere, stderr=nowhere) == 0
        except OSError:
            return False


def create(folder):
    """Make a virtual environment; leave none behind that is only half there."""
    require_venv()
    print("Making a virtual environment in {}".format(folder))
    if subprocess.call([sys.executable, "-m", "venv", "--clear", folder]) != 0:
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit("Python could not make a virtual environment in {}: see above.".format(folder))


def prepare(folder, python):
    """See to it that the environment has a Python that starts, and pip; clear only a broken one."""
    if not runs(python, "-c", ""):
        create(folder)
    elif not (runs(python, "-m", "pip", "--version") or runs(python, "-m", "ensurepip")):
        sys.exit("{} has no pip: install pip into it, then repeat.".format(folder))


def wanted(requirements, pip_args):
    """Content of a right stamp: the pins, this checkout (installed editable), pip's arguments."""
    digest = hashlib.sha256()
    for path in (requirements, os.path.join(ROOT, "pyproject.toml")):
        with open(path, "rb") as file:
            digest.update(file.read())
    return [digest.hexdigest(), ROOT, " ".join(pip_args)]


def is_current(stamp, want, pip_args):
    """Whether the stamp says that all is installed; pip's arguments count only when given anew."""
    try:
        with open(stamp) as file:
            have = file.read().split("\n")
    except OSError:
        return False
    return have == want or (have[:2] == want[:2] and not pip_args)


def install(python, requirements, pip_args):
    """Let pip bring the environment in step with the pins."""
    print("Installing the pinned packages: minutes, and up to 6 GB with a CUDA build of torch")
    sys.stdout.flush()
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.call(command + ["-r", requirements] + pip_args, cwd=ROOT) != 0:
        sys.exit("pip could not install {}: see above, then repeat.".format(requirements))


def main(folder, requirements):
    require_python(sys.version_info)
    pip_args = shlex.split(os.environ.get("PIP_ARGS", ""))
    python = os.path.join(folder, "bin", "python")
    stamp = os.path.join(folder, STAMP)
    want = wanted(requirements, pip_args)
    if not (is_current(stamp, want, pip_args) and runs(python, "-c", "")):
        prepare(folder, python)
        install(python, requirements, pip_args)
        with open(stamp, "w") as file:
            file.write("\n".join(want))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else os.path.join(ROOT, "requirements.txt"))
