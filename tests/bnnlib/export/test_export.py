"""Networks in other forms: every bit, score and class as `bnnlib.packed` has them."""

import ctypes
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from torch import nn

from bnnlib import export, layers, network_file, packed
from bnnlib.binarize import Binarization
from bnnlib.export import c, js
from bnnlib.export.__main__ import main
from bnnlib.export.network import convert, inside, read, trial_pictures
from bnnlib.layers import Normalization, ScaleInput
from bnnlib.normalization import BatchNorm
from tests.support.engine import expected, same
from tests.support.random_networks import images, random_network, sized_network

STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror", "-O2"]
GCC = shutil.which("gcc")
gcc_needed = pytest.mark.skipif(GCC is None, reason="no gcc")
OTHERS = {  # further processors: how to compile for them, how to run what was compiled
    "x86, 32 bits": (["gcc", "-m32"], []),
    "ARM": (["arm-linux-gnueabihf-gcc", "-static"], ["qemu-arm"]),
    "ARM, 64 bits": (["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]),
}


NETWORKS = [("mlp", (70, 130)), ("mlp", (64,)), ("mlp", (3, 33, 5)), ("convnet", (9, 70))]


@pytest.fixture(scope="module", params=NETWORKS, ids=str)
def network(request):
    return random_network(*request.param, Normalization.EXACT)


def pictures(network, count=8):
    return images(network, count).flatten(1).numpy()


def compile_c(text, folder, *options, compiler=("gcc",)):
    (folder / "network.c").write_text(text)
    made = folder / "made"
    command = [*compiler, *STRICT, *options, str(folder / "network.c"), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def try_out(made, *emulator):
    return subprocess.run([*emulator, str(made)], capture_output=True, text=True)


def call(library, exported, pixels):
    """What a C file compiled as a library makes of pictures (B, inputs), as `expected` has it."""
    entry = ctypes.CDLL(str(library))
    shapes = [bits.shape[1:] for bits in inside(exported, pixels[:1])[0]]
    units = [shape[0] for shape in shapes]
    sizes = [8 * -(-n // 64) * int(np.prod(s[1:])) for n, s in zip(units, shapes, strict=True)]
    count = len(exported.last.signs)
    bits, scores, classes = [[] for _ in units], [], []
    for picture in pixels:
        words, found = np.zeros(sum(sizes), np.uint8), np.zeros(count, np.float32)
        pointers = [ctypes.c_void_p(each.ctypes.data) for each in (picture, words, found)]
        classes.append(entry.bnn_inside(*pointers))
        assert entry.predict(pointers[0]) == classes[-1]
        parts = np.split(words, np.cumsum(sizes)[:-1])
        for own, part, shape in zip(bits, parts, shapes, strict=True):
            places = np.unpackbits(part, bitorder="little").reshape(*shape[1:], -1)
            own.append(places[..., : shape[0]])
        scores.append(found)
    return [np.stack(own) for own in bits], np.stack(scores), np.array(classes)


@pytest.mark.parametrize("kind", list(Normalization))
@pytest.mark.parametrize(("network", "hidden"), [("mlp", (70, 130)), ("convnet", (9, 70))])
def test_the_integers_are_those_of_the_packed_network(network, hidden, kind):
    network = random_network(network, hidden, kind)
    pixels = pictures(network, 10)
    bits, scores = inside(convert(network, "n"), pixels)
    bits = [np.moveaxis(each, 1, -1) for each in bits]
    assert same((bits, scores, scores.argmax(1)), expected(packed.pack(network), pixels))


@gcc_needed
@pytest.mark.parametrize(
    "options",
    [[], ["-DBNN_PORTABLE"], *([f"-DBNN_WORD={word}"] for word in (8, 16, 32, 64))],
    ids=" ".join,
)
def test_c_compiles_without_warnings_and_computes_the_same(network, tmp_path, options):
    exported = convert(network, "n")
    found = try_out(compile_c(c.source(exported), tmp_path, *options, "-DBNN_TEST"))
    assert (found.returncode, found.stdout.split(":")[0]) == (0, "6 of 6 pictures")
    library = compile_c(c.source(exported), tmp_path, *options, "-shared", "-fPIC")
    pixels = pictures(network)
    assert same(call(library, exported, pixels), expected(packed.pack(network), pixels))


SIZED = [  # shape, classes, hidden units or filters, whether it convolves
    ((2, 2), 2, (1,), False),
    ((3, 8, 8), 3, (31, 33, 1), False),
    ((8, 8), 1000, (65,), False),
    ((28, 28), 11, (1000,), False),
    ((1, 8, 8), 2, (1, 31), True),
    ((3, 12, 12), 12, (33,), True),
]


def random_pixels(shape):
    drawn = np.random.default_rng(0).integers(256, size=(6, np.prod(shape)), dtype=np.uint8)
    drawn[:2] = [[0], [255]]
    return drawn


@gcc_needed
@pytest.mark.parametrize("sized", SIZED, ids=str)
@pytest.mark.parametrize("word", [8, 64])
def test_c_of_any_size_is_clean_and_equal(sized, word, tmp_path):
    shape, classes, hidden, convnet = sized
    network = sized_network(*sized)
    exported = convert(network, "n", shape)
    options = [f"-DBNN_WORD={word}", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    found = try_out(compile_c(c.source(exported), tmp_path, *options, "-DBNN_TEST"))
    assert (found.returncode, found.stdout.split(":")[0]) == (0, "6 of 6 pictures"), found.stderr
    options = [f"-DBNN_WORD={word}", "-shared", "-fPIC"]
    library = compile_c(c.source(exported), tmp_path, *options)
    pixels = random_pixels(shape)
    wanted = expected(packed.pack(network, shape), pixels)
    assert same(call(library, exported, pixels), wanted)


@pytest.mark.parametrize("processor", OTHERS)
def test_c_computes_the_same_on_other_processors(network, tmp_path, processor):
    compiler, emulator = OTHERS[processor]
    if not all(map(shutil.which, [compiler[0], *emulator])):
        pytest.skip(f"{compiler[0]} or {' '.join(emulator)} is not installed")
    (tmp_path / "one.c").write_text("#include <string.h>\nint main(void) { return 0; }\n")
    probe = [*compiler, str(tmp_path / "one.c"), "-o", str(tmp_path / "one")]
    if subprocess.run(probe, capture_output=True).returncode:
        pytest.skip(f"{' '.join(compiler)} lacks its libraries")
    text = c.source(convert(network, "n"))
    found = try_out(compile_c(text, tmp_path, "-DBNN_TEST", compiler=compiler), *emulator)
    assert (found.returncode, found.stdout.split(":")[0]) == (0, "6 of 6 pictures")


@gcc_needed
@pytest.mark.parametrize("table", ["rows_1", "thresholds_2", "rows_last", r"table"])
def test_the_trial_of_a_c_file_notices_a_damaged_table(tmp_path, table):
    text = c.source(convert(random_network("mlp", (70, 130), Normalization.EXACT), "n"))
    begin = re.search(rf"static const \w+ {table}\[.*= {{\n", text).end()
    damage = {"rows_1": "~", "thresholds_2": "99 + ", "rows_last": "~", "table": "-"}[table]
    first = re.search(r"0x|-?\d", text[begin:]).start() + begin
    if damage == "~":  # all weights of the first units change sign
        changed = text[begin:].replace("0x", "0xffffffffu ^ 0x", 12)
    elif damage == "-":
        changed = re.sub(r"(-?0x[\d.a-fp+-]+f)", r"-(\1)", text[begin:], count=131)
    else:
        changed = text[begin:first] + re.sub(r"-?\d+", "-2147483647", text[first:], count=20)
    found = try_out(compile_c(text[:begin] + changed, tmp_path, "-DBNN_TEST"))
    assert found.returncode == 1 and not found.stdout.startswith("6 of 6")


def test_trial_pictures_reach_both_ends():
    drawn = trial_pictures(784)
    assert drawn[0].max() == 0 and drawn[1].min() == 255
    assert all(0 < (picture == 0).mean() < 1 for picture in drawn[3:])


def test_what_is_no_network_of_signs_on_pixels_is_refused_in_words():
    none = Binarization.NONE
    wrong = {
        "sums real numbers, .* only networks that read uint8 pixels": random_network(
            "mlp", (64,), Normalization.EXACT, ScaleInput(0.01, -0.4)
        ),
        "ReLU": random_network("mlp", (64,), Normalization.EXACT, activations=none),
    }
    for words, network in wrong.items():
        with pytest.raises(ValueError, match=words):
            convert(network, "n")


def test_a_network_that_convolves_is_not_for_pages():
    exported = convert(random_network("convnet", (8, 8), Normalization.EXACT), "pictures")
    with pytest.raises(ValueError, match="pictures convolves"):
        js.blob(exported)


def test_a_name_stays_in_its_comment():
    exported = convert(random_network("mlp", (5,), Normalization.EXACT), "a\nb\u2028\u00e4")
    assert js.script(exported).startswith("// a?b?\u00e4: ")
    assert c.source(exported).startswith("/* a?b?\\xe4: ") and c.source(exported).isascii()


@pytest.fixture
def model(tmp_path):
    network = random_network("mlp", (70, 130), Normalization.EXACT)
    shape = {"network": "mlp", "hidden": [70, 130], "dense": 0}
    shape |= {"activations": "deterministic", "batch_norm": "exact"}
    path = tmp_path / "small.safetensors"
    path.write_bytes(network_file.save_network(network, shape))
    return path


def test_the_command_line_writes_what_it_was_asked_for(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(model), "--c"]) == 0
    assert (tmp_path / "small.c").read_text() == c.source(read(model))
    assert main([str(model), "--js", "--output", str(tmp_path / "net.js")]) == 0
    assert (tmp_path / "net.js").read_text() == js.script(read(model))
    assert capsys.readouterr().out.startswith("small.c: ")


def test_the_command_line_says_what_it_cannot_read(model, tmp_path, capsys):
    assert main([str(tmp_path / "none.safetensors"), "--c"]) == 2
    assert "none.safetensors is no file" in capsys.readouterr().err
    model.write_bytes(model.read_bytes()[:-100])
    assert main([str(model), "--c", "--output", str(tmp_path / "n.c")]) == 2
    assert "small.safetensors is no intact network file" in capsys.readouterr().err
    assert not (tmp_path / "n.c").exists()


def test_scores_right_behind_a_convolution_are_refused_in_c():
    middle = [
        layers.BinaryConv2d(1, 4),
        layers.MaxPool2x2(),
        BatchNorm(4),
        layers.BinaryActivation(),
    ]
    last = [nn.Flatten(), layers.BinaryLinear(4 * 4 * 4, 3), BatchNorm(3)]
    network = nn.Sequential(ScaleInput(), *middle, *last).eval()
    with pytest.raises(ValueError, match="follow a convolution directly"):
        c.source(convert(network, "small", (1, 8, 8)))


def test_an_export_replaces_no_file_but_its_own(model, tmp_path, capsys):
    notes, content = tmp_path / "small.md", model.read_bytes()
    notes.write_text("mine")
    for form in ("--c", "--js"):
        assert main([str(model), form, "--output", str(tmp_path / f"small.{form[2:]}")]) == 0
    cards = {path.name for path in tmp_path.glob("*.md")}
    assert cards == {"small.md", "small.c.md", "small.js.md"} and notes.read_text() == "mine"
    (tmp_path / "link").symlink_to(model)
    for taken in (model, tmp_path, tmp_path / "link"):
        assert main([str(model), "--c", "--output", str(taken)]) == 2
        assert "is a folder or the model itself" in capsys.readouterr().err
    assert model.read_bytes() == content


def test_without_onnx_only_that_form_is_refused(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(export, "onnx", raising=False)  # another test may have imported it
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "bnnlib.export.onnx", raising=False)
    assert main([str(model), "--onnx"]) == 2
    assert "onnx" in capsys.readouterr().err
    assert main([str(model), "--c"]) == 0


def test_exports_import_nothing_of_the_study():
    program = "import sys, bnnlib.export.__main__; print(*[m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "bnnlib.export.c" in loaded.stdout.split()
    assert not {"study", "tools", "onnx"} & set(loaded.stdout.split())
