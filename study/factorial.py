"""A 2 x 2 experiment: two factors at two levels each, all four combinations trained.

`lines` names its recipes: the first factor's level -> the recipes at the second's two levels.
"""

import pandas as pd

Lines = dict[str, list[str]]
COLUMNS = ["effect", "difference", "standard error", "runs"]
# Of the four means, base, second, first, both: what is added up. A main effect is the mean of the
# factor's two differences; the interaction is how much the two differ.
CONTRASTS = ((-0.5, -0.5, 0.5, 0.5), (-0.5, 0.5, -0.5, 0.5), (1, -1, -1, 1))


def test_errors(records: list[dict], name: str) -> list[float]:
    """Test errors of a recipe's runs, in %."""
    return [record["test_error"] for record in records if record["recipe"]["name"] == name]


def effects(records: list[dict], lines: Lines, factors: tuple[str, str]) -> pd.DataFrame:
    """Both main effects and the interaction, in points, with their standard errors.

    Variances are not taken as equal, nor seeds as pairs. Without runs of all four recipes there are
    no rows; with one run of any, no standard error.
    """
    cells = [pd.Series(test_errors(records, name)) for names in lines.values() for name in names]
    if any(cell.empty for cell in cells):
        return pd.DataFrame(columns=COLUMNS)
    names = (*factors, " × ".join(factors))
    rows = [_contrast(name, cells, weights) for name, weights in zip(names, CONTRASTS, strict=True)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _contrast(name: str, cells: list[pd.Series], weights: tuple) -> list:
    """One row of `effects`."""
    pairs = list(zip(cells, weights, strict=True))
    difference = sum(weight * cell.mean() for cell, weight in pairs)
    variance = sum(weight**2 * cell.var() / len(cell) for cell, weight in pairs)
    return [name, difference, variance**0.5, sum(map(len, cells))]
