"""Run records made by hand, so that reports can be tested without training."""

import json
from dataclasses import asdict

from study import recipes
from study.recipes import Recipe
from study.train import provenance, runs


def record(
    recipe: Recipe, profile: str, seed: int, test_error: float, stand_in: bool = False
) -> dict:
    """A record of three epochs whose errors, in %, end at `test_error`; read back from JSON."""
    history = [
        {
            "epoch": epoch,
            "train_loss": 0.1 / epoch,
            "validation_loss": 0.2 / epoch,
            "validation_error": test_error * 3 / epoch,
            "learning_rate": 1e-3 / epoch,
            "seconds": 2.0,
        }
        for epoch in (1, 2, 3)
    ]
    made_by = {
        "commit": "0123456789abcdef",
        "dirty": False,
        "sources": provenance.source_hash(),
        "data": "ab" * 32,
        "data_source": "canonical",
        "stand_in": stand_in,
        "device": "cpu",
        "device_name": "A Machine",
        "threads": 2,
        "versions": {"python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6"},
        "command": "python -m study.train",
        "started": f"2026-11-{10 + seed}T14:00:00+00:00",
        "seconds": 60.0 * (seed + 1),
    }
    made = {
        "schema": 1,
        "recipe": asdict(recipes.at_profile(recipe, profile)),
        "profile": profile,
        "seed": seed,
        "history": history,
        "best_epoch": 3,
        "test_error": test_error,
        "final_test_error": test_error,
        "provenance": made_by,
    }
    return json.loads(json.dumps({**made, "digest": runs.digest(made)}))


def seeds(recipe: Recipe, profile: str, *test_errors: float) -> list[dict]:
    """One record per test error."""
    return [record(recipe, profile, seed, error) for seed, error in enumerate(test_errors)]
