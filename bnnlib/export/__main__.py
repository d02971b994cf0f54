"""Write a network file in another form: python -m bnnlib.export MODEL --c [--output FILE].

A model card is written beside it, FILE.md.
"""

import argparse
import sys
from pathlib import Path

from bnnlib.cards import card
from bnnlib.export import c, js, network
from bnnlib.files import atomic_write, print_anywhere

SUFFIXES = {"c": ".c", "js": ".js", "onnx": ".onnx"}


def content(form: str, exported: network.SignNetwork) -> bytes:
    """The file of a network in one of the three forms.

    Raises ModuleNotFoundError for onnx where that package isn't installed.
    """
    if form == "c":
        return c.source(exported).encode()
    if form == "js":
        return js.script(exported).encode()
    from bnnlib.export import onnx

    return onnx.model(exported).SerializeToString()


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0, or 2 where nothing could be written."""
    options = _options(arguments)
    target = options.output or Path(options.model.stem + SUFFIXES[options.form])
    beside = target.with_name(f"{target.name}.md")
    try:
        if target.is_dir() or (target.exists() and target.samefile(options.model)):
            raise ValueError(f"{target} is a folder or the model itself: give --output a new file")
        made = content(options.form, network.read(options.model))
        described = card(options.model, options.form).encode()
        for path, written in {target: made, beside: described}.items():
            with atomic_write(path) as file:
                file.write(written)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{target}: {len(made):,} bytes, its model card {beside}")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bnnlib.export",
        description="Write a network as a C99 file without dependencies, as a script for a web "
        "page (dense layers alone), or as an ONNX file. It must read uint8 pixels scaled to "
        "[-1, 1]: a first layer of real numbers is summed in an order of PyTorch's own, which no "
        "export repeats.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="a .safetensors network file")
    forms = parser.add_mutually_exclusive_group(required=True)
    for form in SUFFIXES:
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form)
    parser.add_argument("--output", metavar="FILE", type=Path, help="default: MODEL's name here")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    print_anywhere()
    sys.exit(main())
