"""The page's engine in Node.js: what `bnnlib.packed` and `as_mnist` compute, to the last bit."""

import struct
import zlib

import numpy as np
import pytest

from bnnlib import packed
from bnnlib.export import js
from bnnlib.export.network import convert
from bnnlib.layers import Normalization
from study.playground.model import as_mnist
from tests.support.engine import as_answers, base64_of, expected, needed, run_in_node, same
from tests.support.random_networks import images, random_network, sized_network

pytestmark = needed
REFUSAL = """
return given.map((text) => {
  try { readNetwork(decodeBase64(text)); return ""; } catch (error) { return error.message; }
});
"""


@pytest.mark.parametrize("hidden", [(70, 130), (64,), (3, 33, 5)], ids=str)
@pytest.mark.parametrize("kind", [Normalization.EXACT, Normalization.SHIFT_CODED])
def test_every_bit_score_and_class_is_the_packed_networks(hidden, kind):
    network = random_network("mlp", hidden, kind)
    pixels = images(network, 20).flatten(1).numpy()
    blob = base64_of(js.blob(convert(network, "n")))
    text = run_in_node("return answers(...given);", blob, base64_of(pixels))
    assert same(as_answers(text, hidden), expected(packed.pack(network), pixels))


@pytest.mark.parametrize(
    ("shape", "classes", "hidden"),
    [
        ((2, 2), 2, (1,)),
        ((3, 8, 8), 3, (33, 31)),
        ((8, 8), 1000, (1, 1)),
        ((3, 30, 30), 7, (1000,)),
    ],
    ids=str,
)
def test_networks_of_any_size_are_read(shape, classes, hidden):
    network = sized_network(shape, classes, hidden)
    pixels = np.random.default_rng(0).integers(256, size=(9, np.prod(shape)), dtype=np.uint8)
    pixels[:2] = [[0], [255]]
    blob = base64_of(js.blob(convert(network, "n", shape)))
    text = run_in_node("return answers(...given);", blob, base64_of(pixels))
    wanted = expected(packed.pack(network, shape), pixels)
    assert same(as_answers(text, hidden, classes), wanted)


def test_pixels_of_another_number_are_refused_and_pages_take_digits_alone():
    small = sized_network((8, 8), 10, (5,))
    blob = base64_of(js.blob(convert(small, "n", (8, 8))))
    two = base64_of(js.blob(convert(sized_network((28, 28), 2, (5,)), "n", (28, 28))))
    body = """
    const said = (act) => { try { act(); return ""; } catch (error) { return error.message; } };
    const [small, two] = given.map((text) => readNetwork(decodeBase64(text)));
    return [
      said(() => lookInside(small, new Uint8Array(63))),
      said(() => requireDigits(small)),
      said(() => requireDigits(two)),
    ];
    """
    number, digits, classes = run_in_node(body, blob, two)
    assert number == "The network reads 64 pixels, not 63."
    assert "reads 64 pixels" in digits and "has 2 classes" in classes


def drawings(side):
    """Nothing, all, a dot in a corner, and boxes of grey or white, wide, tall and far apart."""
    rng = np.random.default_rng(0)
    made = [np.zeros((side, side), np.uint8), np.full((side, side), 255, np.uint8)]
    for _ in range(60):
        field = np.zeros((side, side), np.uint8)
        for _ in range(rng.integers(1, 4)):
            top, left = rng.integers(0, side, 2)
            high, wide = rng.integers(1, 90, 2) if rng.random() < 0.7 else (1, 1)
            part = field[top : top + high, left : left + wide]
            part[:] = rng.integers(1, 256, part.shape) if rng.random() < 0.7 else 255
        made.append(field)
    return made


def test_a_drawing_becomes_the_digit_that_python_makes_of_it():
    drawn = drawings(168)
    body = "return given.map((text) => Array.from(asMnist(decodeBase64(text), 168)));"
    made = run_in_node(body, *map(base64_of, drawn))
    for ours, drawing in zip(made, drawn, strict=True):
        assert np.array_equal(np.array(ours).reshape(28, 28), as_mnist(drawing))


def resealed(blob, at, form, value):
    """The blob with one number changed and a checksum that fits."""
    changed = bytearray(blob[:-4])
    struct.pack_into(form, changed, at, value)
    return bytes(changed) + struct.pack("<I", zlib.crc32(changed))


def test_a_damaged_blob_is_refused_in_words():
    hidden = (70, 130)
    blob = js.blob(convert(random_network("mlp", hidden, Normalization.EXACT), "n"))
    head = 8 + 8 * 3
    thresholds = head + 4 * 70 * 25
    second = thresholds + 4 * 70
    flipped = bytearray(blob)
    flipped[head + 5] ^= 16
    cases = {
        "": blob,
        "0 bytes are no network": b"",
        "bytes are no network": blob[:-1],
        "doesn't begin with BNN1": b"BNN2" + blob[4:],
        "claims 1 layers": resealed(blob, 4, "<I", 1),
        "claims 4000000000 layers": resealed(blob, 4, "<I", 4_000_000_000),
        "layer 1 has 0 inputs": resealed(blob, 12, "<I", 0),
        "layer 1 has 4000000000 inputs": resealed(blob, 12, "<I", 4_000_000_000),
        "layer 1 has 0 units": resealed(blob, 8, "<I", 0),
        "layer 1 has 4000000000 units": resealed(blob, 8, "<I", 4_000_000_000),
        "layer 2 has 70 inputs instead of 71": resealed(blob, 8, "<I", 71),
        "it has 1 classes": resealed(blob, 24, "<I", 1),
        "its layers take": blob[:-8] + blob[-4:],
        "but it has": resealed(blob, 12, "<I", 1000),
        "checksum": bytes(flipped),
        "behind the last input of unit 0": resealed(blob, head + 4 * 24, "<I", 1 << 16),
        "layer 2 has a bit behind": resealed(blob, second + 4 * 2, "<I", 1 << 31),
        "the threshold of unit 3 in layer 1 is 199921": resealed(
            blob, thresholds + 12, "<i", 199_921
        ),
        "a score is no finite number": resealed(blob, len(blob) - 8, "<f", float("inf")),
    }
    found = run_in_node(REFUSAL, *map(base64_of, cases.values()))
    for words, said in zip(cases, found, strict=True):
        assert (words in said) if words else said == "", (words, said)


def test_whatever_is_changed_a_blob_is_refused():
    """Each byte, each way of cutting it off, and sizes of all kinds under a checksum that fits."""
    blob = js.blob(convert(sized_network((2, 2), 2, (3,)), "n", (2, 2)))
    rng = np.random.default_rng(0)
    damaged = [blob[:end] for end in range(len(blob))] + [blob + bytes(4), blob + blob]
    for at in range(len(blob)):
        changed = bytearray(blob)
        changed[at] ^= int(rng.integers(1, 256))
        damaged.append(bytes(changed))
    for at in range(4, 24, 4):
        kept = struct.unpack_from("<I", blob, at)[0]
        for size in (0, 1, 5, 33, 2**20, 2**31 - 1, 2**31, 2**32 - 1):
            is_same = size == kept or -(-size // 32) == -(-kept // 32) and at == 12
            damaged += [] if is_same else [resealed(blob, at, "<I", size)]
    found = run_in_node(REFUSAL, *map(base64_of, damaged))
    assert [at for at, said in enumerate(found) if not said.startswith("The network can")] == []
