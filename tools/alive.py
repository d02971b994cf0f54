"""Pieces of a page that run in the reader's browser: the playground, and small ones to play with.

A notebook has <div data-piece="NAME"></div> in a markdown cell, where nothing is seen in
JupyterLab; on its page a piece stands there. All that a piece needs is inside the page: scripts,
style, and for the playground a network and some test images in base64. Readers without scripts see
nothing of it.
"""

import base64
import io
import re
from functools import cache
from pathlib import Path

import numpy as np
from markupsafe import Markup

from bnnlib.export import js
from bnnlib.export.network import read
from study import ROOT, data
from study.playground.canvas import BROWSER
from study.train import runs

HERE = ROOT / "study" / "playground" / "browser"
DIGITS = HERE / "test_images.npz"  # the first of MNIST's test images: `python -m tools.alive`
DIGIT_COUNT = 30
# The largest committed MNIST network that a page of 1 MB has room for; notebook 04's own takes 6 MB
# in base64. Of its seeds the first.
NETWORK = ROOT / "results" / "models" / "codes-mnist-evening.safetensors"
RECORD = ROOT / "results" / "runs" / "codes-mnist" / "evening" / "cpu-seed0.json"
PLAYGROUND = ("elements", "engine", "drawing_board", "network_view", "unit_view", "playground")
PIECES = {  # the scripts of each, those that others use first
    "playground": (*PLAYGROUND, "page_model", "page"),
    "xnor": ("elements", "engine", "piece", "xnor"),
    "window": ("elements", "piece", "window"),
    "latent": ("elements", "piece", "latent"),
}
MARKER = re.compile(r'<div data-piece="(\w+)"></div>')


def insert(fragment: str) -> Markup:
    """HTML with a piece in the place of each marker. Raises KeyError for a piece unknown here."""
    return Markup(MARKER.sub(lambda found: piece(found[1]), fragment))


def piece(name: str, compact: bool = False) -> Markup:
    """A piece with all that it needs. compact: of the playground only what fits on the index."""
    what = Markup(' data-what="{}"').format(_what()) if name == "playground" else ""
    small = Markup(" data-compact") if compact else ""
    parts = [Markup('<div class="bnn-piece" data-piece="{}"{}{}></div>').format(name, what, small)]
    if name == "playground":
        parts += [_stored("network", _network()), _stored("digits", _digits())]
    parts += [Markup(f"<style>{_style()}</style>"), Markup(f"<script>{_script(name)}</script>")]
    return Markup("\n").join(parts)


@cache
def _script(name: str) -> str:
    """One module from a piece's files; "</script" would end it where it stands in a page."""
    source = "\n".join(_file(f"{each}.js").read_text("utf-8") for each in PIECES[name])
    source = source.replace("export default { render };\n", "")
    if re.search(r"</script|<!--", source, re.I):
        raise ValueError(f"the scripts of {name} would end their element early")
    return f'(() => {{\n"use strict";\n{source}}})();'


@cache
def _style() -> str:
    return "".join(_file(name).read_text("utf-8") for name in ("playground.css", "page.css"))


def _file(name: str) -> Path:
    """A file of the playground's own folder, which JupyterLab reads too, or of the pages'."""
    shared = BROWSER / name
    return shared if shared.exists() else HERE / name


def _stored(name: str, text: str) -> Markup:
    """Data that a script finds by its id, and no browser runs."""
    return Markup('<script type="text/plain" id="bnn-{}">{}</script>').format(name, text)


@cache
def _network() -> str:
    return js.encoded(read(NETWORK))


@cache
def _what() -> str:
    """Say what runs, in a line: how many bits, from which run, with which test error."""
    network, record = read(NETWORK), runs.read_record(RECORD)
    hidden = " + ".join(str(len(layer.signs)) for layer in network.hidden)
    return (
        f"{network.bits:,} weights of one bit, {hidden} hidden units; the committed run "
        f"{record['recipe']['name']}, {record['profile']} profile, seed {record['seed']}, test "
        f"error {record['test_error']:.2f} %. It runs in this page, in JavaScript; nothing is sent."
    )


@cache
def _digits() -> str:
    """Labels, then pixels, as bytes in base64."""
    with np.load(DIGITS) as file:
        content = file["labels"].tobytes() + file["images"].tobytes()
    return base64.b64encode(content).decode()


def main() -> None:
    """Take the test images for the pages out of MNIST."""
    mnist = data.load("mnist")
    content = io.BytesIO()
    images, labels = mnist.test_images[:DIGIT_COUNT], mnist.test_labels[:DIGIT_COUNT]
    np.savez_compressed(content, images=images, labels=labels.astype(np.uint8))
    DIGITS.write_bytes(content.getvalue())


if __name__ == "__main__":
    main()
