"""Training: networks and optimizers from recipes, the loop, runs, their records and provenance."""
