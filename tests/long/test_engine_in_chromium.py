"""The page's engine in Chromium, on all of MNIST's test images: every bit, score and class."""

import numpy as np
import pytest

from bnnlib import packed
from bnnlib.export import js
from bnnlib.export.network import read
from study import data
from tests.support import engine
from tests.support.browser import chromium, needed
from tools.alive import NETWORK

pytestmark = needed
AT_ONCE = 1000  # images a call


def test_all_test_images_are_read_to_the_last_bit_as_by_the_packed_network(report):
    try:
        images = data.load("mnist").test_images.reshape(-1, 784)
    except data.DataUnavailable as problem:
        pytest.skip(str(problem).splitlines()[0])
    exported, network = read(NETWORK), packed.load(NETWORK)
    units = [len(layer.signs) for layer in exported.hidden]
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(0)
        page.add_script_tag(content=engine.ENGINE.read_text("utf-8") + engine.ANSWERS)
        blob, compared = engine.base64_of(js.blob(exported)), 0
        for part in np.split(images, len(images) // AT_ONCE):
            given = [blob, engine.base64_of(part)]
            text = page.evaluate("given => answers(...given)", given)
            assert engine.same(engine.as_answers(text, units), engine.expected(network, part))
            compared += len(part)
    assert compared == 10_000
    what = "a page's engine in Chromium, on MNIST's test images"
    report(what, compared, "every bit, score and class equal to the packed network's")
