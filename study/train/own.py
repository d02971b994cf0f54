"""A network for somebody's own pictures: its recipe, its training, and what it leaves to take away.

The recipe is the paper's for MNIST or for CIFAR-10, at other sizes, rates and epochs.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bnnlib import cards, network_file
from bnnlib.export import network as sign_network
from bnnlib.export.__main__ import SUFFIXES, content
from bnnlib.files import atomic_write
from bnnlib.models import image_shape
from study import ROOT, recipes
from study.data.training_data import TrainingData
from study.recipes.recipe import Recipe
from study.train import runner, runs

FOLDER = ROOT / "build" / "own"  # nothing is written elsewhere, but records to build/runs
HIDDEN = {"mlp": (512, 512), "convnet": (32, 64)}
DENSE = 256  # a ConvNet's dense units
RATES = {"mlp": (1e-2, 1e-4), "convnet": (6e-3, 3e-5)}  # as the study's quick profile has them
LARGEST_BATCH = 100


def sized(
    side: int,
    channels: int,
    classes: int,
    hidden: Sequence[int] = (),
    convnet: bool = False,
    epochs: int = 20,
) -> Recipe:
    """The recipe of an MLP or a ConvNet for square images; () for hidden: this module's choice.

    Raises ValueError, saying what would work, for sizes, widths or classes that can't.
    """
    _require_whole(side=side, channels=channels, classes=classes, epochs=epochs)
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        raise ValueError(f"hidden must be a list, as [512, 256], not {hidden!r}")
    for units in hidden:
        _require_whole(hidden=units)
    kind = "convnet" if convnet else "mlp"
    base = recipes.CIFAR10_THEANO if convnet else recipes.MNIST_THEANO
    first, last = RATES[kind]
    return replace(
        base,
        name="own",
        dataset="own",
        hidden=tuple(hidden) or HIDDEN[kind],
        dense=DENSE if convnet else 0,
        input_dropout=0.0,
        hidden_dropout=0.0,
        epochs=epochs,
        learning_rate=first,
        final_learning_rate=last,
        side=side,
        channels=channels,
        classes=classes,
    )


def _require_whole(**sizes: int) -> None:
    """Raise ValueError, naming it, for what is no whole number."""
    for name, size in sizes.items():
        if type(size) is not int:
            raise ValueError(f"{name} must be a whole number, not {size!r}")


def require_form(form: str, convnet: bool) -> None:
    """Raise ValueError for an export ("c", "onnx", "js" or "") that such a network can't take."""
    if form not in ("", *SUFFIXES):
        raise ValueError(f"export must be one of {', '.join(SUFFIXES)} or empty, not {form!r}")
    if convnet and form == "js":
        raise ValueError("a page's engine computes no convolutions: export c or onnx")


def shape_of(recipe: Recipe) -> tuple[int, ...]:
    """Shape that a recipe's network reads."""
    return image_shape(recipe.network, recipe.side, recipe.channels)


def fitted(recipe: Recipe, training: TrainingData, classes: int) -> Recipe:
    """The recipe for these data: their number of classes, a batch of at most a quarter of them, and
    their hash in the name, so that runs on other pictures lie elsewhere."""
    batch = max(2, min(LARGEST_BATCH, len(training.train.images) // 4))
    name = f"{recipe.name}-{training.sha256[:8]}"
    return replace(recipe, name=name, classes=classes, batch_size=batch)


def obtain(recipe: Recipe, profile: str, training: TrainingData, seed: int = 0) -> dict:
    """The record of a run on these data, on the CPU: read, if it was made before, or made."""
    return runner.run(recipe, profile, seed, "cpu", training)


def network_path(recipe: Recipe, seed: int = 0) -> Path:
    """Path of a run's network."""
    return runs.fresh_path(recipe, "cpu", seed).with_suffix(".safetensors")


def leave(
    recipe: Recipe, record: dict, training: TrainingData, labels: Sequence[str], form: str
) -> list[Path]:
    """Write the network file with its labels, its card and its export ("c", "onnx", "js" or "").

    -> the files, in a folder of build/own. Raises ValueError as `require_form` does.
    """
    require_form(form, recipe.network == "convnet")
    told = network_file.trained_on(
        training.source,
        labels,
        record["test_error"],
        len(training.test.images),
        f"{recipe.name}, seed {record['seed']}",
    )
    path = FOLDER / recipe.name / f"{recipe.name}.safetensors"
    saved = network_path(recipe, record["seed"]).read_bytes()
    with atomic_write(path) as file:
        file.write(network_file.with_training(saved, told))
    left = [path, path.with_suffix(".md")]
    with atomic_write(left[1]) as file:
        file.write(cards.card(path).encode())
    if form:
        left.append(path.with_suffix(SUFFIXES[form]))
        with atomic_write(left[2]) as file:
            file.write(content(form, sign_network.read(path)))
    return left
