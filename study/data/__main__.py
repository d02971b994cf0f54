"""Fetch and check data sets: python -m study.data [NAME ...]"""

import sys

from bnnlib.files import print_anywhere
from study.data import UNAVAILABLE, DataUnavailable, load


def main(names: list[str]) -> int:
    """Fetch and check, one line a set -> exit status. "svhn" with its 1.3 GB only where named.

    A set that no source has gives UNAVAILABLE, and the others still come; anything else ends with 1
    at once.
    """
    status = 0
    for name in names or ("mnist", "cifar10", "svhn-no-extra"):
        try:
            dataset = load(name)
        except DataUnavailable as problem:
            print(problem, file=sys.stderr)
            status = UNAVAILABLE
        except (OSError, ValueError) as problem:
            print(getattr(problem, "strerror", None) or problem, file=sys.stderr)
            return 1
        else:
            train, test = dataset.train_images.shape, dataset.test_images.shape
            print(f"{name}: train {train}, test {test}, SHA-256 ok, from: {dataset.source}")
    return status


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main(sys.argv[1:]))
