"""The colours of verdicts differ for colour-blind readers too, though words and marks tell them."""

import re

import numpy as np
import pytest

from tools.pages import TEMPLATES

# Linear RGB as colour-blind eyes see it: Machado, Oliveira and Fernandes (2009), severity 1
BLINDNESS = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
DISTINCT = 20  # in CIELAB; a difference of about 2 can just be seen


def palettes():
    """The colours that the style sheet names, by day and by night."""
    style = (TEMPLATES / "style.css").read_text("utf-8")
    day, night = re.findall(r":root \{\n(.*?)\}", style, re.S)[:2]
    return [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in (day, night)]


def cielab(colour, blindness):
    """A colour #rrggbb as an eye with this blindness sees it, in CIELAB."""
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLINDNESS[blindness]) @ linear, 0, 1)
    x, y, z = np.cbrt(TO_XYZ @ seen / np.array([0.9505, 1, 1.089]))  # none of ours is near black
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("palette", palettes(), ids=["day", "night"])
def test_colours_of_verdicts_differ_for_every_eye(palette, blindness):
    good, fair, bad = (cielab(palette[name], blindness) for name in ("good", "fair", "bad"))
    for one, other in ((good, fair), (good, bad), (fair, bad)):
        assert np.linalg.norm(one - other) >= DISTINCT
