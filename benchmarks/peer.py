"""The other side of `bench_peer`: bnn-lab's kernel in its own environment, told what to do by lines
of JSON. Needs NumPy and bnn-lab alone.
"""

import hashlib
import importlib.util
import json
import sys
import time
import types

import numpy as np


def kernels():
    """bnn.kernels.packed, around bnn/__init__.py, which imports torch."""
    package = types.ModuleType("bnn")
    package.__path__ = importlib.util.find_spec("bnn").submodule_search_locations
    sys.modules["bnn"] = package
    from bnn.kernels import packed

    if not packed.native_kernel_available():
        raise ImportError("bnn-lab has no native kernel here")
    return packed


def operands(m: int, n: int, k: int) -> list[np.ndarray]:
    """Signs (M, K) and (N, K) float32, the same on both sides."""
    generator = np.random.default_rng(0)
    return [2 * generator.integers(0, 2, (rows, k)).astype(np.float32) - 1 for rows in (m, n)]


def digest(sums: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(sums.astype(np.int32)).tobytes()).hexdigest()


def main() -> None:
    packed, call = kernels(), None
    for line in sys.stdin:
        order = json.loads(line)
        if "shape" in order:
            k = order["shape"][2]
            x, w = (packed.pack_binary_pm1(matrix)[0] for matrix in operands(*order["shape"]))
            call = lambda x=x, w=w, k=k: packed.binary_gemm_native_prepacked(x, w, k)  # noqa: E731
            answer = digest(call())
        else:
            packed.set_num_threads(order["threads"])
            call()
            started = time.perf_counter()
            for _ in range(order["calls"]):
                call()
            answer = (time.perf_counter() - started) / order["calls"]
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
