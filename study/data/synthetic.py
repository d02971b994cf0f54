"""Stand-in pictures: digits drawn by program, in the shapes of the real data sets.

They let every notebook and test run where no data can be had. They are learnable, not comparable:
nothing drawn here may stand beside a number of the paper.
"""

import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

FONTS = (
    *("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSansMono"),
    *("DejaVuSerif", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic"),
    *("cmr10", "cmss10", "cmtt10"),
)
BLOCK = 250  # images drawn at once, each block from its own seed: a set begins with the shorter one
SIDE = 32  # atlas cell, in atlas pixels
HEIGHT = 20  # of a digit inside its cell, in atlas pixels
FINE = 3  # glyphs are rasterized this much finer, so that their outline is exact to a fraction


def draw(name, seed, part, count):
    """Draw `count` labelled digits, the same ones for the same (name, seed, part).

    -> images (count, 28, 28) or (count, 3, 32, 32) uint8, labels (count,) uint8.
    Equal on one machine; another FreeType or numpy may round single pixels differently.
    """
    paint, shape = (_grey, (28, 28)) if name == "mnist" else (_colour, (3, 32, 32))
    images = np.empty((count, *shape), np.uint8)
    labels = np.empty(count, np.uint8)
    for start in range(0, count, BLOCK):
        key = (seed, zlib.crc32(f"{name} {part}".encode()), start // BLOCK)
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))
        digits = rng.integers(10, size=BLOCK, dtype=np.uint8)
        room = images[start : start + BLOCK]
        room[:] = paint(rng, digits)[: len(room)]
        labels[start : start + BLOCK] = digits[: len(room)]
    return images, labels


def _grey(rng, digits):
    """digits (B,) -> (B, 28, 28) uint8: pale strokes on black, as in MNIST."""
    x, y = _warp(rng, 28, height=(17, 22), turn=0.22, lean=0.3, shift=1.5, wobble=0.9)
    glyphs = _pick_font(rng) * 10 + digits[:, None, None]
    ink = _ink(_sample(glyphs, x, y), _uniform(rng, -0.3, 1.0), _uniform(rng, 1.0, 2.2))
    ink *= _uniform(rng, 0.85, 1.0)
    return (255 * ink).astype(np.uint8)


def _colour(rng, digits):
    """digits (B,) -> (B, 3, 32, 32) uint8: a digit between cut-off neighbours, as in SVHN."""
    x, y = _warp(rng, 32, height=(19, 28), turn=0.12, lean=0.15, shift=1.5, wobble=0.4)
    font = _pick_font(rng)
    weight = _uniform(rng, -0.5, 1.5)
    blur = _uniform(rng, 1.2, 4.0)
    ink = _ink(_sample(font * 10 + digits[:, None, None], x, y), weight, blur)
    ink = np.maximum(ink, _neighbours(rng, font, weight, blur, x, y))[:, None]
    ground, paint = _palette(rng)
    image = _texture(rng, ground, 16) * (1 - ink) + _texture(rng, paint, 8) * ink
    image += rng.normal(0, 1, image.shape).astype(np.float32) * _uniform(rng, 1, 7)[..., None]
    return image.clip(0, 255).astype(np.uint8)


def _warp(rng, side, height, turn, lean, shift, wobble):
    """Places in the atlas that a `side` x `side` picture's pixels show: x, y (B, side, side).

    Turn and lean in radians, height and shift in pixels of the picture, wobble in atlas pixels.
    The centre of the digit is (0, 0).
    """
    line = np.arange(side, dtype=np.float32) - (side - 1) / 2
    column = line[None, None, :] - _uniform(rng, -shift, shift)
    row = line[None, :, None] - _uniform(rng, -shift, shift)
    scale = HEIGHT / _uniform(rng, *height)
    angle, stretch = _uniform(rng, -turn, turn), _uniform(rng, 0.85, 1.2)
    x = (np.cos(angle) * column + np.sin(angle) * row) * scale
    y = (np.cos(angle) * row - np.sin(angle) * column) * scale
    x = (x + _uniform(rng, -lean, lean) * y) * stretch
    # One slow wave along each axis: strokes of a hand are never straight.
    bend_x = wobble * np.sin(_uniform(rng, 0.15, 0.4) * y + _uniform(rng, 0, 6.28))
    bend_y = wobble * np.sin(_uniform(rng, 0.15, 0.4) * x + _uniform(rng, 0, 6.28))
    return x + bend_x, y + bend_y


