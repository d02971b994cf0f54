"""What runs on the pages, in Chromium: the playground and the small pieces."""

import re

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from test_pages_in_browser import ALL_BUT_CONTRAST, DESK, FAINT, PHONE, serious, sideways

from bnnlib import packed
from study.playground.model import as_mnist
from tests.support import alive
from tests.support.browser import chromium, needed, open_page
from tools.alive import DIGITS, NETWORK

pytestmark = needed
PAGES = ("index.html", *(f"quick/{name}.html" for name in alive.NAMES))
DRAWN = """canvas => {
  const {width, height} = canvas;
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  return Array.from({length: width * height}, (_, i) => rgba[4 * i]);
}"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return alive.build(tmp_path_factory.mktemp("alive"))


@pytest.fixture(scope="module")
def network():
    return packed.load(NETWORK)


@pytest.fixture
def page(browser, built):
    shown = open_page(browser, (built / "quick" / "00_playground.html").as_uri(), DESK)
    yield shown.page
    assert shown.errors == []
    shown.page.close()


def piece(browser, built, name):
    return open_page(browser, (built / "quick" / name).as_uri(), DESK).page


def scores(page):
    return page.locator(".bnn-value").all_inner_texts()


def titles(page):
    return page.locator(".bnn-layer-title").all_inner_texts()


def stroke(page, *places):
    """A stroke through places, as shares of the canvas."""
    canvas = page.locator(".bnn-drawing")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    spots = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in places]
    page.mouse.move(*spots[0])
    page.mouse.down()
    for spot in spots[1:]:
        page.mouse.move(*spot, steps=4)
    page.mouse.up()


def told(network, digit):
    """What a page must say of a digit (28, 28) uint8: its scores, and the +1 bits by layer."""
    image = torch.from_numpy(digit)[None]
    texts = [f"{score:.2f}".replace("-", "−") for score in network(image)[0].tolist()]
    units = [len(layer.thresholds) for layer in network.layers]
    ones = [
        sum(int(word).bit_count() for word in words.numpy().view(np.uint64)[0])
        for words in network.hidden(image)
    ]
    return texts, [f"{on} of {n} bits" for on, n in zip(ones, units, strict=True)]


def assert_told(page, network, digit):
    texts, counts = told(network, digit)
    assert scores(page) == texts
    assert [re.search(r"\d+ of \d+ bits", title)[0] for title in titles(page)] == counts


def test_every_test_image_is_read_as_the_packed_network_reads_it(page, network):
    with np.load(DIGITS) as file:
        images, labels = file["images"], file["labels"]
    for number in (0, 8, 18, len(images) - 1):
        page.locator(".bnn-test-image").fill(str(number))
        read = int(packed.predict(network, torch.from_numpy(images[number])[None]))
        said = f"The network reads {read}. The label is {labels[number]}."
        expect(page.locator(".bnn-verdict")).to_have_text(said)
        assert_told(page, network, images[number])
    expect(page.locator(".bnn-latency")).to_contain_text(re.compile(r"browser \d+\.\d ms"))


def test_a_stroke_is_read_as_python_would_read_it_and_marks_what_it_flipped(page, network):
    assert not any("flipped" in title for title in titles(page))
    page.locator(".bnn-clear").click()
    expect(page.locator(".bnn-verdict")).to_have_text("Nothing is drawn.")
    stroke(page, (0.4, 0.2), (0.6, 0.3), (0.4, 0.8))
    canvas = page.locator(".bnn-drawing")
    drawn = np.array(canvas.evaluate(DRAWN), np.uint8).reshape(168, 168)
    assert_told(page, network, as_mnist(drawn))
    black, digit = np.zeros((28, 28), np.uint8), as_mnist(drawn)
    before, after = (network.hidden(torch.from_numpy(each)[None]) for each in (black, digit))
    flipped = [
        sum(int(word).bit_count() for word in (one ^ other).numpy().view(np.uint64)[0])
        for one, other in zip(before, after, strict=True)
    ]
    found = [int(re.search(r"(\d+) flipped", title)[1]) for title in titles(page)]
    assert found == flipped and min(flipped) > 0


def test_keys_draw_too(page):
    page.locator(".bnn-clear").click()
    page.locator(".bnn-drawing").focus()
    page.keyboard.down("Shift")
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    page.keyboard.up("Shift")
    expect(page.locator(".bnn-verdict")).to_contain_text("The network reads")


def test_a_unit_opens_and_its_threshold_and_weights_can_be_changed(page):
    trained, bits = scores(page), titles(page)
    page.locator(".bnn-bits").nth(1).click(position={"x": 3, "y": 3})
    expect(page.locator(".bnn-unit-told")).to_contain_text("Layer 2. Unit 0: sum")
    slider = page.locator(".bnn-threshold")
    reached = "≥" in page.locator(".bnn-unit-told").inner_text()
    slider.focus()
    page.keyboard.press("End" if reached else "Home")
    expect(page.locator(".bnn-layer-title").nth(1)).to_contain_text(", 1 flipped")
    assert titles(page)[0].endswith(", 0 flipped")
    page.locator(".bnn-restore").click()
    assert scores(page) == trained
    weights = page.locator(".bnn-weights")
    before = re.search(r"sum (\S+)", page.locator(".bnn-unit-told").inner_text())[1]
    weights.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".bnn-unit-told")).to_contain_text("1 of its weights are flipped")
    after = re.search(r"sum (\S+)", page.locator(".bnn-unit-told").inner_text())[1]
    assert abs(int(after.replace("−", "-")) - int(before.replace("−", "-"))) == 2
    page.keyboard.press("Enter")
    expect(page.locator(".bnn-unit-told")).to_contain_text(f"sum {before}")
    assert scores(page) == trained
    assert [title.split(",")[0] for title in titles(page)] == bits


def test_a_page_says_what_runs(page):
    said = page.locator(".bnn-network").inner_text()
    assert re.search(r"[\d,]+ weights of one bit, .* run \S+, .* test error \d\.\d\d %", said)


def test_a_damaged_network_is_refused_in_words(browser, built, tmp_path):
    text = (built / "quick" / "00_playground.html").read_text("utf-8")
    at = text.index('id="bnn-network">') + 5000
    other = "B" if text[at] == "A" else "A"
    (tmp_path / "damaged.html").write_text(text[:at] + other + text[at + 1 :])
    page = open_page(browser, (tmp_path / "damaged.html").as_uri(), DESK).page
    expect(page.locator('[data-piece="playground"]')).to_have_text(
        re.compile("^The network can't be read: ")
    )
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_living_page_loads_nothing_fits_and_can_be_read(browser, built, name):
    shown = open_page(browser, (built / name).as_uri(), PHONE)
    page = shown.page
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(FAINT) == []
    page.emulate_media(color_scheme="light")
    assert sideways(page) == 0
    assert serious(page, ALL_BUT_CONTRAST) == []
    assert [url for url in shown.requests if not url.startswith("data:")] == [page.url]
    assert shown.errors == []
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_the_pictures_remain(browser, built, name):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((built / name).as_uri())
    assert page.locator("[data-piece]").inner_text() == ""
    assert page.locator("img").count() > 0
    context.close()


@pytest.mark.parametrize(("name", "most"), [(PAGES[0], 1_500_000), (PAGES[1], 1_000_000)])
def test_a_living_page_is_light(built, name, most):
    assert (built / name).stat().st_size <= most


def test_signs_multiplied_by_hand_agree_with_floats(browser, built):
    page = piece(browser, built, "09_kernels.html")
    page.locator(".bnn-range").fill("5")
    for name in ("x 1", "w 1", "w 4"):
        page.get_by_role("button", name=re.compile(f"^{name}:")).click()
        signs = [
            [1 if text == "+1" else -1 for text in row.locator("button:visible").all_inner_texts()]
            for row in page.locator(".bnn-sign-row").all()[:2]
        ]
        total = str(int(np.dot(*signs))).replace("-", "−")
        assert page.locator(".bnn-on-bits").inner_text().endswith(f"= {total}.")
        assert page.locator(".bnn-in-floats").inner_text().endswith(f"= {total}.")
    page.close()


def test_the_windows_sliders_move_the_cosine(browser, built):
    page = piece(browser, built, "02_gradients.html")
    said, told = [], page.locator(".bnn-told")
    for width in ("1", "4", "0.2"):
        page.locator(".bnn-range").nth(1).fill(width)
        said.append(float(re.search(r"gradient: ([\d.]+);", told.inner_text())[1]))
    assert said[0] > said[1] > said[2]
    page.close()


def test_few_bits_lose_short_steps_to_nearest_only(browser, built):
    page = piece(browser, built, "10_open_questions.html")
    told = page.locator(".bnn-told")
    expect(told).to_contain_text("every step is lost")
    assert "rounded to nearest never crosses" in told.inner_text()
    assert re.search(r"stochastically crosses zero at step \d+", told.inner_text())
    before = told.inner_text()
    page.locator(".bnn-again").click()
    expect(told).not_to_have_text(before)
    page.locator(".bnn-range").first.fill("12")
    assert re.search(r"to nearest crosses zero", told.inner_text())
    page.close()
