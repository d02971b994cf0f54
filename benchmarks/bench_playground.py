"""How soon the playground answers a stroke: from the pointer's move to the repainted answer.

    python -m benchmarks.bench_playground [--moves 60]

JupyterLab, its kernel and headless Chromium on this machine, the committed notebook, the full-size
network on bits. Every move of the pointer goes the whole way: the drawing to the kernel, its digit,
the network, all bits and sums back, painted. Needs the browser tests' Chromium and a quiet machine.
Leaves results/bench/playground-cpu.json and prints a line.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from study import ROOT
from study.train import provenance, runs
from tests.support.browser import PATH, chromium, open_page
from tests.support.lab import draw, run_all, started

NOTEBOOK = "00_playground.ipynb"
WARM_UP = 5
# Moves the pressed pointer; resolves with the milliseconds until the answer's text has changed and
# the browser begins its next frame.
MOVE = """([x, y]) => new Promise(resolve => {
  const canvas = document.querySelector('.bnn-drawing'), box = canvas.getBoundingClientRect();
  const answered = new MutationObserver(() => {
    answered.disconnect();
    requestAnimationFrame(() => resolve(performance.now() - begun));
  });
  answered.observe(document.querySelector('.bnn-latency'), {childList: true, subtree: true});
  const at = {clientX: box.x + x * box.width, clientY: box.y + y * box.height, pointerId: 1};
  const begun = performance.now();
  canvas.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, ...at}));
})"""
PRESS = """() => {
  const canvas = document.querySelector('.bnn-drawing'), box = canvas.getBoundingClientRect();
  const at = {clientX: box.x + 0.2 * box.width, clientY: box.y + 0.2 * box.height};
  canvas.dispatchEvent(new PointerEvent('pointerdown', {bubbles: true, pointerId: 1, ...at}));
}"""


def measure(moves: int) -> list[float]:
    """Milliseconds of each move of one long stroke, down and up across the canvas."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "notebooks").mkdir()
        shutil.copy(ROOT / "notebooks" / NOTEBOOK, folder / "notebooks")
        with started(folder, NOTEBOOK) as address, chromium() as browser:
            shown = open_page(browser, address, 1280)
            run_all(shown)
            page = shown.page
            page.locator(".bnn-clear").click()
            draw(page, (0.1, 0.1), (0.2, 0.2))
            page.wait_for_timeout(2000)  # both networks were timed when the stroke ended
            page.evaluate(PRESS)
            places = [(0.2 + 0.6 * i / moves, 0.2 + 0.6 * (i % 10) / 9) for i in range(moves)]
            return [page.evaluate(MOVE, place) for place in places][WARM_UP:]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=60)
    moves = parser.parse_args().moves
    if PATH is None:
        print("this benchmark needs Chromium", file=sys.stderr)
        return 1
    times = measure(WARM_UP + moves)
    p20, *_, p80 = statistics.quantiles(times, n=5)
    ms = {"p20": p20, "p50": statistics.median(times), "p80": p80, "most": max(times)}
    print(", ".join(f"{key} {value:.0f} ms" for key, value in ms.items()), f"of {moves} moves")
    made = provenance.gather("cpu")
    made["command"] = provenance.command_line("benchmarks.bench_playground")
    what = "a stroke's move to the painted answer"
    content = {"schema": runs.SCHEMA, "provenance": made, "what": what, "moves": moves, "ms": ms}
    runs.write_record(ROOT / "results" / "bench" / "playground-cpu.json", content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
