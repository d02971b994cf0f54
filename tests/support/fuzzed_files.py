"""Readers of what the study itself writes, and of what its readers hand it: small files of each."""

import functools
import io
import json
import struct
import tempfile
import zlib
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest.mock import patch

import hand_made
import numpy as np
import safetensors.torch
import torch
from fuzzing import Reader
from mutations import DEEP, EXTREMES, VALUES, as_json, spoil, spoil_tree
from PIL import Image
from random_networks import random_network

from bnnlib import classify, network_file, packed, pictures
from bnnlib.layers import Normalization
from study import bench, recipes
from study.train import checkpoints, eager, loop, runs

SEALED = 0.6  # share of cases whose digest fits what was changed


# Records


def _record(chance: Random, record: dict) -> bytes:
    if chance.random() < 0.4:
        return spoil(chance, json.dumps(record).encode())
    changed = spoil_tree(chance, record)
    try:
        if chance.random() < SEALED:
            changed["digest"] = runs.digest(changed)
    except (AttributeError, TypeError, ValueError, UnicodeError):
        pass  # there is nothing that could be sealed
    return as_json(changed)


def _record_traps(file: str, record: dict):
    """What is no record, and records that are sealed and yet none."""
    for value in VALUES:
        yield file, as_json(value)
        for key in ("schema", "recipe", "provenance"):
            changed = {**record, key: value}
            if value == value and value != float("inf") and value != DEEP:
                changed["digest"] = runs.digest(changed)
            yield file, as_json(changed)


def _read_record(path: Path, right: dict) -> None:
    record = runs.read_record(path)
    assert record == right or record["digest"] != right["digest"], "read, but wrong"


RECORD = hand_made.record(recipes.MNIST_THEANO, "smoke", 0, 4.5)
ROW = {"what": "64x64x64", "kind": "matmul", "implementation": "ours", "seconds": [0.5, 0.25]}
BENCH = {"schema": runs.SCHEMA, "provenance": RECORD["provenance"], "rows": [ROW] * 2}
BENCH["digest"] = runs.digest(BENCH)


def _bench(folder: Path) -> None:
    with patch.object(bench, "path", lambda kind, what: folder / f"{what}-{kind}.json"):
        assert list(bench.committed()) == ["cpu-generic"]
    _read_record(folder / "kernels-cpu-generic.json", BENCH)


# safetensors: network files and checkpoints


def _spoil_tensors(chance: Random, content: bytes, other: bytes) -> bytes:
    """The JSON in front changed, with the right length before it; or any bytes."""
    if chance.random() < 0.4:
        return spoil(chance, content, other)
    (length,) = struct.unpack_from("<Q", content)
    head = spoil_tree(chance, json.loads(content[8 : 8 + length]))
    for entry in head.values() if isinstance(head, dict) else ():
        if isinstance(entry, dict) and chance.random() < 0.1:
            entry["dtype"] = chance.choice(("F16", "BF16", "F8_E4M3", "F4", "I64", "BOOL", "C64"))
        if isinstance(entry, dict) and chance.random() < 0.1:
            entry["shape"] = [chance.choice(EXTREMES) for _ in range(chance.randint(0, 3))]
    text = as_json(head)
    size = len(text) if chance.random() < 0.9 else chance.choice(EXTREMES)
    return struct.pack("<Q", size) + text + content[8 + length :]


def _saved(tensors: dict, metadata: dict) -> bytes:
    """As safetensors saves them, but the same each time: its own order of metadata is random."""
    content = safetensors.torch.save(tensors, metadata)
    (length,) = struct.unpack_from("<Q", content)
    head = json.loads(content[8 : 8 + length]) | {"__metadata__": metadata}
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _spoil_values(chance: Random, tensors: dict) -> dict:
    """Tensors lost, renamed, of another shape or dtype, or with numbers that are none."""
    tensors = dict(sorted(tensors.items()))
    for _ in range(chance.randint(1, 2)):
        name = chance.choice(list(tensors))
        value = tensors.pop(name)
        match chance.randrange(6):
            case 0:
                tensors[chance.choice(("", "network/x", "optimizer/9/m", "kind/x"))] = value
            case 1:
                tensors[name] = value.flatten()[: chance.randrange(3)].clone()
            case 2:
                dtypes = (torch.bfloat16, torch.int64, torch.bool, torch.uint8, torch.float64)
                tensors[name] = value.to(chance.choice(dtypes))
            case 3 if value.is_floating_point():
                tensors[name] = torch.full_like(value, chance.choice((float("nan"), float("inf"))))
            case 4:
                tensors[name] = value[None].clone()
    return tensors


SHAPES = {
    "mlp": {"network": "mlp", "hidden": [8, 8], "dense": 0},
    "convnet": {"network": "convnet", "hidden": [8, 8], "dense": 40},
}
for _shape in SHAPES.values():
    _shape |= {"activations": "deterministic", "batch_norm": "exact"}
NETWORKS = {
    name: network_file.save_network(random_network(name, (8, 8), Normalization.EXACT), shape)
    for name, shape in SHAPES.items()
}


def _network(chance: Random) -> tuple[str, bytes]:
    name, other = chance.sample(list(NETWORKS), 2)
    file, content = f"{name}.safetensors", NETWORKS[name]
    if chance.random() < 0.5:
        return file, _spoil_tensors(chance, content, NETWORKS[other])
    tensors = safetensors.torch.load(content)
    if chance.random() < 0.5:
        tensors = _spoil_values(chance, tensors)
    shape = as_json(spoil_tree(chance, SHAPES[name])).decode()
    if chance.random() < 0.3:
        widths = [chance.choice((*EXTREMES, -1, 3.5, "8", 700)) for _ in range(2)]
        shape = json.dumps({**SHAPES[name], "hidden": widths, "dense": chance.choice(EXTREMES)})
    return file, _saved(tensors, {"shape": shape})


