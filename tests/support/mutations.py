"""What a small valid file becomes when it is spoiled: bytes, JSON, text. The caller has the seed.

Headers are found where they are: any bytes may be overwritten with the numbers that break readers.
"""

import copy
import io
import json
import os
import pickle
from random import Random

import numpy as np

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40)
EXTREMES += (2**60, 2**63 - 1, 2**63, 2**64 - 1)
DEEP, DEPTH = "nested deeply", 100_000  # json.dumps itself can't write it
VALUES = (None, True, -1, 0, 3, 2**31, 2**60, 10**30, 1e308, float("nan"), float("inf"), DEEP)
VALUES += ("", "\0", "../outside", "é\ud800", "x" * 10_000, [], {}, [[]], [1, "two"], {"a": {}})
WORDS = ("null", "inf", "nan", "-1", "0", "1e999", "1e99999999999999999999", "9" * 400)
WORDS += (
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "\\",
    "\0",
    "=",
    ":",
    "- ",
    "&a ",
    "*a",
    "<<: *a",
    "9" * 5000,
)
WORDS += ("!!python/object/apply:os.mkdir [outside]", "!!int ''", "!!bool x", "!!timestamp x", "~")
WORDS += ("2001-13-45", "0x_", "._", "true", "[[a]]", "[[[[[[", "1979-05-27", '"""', "[" * 50_000)


def spoil(chance: Random, content: bytes, other: bytes = b"") -> bytes:
    """Content after one to four accidents; other: what pieces of it may be mixed with."""
    for _ in range(chance.randint(1, 4)):
        content = chance.choice(ACCIDENTS)(chance, content, other or content)
    return content


def _flip(chance: Random, content: bytes, other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 8))):
        if changed:
            changed[_place(chance, changed)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _number(chance: Random, content: bytes, other: bytes) -> bytes:
    """One of EXTREMES over whatever is there."""
    size, order = chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
    number = (chance.choice(EXTREMES) % 256**size).to_bytes(size, order)
    at = _place(chance, content)
    return content[:at] + number + content[at + size :]


def _cut(chance: Random, content: bytes, other: bytes) -> bytes:
    return content[: _place(chance, content)]


def _remove(chance: Random, content: bytes, other: bytes) -> bytes:
    low = _place(chance, content)
    return content[:low] + content[low + chance.choice((1, 4, 8, 100)) :]


def _repeat(chance: Random, content: bytes, other: bytes) -> bytes:
    low = _place(chance, content)
    piece = content[low : low + chance.choice((1, 8, 512))]
    return content[:low] + piece * chance.choice((2, 3, 50)) + content[low + len(piece) :]


def _insert(chance: Random, content: bytes, other: bytes) -> bytes:
    at = _place(chance, content)
    return content[:at] + chance.randbytes(chance.choice((1, 4, 64))) + content[at:]


def _splice(chance: Random, content: bytes, other: bytes) -> bytes:
    return content[: _place(chance, content)] + other[_place(chance, other) :]


ACCIDENTS = (_flip, _flip, _number, _number, _cut, _remove, _repeat, _insert, _splice)


def _place(chance: Random, content: bytes) -> int:
    """Half of them among the first bytes, where headers are."""
    end = max(1, len(content))
    return chance.randrange(min(end, 200) if chance.random() < 0.5 else end)


def spoil_tree(chance: Random, tree):
    """A copy of a JSON document in which one to three entries are other than they should be."""
    tree = [copy.deepcopy(tree)]
    for _ in range(chance.randint(1, 3)):
        parents = list(_parents(tree))
        parent, key = chance.choice(parents)
        if isinstance(parent, dict) and chance.random() < 0.3:
            moved = parent.pop(key)
            if chance.random() < 0.5:
                parent[chance.choice(("", "../outside", f"{key} ", "x" * 300))] = moved
        elif chance.random() < 0.2:
            parent[key] = copy.deepcopy(chance.choice(parents)[0])
        else:
            parent[key] = copy.deepcopy(chance.choice(VALUES))
    return tree[0]


def _parents(tree):
    """(container, key) of every entry below."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _parents(tree[key])


def as_json(tree, **options) -> bytes:
    nested = "[" * DEPTH + "]" * DEPTH
    return json.dumps(tree, **options).replace(json.dumps(DEEP), nested).encode()



class Payload:
    """Unpickled, it makes a folder."""

    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def pickles(marker: str) -> list[bytes]:
    """The payload as pickle, as torch saves it, and in an array of NumPy's, plain and zipped."""
    import torch

    made = [pickle.dumps(Payload(marker), protocol) for protocol in (0, 2, 4)]
    saves = [
        lambda file: torch.save(Payload(marker), file),
        lambda file: torch.save(Payload(marker), file, _use_new_zipfile_serialization=False),
        lambda file: np.save(file, np.array([Payload(marker)], object), allow_pickle=True),
        lambda file: np.savez(file, x=np.array([Payload(marker)], object)),
    ]
    for save in saves:
        save(buffer := io.BytesIO())
        made.append(buffer.getvalue())
    return made
