"""JupyterLab in a real browser, as `make lab` opens it: the playground runs, draws and trains.

At the smoke profile, in a copy: an untrained network, and nothing written beside the tests' own.
"""

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

from bnnlib import ROOT
from tests.browser import MILLISECONDS, Shown, chromium, needed, open_page

pytestmark = needed

NOTEBOOK = "00_playground.ipynb"
RUN_ALL = 300_000  # milliseconds; a few seconds' work, on a shared machine
START = 120  # seconds that JupyterLab may take
# Strokes over the canvas, in shares of its sides: like a one, a seven, a zero
DRAWINGS = (
    [(0.5, 0.15), (0.5, 0.85)],
    [(0.2, 0.3), (0.8, 0.3), (0.4, 0.9)],
    [(0.2, 0.2), (0.2, 0.8), (0.8, 0.8), (0.8, 0.2), (0.2, 0.2)],
)
# Whether every cell has run, or one has failed
ENDED = """() => document.querySelector('[data-mime-type="application/vnd.jupyter.error"]') ||
  [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(prompt =>
    /^\\[\\d+\\]:$/.test(prompt.textContent.trim()))"""
SETTINGS = {  # all cells in the document, also those out of sight; no question about news
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def copy_at_smoke(folder: Path) -> None:
    """The playground's source with the parameters of a test, in a folder of its own."""
    folder.mkdir()
    notebook = json.loads((ROOT / "notebooks" / NOTEBOOK).read_text("utf-8"))
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = 'profile = "smoke"\nretrain = True\ndigit = 0\nleast_seconds = 0.01\n'
    (folder / NOTEBOOK).write_text(json.dumps(notebook))


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


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of the playground in a JupyterLab of our own, on this machine alone."""
    folder = tmp_path_factory.mktemp("lab")
    copy_at_smoke(folder / "notebooks")
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
            start_kernel(f"http://127.0.0.1:{port}/api/sessions", token)
            yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK}?token={token}"
        finally:
            server.terminate()
            server.wait(60)


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


def start_kernel(address: str, token: str) -> None:
    """The notebook's kernel before the notebook opens: on a busy machine JupyterLab may start two,
    and cells that are run meanwhile go to the one that it then drops."""
    session = {"path": NOTEBOOK, "name": NOTEBOOK, "type": "notebook"}
    session["kernel"] = {"name": "python3"}
    headers = {"Authorization": f"token {token}"}
    request = urllib.request.Request(address, json.dumps(session).encode(), headers)
    urllib.request.urlopen(request, timeout=START).close()


@pytest.fixture(scope="module")
def playground(lab):
    """The playground in JupyterLab after Run All."""
    with chromium() as browser:
        shown = open_page(browser, lab, 1280)
        run_all(shown)
        yield shown


def run_all(shown: Shown) -> None:
    """By the menu, when the kernel is there; returns when every code cell has a number."""
    page = shown.page
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=MILLISECONDS)  # in the status bar
    page.locator(".lm-MenuBar-item", has_text=re.compile("^Run$")).click()
    page.locator(".lm-Menu-item", has_text=re.compile("^Run All Cells$")).click()
    page.wait_for_function(ENDED, timeout=RUN_ALL)


def scores(page) -> list[str]:
    return page.locator(".bnn-value").all_inner_texts()


def draw(page, *points: tuple[float, float]) -> None:
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


def test_every_cell_runs(playground):
    page = playground.page
    assert page.locator('[data-mime-type="application/vnd.jupyter.error"]').count() == 0
    expect(page.locator(".bnn-verdict")).to_contain_text("The label is")


def test_drawings_change_what_the_network_reads(playground):
    page = playground.page
    verdict, before = page.locator(".bnn-verdict"), scores(page)
    readings = {verdict.inner_text().split(".")[0]}
    for stroke in DRAWINGS:
        page.locator(".bnn-clear").click()
        expect(verdict).to_have_text("Nothing is drawn.")
        draw(page, *stroke)
        expect(verdict).to_have_text(re.compile(r"^The network reads \d\.$"))
        readings.add(verdict.inner_text().split(".")[0])
    assert len(readings) > 1  # untrained, so that nobody knows which
    assert len(before) == 10 and scores(page) != before


def test_a_slider_changes_the_experiment_and_its_result(playground):
    panel = playground.page.locator(".bnn-training")
    status, results = panel.locator(".bnn-status"), []
    for number, steps in ((1, 0), (2, 5)):  # of dropout, each 0.1
        for _ in range(steps):
            panel.locator(".noUi-handle").first.press("ArrowRight")
        panel.get_by_role("button", name="Train").click()
        expect(status).to_contain_text(f"Experiment {number} took", timeout=RUN_ALL)
        results.append(re.search(r"Test error [\d.]+ %", status.inner_text())[0])
    assert results[0] != results[1]
    curves = panel.locator(".bnn-curves img")
    expect(curves).to_have_attribute("alt", re.compile("1: .*; 2: .*, dropout 0.5, "))


def test_nothing_of_ours_complains_and_nothing_is_loaded_from_elsewhere(playground):
    here = re.compile(r"(http://127\.0\.0\.1:|data:|blob:)")
    assert [url for url in playground.requests if not here.match(url)] == []
    slow = "warning: Plugin @jupyterlab/"  # JupyterLab's own word for a busy machine
    assert [error for error in playground.errors if not error.startswith(slow)] == []