def _load_networks(folder: Path) -> None:
    for name in NETWORKS:
        packed.load(folder / f"{name}.safetensors")


RECIPE = recipes.at_profile(recipes.MNIST_TORCH7_CODE, "smoke")
BINDING = {"recipe": {"name": RECIPE.name}, "seed": 1, "threads": 1}


def _state() -> checkpoints.State:
    """Of a run that has taken two steps."""
    state = loop.begin(RECIPE, SimpleNamespace(scale=2 / 255, offset=-1.0), 1)
    state.order = torch.arange(20)
    images = torch.zeros(4, 28, 28, dtype=torch.uint8)
    for _ in range(2):
        loss = eager.step(state.network, state.optimizer, images, torch.arange(4))
        state.losses.append(loss)
    state.history = [{"epoch": 1, "validation_error": 9.0}]
    return state


@functools.cache
def _checkpoint() -> tuple[bytes, dict, dict]:
    """The file, and what is in it."""
    with tempfile.TemporaryDirectory() as folder:  # a process's own: tests run side by side
        path = Path(folder) / "fuzzing.checkpoint"
        checkpoints.save(_state(), path, BINDING)
        facts, tensors = checkpoints.read(path)
    facts["seconds"] = 1.5
    return _sealed(json.dumps(facts), tensors), facts, tensors


def _sealed(facts: str, tensors: dict) -> bytes:
    try:
        digest = checkpoints._digest(facts, tensors)
    except TypeError:  # bfloat16 has none
        digest = "none"
    return _saved(tensors, {"facts": facts, "digest": digest})


def _checkpoint_case(chance: Random) -> tuple[str, bytes]:
    content, facts, tensors = _checkpoint()
    if chance.random() < 0.3:
        return "run.checkpoint", _spoil_tensors(chance, content, content[::-1])
    if chance.random() < 0.6:
        tensors = _spoil_values(chance, tensors)
    if chance.random() < 0.6:
        facts = spoil_tree(chance, facts)
    return "run.checkpoint", _sealed(as_json(facts).decode(), tensors)


def _resume(folder: Path) -> str | None:
    """A damaged generation gives way to the one before; none is the run's beginning."""
    path = folder / "run.checkpoint"
    checkpoints.done(path)
    state = _begun()
    checkpoints.Keeper(path, BINDING).resume(state)
    left = [each.exists() for each in checkpoints.generations(path)]
    if not all(left):
        return "removed, the one before read" if state.epoch else "removed"
    return None


def _begun() -> checkpoints.State:
    return loop.begin(RECIPE, SimpleNamespace(scale=2 / 255, offset=-1.0), 1)


# Pictures


def _pictures() -> dict[str, bytes]:
    grey = Image.fromarray(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28))
    colour = Image.fromarray(np.resize(np.arange(251, dtype=np.uint8), (20, 30, 4)))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    made = {"PNG": (colour, {"exif": exif}), "JPEG": (colour.convert("RGB"), {"exif": exif})}
    made |= {"GIF": (grey, {}), "BMP": (grey, {}), "TIFF": (colour, {}), "WEBP": (colour, {})}
    files = {}
    for kind, (picture, options) in made.items():
        picture.save(buffer := io.BytesIO(), kind, **options)
        files[kind] = buffer.getvalue()
    return files


PICTURES = _pictures()


def _picture(folder: Path) -> None:
    content = (folder / "picture").read_bytes()
    with patch.object(pictures, "LARGEST", 2**20):
        for shape in (packed.DIGITS, packed.PICTURES):
            image, _ = classify.read_picture(content, network_file.About(shape, (), "mnist"))
            assert image.shape == shape and image.dtype == np.uint8


def _huge_pictures():
    """A few bytes that claim to be more pixels than a memory holds."""
    png, bmp = PICTURES["PNG"], PICTURES["BMP"]
    for side in (5_000, 13_000, 40_000, 2**31 - 1):
        head = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
        yield "picture", png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]
        yield "picture", bmp[:18] + struct.pack("<ii", side, side) + bmp[26:]


def _spoil_picture(chance: Random) -> tuple[str, bytes]:
    kind, other = chance.sample(list(PICTURES), 2)
    return "picture", spoil(chance, PICTURES[kind], PICTURES[other])


READERS = (
    Reader(
        "run records",
        {"cpu-seed0.json": json.dumps(RECORD).encode()},
        lambda folder: _read_record(folder / "cpu-seed0.json", RECORD),
        (ValueError,),
        lambda chance: ("cpu-seed0.json", _record(chance, RECORD)),
        tuple(_record_traps("cpu-seed0.json", RECORD)),
    ),
    Reader(
        "records of measurements",
        {"kernels-cpu-generic.json": json.dumps(BENCH).encode()},
        _bench,
        (ValueError,),
        lambda chance: ("kernels-cpu-generic.json", _record(chance, BENCH)),
        tuple(_record_traps("kernels-cpu-generic.json", BENCH)),
    ),
    Reader(
        "network files",
        {f"{name}.safetensors": content for name, content in NETWORKS.items()},
        _load_networks,
        (ValueError,),
        _network,
    ),
    Reader(
        "checkpoints",
        {"run.checkpoint": _checkpoint()[0], "run.checkpoint-previous": _checkpoint()[0]},
        _resume,
        (ValueError,),
        _checkpoint_case,
    ),
    Reader(
        "pictures",
        {"picture": PICTURES["PNG"]},
        _picture,
        (ValueError, OSError),
        _spoil_picture,
        tuple(_huge_pictures()),
    ),
)
