"""How tests run here: the same examples each time, as long as a shared machine needs, side by side.

OpenMP's threads sleep while they wait for each other; by default they spin, and where other work
has a core the small networks of tests then train many times slower. It is set before torch is
imported, and for the processes that tests start.
"""

import os

from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
settings.register_profile("study", deadline=None, derandomize=True)
settings.load_profile("study")


class ByFile(LoadFileScheduling):
    """With `-n 2`, one process runs all tests of a file.

    Those of the results follow those of the notebooks, which get the real data, but for the smoke
    runs: they need none, and take longest.
    """

    def _split_scope(self, nodeid: str) -> str:
        if "::test_smoke_run[" in nodeid:
            return "smoke runs"
        return super()._split_scope(nodeid).replace("test_results.py", "test_notebooks.py")


def pytest_xdist_make_scheduler(config, log) -> ByFile:
    return ByFile(config, log)
