"""Learning rates of the ablations in the evening profile: three are tried, runs choose one.

Every swept arm has three recipes, `<arm>-rate-low`, `-middle` and `-high`, which differ from it in
their learning rate alone. notebooks/rates.toml holds the chosen rates: python -m tools.choose_rates
writes it from the runs of those recipes.
"""

import tomllib
from dataclasses import replace
from pathlib import Path

from bnnlib.rules import Rule
from study import ROOT
from study.recipes import ablations
from study.recipes.recipe import Recipe

FILE = ROOT / "notebooks" / "rates.toml"
STEPS = ("low", "middle", "high")
DECAY = 100  # first rate over final one where a rate decays exponentially

EXPONENTIAL = (1e-3, 3e-3, 1e-2)  # around the published 3e-3
# Without the multiplier, which is about 37 in the hidden layers.
UNMULTIPLIED = (1e-2, 3e-2, 1e-1)
HALVED_ADAM = (2**-10, 2**-8, 2**-6)
HALVED_ADAMAX = (2**-8, 2**-6, 2**-4)  # around the 2^-6 of the authors' code
# Behind dropout small networks learn little at the published rates.
DROPPED_EXPONENTIAL = (3e-4, 1e-3, 3e-3)
DROPPED_ADAMAX = (2**-10, 2**-8, 2**-6)

# The groups of ablations whose arms are swept.
GROUPS = (ablations.GRADIENTS, ablations.SHIFT, ablations.GAPS_MNIST, ablations.GAPS_CIFAR10)
# Its rate is the baseline's by definition: what does the multiplier do at an unchanged rate?
FOLLOWS = {ablations.GRADIENTS_NO_GLOROT.name: ablations.GRADIENTS_BASELINE.name}


def _tried(arm: Recipe) -> tuple[float, float, float]:
    """The three rates of an arm, rising."""
    if arm.name == ablations.GRADIENTS_NO_GLOROT_HIGHER_RATE.name:
        return UNMULTIPLIED
    if arm.hidden_dropout:
        return DROPPED_ADAMAX if arm.halve_every else DROPPED_EXPONENTIAL
    if arm.halve_every:
        return HALVED_ADAM if arm.optimizer is Rule.ADAM else HALVED_ADAMAX
    return EXPONENTIAL


def at_rate(arm: Recipe, rate: float) -> dict[str, float]:
    """The fields that give an arm this rate; its schedule keeps its shape."""
    if arm.halve_every:
        return {"learning_rate": rate}
    return {"learning_rate": rate, "final_learning_rate": rate / DECAY}


def sweep(arm: Recipe) -> tuple[Recipe, ...]:
    """The arm at each of its three rates, rising."""
    pairs = zip(STEPS, _tried(arm), strict=True)
    return tuple(
        replace(arm, name=f"{arm.name}-rate-{step}", **at_rate(arm, rate)) for step, rate in pairs
    )


def chosen(file: Path | None = None) -> dict[str, float]:
    """Arm -> the learning rate that was chosen for it; an arm whose sweep isn't over is absent.

    file: FILE by default. Raises ValueError for a name or a rate that was not swept.
    """
    file = file or FILE
    rates = tomllib.loads(file.read_text("utf-8")) if file.exists() else {}
    for name, rate in rates.items():
        if rate not in [tried.learning_rate for tried in SWEEPS.get(name, ())]:
            raise ValueError(f"{file.name}: {name} was not swept at {rate!r}")
    return rates


def chosen_fields(arm: Recipe, rates: dict[str, float]) -> dict[str, float]:
    """Fields that a choice of rates changes in an arm: none as long as no rate is chosen for it."""
    name = FOLLOWS.get(arm.name, arm.name)
    return at_rate(arm, rates[name]) if name in rates else {}


SWEPT = tuple(arm for group in GROUPS for arm in group if arm.name not in FOLLOWS)
SWEEPS = {arm.name: sweep(arm) for arm in SWEPT}
RATE_RECIPES = tuple(recipe for tried in SWEEPS.values() for recipe in tried)
