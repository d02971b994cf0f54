"""Pictures as a network reads them: any file that Pillow opens, brought to size or MNIST's form.

The playground, `bnnlib.classify` and whoever trains on a folder of pictures share these functions,
so that one drawing has one answer.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from bnnlib.files import DECODING

LARGEST = 2**26  # pixels of a picture file: a few bytes may claim billions
ORIENTATION = 0x0112  # EXIF's tag
LYING = (5, 6, 7, 8)  # its values for a quarter turn
SIDE = 28  # of MNIST's pictures, in pixels
BOX = 20  # pixels of a digit's longer side
CENTRE = 14  # where its centre of mass lies
FAINT = 8  # difference from the ground: up to here it is noise
BLANK = 24  # below here nothing is drawn
LARGE = 512  # pixels a side to which a noisy picture is reduced: its digit still has enough
SPREAD = 5  # standard deviations of the ground's noise that are not ink
SHADOW = 1 / 4  # of the strongest ink: below, on a noisy ground, no ink


@dataclass(frozen=True, eq=False)
class Decoded:
    """A picture upright, RGB or RGBA of 8 bits a channel, and how many frames its file has."""

    picture: Image.Image
    size: tuple[int, int]  # as stored and upright; a JPEG may be decoded smaller
    frames: int


def decode(content: bytes, least: tuple[int, int] | None = None) -> Decoded:
    """A picture file's first frame. least: the size below which a JPEG isn't decoded reduced.

    Raises ValueError, in part of a sentence, for what is no picture, is cut off, has more than
    LARGEST pixels, holds real numbers, or is a program (EPS). The second picture that telephones
    put into a JPEG, a preview or a map of depth or light, is no frame.
    """
    file = io.BytesIO(content)
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(file) as opened:
            return _decoded(opened, least)
    except UnidentifiedImageError:
        raise ValueError("its content is no picture that Pillow knows") from None
    except (OSError, ValueError, *DECODING, Image.DecompressionBombError) as error:
        reason = str(error).replace(repr(file), "the file")
        raise ValueError(" ".join(reason.split()) or type(error).__name__) from error


def _decoded(opened: Image.Image, least: tuple[int, int] | None) -> Decoded:
    width, height = opened.size
    if width * height > LARGEST:
        raise ValueError(f"it has {width} x {height} pixels, at most {LARGEST} are read")
    if opened.format == "EPS":  # Pillow would have Ghostscript run it
        raise ValueError("it is a program in PostScript, no picture")
    frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
    if least:
        opened.draft(None, least)
    if opened.mode.startswith(("I", "F")):
        opened = _eight_bits(opened)
    turned = opened.getexif().get(ORIENTATION, 1) in LYING
    picture = ImageOps.exif_transpose(opened)
    picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    return Decoded(picture, (height, width) if turned else (width, height), frames)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Integers of up to 16 bits -> 8 bits, with the orientation that the file names."""
    numbers = np.asarray(picture)
    if numbers.dtype.kind == "f" or numbers.min() < 0 or numbers.max() > 0xFFFF:
        raise ValueError("its pixels are no integers of 8 or 16 bits")
    reduced = Image.fromarray((numbers.astype(np.uint32) // 257).astype(np.uint8))
    reduced.info["exif"] = picture.getexif().tobytes()
    return reduced


def fitted(picture: Image.Image, shape: tuple[int, ...], ground: str = "black") -> np.ndarray:
    """A picture stretched to (S, S) or (1, S, S), grey, or to (3, S, S), RGB: uint8.

    What is transparent shows the ground, a colour that Pillow knows.
    """
    grey = len(shape) == 2 or shape[0] == 1
    size = shape[-1], shape[-2]
    opaque = flatten(picture, ground)
    pixels = np.asarray(_resized(opaque.convert("L" if grey else "RGB"), size))
    return pixels.reshape(shape) if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, reducing_gap=3.0)


def flatten(picture: Image.Image, ground: str) -> Image.Image:
    """A picture without transparency, on a ground of one colour."""
    if picture.mode != "RGBA":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, ground), picture)


