"""How soon a page answers a stroke, in Chromium: from the pointer's move to the painted answer.

    python -m benchmarks.bench_page [--moves 200] [--page FILE] [--output FILE]

The committed page of notebook 00, on this machine: every move of one long stroke goes through the
page's engine, and all bits, sums and scores are painted again. *Answered* is when all of it is
drawn on the page's canvases, *shown* when the browser has put out the next frame, for which it
waits up to a sixtieth of a second. Needs the browser tests' Chromium and a quiet machine. Prints a
line and leaves results/bench/page-cpu.json.
"""

import argparse
import statistics
import sys
from pathlib import Path

from study import ROOT
from study.train import provenance, runs
from tests.support.browser import PATH, chromium, open_page

PAGE = ROOT / "results" / "quick" / "00_playground.html"
RESULT = ROOT / "results" / "bench" / "page-cpu.json"
WARM_UP = 20  # moves
PRESS = """() => {
  const canvas = document.querySelector('.bnn-drawing'), box = canvas.getBoundingClientRect();
  const at = {clientX: box.x + 0.2 * box.width, clientY: box.y + 0.2 * box.height};
  canvas.setPointerCapture = () => {};  // no true pointer presses here
  canvas.dispatchEvent(new PointerEvent('pointerdown', {bubbles: true, pointerId: 1, ...at}));
}"""
MOVE = """([x, y]) => new Promise(resolve => {
  const canvas = document.querySelector('.bnn-drawing'), box = canvas.getBoundingClientRect();
  const at = {clientX: box.x + x * box.width, clientY: box.y + y * box.height, pointerId: 1};
  const scores = () => document.querySelector('.bnn-scores').textContent;
  const before = scores(), begun = performance.now();
  canvas.dispatchEvent(new PointerEvent('pointermove', {bubbles: true, ...at}));
  const answered = performance.now() - begun, changed = scores() !== before;
  requestAnimationFrame(() => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = () => resolve({answered, shown: performance.now() - begun, changed});
    port2.postMessage(null);  // heard once the frame is out
  });
})"""


def measure(page_file: Path, moves: int) -> list[dict]:
    """Milliseconds of each move of one stroke, down and up across the canvas, and whether the
    scores changed."""
    with chromium() as browser:
        shown = open_page(browser, page_file.resolve().as_uri(), 1280)
        page = shown.page
        page.locator(".bnn-clear").click()
        page.locator(".bnn-drawing").scroll_into_view_if_needed()
        page.evaluate(PRESS)
        moves += WARM_UP
        places = [(0.1 + 0.8 * i / moves, 0.1 + 0.8 * (i % 10) / 9) for i in range(moves)]
        return [page.evaluate(MOVE, place) for place in places][WARM_UP:]


def summary(times: list[float]) -> dict[str, float]:
    """Median, 95th percentile and largest."""
    return {
        "p50": statistics.median(times),
        "p95": statistics.quantiles(times, n=20)[-1],
        "most": max(times),
    }


def main() -> int:
    options = _options()
    if PATH is None:
        print("this benchmark needs Chromium", file=sys.stderr)
        return 1
    found = measure(options.page, options.moves)
    changed = sum(each["changed"] for each in found)
    if changed < len(found) // 2:
        print(f"only {changed} of {len(found)} moves changed the scores", file=sys.stderr)
        return 1
    ms = {key: summary([each[key] for each in found]) for key in ("answered", "shown")}
    for key, times in ms.items():
        told = ", ".join(f"{name} {value:.1f} ms" for name, value in times.items())
        print(f"{key}: {told}; {len(found)} moves")
    made = provenance.gather("cpu")
    made["command"] = provenance.command_line("benchmarks.bench_page")
    what = "a stroke's move, answered by the page of notebook 00"
    content = {"schema": runs.SCHEMA, "provenance": made, "what": what}
    runs.write_record(options.output, content | {"moves": len(found), "ms": ms})
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=200)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--output", type=Path, default=RESULT)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
