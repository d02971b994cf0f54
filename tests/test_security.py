"""Nothing is let in: JupyterLab asks for its token, on loopback; no code runs what it is given."""

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from study import ROOT

START = 300  # seconds that JupyterLab may take on a busy machine
PRIVATE = ("api/contents", "api/kernels", "api/sessions", "api/terminals", "lab/api/settings")
# JupyterLab's own files, so that the user's settings, and so a reader's, are not what is tested
PLACES = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "HOME")


def command_of_make_lab() -> list[str]:
    """What the Makefile's target runs."""
    recipe = (ROOT / "Makefile").read_text().partition("\nlab: env")[2].splitlines()[1]
    command = shlex.split(recipe.strip().removeprefix("@").replace("$(PY)", sys.executable))
    assert command[1:3] == ["-m", "jupyterlab"]
    return command


class Lab:
    """JupyterLab as `make lab` starts it, but without a browser and at a port that is free."""

    def __init__(self, folder: Path):
        shutil.copytree(ROOT / "notebooks", folder / "notebooks")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [*command_of_make_lab(), "--no-browser", f"--port={port}", "--port-retries=0"]
        command += ["--allow-root"] if os.geteuid() == 0 else []
        places = {name: str(folder / name) for name in PLACES}
        log = folder / "log"
        with log.open("w") as file:
            environment = os.environ | places
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=file, stderr=file
            )
        self.address = f"http://127.0.0.1:{port}/"
        self.token = self.wait_for_token(log)

    def wait_for_token(self, log: Path) -> str:
        """The one in the address that JupyterLab shows its reader when it can be asked."""
        shown = re.compile(re.escape(self.address) + r"lab\S*\?token=(\w+)")
        end = time.monotonic() + START
        while time.monotonic() < end and self.process.poll() is None:
            if found := shown.search(log.read_text()):
                return found[1]
            time.sleep(0.2)
        self.process.kill()
        raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")

    def ask(self, path: str, **headers: str) -> int:
        """The status that it answers with; redirections, as to a login page, are not followed."""
        request = urllib.request.Request(self.address + path, headers=headers)
        try:
            with urllib.request.build_opener(NoRedirection).open(request, timeout=START) as answer:
                return answer.status
        except urllib.error.HTTPError as refusal:
            return refusal.code


class NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.process.terminate()
    lab.process.wait()


def connections(process: psutil.Process) -> list:
    """What a process has open; nothing, if it has ended since it was listed."""
    try:
        return process.net_connections("inet")
    except psutil.NoSuchProcess:
        return []


def test_jupyterlab_listens_on_loopback_alone(lab):
    main = psutil.Process(lab.process.pid)
    each = [main, *main.children(recursive=True)]
    sockets = [found for process in each for found in connections(process)]
    addresses = {found.laddr.ip for found in sockets if found.status == psutil.CONN_LISTEN}
    assert addresses and addresses <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("path", PRIVATE)
def test_jupyterlab_answers_to_its_token_alone(path, lab):
    assert lab.ask(path) == 403
    assert lab.ask(path, Authorization="token wrong") == 403
    assert lab.ask(path, Authorization=f"token {lab.token}") == 200


def test_jupyterlab_shows_only_its_login_without_the_token(lab):
    for path in ("lab", "lab/tree/00_playground.ipynb", "files/00_playground.ipynb"):
        assert lab.ask(path) == 302, path


def test_jupyterlab_answers_to_no_other_name(lab):
    """A page from elsewhere whose name is made to lead here has its own name in its requests."""
    token = f"token {lab.token}"
    assert lab.ask("api/contents", Authorization=token, Host="elsewhere.example") == 403


# What the project's own code may not do


