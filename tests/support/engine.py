"""The page's engine (engine.js) outside a page: answers to many pictures, to be compared."""

import base64
import json
import shutil
import subprocess
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from bnnlib.packed import PackedNetwork
from bnnlib.xnor import unpack_signs
from study import ROOT

BROWSER = ROOT / "study" / "playground" / "browser"
ENGINE = BROWSER / "engine.js"
NODE = shutil.which("node")
needed = pytest.mark.skipif(NODE is None, reason="no Node.js")
# base64 of a blob and of pictures -> base64 of what each picture gives: the words of all hidden
# layers, the scores (float32), the class (int32)
ANSWERS = """
function answers(blob, pictures) {
  const network = readNetwork(decodeBase64(blob));
  const pixels = decodeBase64(pictures);
  let text = "";
  const size = network.layers[0].inputs;
  for (let at = 0; at < pixels.length; at += size) {
    const found = lookInside(network, pixels.subarray(at, at + size));
    const parts = found.layers.map(({ words }) => words);
    parts.push(Float32Array.from(found.scores), Int32Array.of(found.predicted));
    for (const part of parts) text += String.fromCharCode(...new Uint8Array(part.buffer));
  }
  return btoa(text);
}
"""


def run_in_node(script: str, *arguments, files: tuple[str, ...] = ("engine",)):
    """Run scripts of the page, then the body of a function of `given`, the list of arguments.

    Returns what the body does, through JSON. Pieces find no place here, so only their functions
    are there.
    """
    source = "const document = { querySelectorAll: () => [] };\n"
    source += "\n".join((BROWSER / f"{name}.js").read_text("utf-8") for name in files) + ANSWERS
    source += "const given = JSON.parse(process.getBuiltinModule('fs').readFileSync(0, 'utf8'));\n"
    source += f"console.log(JSON.stringify((() => {{{script}}})()));\n"
    command = [NODE, "--input-type=commonjs", "-e", source]
    given = json.dumps(arguments)
    done = subprocess.run(command, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def base64_of(content: bytes | np.ndarray) -> str:
    return base64.b64encode(bytes(content)).decode()


def as_answers(
    text: str, units: Sequence[int], classes: int = 10
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """What `answers` returned -> bits (B, N) uint8 of each hidden layer, scores, classes."""
    words = [-(-n // 32) for n in units]
    size = 4 * (sum(words) + classes + 1)
    rows = np.frombuffer(base64.b64decode(text), np.uint8).reshape(-1, size)
    bits, at = [], 0
    for n, width in zip(units, words, strict=True):
        own = rows[:, at : at + 4 * width]
        bits.append(np.unpackbits(own, axis=1, bitorder="little")[:, :n])
        at += 4 * width
    scores = np.ascontiguousarray(rows[:, at:-4]).view("<f4")
    return bits, scores, np.ascontiguousarray(rows[:, -4:]).view("<i4")[:, 0]


def expected(
    network: PackedNetwork, pictures: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """What `bnnlib.packed` makes of pictures (B, inputs) uint8, in the same form; bits of
    convolutions are (B, H, W, N)."""
    images = torch.from_numpy(pictures.reshape(-1, *network.shape))
    bits = [
        (unpack_signs(words, len(layer.thresholds)) > 0).numpy().astype(np.uint8)
        for words, layer in zip(network.hidden(images), network.layers, strict=True)
    ]
    scores = network(images)
    return bits, scores.numpy(), scores.argmax(1).numpy()


def same(ours: tuple, theirs: tuple) -> bool:
    """Whether every bit, score and class is equal."""
    pairs = [*zip(ours[0], theirs[0], strict=True), *zip(ours[1:], theirs[1:], strict=True)]
    return all(np.array_equal(one, other) for one, other in pairs)
