"""Constants, memory and loops for kernels written in LLVM's terms. Addresses are integers."""

from llvmlite import ir

BYTE, SHORT, INT, LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def constant(value: int) -> ir.Constant:
    return ir.Constant(LONG, value)


def zeros(vector: ir.VectorType) -> ir.Constant:
    return ir.Constant(vector, [0] * vector.count)


def load(b: ir.IRBuilder, address, kind: ir.Type, offset: int = 0, align: int = 1):
    pointer = b.inttoptr(b.add(address, constant(offset)), kind.as_pointer())
    return b.load(pointer, align=align)


def store(b: ir.IRBuilder, value, address, offset: int = 0, align: int = 2):
    pointer = b.inttoptr(b.add(address, constant(offset)), value.type.as_pointer())
    return b.store(value, pointer, align=align)


def splat(b: ir.IRBuilder, value, count: int):
    undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    one = b.insert_element(undefined, value, ir.Constant(INT, 0))
    return b.shuffle_vector(one, undefined, zeros(ir.VectorType(INT, count)))


def call(b: ir.IRBuilder, name: str, result: ir.Type, *arguments):
    """Call an LLVM intrinsic function."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, arguments)


def loop(b: ir.IRBuilder, count, start: list):
    """Open a loop over 0 .. count - 1, count >= 1, that carries values.

    Returns the index, the carried values, and what closes it, given their next values.
    """
    before = b.block
    body = b.append_basic_block("loop")
    after = b.append_basic_block("after")
    b.branch(body)
    b.position_at_end(body)
    index = b.phi(LONG)
    index.add_incoming(constant(0), before)
    carried = [b.phi(value.type) for value in start]
    for phi, value in zip(carried, start, strict=True):
        phi.add_incoming(value, before)

    def close(following: list) -> None:
        advanced = b.add(index, constant(1))
        last = b.block
        index.add_incoming(advanced, last)
        for phi, value in zip(carried, following, strict=True):
            phi.add_incoming(value, last)
        b.cbranch(b.icmp_signed("<", advanced, count), body, after)
        b.position_at_end(after)

    return index, carried, close
