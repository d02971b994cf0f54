"""The CPU kernels against the reference by equality, on both of their paths; threads, processes."""

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bnnlib import xnor
from bnnlib.kernels import operands, reference
from bnnlib.xnor import PackedWeights, pack_planes, pack_signs, pack_weights

numba, binding, cpu, lut_tables, packing, processor, xnor_rows, xnor_tables, xnor_tiles = map(
    pytest.importorskip,
    (
        "numba",
        "llvmlite.binding",
        "bnnlib.kernels.cpu",
        "bnnlib.kernels.cpu.lut_tables",
        "bnnlib.kernels.cpu.packing",
        "bnnlib.kernels.cpu.processor",
        "bnnlib.kernels.cpu.xnor_rows",
        "bnnlib.kernels.cpu.xnor_tables",
        "bnnlib.kernels.cpu.xnor_tiles",
    ),
)

WIDE = processor.path() in ("avx512", "avx2")  # elsewhere other loops are made
LEAST, MOST = -(2**31), 2**31 - 1
SECONDS = 300  # after which a process hangs


@pytest.fixture(
    scope="module",
    params=[pytest.param(True, id="table"), pytest.param(False, id="popcount")],
)
def path(request):
    """Take one of the two paths, whatever the processor's own is: each has both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "looks_up", lambda planes=False: request.param)
        yield


@pytest.fixture
def always(monkeypatch):
    """Take two threads, whatever the size."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(packing, "FEWEST_SIGNS_IN_PARTS", 0)
    monkeypatch.setattr(cpu, "FEWEST_SIGNS_SHARED", 0)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


def drawn(shape: tuple[int, ...], seed: int, low: int = -2, high: int = 3) -> Tensor:
    return torch.randint(low, high, shape, generator=torch.Generator().manual_seed(seed))


def numbers(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """With zeros, of floats also -0.0."""
    x = drawn(shape, seed).to(dtype)
    x[..., ::2] *= -1
    return x


def inputs(shape: tuple[int, ...], planes: bool, seed: int) -> Tensor:
    """Words (..., words) or planes (..., 8, words), as the reference packs them."""
    if planes:
        return reference.pack_planes(drawn(shape, seed, 0, 256).to(torch.uint8))
    return reference.pack_signs(numbers(shape, seed))


LAYOUTS = st.sampled_from(["contiguous", "strided", "transposed", "expanded", "shifted"])


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The same numbers (expanded: the first row's) in another place in memory."""
    if layout == "strided":
        return x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])[..., ::2].copy_(x)
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "expanded":
        return x[:1].expand(x.shape)
    if layout == "shifted":
        return x.new_zeros(x.numel() + 1)[1:].view(x.shape).copy_(x)
    return x


@pytest.mark.parametrize("threads", [1, 2, 3, 16])
@pytest.mark.parametrize("shape", [(4096, 4096), (8192, 8192), (64, 1152), (128, 27)])
@pytest.mark.parametrize("rows", [0, 1, 7, 24, 51, 241, 4096, 10_000])
def test_rows_are_cut_evenly_for_all_threads(rows, shape, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    packed, dtype = cpu.layout(shape)[0]
    tiles = torch.empty(packed, dtype=dtype).numpy()
    tasks, blocks, across = cpu._parts(rows, tiles, 1)
    assert tasks == blocks * across and 1 <= across <= len(tiles)
    starts = [xnor_rows.block_start(rows, blocks, i) for i in range(blocks + 1)]
    lengths = np.diff(starts)
    assert (starts[0], starts[-1]) == (0, rows)
    assert lengths.max(initial=0) <= xnor_rows.longest_block(rows, blocks)
    assert lengths.max(initial=0) <= rows / blocks + xnor_tiles.WORD_ROWS
    assert blocks % threads == 0 or blocks < threads or max(lengths) <= xnor_tiles.WORD_ROWS


# Packing

DTYPES = operands.REAL


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=20)
@given(
    rows=st.integers(0, 4),
    between=st.integers(0, 3),
    k=st.integers(1, 200) | st.sampled_from([64, 128]),
    layout=LAYOUTS,
    seed=st.integers(0, 2**16),
)
@example(rows=0, between=2, k=70, layout="contiguous", seed=0)
def test_signs_pack_as_the_reference_packs_them(dtype, rows, between, k, layout, seed):
    x = laid_out(numbers((rows, between, k), seed, dtype), layout)
    assert torch.equal(pack_signs(x), reference.pack_signs(x))
    for row in x.flatten(0, 1)[:1]:
        assert torch.equal(pack_signs(row), reference.pack_signs(row))