def _neighbours(rng, font, weight, blur, x, y):
    """Ink (B, H, W) of a digit to the left and one to the right, each there or not."""
    gap = _uniform(rng, 15, 20)
    digits = rng.integers(10, size=(2, BLOCK, 1, 1))
    there = (rng.random((2, BLOCK, 1, 1)) < 0.6).astype(np.float32)
    left = x < 0
    glyphs = font * 10 + np.where(left, *digits)
    ink = _ink(_sample(glyphs, np.where(left, x + gap, x - gap), y), weight, blur)
    return ink * np.where(left, *there)


def _palette(rng):
    """Ground and paint (B, 3, 1, 1): two colours whose brightness differs by 50 to 150 of 255."""
    ground = rng.uniform(20, 235, (BLOCK, 1)) + rng.normal(0, 22, (BLOCK, 3))
    contrast = rng.uniform(50, 150, (BLOCK, 1))
    away = np.where(ground.mean(1, keepdims=True) < 128, contrast, -contrast)
    paint = ground + away + rng.normal(0, 22, (BLOCK, 3))
    return ground[..., None, None].astype(np.float32), paint[..., None, None].astype(np.float32)


def _texture(rng, colour, strength):
    """colour (B, 3, 1, 1) -> (B, 3, 32, 32): slow stains, a few of them, in brightness and hue."""
    knots = np.linspace(0, 4, 32, dtype=np.float32)
    blend = np.maximum(0, 1 - np.abs(knots[:, None] - np.arange(5, dtype=np.float32)))  # (32, 5)
    stains = rng.normal(0, 1, (BLOCK, 1, 5, 5)) + rng.normal(0, 0.4, (BLOCK, 3, 5, 5))
    stains = stains.astype(np.float32) * _uniform(rng, 0.2, 2.0)[..., None] * strength
    return colour + blend @ stains @ blend.T


def _uniform(rng, low, high):
    """One number a picture: (B, 1, 1) float32."""
    return rng.uniform(low, high, (BLOCK, 1, 1)).astype(np.float32)


def _pick_font(rng):
    return rng.integers(len(FONTS), size=(BLOCK, 1, 1))


def _ink(distance, weight, blur):
    """Distance to the outline, inside positive -> ink in [0, 1], bolder by weight and blurred."""
    return ((distance + weight) / blur + 0.5).clip(0, 1)


def _sample(glyphs, x, y):
    """Bilinear look-up of glyphs (B, ...) in the atlas at x, y (B, H, W) -> distance (B, H, W)."""
    atlas = _atlas().ravel()
    x = (x + (SIDE - 1) / 2).clip(0, SIDE - 1.01)
    y = (y + (SIDE - 1) / 2).clip(0, SIDE - 1.01)
    column, row = x.astype(np.int32), y.astype(np.int32)
    x -= column
    y -= row
    corner = (glyphs.astype(np.int32) * SIDE + row) * SIDE + column
    top = atlas[corner] * (1 - x) + atlas[corner + 1] * x
    bottom = atlas[corner + SIDE] * (1 - x) + atlas[corner + SIDE + 1] * x
    return top + (bottom - top) * y


@lru_cache(maxsize=1)
def _atlas():
    """(fonts * 10, SIDE, SIDE) float32: signed distance to each digit's outline, inside positive.

    Unlike grey values, a distance looked up at any scale can still be thickened or softened.
    """
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    cells = [_outline(folder / f"{font}.ttf", str(digit)) for font in FONTS for digit in range(10)]
    return np.stack(cells)


def _outline(path, character):
    """One atlas cell (SIDE, SIDE) float32, the character HEIGHT tall and centred."""
    from PIL import Image, ImageDraw, ImageFont
    from scipy.ndimage import distance_transform_edt

    font = ImageFont.truetype(str(path), 100)
    box = font.getbbox(character)
    font = ImageFont.truetype(str(path), 100 * HEIGHT * FINE / (box[3] - box[1]))
    canvas = Image.new("L", (SIDE * FINE, SIDE * FINE))
    middle = SIDE * FINE / 2
    box = font.getbbox(character)
    corner = (middle - (box[0] + box[2]) / 2, middle - (box[1] + box[3]) / 2)
    ImageDraw.Draw(canvas).text(corner, character, fill=255, font=font)
    inside = np.asarray(canvas) > 127
    distance = distance_transform_edt(inside) - distance_transform_edt(~inside)
    return distance[FINE // 2 :: FINE, FINE // 2 :: FINE].astype(np.float32) / FINE