def digit(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    """A drawing or a photograph of a digit -> (28, 28) uint8 in MNIST's form, and what was done.

    A picture that has that form already comes back as it is; a blank one comes back black, and the
    notes say "blank".
    """
    drawing, notes = ink(picture)
    if not drawing.any():
        return np.zeros((SIDE, SIDE), np.uint8), ["blank"]
    if has_form(drawing):
        return drawing, notes
    rows, columns = drawing.any(1).sum(), drawing.any(0).sum()
    notes.append(f"{columns}x{rows} pixels of ink centred and scaled from {_times(picture)}")
    return as_mnist(drawing), notes


def _times(picture: Image.Image) -> str:
    return f"{picture.width}x{picture.height}"


def ink(picture: Image.Image) -> tuple[np.ndarray, list[str]]:
    """Drawing of a picture: uint8 (H, W), bright on 0, and notes; all 0 where it is blank.

    The ground is what the border shows. On a ground of one colour the ink is the difference from
    it. On any other, as a photograph's, it is what stands out from a plane laid through the border
    by more than noise and shadows; large ones are reduced first.
    """
    grey = flatten(picture, _behind(picture)).convert("L")
    pixels = np.asarray(grey).astype(np.float32)
    border = _border(pixels)
    ground = np.median(border)
    difference, spread = pixels - ground, 0.0
    noisy = _is_noisy(difference, border)
    if noisy:
        difference, spread = _off_its_ground(grey)
    dark = -difference.min() > difference.max()
    strength = -difference if dark else difference
    peak = strength.max()
    if peak < max(BLANK, 2 * SPREAD * spread):
        return np.zeros(strength.shape, np.uint8), []
    if noisy:
        strength = np.where(strength >= max(SPREAD * spread, SHADOW * peak), strength, 0)
    if noisy or 0 < ground < 255:  # a grey ground leaves no room for full ink
        strength = strength * (255 / peak)
    notes = ["inverted"] * bool(dark) + ["taken off its uneven ground"] * noisy
    return strength.clip(0, 255).round().astype(np.uint8), notes


def _off_its_ground(grey: Image.Image) -> tuple[np.ndarray, float]:
    """Difference from a plane laid through the border, and the spread of the ground's noise."""
    grey.thumbnail((LARGE, LARGE), Image.Resampling.BOX)
    pixels = np.asarray(grey.filter(ImageFilter.MedianFilter(3))).astype(np.float32)
    ground, spread = _ground(pixels)
    return pixels - ground, spread


def _behind(picture: Image.Image) -> str:
    """The ground that shows what is drawn on a transparent picture: white behind dark ink."""
    if picture.mode != "RGBA":
        return "black"
    alpha = np.asarray(picture.getchannel("A"), np.float32)
    grey = np.asarray(picture.convert("L"), np.float32)
    mean = (grey * alpha).sum(dtype=np.float64) / max(1.0, alpha.sum(dtype=np.float64))
    return "white" if alpha.min() < 255 and mean < 128 else "black"


def _border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])


def _is_noisy(difference: np.ndarray, border: np.ndarray) -> bool:
    """Whether the ground isn't of one colour: at the border, or by many faint differences inside,
    as JPEG leaves them around what is drawn. As few pixels as MNIST's have too many grey edges."""
    if np.count_nonzero(border == np.median(border)) < 0.6 * border.size:
        return True
    if max(difference.shape) <= 2 * SIDE:
        return False
    size = np.abs(difference)
    faint = np.count_nonzero((size > 0) & (size <= FAINT))
    return bool(faint > 0.1 * np.count_nonzero(size > FAINT) and size.max() > FAINT)


def _ground(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """A plane through the border, without what stands out there, and the spread around it."""
    height, width = pixels.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    places = np.stack([np.ones_like(x), x / width, y / height])
    at_border = np.stack([_border(place) for place in places], 1)
    values = _border(pixels)
    kept = np.abs(values - np.median(values)) <= 64
    if not kept.any():  # half of them black, half white
        kept[:] = True
    for _ in range(3):
        plane = np.linalg.lstsq(at_border[kept], values[kept], rcond=None)[0]
        rest = values - at_border @ plane
        spread = 1.4826 * np.median(np.abs(rest[kept]))
        kept = np.abs(rest) <= 3 * spread + 1
    return np.tensordot(plane, places, 1), float(spread)


def has_form(drawing: np.ndarray) -> bool:
    """Whether a drawing is as MNIST's digits are: 28 x 28, its ink about 20 large and in the
    middle, to within a pixel or two."""
    if drawing.shape != (SIDE, SIDE):
        return False
    rows, columns = np.flatnonzero(drawing.any(1)), np.flatnonzero(drawing.any(0))
    extent = max(np.ptp(rows), np.ptp(columns)) + 1
    total = drawing.sum(dtype=np.int64)
    middle = [(drawing.sum(axis) @ np.arange(SIDE)) / total for axis in (0, 1)]
    return abs(extent - BOX) <= 2 and max(abs(place - CENTRE) for place in middle) <= 2


def as_mnist(drawing: np.ndarray) -> np.ndarray:
    """A drawing (H, W) uint8, bright on 0 -> (28, 28) uint8, made as MNIST's digits were.

    The ink is scaled to fit a box of 20 x 20 pixels, its proportions kept and each pixel the mean
    of what it covers, and moved by whole pixels until its centre of mass is in the middle of 28 x
    28; no farther than all of it is inside. A drawing without ink stays black. Columns are scaled
    before rows, whichever way Pillow would choose: the page's engine rounds in the same order.
    """
    rows, columns = np.flatnonzero(drawing.any(1)), np.flatnonzero(drawing.any(0))
    field = np.zeros((SIDE, SIDE), np.uint8)
    if not len(rows):
        return field
    ink = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = (max(1, round(BOX * side / max(ink.shape))) for side in ink.shape)
    narrow = Image.fromarray(ink).resize((width, len(ink)), Image.Resampling.BOX)
    digit = np.asarray(narrow.resize((width, height), Image.Resampling.BOX))
    top, left = _first(digit.sum(1)), _first(digit.sum(0))
    field[top : top + height, left : left + width] = digit
    return field


def _first(ink: np.ndarray) -> int:
    """First place of rows, or columns, with so much ink, so that their mean is at CENTRE."""
    mean = (ink @ np.arange(len(ink))) / max(1, ink.sum())
    return min(max(0, round(CENTRE - mean)), SIDE - len(ink))