@settings(max_examples=30)
@given(
    rows=st.integers(0, 4),
    between=st.integers(0, 3),
    k=st.integers(1, 200) | st.sampled_from([64, 128]),
    layout=LAYOUTS,
    seed=st.integers(0, 2**16),
)
@example(rows=0, between=2, k=70, layout="contiguous", seed=0)
def test_planes_pack_as_the_reference_packs_them(rows, between, k, layout, seed):
    x = laid_out(drawn((rows, between, k), seed, 0, 256).to(torch.uint8), layout)
    assert torch.equal(pack_planes(x), reference.pack_planes(x))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(130, 70), (5, 70, 3, 2)], ids=str)
def test_weights_of_any_dtype_and_layout_pack_alike(path, dtype, shape):
    weight = numbers(shape, 0, dtype)
    expected = pack_weights(torch.where(weight >= 0, 1.0, -1.0)).tensors
    for layout in ("contiguous", "strided", "transposed", "shifted"):
        found = pack_weights(laid_out(weight, layout)).tensors
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("row", [0, 1, 2, 3, 4, 67, 68, 69, 70])
@pytest.mark.parametrize("column", [0, 129])
def test_a_nan_among_weights_is_found_in_every_row_and_no_sum_makes_one(path, row, column):
    """Rows are read in fours; infinities of both signs would be a NaN only if they were added."""
    weight = numbers((130, 71), 3)
    weight[:, ::2], weight[:, 1::2] = torch.inf, -torch.inf
    pack_weights(weight)
    weight[column, row] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        pack_weights(weight)


# Products


def thresholds_for(sums: Tensor) -> Tensor:
    """For (..., N) sums: a row of them, so that some are equal, between always and never."""
    rows = sums.flatten(0, -2)
    thresholds = rows[len(rows) // 2].clone() if len(rows) else sums.new_zeros(sums.shape[-1])
    thresholds[::5], thresholds[1::5] = LEAST, MOST
    return thresholds


def check_matmul(x: Tensor, weight: Tensor) -> None:
    """The op's sums and words equal the reference's."""
    shape, packed = tuple(weight.shape), pack_weights(weight)
    plain = reference.pack_weights(weight)
    sums = reference.xnor_matmul(x, plain, shape, None)
    found = xnor.xnor_matmul(x, packed)
    assert found.dtype == torch.int32 and torch.equal(found, sums)
    thresholds = thresholds_for(sums)
    words = reference.xnor_matmul(x, plain, shape, thresholds)
    assert torch.equal(xnor.xnor_matmul(x, packed, thresholds), words)


def check_conv2d(x: Tensor, weight: Tensor, stride: int, padding: int) -> None:
    shape, packed = tuple(weight.shape), pack_weights(weight)
    plain = reference.pack_weights(weight)
    sums = reference.xnor_conv2d(x, plain, shape, stride, padding, None)
    found = xnor.xnor_conv2d(x, packed, stride, padding)
    assert found.dtype == torch.int32 and torch.equal(found, sums)
    thresholds = thresholds_for(sums)
    words = reference.xnor_conv2d(x, plain, shape, stride, padding, thresholds)
    assert torch.equal(xnor.xnor_conv2d(x, packed, stride, padding, thresholds), words)


@settings(max_examples=60)
@given(
    m=st.integers(0, 60),
    n=st.integers(1, 300) | st.sampled_from([1, 64, 128, 129]),
    k=st.integers(1, 600) | st.sampled_from([1, 64, 240, 241, 256]),
    planes=st.booleans(),
    layout=LAYOUTS,
    seed=st.integers(0, 2**16),
)
@example(m=0, n=70, k=70, planes=False, layout="contiguous", seed=0)
@example(m=0, n=70, k=70, planes=True, layout="contiguous", seed=0)
@example(m=1, n=1, k=1, planes=False, layout="contiguous", seed=0)
@example(m=1, n=1, k=1, planes=True, layout="contiguous", seed=0)
def test_products_equal_the_reference_s(path, m, n, k, planes, layout, seed):
    x = laid_out(inputs((m, k), planes, seed), layout)
    check_matmul(x, numbers((n, k), seed + 1))


@settings(max_examples=60)
@given(
    batch=st.integers(0, 3),
    channels=st.sampled_from([1, 3, 16, 64, 70, 130]),
    filters=st.sampled_from([1, 10, 64, 130]),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3)]),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    more=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    planes=st.booleans(),
    layout=LAYOUTS,
    seed=st.integers(0, 2**16),
)
@example(0, 70, 70, (3, 3), 1, 1, (2, 2), False, "contiguous", 0)
@example(0, 70, 70, (3, 3), 1, 1, (2, 2), True, "contiguous", 0)
def test_convolutions_equal_the_reference_s(
    path, batch, channels, filters, kernel, stride, padding, more, planes, layout, seed
):
    sides = [max(1, taps - 2 * padding) + m for taps, m in zip(kernel, more, strict=True)]
    x = laid_out(inputs((batch, *sides, channels), planes, seed), layout)
    check_conv2d(x, numbers((filters, channels, *kernel), seed + 1), stride, padding)


