"""One run as a task that somebody else trains: what it is, and the files that come back."""

from dataclasses import dataclass
from pathlib import Path

from bnnlib.files import atomic_write
from study.recipes.recipe import Recipe
from study.train import runner, runs

SUFFIXES = (".safetensors", ".json")  # of the files of a run, in the order of writing


@dataclass(frozen=True)
class Task:
    """A run, the hash of its data, and where the client keeps its record."""

    recipe: Recipe
    profile: str
    seed: int
    data_hash: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.recipe.name} seed {self.seed}"

    def is_finished(self) -> bool:
        return runner.is_finished(self.path, self.profile, self.data_hash)

    def result(self) -> str:
        return f"{self.name}: {runs.read_record(self.path)['test_error']:.2f} % test error"

    def keep(self, files: dict[str, bytes]) -> None:
        """Write what the run left, by suffix: last the record, which says that all is there."""
        for suffix in SUFFIXES:
            if suffix in files:
                with atomic_write(self.path.with_suffix(suffix)) as file:
                    file.write(files[suffix])


def files_of(path: Path) -> dict[str, bytes]:
    """The files that the run of a record at `path` left, by suffix."""
    files = {suffix: path.with_suffix(suffix) for suffix in SUFFIXES}
    return {suffix: file.read_bytes() for suffix, file in files.items() if file.exists()}
