"""Recipes: every experiment as one frozen dataclass instance, by name, and at a profile.

`recipe` says what a recipe is. `paper`, `ablations` and `open_questions` hold the recipes, `sweeps`
those that serve only to choose a learning rate; `profiles` says what each profile changes in them,
`citations` where their values come from. All are offered here.
"""

from dataclasses import replace

from study.recipes.ablations import *  # noqa: F403 - recipes alone, each by its own name
from study.recipes.ablations import ABLATIONS
from study.recipes.citations import CITATIONS, Citation  # noqa: F401
from study.recipes.open_questions import *  # noqa: F403
from study.recipes.open_questions import OPEN_QUESTIONS
from study.recipes.paper import *  # noqa: F403
from study.recipes.paper import PAPER, SVHN_PART
from study.recipes.profiles import PROFILES
from study.recipes.recipe import Preprocessing, Recipe  # noqa: F401
from study.recipes.sweeps import RATE_RECIPES

FAITHFUL = tuple(name for name in reversed(PROFILES) if name != "smoke")  # the best first
RECIPES = (*PAPER, *SVHN_PART, *ABLATIONS, *OPEN_QUESTIONS)  # whose runs are results


def at_profile(recipe: Recipe, profile: str) -> Recipe:
    """The recipe as a profile runs it. Raises ValueError for an unknown profile."""
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    return replace(recipe, **PROFILES[profile].get(recipe.name, {}))


def lasting(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe in another number of epochs, its schedule compressed or stretched; 0: as it is."""
    if not epochs:
        return recipe
    halve_every = recipe.halve_every * epochs / recipe.epochs
    return replace(recipe, epochs=epochs, halve_every=halve_every)


def by_name(name: str) -> Recipe:
    """The named recipe. Raises ValueError for an unknown name."""
    for recipe in (*RECIPES, *RATE_RECIPES):
        if recipe.name == name:
            return recipe
    raise ValueError(f"unknown recipe {name!r}: choose one of {', '.join(r.name for r in RECIPES)}")


def is_named(recipe: Recipe, profile: str) -> bool:
    """True for a named recipe at this profile with nothing else changed."""
    return any(recipe == at_profile(named, profile) for named in (*RECIPES, *RATE_RECIPES))
