"""Eight by eight numbers turned at a time, in vectors: one by one they cost several times more."""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from bnnlib.kernels.cpu.llvm import INT, SHORT, constant, load, store

SIDE = 8  # of a square that is turned at a time
_TYPES = {types.float32: ir.FloatType(), types.int16: SHORT}


def _exchanged(b: ir.IRBuilder, lines: list, distance: int) -> list:
    """Vectors of a square whose blocks of `distance` beside the diagonal have changed places."""
    kept = [i & distance == 0 for i in range(SIDE)]
    upper = [i if kept[i] else i - distance + SIDE for i in range(SIDE)]
    lower = [i + distance if kept[i] else i + SIDE for i in range(SIDE)]
    mask = ir.VectorType(INT, SIDE)
    found = list(lines)
    for i in range(SIDE):
        if kept[i]:
            pair = lines[i], lines[i + distance]
            found[i] = b.shuffle_vector(*pair, ir.Constant(mask, upper))
            found[i + distance] = b.shuffle_vector(*pair, ir.Constant(mask, lower))
    return found


@intrinsic
def turn(typing, source, target, at, turned):
    """Turn SIDE lines of SIDE numbers from address `at` on into as many from `turned` on.

    Types and distances of lines are those of the arrays: float32 or int16, or int16 -> float32.
    """
    kinds = _TYPES[source.dtype], _TYPES[target.dtype]

    def emit(context, b, signature, arguments):
        steps = []
        for array, value in zip((source, target), arguments, strict=False):
            whole = context.make_array(array)(context, b, value)
            steps.append(b.extract_value(whole.strides, 0))
        _, _, at, turned = arguments
        vectors = [ir.VectorType(kind, SIDE) for kind in kinds]
        lines = []
        for i in range(SIDE):
            line = load(b, b.add(at, b.mul(steps[0], constant(i))), vectors[0], align=2)
            lines.append(line if kinds[0] == kinds[1] else b.sitofp(line, vectors[1]))
        for distance in (4, 2, 1):
            lines = _exchanged(b, lines, distance)
        for i, line in enumerate(lines):
            store(b, line, b.add(turned, b.mul(steps[1], constant(i))))
        return context.get_dummy_value()

    return types.void(source, target, types.intp, types.intp), emit


@njit(nogil=True)
def transpose(source, target):
    """Write source (M, N) to target (N, M), of the types that `turn` takes; lines without gaps.

    The last squares of a line or column overlap those before.
    """
    rows, columns = source.shape
    if rows < SIDE or columns < SIDE:
        for i in range(rows):
            for j in range(columns):
                target[j, i] = source[i, j]
        return
    for row in range(0, rows, SIDE):
        i = min(row, rows - SIDE)
        for column in range(0, columns, SIDE):
            j = min(column, columns - SIDE)
            at = source.ctypes.data + i * source.strides[0] + j * source.itemsize
            turned = target.ctypes.data + j * target.strides[0] + i * target.itemsize
            turn(source, target, at, turned)
