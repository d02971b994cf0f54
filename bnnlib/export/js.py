"""A network for a web page: one blob of bytes, which `engine.js` reads and checks.

All numbers are little-endian, each begins at a multiple of four bytes:

- four letters, `BNN1`;
- uint32: how many layers there are, the scores' among them;
- for each layer two uint32: its units N and its inputs K;
- for each hidden layer N rows of ceil(K / 32) uint32, bit j of word i for input 32 i + j, 1 for a
  weight of +1 and 0 for -1, 0 behind the last input; then N int32, the thresholds;
- for the scores N such rows, then N rows of K + 1 float32: entry d is the class's score where d of
  its K weights differ in sign from their inputs;
- uint32: the CRC-32 of all bytes before it.
"""

import base64
import struct
import zlib

import numpy as np

from bnnlib.export.network import SignNetwork, pack_rows

MAGIC = b"BNN1"
WORD = 32  # JavaScript's operators on bits take 32 of them


def blob(network: SignNetwork) -> bytes:
    """The network as bytes, laid out as this module says.

    Raises ValueError for convolutions, which `engine.js` doesn't compute.
    """
    if any(layer.convolves for layer in network.hidden):
        raise ValueError(f"{network.name} convolves; pages run networks of dense layers alone")
    layers = (*network.hidden, network.last)
    parts = [MAGIC, struct.pack("<I", len(layers))]
    parts += [struct.pack("<II", *layer.signs.shape) for layer in layers]
    for layer in network.hidden:
        parts += [_rows(layer.signs), layer.thresholds.astype("<i4").tobytes()]
    parts += [_rows(network.last.signs), network.last.scores.astype("<f4").tobytes()]
    content = b"".join(parts)
    return content + struct.pack("<I", zlib.crc32(content))


def encoded(network: SignNetwork) -> str:
    """The blob in base64, as a page holds it."""
    return base64.b64encode(blob(network)).decode()


def script(network: SignNetwork) -> str:
    """A script with one constant, the blob in base64: readNetwork(decodeBase64(NETWORK)).

    `lookInside` takes the network and its pixels, in the order channel, row, column.
    """
    return (
        f"// {network.name}: {network.bits:,} weights of one bit, by python -m bnnlib.export.\n"
        f'const NETWORK = "{encoded(network)}";\n'
    )


def _rows(signs: np.ndarray) -> bytes:
    return pack_rows(signs, WORD).tobytes()
