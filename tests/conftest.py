"""How Hypothesis runs here: the same examples each time, as long as a shared machine needs."""

from hypothesis import settings

settings.register_profile("study", deadline=None, derandomize=True)
settings.load_profile("study")
