"""The playground without a browser: a drawing as MNIST has it, a network opened, the widgets."""

import base64
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import traitlets
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nbformat.v4 import new_code_cell, new_notebook, new_output
from random_networks import images, random_network

from bnnlib import folding, packed
from bnnlib.binarize import Binarization
from bnnlib.layers import Normalization, ScaleInput
from bnnlib.optim import Clip
from bnnlib.xnor import pack_planes, pack_signs, unpack_signs
from study import data, recipes
from study.bench import baselines
from study.data import synthetic
from study.playground import model, widgets
from study.playground import training_panel as panels
from study.playground.canvas import BROWSER, DRAWN, SCRIPTS, ZOOM, Canvas
from study.playground.model import BOX, CENTRE, SIDE, as_mnist, look_inside
from study.train import runs
from tools import pages, prose

MIME = "application/vnd.jupyter.widget-view+json"
SMALL = recipes.at_profile(recipes.OPEN_BOTH, "smoke")


def box(picture):
    """(height, width) of what is not black."""
    return tuple(np.ptp(np.flatnonzero(picture.any(axis))) + 1 for axis in (1, 0))


def centre(picture):
    """Row and column of the centre of mass."""
    return [(picture.sum(1 - axis) @ np.arange(SIDE)) / picture.sum() for axis in (0, 1)]


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, 60), st.integers(0, 60))
def test_a_solid_shape_fills_the_box_and_lies_in_the_middle(height, width, top, left):
    drawing = np.zeros((168, 168), np.uint8)
    drawing[top : top + height, left : left + width] = 255
    made = as_mnist(drawing)
    assert max(box(made)) == BOX
    longest = max(height, width)
    assert box(made) == tuple(max(1, round(BOX * side / longest)) for side in (height, width))
    assert all(abs(at - CENTRE) <= 0.5 for at in centre(made))


@given(arrays(np.uint8, (40, 30), elements=st.sampled_from([0, 0, 0, 1, 90, 255])))
def test_whatever_is_drawn_becomes_a_digit_of_mnists_form(drawing):
    made = as_mnist(drawing)
    assert made.shape == (SIDE, SIDE) and made.dtype == np.uint8
    assert not made.any() or max(box(made)) <= BOX


def test_a_drawing_without_ink_stays_black():
    assert not as_mnist(np.zeros((168, 168), np.uint8)).any()


@pytest.mark.parametrize("zoom", [1, 3, ZOOM])
def test_neither_size_nor_place_of_a_drawing_matters(zoom):
    digits, _ = synthetic.draw("mnist", 0, "test", 20)
    for digit in map(as_mnist, digits):
        if max(box(digit)) == BOX:  # else fainter edges were lost
            drawing = np.zeros((SIDE * zoom + 40, SIDE * zoom + 40), np.uint8)
            drawing[7 : 7 + SIDE * zoom, 31 : 31 + SIDE * zoom] = np.kron(
                digit, np.ones((zoom, zoom), np.uint8)
            )
            assert np.array_equal(as_mnist(drawing), digit)


def test_proportions_are_kept_and_pixels_are_means_of_what_they_cover():
    drawing = np.zeros((168, 168), np.uint8)
    drawing[10:130, 20:50] = 200  # 120 x 30: by 6 to 20 x 5
    drawing[10:13, 20:50] = 100  # half a pixel of the box
    made = as_mnist(drawing)
    rows = np.flatnonzero(made.any(1))
    assert box(made) == (20, 5)
    assert made[rows[0]].max() == 150 and made[rows[1]].max() == 200


def test_mnists_own_digits_are_in_that_form():
    try:
        mnist = data.load("mnist")
    except data.DataUnavailable as problem:
        pytest.skip(str(problem).splitlines()[0])
    some = mnist.test_images[:1000]
    same = [np.array_equal(as_mnist(image), image) for image in some]
    assert np.mean(same) >= 0.99  # a few have a box of 19 pixels


@pytest.fixture(scope="module")
def network():
    return random_network("mlp", (70, 130), Normalization.EXACT)


def test_inside_is_what_the_reference_computes(network):
    """Sums, bits and scores of the packed network, beside those of plain torch."""
    digit = images(network, 3)[2]
    inside = look_inside(packed.pack(network), digit)
    *signs, scores = folding.reference(network, digit[None])
    assert torch.equal(inside.planes, pack_planes(digit.flatten()))
    for layer, expected in zip(inside.layers, signs, strict=True):
        assert torch.equal(unpack_signs(layer.words, expected.shape[1]).float(), expected[0])
        bits = torch.where(layer.sums >= layer.thresholds, 1.0, -1.0)
        assert torch.equal(bits, expected[0])
    assert torch.equal(inside.scores, scores[0])


