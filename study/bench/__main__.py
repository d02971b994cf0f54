"""Time packed products and networks beside the machine's fastest float32 ones.

    python -m study.bench [--plan PLAN] [--only KIND SIZE] [--out FILE]
"""

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from bnnlib.files import print_anywhere
from study.bench import PLANS, SIZES, Plan, kind, path, run
from study.bench.timing import show
from study.train import provenance, runner, runs


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    device = runner.default_device()
    target = options.out or path(kind(device))
    partial = target.with_name(f"{target.name}.partial")  # lost is at most the shape at hand
    keep = lambda content: runs.write_record(partial, content)  # noqa: E731
    content = run(_plan(options), device, show, keep)
    content["provenance"]["command"] = provenance.command_line("study.bench", arguments)
    runs.write_record(target, content)
    partial.unlink(missing_ok=True)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    description = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m study.bench", description=description)
    parser.add_argument("--plan", choices=PLANS, default="full", help="quick: smaller shapes")
    parser.add_argument(
        "--only", nargs=2, metavar=("KIND", "SIZE"), help=f"KIND: {', '.join(SIZES)}"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="instead of results/bench/")
    options = parser.parse_args(arguments)
    if options.only:
        kind, size = options.only
        if kind not in SIZES:
            parser.error(f"--only: KIND is one of {', '.join(SIZES)}, not {kind}")
        if not re.fullmatch("[1-9][0-9]*", size):
            parser.error(f"--only: SIZE is a positive whole number, not {size}")
        if not options.out:
            parser.error("--only measures one size: say with --out where it is to be kept")
    return options


def _plan(options: argparse.Namespace) -> Plan:
    """The whole plan, or of it one kind of measurement of one size."""
    plan = PLANS[options.plan]
    if not options.only:
        return plan
    kind, size = options.only
    empty = {name: () for name in SIZES}
    return replace(plan, **(empty | {kind: (int(size),)}))


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main())
