"""Pictures of every kind, as a network reads them; digits drawn in all the ways of people."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from bnnlib import pictures
from study import data

DIGITS = data.stand_in("mnist", train=1, test=12).test_images
DIGITS = np.stack([pictures.as_mnist(digit) for digit in DIGITS])  # in MNIST's form


def coded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    picture.save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def larger(digit, times):
    return np.kron(digit, np.ones((times, times), np.uint8))


def in_a_corner(digit):
    field = np.zeros((90, 120), np.uint8)
    field[60:88, 2:30] = digit
    return field


def on_transparent(digit):
    clear = np.zeros((28, 28, 4), np.uint8)
    clear[..., 3] = digit
    return clear


def photograph(digit):
    noise = np.random.default_rng(0).normal(0, 5, (300, 400))
    ground = np.linspace(130, 190, 400) + np.linspace(-15, 15, 300)[:, None] + noise
    ground[40:264, 100:324] -= larger(digit, 8) * (90 / 255)
    return ground.clip(0, 255).astype(np.uint8)


def answer(pixels):
    return pictures.digit(Image.fromarray(pixels))


def is_close(found, digit):
    """Whether two digits have the same ink, but for its edges: correlated by more than 0.9."""
    return np.corrcoef(found.ravel(), digit.ravel())[0, 1] > 0.9


def test_a_digit_in_mnist_s_form_stays_as_it_is():
    for digit in DIGITS:
        assert np.array_equal(answer(digit)[0], digit) and answer(digit)[1] == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda digit: 255 - digit,
        on_transparent,
        lambda digit: 170 - np.round(digit * (120 / digit.max())).astype(np.uint8),
    ],
)
def test_an_inverted_ground_is_recognised_and_said(draw):
    for digit in DIGITS:
        found, notes = answer(draw(digit))
        assert notes == ["inverted"] and is_close(found, digit)


@pytest.mark.parametrize("draw", [lambda digit: larger(digit, 10), in_a_corner])
def test_margins_and_scale_are_the_playground_s(draw):
    for digit in DIGITS:
        found, notes = answer(draw(digit))
        assert np.array_equal(found, pictures.as_mnist(draw(digit)))
        assert "centred and scaled from" in notes[0]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_photograph_s_ground_is_taken_off(kind):
    """Where a stroke's end is as faint as a shadow, it is lost: alike in most, not in all."""
    alike = 0
    for digit in DIGITS:
        file = coded(Image.fromarray(photograph(digit)), kind)
        found, notes = pictures.digit(pictures.decode(file).picture)
        assert notes[:2] == ["inverted", "taken off its uneven ground"]
        alike += is_close(found, digit)
    assert alike >= 8


@pytest.mark.parametrize("value", [0, 130, 255])
def test_a_picture_of_one_colour_is_blank(value):
    found, notes = answer(np.full((60, 40), value, np.uint8))
    assert notes == ["blank"] and not found.any()


def test_a_photograph_of_nothing_is_blank():
    found, notes = answer(photograph(np.zeros((28, 28), np.uint8)))
    assert notes == ["blank"] and not found.any()


def test_ink_on_a_ground_that_is_half_black_and_half_white_is_seen():
    """The median of such a border lies far from all of its pixels."""
    halves = np.zeros((64, 64), np.uint8)
    halves[:, 32:] = 255
    halves[16:48, 12:20] = 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, notes = answer(halves)
    assert notes != ["blank"] and found.any()


GREY = Image.fromarray(larger(DIGITS[0], 2))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_of_eight_bits_is_read(mode):
    picture = GREY.convert("RGB").convert("RGBA" if mode == "PA" else mode)
    kind = {"CMYK": "TIFF", "YCbCr": "TIFF", "HSV": "TIFF"}.get(mode, "PNG")
    if mode == "HSV":  # no file holds it
        picture = picture.convert("RGB")
    read = pictures.decode(coded(picture, kind)).picture
    expected = np.asarray(picture.convert("RGB").convert("L")).astype(int)
    assert np.abs(pictures.fitted(read, (56, 56)) - expected).max() <= 3


def test_sixteen_bits_are_read_as_their_upper_eight():
    deep = np.asarray(GREY).astype(np.uint16) * 257
    read = pictures.decode(coded(Image.fromarray(deep))).picture
    assert np.array_equal(pictures.fitted(read, (56, 56)), np.asarray(GREY))


def test_a_turned_picture_is_set_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    lying = GREY.rotate(90)
    read = pictures.decode(coded(lying, "PNG", exif=exif))
    assert np.array_equal(np.asarray(read.picture.convert("L")), np.asarray(GREY))


@pytest.mark.parametrize("deep", [False, True])
def test_sizes_are_told_upright(deep):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((10, 30), np.uint16 if deep else np.uint8)
    assert pictures.decode(coded(Image.fromarray(pixels), exif=exif)).size == (10, 30)


def test_what_is_transparent_shows_the_ground():
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4] = 255
    read = pictures.decode(coded(Image.fromarray(clear))).picture
    assert pictures.fitted(read, (8, 8)).mean(1).tolist() == [255] * 4 + [0] * 4
    assert pictures.fitted(read, (3, 8, 8), "red")[:, 7, 7].tolist() == [255, 0, 0]


def test_only_the_first_frame_is_read_and_the_others_counted():
    frames = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (10, 200, 90)]
    file = coded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    decoded = pictures.decode(file)
    assert decoded.frames == 3 and decoded.picture.convert("L").getpixel((0, 0)) == 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no picture that Pillow knows"),
        (b"no picture", "no picture that Pillow knows"),
        (coded(GREY)[:90], "truncated|broken|EOF|no picture"),
        (coded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "no integers"),
        (coded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "no integers"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence(content, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        pictures.decode(content)
    assert "\n" not in str(refusal.value) and "0x" not in str(refusal.value)


def test_a_huge_picture_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 1000)
    with pytest.raises(ValueError, match="56 x 56 pixels, at most 1000"):
        pictures.decode(coded(GREY))


def test_a_telephone_s_jpeg_with_a_second_picture_is_one_picture():
    file = coded(GREY, "MPO", save_all=True, append_images=[GREY.resize((9, 9))])
    decoded = pictures.decode(file)
    assert decoded.frames == 1 and decoded.picture.size == (56, 56)


def test_a_program_in_postscript_is_never_run():
    with pytest.raises(ValueError, match="PostScript, no picture"):
        pictures.decode(coded(GREY.convert("RGB"), "EPS"))


def test_a_picture_s_flaws_are_not_printed():
    """Pillow warns of large sizes and of damaged EXIF; whoever reads is told in a sentence."""
    damaged = coded(GREY, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + bytes(range(30)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pictures.decode(damaged).picture.size == (56, 56)


def test_a_size_is_told_as_stored_though_a_reduced_one_rounds_to_a_square():
    nearly = Image.fromarray(np.zeros((500, 501), np.uint8))
    assert pictures.decode(coded(nearly, "JPEG"), (8, 8)).size == (501, 500)