@pytest.mark.parametrize("planes", [False, True])
def test_tiles_for_signs_and_for_planes_multiply_both(planes, monkeypatch):
    monkeypatch.setattr(packing, "looks_up", lambda planes=False: planes)
    rows, images = inputs((30, 700), planes, 1), inputs((2, 5, 6, 20), planes, 1)
    dense, filters = numbers((300, 700), 2), numbers((130, 20, 3, 3), 3)
    kinds = [[pack_weights(w, hint) for w in (dense, filters)] for hint in (False, True)]
    assert kinds[0][0].tensors[0].dtype != kinds[1][0].tensors[0].dtype
    plain = [(reference.pack_weights(w), tuple(w.shape)) for w in (dense, filters)]
    for one, other in kinds:
        sums = reference.xnor_matmul(rows, *plain[0], None)
        assert torch.equal(xnor.xnor_matmul(rows, one), sums)
        sums = reference.xnor_conv2d(images, *plain[1], 1, 0, None)
        assert torch.equal(xnor.xnor_conv2d(images, other), sums)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize("k", [4096 + 70, 65_472, 65_473, 70_000, 131_000])
def test_rows_longer_than_a_uint16_counts(path, k, planes):
    x = torch.where(drawn((2, k), 0, 0, 2) > 0, 255, 0).to(torch.uint8)
    x[0] = 255  # differs from a row of -1 in every bit
    weight = numbers((3, k), 1)
    weight[0], weight[1] = -1, 1
    packed = reference.pack_planes(x) if planes else reference.pack_signs(x.float() - 1)
    check_matmul(packed, weight)


@pytest.mark.parametrize("planes", [False, True])
def test_convolutions_longer_than_a_uint16_counts(path, planes):
    x = torch.full((1, 3, 3, 2700), 255, dtype=torch.uint8)
    weight = numbers((2, 2700, 5, 5), 0)
    weight[0] = -1
    check_conv2d(reference.pack_planes(x) if planes else reference.pack_signs(x), weight, 1, 1)


@pytest.mark.parametrize("n", [1, 63, 64, 70, 128, 130])
def test_always_sets_every_bit_but_the_padding_and_never_none(path, n):
    x, images = inputs((30, 70), False, 0), inputs((2, 4, 4, 70), False, 1)
    dense, filters = (pack_weights(numbers((n, 70, *taps), 2)) for taps in ((), (3, 3)))
    for bound, sign in ((LEAST, 1), (MOST, -1)):
        thresholds = torch.full((n,), bound, dtype=torch.int32)
        words = reference.pack_signs(torch.full((n,), sign))
        assert (xnor.xnor_matmul(x, dense, thresholds) == words).all()
        assert (xnor.xnor_conv2d(images, filters, 1, 1, thresholds) == words).all()


def moved(weights: PackedWeights, how: str) -> PackedWeights:
    """The same weights where the kernels' aligned vectors cannot read them in order."""
    tensors = [part.transpose(0, -1).contiguous().transpose(0, -1) for part in weights.tensors]
    if how == "shifted":
        tensors = []
        for part in weights.tensors:
            room = torch.empty(part.nbytes + 128, dtype=torch.uint8)
            start = -room.data_ptr() % 64 + 8
            place = room[start : start + part.nbytes].view(part.dtype).view(part.shape)
            tensors.append(place.copy_(part))
    return PackedWeights(tensors, weights.shape)


@pytest.mark.parametrize("how", ["shifted", "transposed"])
def test_weights_may_lie_anywhere_in_memory(path, how):
    x, images = inputs((5, 700), False, 0), inputs((2, 4, 4, 70), False, 1)
    dense, filters = pack_weights(numbers((200, 700), 2)), pack_weights(numbers((200, 70, 3, 3), 3))
    assert torch.equal(xnor.xnor_matmul(x, dense), xnor.xnor_matmul(x, moved(dense, how)))
    found = [xnor.xnor_conv2d(images, w, 1, 1) for w in (filters, moved(filters, how))]
    assert torch.equal(*found)


# Threads and processes


def run_in(method: str, target, *arguments) -> None:
    """Run target in a process forked or spawned, which must end well, and in time."""
    process = multiprocessing.get_context(method).Process(target=target, args=arguments)
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        pytest.fail("the process hangs")
    assert process.exitcode == 0


X, CONV_X = inputs((100, 100), False, 0), inputs((3, 6, 6, 20), True, 1)
FEW = inputs((2, 100), True, 2)


