"""JupyterLab as `make lab` opens it, on this machine alone, with a notebook in a browser."""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, expect

from study import ROOT
from tests.support.browser import MILLISECONDS, Shown

RUN_ALL = 300_000  # milliseconds; a few seconds' work, on a shared machine
START = 120  # seconds that JupyterLab may take
# Whether every cell has run, or one has failed
ENDED = """() => document.querySelector('[data-mime-type="application/vnd.jupyter.error"]') ||
  [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(prompt =>
    /^\\[\\d+\\]:$/.test(prompt.textContent.trim()))"""
SETTINGS = {  # all cells in the document, also those out of sight; no question about news
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@contextmanager
def started(folder: Path, notebook: str) -> Iterator[str]:
    """The address of a notebook, which lies in folder / "notebooks", while JupyterLab runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}"]
    command += [f"--notebook-dir={folder / 'notebooks'}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment(folder), stdout=log, stderr=log)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", server, folder / "log")
            start_kernel(f"http://127.0.0.1:{port}/api/sessions", notebook, token)
            yield f"http://127.0.0.1:{port}/lab/tree/{notebook}?token={token}"
        finally:
            server.terminate()
            server.wait(60)


def environment(folder: Path) -> dict[str, str]:
    """Everything that Jupyter, IPython and the notebook write goes into a folder."""
    settings = folder / "settings"
    for name, values in SETTINGS.items():
        path = settings / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    places = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "BNN_RUNS": "runs",
        "BNN_RESULTS": "results",
    }
    paths = {name: str(folder / place) for name, place in places.items()}
    return os.environ | paths | {"PYTHONPATH": str(ROOT)}


def wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    """Return when the server answers. Raises RuntimeError with its log if it ends or is silent."""
    end = time.monotonic() + START
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()}")


def start_kernel(address: str, notebook: str, token: str) -> None:
    """The notebook's kernel before the notebook opens: on a busy machine JupyterLab may start two,
    and cells that are run meanwhile go to the one that it then drops."""
    session = {"path": notebook, "name": notebook, "type": "notebook"}
    session["kernel"] = {"name": "python3"}
    headers = {"Authorization": f"token {token}"}
    request = urllib.request.Request(address, json.dumps(session).encode(), headers)
    urllib.request.urlopen(request, timeout=START).close()


def run_all(shown: Shown) -> None:
    """By the menu, when the kernel is there; returns when every code cell has a number."""
    page = shown.page
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=MILLISECONDS)  # in the status bar
    page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells$")).click()
    page.wait_for_function(ENDED, timeout=RUN_ALL)


def draw(page: Page, *points: tuple[float, float]) -> None:
    """One stroke through points of the canvas, in shares of its sides."""
    canvas = page.locator(".bnn-drawing")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
