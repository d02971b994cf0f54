"""JupyterLab in a real browser, as `make lab` opens it: the playground runs, draws and trains.

At the smoke profile, in a copy: an untrained network, and nothing written beside the tests' own.
"""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from study import ROOT
from tests.support.browser import MILLISECONDS, chromium, needed, open_page
from tests.support.lab import RUN_ALL, draw, run_all, started

pytestmark = needed
expect.set_options(timeout=MILLISECONDS)

NOTEBOOK = "00_playground.ipynb"
# Strokes over the canvas, in shares of its sides: like a one, a seven, a zero
DRAWINGS = (
    [(0.5, 0.15), (0.5, 0.85)],
    [(0.2, 0.3), (0.8, 0.3), (0.4, 0.9)],
    [(0.2, 0.2), (0.2, 0.8), (0.8, 0.8), (0.8, 0.2), (0.2, 0.2)],
)


def copy_at_smoke(folder: Path) -> None:
    """The playground's source with the parameters of a test, in a folder of its own."""
    folder.mkdir()
    notebook = json.loads((ROOT / "notebooks" / NOTEBOOK).read_text("utf-8"))
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = 'profile = "smoke"\nretrain = True\ndigit = 0\nleast_seconds = 0.01\n'
    (folder / NOTEBOOK).write_text(json.dumps(notebook))


@pytest.fixture(scope="module")
def playground(tmp_path_factory):
    """The playground in JupyterLab after Run All."""
    folder = tmp_path_factory.mktemp("lab")
    copy_at_smoke(folder / "notebooks")
    with started(folder, NOTEBOOK) as address, chromium() as browser:
        shown = open_page(browser, address, 1280)
        run_all(shown)
        yield shown


def scores(page) -> list[str]:
    return page.locator(".bnn-value").all_inner_texts()


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
        if steps:  # the kernel, too, has heard of it
            expect(panel.locator(".bnn-planned")).to_contain_text(f"dropout 0.{steps}, ")
        panel.get_by_role("button", name="Train").click()
        expect(status).to_contain_text(f"Experiment {number},", timeout=RUN_ALL)
        results.append(re.search(r"test error [\d.]+ %", status.inner_text())[0])
    assert results[0] != results[1]
    curves = panel.locator(".bnn-picture img")
    expect(curves).to_have_attribute("alt", re.compile("1: .*; 2: .*, dropout 0.5, "))


def test_nothing_of_ours_complains_and_nothing_is_loaded_from_elsewhere(playground):
    here = re.compile(r"(http://127\.0\.0\.1:|data:|blob:)")
    assert [url for url in playground.requests if not here.match(url)] == []
    slow = "warning: Plugin @jupyterlab/"  # JupyterLab's own word for a busy machine
    assert [error for error in playground.errors if not error.startswith(slow)] == []