def code() -> dict[str, ast.Module]:
    """Every module and notebook that a reader runs, by its name."""
    folders = ("bnnlib", "study", "tools", "benchmarks")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_bytes())["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        trees[path.name] = ast.parse(text)
    return trees


CODE = code()
UNPICKLES = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
LISTENS = {"socket", "socketserver", "http.server", "asyncio", "xmlrpc.server", "flask", "aiohttp"}
LISTENS |= {"distributed", "torch.distributed"}
RUNS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "pty.spawn"}
RUNS |= {"subprocess.getoutput", "subprocess.getstatusoutput", "runpy.run_path"}
UNPACKS = {"extractall", "unpack_archive"}
SAFE = {"torch.load": ("weights_only", True)}  # a call -> what it must say
STARTS = {"subprocess." + name for name in ("run", "Popen", "call", "check_call", "check_output")}
# What is for several processes or machines; `same_platform` uses threads of asyncio alone.
EXCEPTIONS = {"study/train/cluster.py", "study/train/same_platform.py", "bnnlib/parallel.py"}
EXCEPTIONS |= {"benchmarks/bench_cluster.py"}


def problems(tree: ast.Module) -> list[str]:
    """What in a module could run, unpickle or unpack what it is given, or open a port."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [f"imports {m}" for m in imported(node) if m in UNPICKLES | LISTENS]
        elif isinstance(node, ast.Call):
            found += problems_of_call(node)
    return found


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    module = node.module or ""
    return [module, *(f"{module}.{alias.name}" for alias in node.names)]


def problems_of_call(node: ast.Call) -> list[str]:
    name = ast.unparse(node.func)
    said = {keyword.arg: keyword.value for keyword in node.keywords}
    found = [f"calls {name}"] if name in RUNS or name.rpartition(".")[2] in UNPACKS else []
    found += [f"{name} with {key}" for key in ("shell", "allow_pickle") if is_on(said.get(key))]
    if name in SAFE and not is_on(said.get(SAFE[name][0])):
        found.append(f"{name} without {SAFE[name][0]}")
    if name == "yaml.load":
        found.append("yaml.load: safe_load reads data alone")
    if name in STARTS and node.args and isinstance(node.args[0], ast.Constant | ast.JoinedStr):
        found.append(f"{name} of a string")
    return found


def is_on(value: ast.expr | None) -> bool:
    """Whether an argument is given and is not plainly off."""
    return value is not None and not (isinstance(value, ast.Constant) and not value.value)


@pytest.mark.parametrize("name", CODE)
def test_no_code_runs_or_unpickles_what_it_is_given_or_opens_a_port(name):
    allowed = {f"imports {module}" for module in LISTENS} if name in EXCEPTIONS else set()
    assert [found for found in problems(CODE[name]) if found not in allowed] == []


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import pickle", "imports pickle"),
        ("from http.server import HTTPServer", "imports http.server"),
        ("from http import server", "imports http.server"),
        ("subprocess.run(command, shell=True)", "subprocess.run with shell"),
        ("subprocess.run(command, shell=wish)", "subprocess.run with shell"),
        ("subprocess.Popen(f'ls {name}')", "subprocess.Popen of a string"),
        ("os.system('ls')", "calls os.system"),
        ("eval(text)", "calls eval"),
        ("torch.load(path)", "torch.load without weights_only"),
        ("torch.load(path, weights_only=False)", "torch.load without weights_only"),
        ("np.load(path, allow_pickle=True)", "np.load with allow_pickle"),
        ("yaml.load(text, Loader)", "yaml.load: safe_load reads data alone"),
        ("tarfile.open(path).extractall(to)", "calls tarfile.open(path).extractall"),
    ],
)
def test_what_would_be_a_problem_is_found(source, problem):
    assert problem in problems(ast.parse(source))


def test_what_is_harmless_is_not_found():
    calm = "torch.load(f, weights_only=True); np.load(f, allow_pickle=False); network.eval()\n"
    calm += "subprocess.run([name, '-c'], shell=False); yaml.safe_load(text); import http.client"
    assert problems(ast.parse(calm)) == []
