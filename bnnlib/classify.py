"""Classify pictures with a network file, on bits: python -m bnnlib.classify MODEL IMAGE...

A line a picture, with its class and that class's score.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bnnlib.files import DECODING
from bnnlib.packed import load, require_file

LARGEST_PIXELS = 2**26  # of a picture file: a few bytes may claim billions


def read_image(path: str | Path, shape: tuple[int, ...]) -> tuple[Tensor, str]:
    """Read a picture file for a network of this input shape: uint8 (1, *shape), and a note.

    The picture becomes grey for (28, 28), is stretched to size, and black where transparent; the
    note says what had to be changed, or is "".

    Raises ValueError, in one sentence, for what is no picture of 8 bits, OSError for no file.
    """
    from PIL import Image, ImageOps

    size = shape[-1], shape[-2]
    path = require_file(path)
    content = io.BytesIO(path.read_bytes())  # of a file, a read of what it claims takes that memory
    try:
        with Image.open(content) as file:
            if file.mode.startswith(("I", "F")):
                raise ValueError("it has more than 8 bits a channel")
            if file.width * file.height > LARGEST_PIXELS:
                size_told = f"{file.width} x {file.height}"
                raise ValueError(f"it has {size_told} pixels, at most {LARGEST_PIXELS}")
            picture = ImageOps.exif_transpose(file).convert("RGBA")
    except (OSError, ValueError, *DECODING, Image.DecompressionBombError) as error:
        reason = str(error).replace(repr(content), path.name)
        raise ValueError(f"{path} cannot be read as a picture: {reason}") from error
    note = "" if picture.size == size else f" (resized from {picture.width}x{picture.height})"
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    picture = picture.convert("L" if len(shape) == 2 else "RGB").resize(size)
    pixels = torch.from_numpy(np.array(picture))
    return (pixels if len(shape) == 2 else pixels.movedim(-1, 0))[None], note


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0; 1 if a picture could not be read, 2 if the model could not."""
    options = _options(arguments)
    try:
        network = load(options.model)
        if network.first.dtype != torch.uint8:
            raise ValueError(f"{options.model} reads images as whitened in training, not pictures")
    except (ValueError, OSError) as error:
        return _complain(error, 2)
    status = 0
    for path in options.images:
        try:
            image, note = read_image(path, network.shape)
        except (ValueError, OSError) as error:
            status = _complain(error, 1)
            continue
        score, chosen = network(image)[0].max(0)
        print(f"{path}: class {chosen}, score {score:.3f}{note}")
    return status


def _complain(error: Exception, status: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return status


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bnnlib.classify",
        description="Classify pictures with a network file, on bits: a line each with the class "
        "and its score, the largest of ten.",
        epilog="A network of digits (MNIST) reads 28x28 grey, white digits on black, one of "
        "pictures (CIFAR-10, SVHN) 32x32 RGB; files of another size are stretched to it.",
    )
    parser.add_argument("model", metavar="MODEL", help="a .safetensors file of results/models")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="a picture that Pillow reads")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