def products() -> list[np.ndarray]:
    """A few products, so small that torch itself takes one thread: its own hang in forked ones."""
    dense, filters = pack_weights(numbers((150, 100), 3)), pack_weights(numbers((130, 20, 3, 3), 4))
    sums = xnor.xnor_conv2d(CONV_X, filters, 1, 1)
    found = [xnor.xnor_matmul(X, dense), xnor.xnor_matmul(FEW, dense), sums]
    found.append(xnor.xnor_conv2d(CONV_X, filters, 1, 1, thresholds_for(sums)))
    found.append(pack_signs(numbers((300, 70), 5)))
    return [each.numpy() for each in found]


def same(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return all(map(np.array_equal, found, expected))


def exit_unless_same(expected: list[np.ndarray]) -> None:
    packing.FEWEST_SIGNS_IN_PARTS = cpu.FEWEST_SIGNS_SHARED = 0
    torch.set_num_threads(2)
    raise SystemExit(not same(products(), expected))


def test_results_do_not_depend_on_the_number_of_threads(path, always):
    torch.set_num_threads(1)
    expected = products()
    check_matmul(X, numbers((150, 100), 3))
    check_conv2d(CONV_X, numbers((130, 20, 3, 3), 4), 1, 1)
    for threads in (2, 3):
        torch.set_num_threads(threads)
        for _ in range(5):
            assert same(products(), expected)


def test_few_rows_are_split_over_columns_and_little_work_is_not_split(monkeypatch):
    shared = []
    weights = [pack_weights(numbers((300, k), 0)) for k in (70, 700)]
    monkeypatch.setattr(cpu, "FEWEST_SIGNS_SHARED", 300 * 700)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(cpu, "share", lambda kernel, _, *how: shared.append(how))
    for packed in weights:
        xnor.xnor_matmul(inputs((1, packed.shape[1]), False, 1), packed)
    assert shared == [(3, 1), (3, 2)]  # as many pieces as tiles of columns, on so many threads


def test_four_python_threads_at_once_compute_the_same(path, always):
    expected = products()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(products) for _ in range(24)]
        assert all(same(future.result(SECONDS), expected) for future in futures)


def test_a_forked_child_computes_the_same_after_its_parent_used_threads(path, always):
    expected = products()
    run_in("fork", exit_unless_same, expected)
    assert same(products(), expected)


def test_a_spawned_process_computes_the_same(always):
    run_in("spawn", exit_unless_same, products())


# What the innermost loops are made of


def count_words(x, stride, w, words, sums):
    xnor_tiles.subtract_rows(x, stride, w, words, sums)


def look_up(x, stride, w, blocks, counts, tables):
    xnor_tables.add_rows(x, stride, w, blocks, counts, tables)


FLOATS = np.empty(0, np.float32)


def add_table_entries(table, advance, codes, step, sums, steps):
    lut_tables.add_entries(FLOATS, table, advance, codes, step, sums, steps)


def innermost_loop(call: Callable, model: str, instruction: str) -> list[str]:
    """The assembly of the shortest loop with that instruction, made for a processor."""
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    signature = (numba.types.intp,) * call.__code__.co_argcount
    compiled = numba.njit(signature)(call).inspect_llvm(signature)
    target = binding.Target.from_triple("x86_64-unknown-linux-gnu")
    machine = target.create_target_machine(cpu=model, opt=3)
    lines = machine.emit_assembly(binding.parse_assembly(compiled)).splitlines()
    loops = []
    for end, line in enumerate(lines):
        jump = re.match(r"\s+j\w+\s+(\S+)", line)
        label = f"{jump[1]}:" if jump else ""
        starts = [i for i in range(end) if label and lines[i].startswith(label)]
        loops += [lines[i : end + 1] for i in starts]
    return min((loop for loop in loops if instruction in "".join(loop)), key=len)


@pytest.mark.skipif(not WIDE, reason="no AVX2")
@pytest.mark.parametrize(
    ("model", "call", "instruction", "vector", "times"),
    [
        ("znver5", count_words, "vpopcntq", "%zmm", 6 * 4),
        ("sapphirerapids", count_words, "vpopcntq", "%zmm", 6 * 4),
        ("znver3", look_up, "vpshufb", "%ymm", 2 * 4 * 2),
        ("znver5", add_table_entries, "vaddps", "%zmm", lut_tables.OUTPUTS_PER_STEP),
        ("icelake-server", add_table_entries, "vaddps", "%zmm", lut_tables.OUTPUTS_PER_STEP),
    ],
)
def test_the_innermost_loop_has_its_instruction_and_spills_nothing(
    model, call, instruction, vector, times
):
    loop = innermost_loop(call, model, instruction)
    found = [line for line in loop if instruction in line]
    assert len(found) == times and all(vector in line for line in found)
    assert not [line for line in loop if vector in line and re.search(r"\(%r[sb]p", line)]