def test_only_digits_and_networks_of_digits_can_be_opened(network):
    small = packed.pack(network)
    for wrong in (torch.zeros(28, 27, dtype=torch.uint8), torch.zeros(28, 28)):
        with pytest.raises(ValueError, match=re.escape(str(tuple(wrong.shape)))):
            look_inside(small, wrong)
    digit = torch.zeros(28, 28, dtype=torch.uint8)
    pictures = random_network("convnet", (8, 8), Normalization.EXACT)
    standardized = random_network("mlp", (64,), Normalization.EXACT, ScaleInput(0.01, -0.4))
    for other in (pictures, standardized):
        with pytest.raises(ValueError, match="reads digits"):
            look_inside(packed.pack(other), digit)


def setting(**changes):
    settings = {"weights": True, "activations": True, "stochastic": False, "clip": True}
    settings |= {"dropout": 0.0, "learning_rate": SMALL.learning_rate}
    return model.experiment(SMALL, **settings | changes)


def named(recipe):
    return replace(recipes.at_profile(recipe, "smoke"), name="playground")


def test_experiments_are_those_of_the_catalogue():
    assert setting() == named(recipes.OPEN_BOTH)
    assert setting(activations=False) == named(recipes.OPEN_WEIGHTS)
    assert setting(weights=False) == named(recipes.OPEN_ACTIVATIONS)
    assert setting(weights=False, activations=False) == named(recipes.OPEN_FLOAT)
    changed = named(recipes.GRADIENTS_NO_CLIPPING).clip
    assert setting(clip=False) == replace(named(recipes.OPEN_BOTH), clip=changed)


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("activations", [True, False])
@pytest.mark.parametrize("stochastic", [True, False])
def test_every_combination_is_a_recipe(weights, activations, stochastic):
    switches = {"weights": weights, "activations": activations, "stochastic": stochastic}
    recipe = setting(**switches, dropout=0.5, learning_rate=0.1)
    drawn = Binarization.STOCHASTIC in (recipe.weights, recipe.activations)
    assert drawn == (stochastic and (weights or activations))
    assert (recipe.clip is Clip.WEIGHTS) == weights
    decay = SMALL.final_learning_rate / SMALL.learning_rate
    assert recipe.final_learning_rate / recipe.learning_rate == pytest.approx(decay)


def test_a_legend_says_what_is_different():
    assert model.describe(setting()) == f"binary weights and activations, rate {0.003:g}"
    assert "binary weights, stochastic, no clipping, dropout 0.3" in model.describe(
        setting(activations=False, stochastic=True, clip=False, dropout=0.3)
    )
    assert model.describe(setting(weights=False, activations=False)).startswith("nothing")


@pytest.fixture
def canvas(network):
    pixels = images(network, 6)
    parts = folding.blocks(network)
    twin = baselines.float_network(parts, baselines.DEFAULT, baselines.DEFAULT)
    return Canvas(packed.pack(network), twin, pixels, torch.arange(6), "a network")


def drawn(canvas, seed):
    """Some strokes, as the browser sends them."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((canvas.side, canvas.side), np.uint8)
    for row, column in rng.integers(20, 120, (3, 2)):
        pixels[row : row + 14, column : column + 40] = 255
    return pixels


def test_a_canvas_begins_with_the_first_test_image(canvas):
    assert canvas.test_image == 0 and canvas.answer["label"] == 0
    assert canvas.answer["digit"] == canvas._images[0].numpy().tobytes()
    assert canvas.times["packed_ms"] > 0 and canvas.times["float_ms"] > 0


def test_a_stroke_is_answered_with_all_that_is_inside(canvas, network):
    """As it comes from a browser: a view of memory, in one message with the test image's number."""
    before, pixels = canvas.answer, drawn(canvas, 0)
    canvas.set_state({"drawing": memoryview(pixels.tobytes()), "test_image": DRAWN})
    answer, digit = canvas.answer, as_mnist(pixels)
    assert answer != before and answer["label"] == DRAWN
    assert answer["digit"] == digit.tobytes()
    *signs, scores = folding.reference(network, torch.from_numpy(digit)[None])
    assert answer["scores"] == scores[0].tolist()
    assert answer["predicted"] == scores.argmax()
    for words, sums, thresholds, expected in zip(
        answer["words"], answer["sums"], canvas.thresholds, signs, strict=True
    ):
        assert words == pack_signs(expected[0]).numpy().tobytes()
        reached = np.frombuffer(sums, np.int32) >= np.frombuffer(thresholds, np.int32)
        assert np.array_equal(reached, expected[0].numpy() > 0)
    planes = np.frombuffer(answer["planes"], np.uint8).reshape(8, -1)
    bits = np.unpackbits(planes, axis=1, bitorder="little")[:, : SIDE * SIDE]
    again = (bits * (1 << np.arange(8))[:, None]).sum(0)  # as network_view.js reads bit-planes
    assert np.array_equal(again.reshape(SIDE, SIDE), digit)


