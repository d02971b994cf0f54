"""Data sets as other libraries keep them: read where they lie, and left as they are.

`$BNN_DATA` may be torchvision's root, its `MNIST` folder or that one's `raw`, or Keras's folder.
What is made or fetched then goes below `data/`.
"""

from pathlib import Path

import numpy as np

from study import ROOT
from study.data import decoding

MNIST_PLACES = ("", "raw/", "MNIST/raw/")  # ours; from torchvision's MNIST folder; from its root
NPZ = {  # a data set -> an .npz file that holds it, and the names of the arrays in there
    "mnist": ("mnist.npz", ("x_train", "y_train", "x_test", "y_test")),  # as Keras keeps it
    "svhn-part": ("svhn-part.npz", ("images", "labels")),  # (16419, 3, 32, 32), (16419,) uint8
}
PICKLED = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-batches-py.tar.gz")
MARKS = ("MNIST/raw", "mnist.npz", *PICKLED)  # what shows that a folder is another library's


def store(folder: Path) -> Path:
    """Folder for what is made from the files of `folder`: there, or below `data/` if the folder
    is another library's."""
    return ROOT / "data" if _is_foreign(folder) else folder


def _is_foreign(folder: Path) -> bool:
    whole = folder.resolve()
    below_torchvision = whole.name.endswith("MNIST") and (whole / "raw").is_dir()
    in_torchvision = whole.name == "raw" and whole.parent.name.endswith("MNIST")
    marked = any((whole / mark).exists() for mark in MARKS)
    return below_torchvision or in_torchvision or marked


def arrays(name: str, folder: Path) -> list[np.ndarray]:
    """The arrays of the data set's .npz file, in the order in which NPZ names them.

    Raises FileNotFoundError if the folder has no such file, ValueError if it can't be read.
    """
    file, names = NPZ.get(name, ("", ()))
    if not (file and (folder / file).is_file()):
        raise FileNotFoundError(f"{file or 'a copy'} is not there")
    return decoding.npz(folder / file, names)


def refuse_pickles(folder: Path) -> None:
    """Raise FileNotFoundError that says why CIFAR-10's Python version, if it is there, won't do."""
    for file in PICKLED:
        if (folder / file).exists():
            raise FileNotFoundError(
                f"{file} is not read, because it holds pickles, which can run any program: "
                "only the binary version, cifar-10-binary.tar.gz, is read"
            )
