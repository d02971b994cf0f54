"""Cost of the whole paper at ten seeds: `python -m tools.scale` writes it in docs/scale.md.

Estimated from the seconds of committed runs, all on CPU. A run's time is taken to grow with its
multiply-adds, at the rate of the largest network that was trained by the same kind of steps.
The runs themselves are the page's other table.
"""

import sys
from dataclasses import dataclass
from functools import cache
from statistics import median

from bnnlib.files import atomic_write
from study import ROOT, bench, recipes
from study.recipes import ablations, open_questions, paper
from study.recipes.recipe import Recipe
from study.recipes.shapes import connections
from study.verdicts import listed
from tools import scale_runs
from tools.files import with_part
from tools.scale_runs import sized, work

PAGE = ROOT / "docs" / "scale.md"
SEEDS = 10
FAR = 100  # times as many multiply-adds as the network that was run: from there on it is a guess
# What a step computes, beside sizes; recipes alike in it take alike.
KIND = ("network", "weights", "activations", "batch_norm", "optimizer")
KIND += ("latent_bits", "gradient_bits", "rounding", "filter_scale", "polynomial_gradient")
GROUPS = {
    **{recipe.name: (recipe,) for recipe in paper.PAPER},
    "the SVHN recipes on svhn-part": paper.SVHN_PART,
    "linear classifiers": ablations.LINEAR,
    "CIFAR-10 ablations": ablations.CIFAR10_ABLATIONS,
    "gradients": ablations.GRADIENTS,
    "shift-based": ablations.SHIFT,
    "gap between the MNIST recipes": ablations.GAPS_MNIST,
    "gap between the CIFAR-10 recipes": ablations.GAPS_CIFAR10,
    "open questions": (*open_questions.OPEN_BITS, *open_questions.OPEN_REGULARIZERS),
    "codes": open_questions.CODES,
}


@dataclass(frozen=True)
class Rate:
    """Rate of a recipe's runs at a profile: the median of core-seconds per multiply-add."""

    recipe: str
    profile: str
    largest: int  # multiply-adds of an image
    seconds: float
    device: str


@cache
def rates(name: str) -> list[Rate]:
    """Rates of a recipe's committed runs on CPU, one a profile, the largest network last."""
    found = []
    for profile in recipes.PROFILES:
        records = scale_runs.committed(name, profile)
        if records:
            made = sized(records[0])
            seconds = median(_core_seconds(record) / work(sized(record)) for record in records)
            device = bench.label(records[0])
            found.append(Rate(name, profile, connections(made), seconds, device))
    return sorted(found, key=lambda rate: rate.largest)


def _core_seconds(record: dict) -> float:
    return scale_runs.usual_seconds(record) * record["provenance"]["threads"]


def rate_of(recipe: Recipe) -> Rate | None:
    """Rate of the largest network among the recipes of its kind; None if none of them was run."""
    alike = [other for other in recipes.RECIPES if _kind(other) == _kind(recipe)]
    found = [rate for other in alike for rate in rates(other.name)]
    return max(found, key=lambda rate: rate.largest, default=None)


def _kind(recipe: Recipe) -> tuple:
    return tuple(getattr(recipe, name) for name in KIND)


def hours(recipe: Recipe, rate: Rate) -> float:
    """Core-hours of a run at the paper's size."""
    return work(recipe) * rate.seconds / 3600


def table() -> str:
    """The estimate as Markdown: a row a group, their sum, and how far to trust it."""
    lines = ["| what | recipes | estimated from | core-hours a run | core-hours, 10 seeds | GPU |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    total = 0.0
    missing = []
    devices = set()
    for name, group in GROUPS.items():
        known = {recipe: rate for recipe in group if (rate := rate_of(recipe))}
        missing += [recipe.name for recipe in group if recipe not in known]
        devices |= {rate.device for rate in known.values()}
        taken = [hours(recipe, rate) for recipe, rate in known.items()]
        total += SEEDS * sum(taken)
        cells = (name, len(group), _origins(known), _range(taken), _many(taken), "not run")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append(f"| all | {sum(map(len, GROUPS.values()))} | | | {total:,.0f} | not run |")
    lines += ["", _trust(devices), *_guessed(total)]
    if missing:
        lines += ["", f"Left out, as nothing like them was run: {', '.join(missing)}."]
    return "\n".join(lines)


def _guessed(total: float) -> list[str]:
    """A paragraph on what rests on very small networks; empty if nothing does."""
    rates_of = {recipe: rate_of(recipe) for group in GROUPS.values() for recipe in group}
    far = [
        SEEDS * hours(recipe, rate)
        for recipe, rate in rates_of.items()
        if rate and connections(recipe) > FAR * rate.largest
    ]
    told = (
        f"{sum(far):,.0f} of the {total:,.0f} core-hours are a guess: the {len(far)} recipes that "
        f"take them were only run with networks over {FAR} times smaller than the paper's, so the "
        "true number may be many times lower."
    )
    return ["", told] if far else []


def _origins(known: dict[Recipe, Rate]) -> str:
    """Whose runs were taken, and at which profile; of many, the profiles alone."""
    origins = {f"{rate.recipe}, {rate.profile}" for rate in known.values()}
    if len(origins) > 2:
        origins = {rate.profile for rate in known.values()}
    return "; ".join(sorted(origins)) or "not run"


def _range(taken: list[float]) -> str:
    if not taken:
        return ""
    low, high = _in_digits(min(taken)), _in_digits(max(taken))
    return low if low == high else f"{low} to {high}"


def _in_digits(value: float) -> str:
    return f"{value:,.1f}" if value >= 0.1 else f"{value:.1g}"


def _many(taken: list[float]) -> str:
    if not taken:
        return ""
    together = SEEDS * sum(taken)
    return f"{together:,.0f}" if together >= 1 else _in_digits(together)


def _trust(devices: set[str]) -> str:
    """How rates differ where a recipe was run at several sizes, as a sentence."""
    several = filter(None, map(_sizes, recipes.RECIPES))
    ratios = [found[0].seconds / found[-1].seconds for found in several]
    spread = f"{min(ratios):.1f} to {max(ratios):.1f}" if ratios else "unknown"
    return (
        "Core-hours are seconds times threads, at the median epoch's time, on "
        f"{listed(sorted(devices))}; no run was made on a GPU. An order of "
        "magnitude: small networks take longer for a multiply-add, and a "
        f"busy machine takes longer for everything. Of the {len(ratios)} recipes that were run at "
        f"two sizes, the smaller network took {spread} times as long for one as the larger."
    )


def _sizes(recipe: Recipe) -> list[Rate]:
    """A recipe's rates, if they are of more than one size."""
    found = rates(recipe.name)
    return found if found and found[0].largest < found[-1].largest else []


def updated(page: str) -> str:
    """The page with the tables of now. Raises ValueError where a place is not marked."""
    return with_part(with_part(page, "estimate", table()), "runs", scale_runs.table())


def main() -> int:
    with atomic_write(PAGE) as file:
        file.write(updated(PAGE.read_text("utf-8")).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
