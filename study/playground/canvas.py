"""A canvas to draw a digit on, and what a packed network makes of it while one draws.

The browser's side is the folder `browser`. It sends what is drawn, is sent bits and sums as they
lie in memory, and paints them.
"""

import time
from collections.abc import Callable
from pathlib import Path

import anywidget
import numpy as np
import torch
import traitlets
from torch import Tensor

from bnnlib.packed import PackedNetwork
from study.playground.model import SIDE, as_mnist, look_inside, milliseconds

BROWSER = Path(__file__).with_name("browser")
SCRIPTS = ("elements", "drawing_board", "network_view", "playground")  # each uses those before it
ZOOM = 6  # pixels of the drawing to one of a digit, each way
DRAWN = -1  # the number of no test image: what is read is what is drawn
CALLS = 3  # of each network when both are timed


def _bytes(sent: memoryview, _) -> bytes:
    return bytes(sent)


class Canvas(anywidget.AnyWidget):
    """Draw on it, or pick a test image: every change is answered with all that is inside."""

    _esm = "\n".join((BROWSER / f"{name}.js").read_text("utf-8") for name in SCRIPTS)  # one module
    _css = BROWSER / "playground.css"

    # The browser sets these three: grey (168, 168), bright on 0, row by row; the number of the test
    # image that it shows; how many strokes have ended, after which both networks are timed.
    drawing = traitlets.Bytes().tag(sync=True, echo_update=False, from_json=_bytes)
    test_image = traitlets.Int(DRAWN).tag(sync=True)
    strokes = traitlets.Int(0).tag(sync=True)
    # What it is sent, once and then anew for each drawing.
    side = traitlets.Int(ZOOM * SIDE).tag(sync=True)
    test_images = traitlets.Int().tag(sync=True)  # how many
    network_name = traitlets.Unicode().tag(sync=True)
    thresholds = traitlets.List(traitlets.Bytes()).tag(sync=True)  # of each hidden layer, int32
    answer = traitlets.Dict().tag(sync=True)
    times = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        network: PackedNetwork,
        float_twin: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        network_name: str,
    ):
        """images (N, 28, 28) uint8 to pick from, labels (N,); the first one is shown at once.

        float_twin: the same network in float32, (1, 28, 28) uint8 -> scores, to be timed beside.
        Raises ValueError for a network that reads other than digits of uint8 pixels.
        """
        inside = look_inside(network, images[0])
        thresholds = [layer.thresholds.numpy().tobytes() for layer in inside.layers]
        super().__init__(test_images=len(images), network_name=network_name, thresholds=thresholds)
        self._network, self._float_twin = network, float_twin
        self._images, self._labels = images, labels
        self.observe(self._show_test_image, "test_image")
        self.observe(self._answer, "drawing")
        self.observe(self._time_both, "strokes")
        self.test_image = 0

    @traitlets.validate("test_image")
    def _require_test_image(self, proposal: dict) -> int:
        if not DRAWN <= proposal["value"] < self.test_images:
            raise traitlets.TraitError(f"there is no test image {proposal['value']}")
        return proposal["value"]

    @traitlets.validate("drawing")
    def _require_whole(self, proposal: dict) -> bytes:
        if len(proposal["value"]) != self.side**2:
            raise traitlets.TraitError(f"a drawing has {self.side**2} bytes, a pixel each")
        return proposal["value"]

    def digit(self) -> Tensor:
        """Image for the networks, (28, 28) uint8: the test image as it is, or what is drawn."""
        if self.test_image != DRAWN:
            return self._images[self.test_image]
        pixels = np.frombuffer(self.drawing, np.uint8).reshape(self.side, self.side)
        return torch.from_numpy(as_mnist(pixels))

    def _show_test_image(self, change: dict) -> None:
        """Put the picked image on the canvas, to be drawn on."""
        if change["new"] != DRAWN:
            enlarged = np.kron(self._images[change["new"]].numpy(), np.ones((ZOOM, ZOOM), np.uint8))
            self.drawing = enlarged.tobytes()
            self._time_both()

    def _answer(self, _) -> None:
        started = time.perf_counter()
        digit = self.digit()
        packed_ms = milliseconds(self._network, digit)
        inside = look_inside(self._network, digit)
        picked = self.test_image != DRAWN
        self.answer = {
            "digit": digit.numpy().tobytes(),
            "planes": inside.planes.numpy().tobytes(),
            "words": [layer.words.numpy().tobytes() for layer in inside.layers],
            "sums": [layer.sums.numpy().tobytes() for layer in inside.layers],
            "scores": inside.scores.tolist(),
            "predicted": int(inside.scores.argmax()),
            "label": int(self._labels[self.test_image]) if picked else DRAWN,
            "packed_ms": packed_ms,
            "python_ms": 1000 * (time.perf_counter() - started),
        }

    def _time_both(self, _=None) -> None:
        digit = self.digit()
        scores, others = self._network(digit[None]), self._float_twin(digit[None])
        self.times = {
            "packed_ms": milliseconds(self._network, digit, CALLS),
            "float_ms": milliseconds(self._float_twin, digit, CALLS),
            "calls": CALLS,
            "threads": torch.get_num_threads(),
            "equal": torch.equal(scores, others),
        }