def test_another_stroke_changes_the_answer_and_its_end_takes_the_time(canvas):
    canvas.set_state({"drawing": drawn(canvas, 1).tobytes(), "test_image": DRAWN})
    first, times = canvas.answer, canvas.times
    canvas.set_state({"drawing": drawn(canvas, 2).tobytes(), "test_image": DRAWN})
    assert canvas.answer["words"] != first["words"] and canvas.answer["sums"] != first["sums"]
    assert canvas.times is times
    canvas.set_state({"strokes": 1})
    assert canvas.times is not times
    assert canvas.times["equal"] in (True, False) and canvas.times["calls"] > 0


def test_a_picked_test_image_is_read_as_it_is_and_can_be_drawn_on(canvas):
    canvas.set_state({"test_image": 3})
    assert canvas.answer["label"] == 3
    assert torch.equal(canvas.digit(), canvas._images[3])
    shown = np.frombuffer(canvas.drawing, np.uint8).reshape(canvas.side, canvas.side)
    assert np.array_equal(shown[::ZOOM, ::ZOOM], canvas._images[3].numpy())
    changed = shown.copy()
    changed[:ZOOM] = 255
    canvas.set_state({"drawing": changed.tobytes(), "test_image": DRAWN})
    assert canvas.answer["digit"] == as_mnist(changed).tobytes()
    canvas.set_state({"test_image": 3})
    assert canvas.answer["digit"] == canvas._images[3].numpy().tobytes()


def test_what_is_no_drawing_and_no_test_image_is_refused(canvas):
    for number in (-2, 6):
        with pytest.raises(traitlets.TraitError, match=f"no test image {number}"):
            canvas.test_image = number
    with pytest.raises(traitlets.TraitError, match="a pixel each"):
        canvas.drawing = b"123"


def test_the_browsers_side_is_one_module_that_loads_nothing():
    source = Canvas._esm if isinstance(Canvas._esm, str) else str(Canvas._esm)
    assert {path.stem for path in BROWSER.glob("*.js")} >= set(SCRIPTS)
    assert source.count("export default") == 1
    assert not re.search(r"\bimport\b|https?:|\bfetch\(", source)
    assert not re.search(r"@import|url\(", (BROWSER / "playground.css").read_text())


@pytest.fixture
def panel(monkeypatch, tmp_path):
    monkeypatch.setattr(runs, "FRESH", tmp_path)
    return panels.TrainingPanel(SMALL, "smoke")


def test_a_panel_trains_what_its_controls_say_and_draws_it(panel, tmp_path):
    panel.weights.value, panel.dropout.value, panel.learning_rate.value = False, 0.2, 0.01
    panel.start.click()
    (record,) = [runs.read_record(path) for path in tmp_path.rglob("*-seed0.json")]
    assert record["recipe"] == runs.complete(record["recipe"])
    assert record["recipe"]["weights"] == "none" and record["recipe"]["hidden_dropout"] == 0.2
    assert f"{record['test_error']:.2f} %" in panel.status.value
    svg = base64.b64decode(re.search(r'base64,([^"]+)"', panel.picture.value)[1]).decode()
    assert "1: binary activations, dropout 0.2, rate 0.01" in svg
    first = panel.picture.value
    panel.weights.value = True
    panel.start.click()
    assert len(panel.records) == 2 and panel.picture.value != first
    assert not panel.start.disabled
    panel.forget.click()
    assert panel.records == [] and panel.picture.value == ""


def test_a_picture_holds_the_last_experiments_under_their_numbers(panel):
    for _ in range(panels.MOST + 1):
        panel.start.click()  # trained once, then read
    names = [record["recipe"]["name"].split(":")[0] for record in panel.records]
    assert names == [str(number) for number in range(2, panels.MOST + 2)]


def test_only_what_has_an_effect_can_be_set(panel):
    panel.weights.value = False
    assert panel.clip.disabled and not panel.stochastic.disabled
    panel.activations.value = False
    assert panel.stochastic.disabled
    panel.weights.value = True
    assert not panel.clip.disabled and not panel.stochastic.disabled


def test_a_training_that_diverges_says_so(panel, monkeypatch):
    def diverge(*_):
        raise FloatingPointError("playground: the training loss is nan")

    monkeypatch.setattr(panels.runner, "run", diverge)
    panel.start.click()
    assert "the training loss is nan" in panel.status.value
    assert panel.picture.value == "" and not panel.start.disabled


def test_a_page_shows_a_sentence_where_a_notebook_has_a_widget(panel, monkeypatch):
    shown = []
    monkeypatch.setattr(widgets, "display", lambda bundle, raw: shown.append(bundle))
    widgets.show(panel, "Here is a panel & more.")
    assert shown[0][MIME]["model_id"] == panel.model_id
    output = new_output("display_data", data=shown[0])
    notebook = new_notebook(cells=[new_code_cell("panel", outputs=[output])])
    *_, block = pages.blocks(notebook, prose.Prose())
    assert str(block.body) == "<p>Here is a panel &amp; more.</p>"
