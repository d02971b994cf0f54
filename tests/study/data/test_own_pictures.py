"""Folders of pictures as people have them: good ones, and all that can be wrong with one."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bnnlib import pictures
from study import ROOT
from study.data import class_folders, own

SHAPE = (3, 8, 8)


def draw(seed: int, side: int = 12) -> Image.Image:
    noise = np.random.default_rng(seed).integers(256, size=(side, side, 3), dtype=np.uint8)
    return Image.fromarray(noise)


@pytest.fixture
def folder(tmp_path):
    """Two classes of four pictures each."""
    for number in range(8):
        place = tmp_path / "set" / ("cat", "鳥 1")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        draw(number).save(place / f"{number}.png")
    return tmp_path / "set"


def skipped(folder, shape=SHAPE):
    return dict(own.read(str(folder), shape).skipped)


def test_a_folder_is_read_by_class_and_name(folder):
    read = own.read(str(folder), SHAPE)
    assert read.names == ("cat", "鳥 1") and read.counts() == {"cat": 4, "鳥 1": 4}
    assert read.labels.tolist() == [0] * 4 + [1] * 4 and read.skipped == ()
    expected = [pictures.fitted(draw(number), SHAPE) for number in (0, 2, 4, 6, 1, 3, 5, 7)]
    assert np.array_equal(read.images, np.stack(expected))
    assert read.source == "the folder set"


def test_grey_images_of_a_folder(folder):
    assert own.read(str(folder), (8, 8)).images.shape == (8, 8, 8)
    assert own.read(str(folder), (1, 8, 8)).images.shape == (8, 1, 8, 8)


def test_the_split_is_by_class_disjoint_and_the_same_again(folder):
    read = own.read(str(folder), SHAPE)
    first, again = own.training_data(read), own.training_data(own.read(str(folder), SHAPE))
    assert first.sha256 == again.sha256
    parts = [first.train, first.validation, first.test]
    assert [part.labels.bincount().tolist() for part in parts] == [[2, 2], [1, 1], [1, 1]]
    rows = torch.cat([part.images.flatten(1) for part in parts])
    assert len(rows.unique(dim=0)) == 8
    for ours, theirs in zip(parts, [again.train, again.validation, again.test], strict=True):
        assert torch.equal(ours.images, theirs.images)
    assert own.training_data(read, seed=1).sha256 != first.sha256


@pytest.mark.parametrize("classes", [0, 1])
def test_too_few_classes_are_refused(tmp_path, classes):
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "alone.png").write_bytes(b"")
    for number in range(classes):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(ValueError, match="2 or more of them: it has (none|only 0)$"):
        own.read(str(tmp_path), SHAPE)


def test_too_many_classes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(class_folders, "MOST_CLASSES", 4)
    for number in range(5):
        (tmp_path / str(number)).mkdir()
    with pytest.raises(ValueError, match="has 5 classes, at most 4"):
        own.read(str(tmp_path), SHAPE)


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="absent is no folder"):
        own.read(str(tmp_path / "absent"), SHAPE)


@pytest.mark.parametrize("shape", [(7, 7), (2, 8, 8), (3, 258, 258)])
def test_a_shape_that_no_network_takes_is_refused_before_anything_is_read(shape):
    with pytest.raises(ValueError, match="images have"):
        own.read("nowhere", shape)


def test_pictures_that_fill_a_memory_are_refused_before_they_are_read(folder, monkeypatch):
    monkeypatch.setattr(own, "MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="8 pictures of 8 x 8 pixels .* smaller side"):
        own.read(str(folder), SHAPE)


def test_a_class_of_too_few_pictures_is_named(folder):
    (folder / "dog").mkdir()
    draw(9).save(folder / "dog" / "9.png")
    (folder / "dog" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="class dog has 1 pictures .* needs 3; 1 files were sk"):
        own.read(str(folder), SHAPE)


def test_what_is_no_picture_is_skipped_with_a_reason(folder):
    place = folder / "cat"
    (place / "notes.txt").write_text("no picture")
    (place / "cut.png").write_bytes((place / "0.png").read_bytes()[:70])
    (place / "empty.jpg").write_bytes(b"")
    (place / ".DS_Store").write_bytes(b"hidden files are passed over")
    found = skipped(folder)
    assert found.keys() == {"cat/notes.txt", "cat/cut.png", "cat/empty.jpg"}
    assert all("\n" not in reason and "0x" not in reason for reason in found.values())


def test_a_huge_picture_is_skipped(folder, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 1000)
    draw(20, 40).save(folder / "cat" / "huge.png")
    assert skipped(folder) == {"cat/huge.png": "it has 40 x 40 pixels, at most 1000 are read"}


def test_an_animated_picture_is_skipped(folder):
    frames = [draw(30), draw(31)]
    frames[0].save(folder / "cat" / "moving.webp", save_all=True, append_images=frames[1:])
    assert skipped(folder) == {"cat/moving.webp": "animated, or of several pages"}


def test_unusual_modes_and_wrong_endings_are_read(folder):
    place = folder / "cat"
    draw(40).convert("CMYK").save(place / "cmyk.jpg")
    draw(41).convert("P").save(place / "palette.gif")
    Image.fromarray(np.arange(144, dtype=np.uint16).reshape(12, 12) * 400).save(place / "deep.png")
    draw(42).save(place / "a jpeg.png", "JPEG")
    assert skipped(folder) == {} and own.read(str(folder), SHAPE).counts()["cat"] == 8


def test_the_same_file_again_is_skipped_and_in_another_class_named(folder):
    content = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "again.png").write_bytes(content)
    (folder / "鳥 1" / "wrong.png").write_bytes(content)
    expected = {"cat/again.png": "the same file again in its class"}
    assert skipped(folder) == expected | {"鳥 1/wrong.png": "the same file as one of class cat"}


def test_links_in_a_circle_end_and_links_to_pictures_count(folder, tmp_path):
    draw(50).save(tmp_path / "elsewhere.png")
    (folder / "cat" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "cat" / "round").symlink_to(folder)
    (folder / "cat" / "nowhere.png").symlink_to(tmp_path / "absent.png")
    found = own.read(str(folder), SHAPE)
    assert found.counts()["cat"] == 5
    reasons = dict(found.skipped)
    assert reasons["cat/round"] == "a link to a folder that is read already"
    assert reasons["cat/nowhere.png"] == "a link to nothing"


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "cat" / "pipe.png")
    assert skipped(folder) == {"cat/pipe.png": "no file"}


def test_an_unreadable_file_is_skipped(folder, monkeypatch):
    real = own._content

    def refused(path):
        if path.name == "2.png":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(own, "_content", refused)  # root may read everything
    assert skipped(folder) == {"cat/2.png": "Permission denied"}


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_names_that_are_no_text_are_shown(folder):
    place = os.fsencode(folder) + b"/\xff\n"
    os.mkdir(place)
    for number in range(3):
        draw(60 + number).save(os.fsdecode(place + b"/%d.png" % number))
    assert own.read(str(folder), SHAPE).names[-1] in ("??", "鳥 1")
    assert "??" in own.read(str(folder), SHAPE).names


def test_only_the_small_form_of_a_picture_is_kept(folder):
    import tracemalloc

    for number in range(20):
        draw(number, 300).save(folder / "cat" / f"large {number}.png")
    tracemalloc.start()
    own.read(str(folder), SHAPE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 300 * 300 * 3 / 2  # of all, at full size, less than half


def test_the_digits_are_scikit_learn_s():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    digits = own.digits((8, 8))
    assert digits.images.shape == (1797, 8, 8) and digits.images.max() == 255
    assert sum(digits.counts().values()) == 1797 and "scikit-learn" in digits.source
    assert own.digits((3, 16, 16)).images.shape == (1797, 3, 16, 16)


@pytest.mark.parametrize("names", [("é", "e\u0301"), ("a\u202eb", "a\u202db")])
def test_two_classes_of_one_name_are_refused_before_anything_is_read(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(ValueError, match=r"^two classes have the name (é|a\?b): rename one$"):
        own.read(str(tmp_path), SHAPE)


def test_a_class_keeps_its_pictures_though_another_links_to_it(folder):
    (folder / "cat" / "other").symlink_to(folder / "鳥 1")
    read = own.read(str(folder), SHAPE)
    assert read.counts() == {"cat": 4, "鳥 1": 4}
    assert read.skipped == (("cat/other", "a link to a folder that is read already"),)


@pytest.mark.parametrize("target", ["cat", "."])
def test_a_class_that_is_a_link_to_another_or_to_all_is_refused(folder, target):
    (folder / "dog").symlink_to(folder / target)
    with pytest.raises(ValueError, match="^class dog is a link to (cat|set): a class is a folder"):
        own.read(str(folder), SHAPE)


def test_folders_as_deep_as_a_file_system_lets_them_be_end(folder):
    here = os.getcwd()
    try:
        os.chdir(folder / "cat")
        for _ in range(2200):  # deeper than Python calls itself, and than a path may be long
            os.mkdir("d")
            os.chdir("d")
        os.chdir(here)
        found = own.read(str(folder), SHAPE)
    finally:
        os.chdir(here)
        subprocess.run(["rm", "-rf", folder / "cat"], check=True)  # shutil calls itself too
    assert found.counts()["cat"] == 4
    assert [reason for _, reason in found.skipped] == ["File name too long"]


def test_more_files_than_any_set_has_are_refused_while_they_are_listed(folder, monkeypatch):
    monkeypatch.setattr(class_folders, "MOST_FILES", 7)
    with pytest.raises(ValueError, match="^set has more than 7 files: take fewer$"):
        own.read(str(folder), SHAPE)


@pytest.mark.parametrize("named", ["~nobody of this name/x", "a\0b", "absent", "cat/0.png"])
def test_what_is_no_folder_is_said_to_be_none(folder, monkeypatch, named):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match=f"is no folder in .*{folder.name}$"):  # where it looked
        own.read(named, SHAPE)


@pytest.mark.parametrize("shape", [(8.0, 8.0), ("8", "8"), (8,), (), (3, 8, 10)])
def test_a_shape_of_no_square_of_whole_pixels_is_refused_in_words(shape):
    with pytest.raises(ValueError, match=r"^images are \(S, S\), .* pixels, not \("):
        own.read("nowhere", shape)


# Run by somebody who isn't root, who may read everything: -> the refusal, or what was skipped.
AS_ANOTHER = """
import os, sys
from study.data import class_folders
if os.getuid() == 0:
    os.setuid(65534)
