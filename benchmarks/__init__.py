"""Timings that need other programs beside ours, each leaving its record in results/bench."""