try:
    print(dict(class_folders.list_files(sys.argv[1]).skipped))
except ValueError as error:
    print(error)
"""


def told_to_another(folder) -> str:
    command = [sys.executable, "-c", AS_ANOTHER, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def barred(folder):
    """A function that takes rights away from a path until the test ends; others may go there."""
    changed = []

    def bar(path, mode):
        path.chmod(mode)
        changed.append(path)

    opened = [each for each in folder.parents if each.stat().st_mode & 0o005 != 0o005]
    if any(each.stat().st_uid != os.getuid() for each in opened):
        pytest.skip("another user can't reach pytest's folder")
    modes = {each: each.stat().st_mode for each in opened}
    for each in opened:
        each.chmod(0o755)
    yield bar
    for each, mode in modes.items():
        each.chmod(mode)
    for path in changed:
        path.chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="no such rights")
@pytest.mark.parametrize(
    ("place", "mode", "told"),
    [
        ("cat", 0o000, "{'cat': 'Permission denied'}"),
        ("cat", 0o444, "'cat/0.png': 'Permission denied'"),  # names may be read, but no more
        (".", 0o000, "set can't be read: Permission denied"),
        (".", 0o444, "set must have one sub-folder of pictures a class, .* it has none"),
    ],
)
def test_a_folder_that_may_not_be_read_is_told_in_words(folder, barred, place, mode, told):
    barred(folder / place, mode)
    found = told_to_another(folder)
    assert re.search(told, found) and "Errno" not in found


def test_ten_thousand_reasons_are_counted_in_one_pass():
    """A reason may hold a size or a number of bytes, so that no two are the same."""

    class Counted(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other):
            Counted.compared += 1
            return str.__eq__(self, other)

    skipped = tuple((f"{n}.png", Counted(f"it is cut off {n} bytes early")) for n in range(10_000))
    none = np.empty((0, 8, 8), np.uint8)
    read = own.Pictures(none, np.empty(0, np.int64), ("a", "b"), skipped, "the folder set")
    assert sum(read.reasons().values()) == 10_000 and Counted.compared < 100_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_a_file_s_place_is_not_waited_for(folder, monkeypatch):
    """A file may turn into a pipe between its listing and its reading."""
    found = class_folders.list_files(str(folder))
    (folder / "cat" / "0.png").unlink()
    os.mkfifo(folder / "cat" / "0.png")
    writer = os.open(folder / "cat" / "0.png", os.O_RDWR)  # an end that never writes
    monkeypatch.setattr(own, "list_files", lambda _: found)
    try:
        assert skipped(folder) == {"cat/0.png": "no file"}
    finally:
        os.close(writer)
