"""Data sets in the folders of other libraries: found, checked, and nothing written there."""

import gzip
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny_sets
from mutations import pickles
from tiny_sets import (
    CONTENTS,
    REAL,
    assert_right,
    believe,
    draw_arrays,
    flip,
    put,
    send_good,
    serve,
)

from study import ROOT, data
from study.data import copies, decoding, sources, store

REAL_FOLDER = ROOT / (os.environ.get("BNN_DATA") or "data")
KERAS = ("x_train", "y_train", "x_test", "y_test")


@pytest.fixture(autouse=True)
def own(monkeypatch, tmp_path):
    """The project's own data/, not there yet; tiny sets, no network."""
    tiny_sets.install(monkeypatch, tmp_path)
    monkeypatch.setattr(copies, "ROOT", tmp_path / "project")
    return tmp_path / "project" / "data"


@pytest.fixture
def torchvision(tmp_path):
    """torchvision's root with MNIST in it, as `torchvision.datasets.MNIST` leaves it."""
    raw = tmp_path / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file, content in CONTENTS["mnist"].items():
        (raw / file).write_bytes(content)
        (raw / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    return tmp_path / "torchvision"


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("place", ["", "MNIST", "MNIST/raw"])
def test_torchvisions_mnist_is_read_and_its_folder_left_as_it_was(
    place, torchvision, own, monkeypatch
):
    before = everything(torchvision)
    monkeypatch.setenv("BNN_DATA", str(torchvision / place))
    assert_right(data.load("mnist"), "published files")
    assert_right(data.load("mnist"), "cached form")
    assert everything(torchvision) == before
    assert (own / "mnist" / "train_images.npy").is_file()


def test_what_is_altered_in_torchvisions_folder_is_refused(torchvision, monkeypatch):
    raw = torchvision / "MNIST" / "raw"
    for path in raw.glob("*.gz"):
        path.unlink()
    labels = raw / "t10k-labels-idx1-ubyte"
    labels.write_bytes(flip(labels.read_bytes(), len(labels.read_bytes()) - 1))
    monkeypatch.setenv("BNN_DATA", str(torchvision))
    with pytest.raises(data.DataUnavailable, match=r"test_labels in .* is altered"):
        data.load("mnist")


@pytest.mark.parametrize("mark", copies.MARKS)
def test_a_download_goes_to_the_projects_own_folder(mark, own, tmp_path, monkeypatch):
    theirs = tmp_path / "theirs"
    (theirs / mark).mkdir(parents=True)
    monkeypatch.setenv("BNN_DATA", str(theirs))
    with serve(send_good) as (address, _):
        monkeypatch.setitem(sources.URLS, "svhn-no-extra", [address])
        assert_right(data.load("svhn-no-extra"), "download")
    assert_right(data.load("svhn-no-extra"), "cached form")
    assert not everything(theirs)
    assert (own / "train_32x32.mat").is_file()


def test_a_cached_form_that_is_in_such_a_folder_already_is_read(tmp_path, own, monkeypatch):
    folder = tmp_path / "data"
    put(folder, "mnist")
    data.load("mnist")
    for file in CONTENTS["mnist"]:
        (folder / file).unlink()
    (folder / "cifar-10-python.tar.gz").touch()
    assert_right(data.load("mnist"), "cached form")
    assert not own.exists()


# .npz files


def put_npz(folder, name, spoil=lambda arrays: None, save=np.savez_compressed):
    if name == "mnist":
        arrays = dict(zip(KERAS, draw_arrays(name), strict=True))
    else:
        arrays = dict(zip(("images", "labels"), draw_arrays("svhn")[2:], strict=True))
    spoil(arrays)
    save(folder / copies.NPZ[name][0], **arrays)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", copies.NPZ)
def test_an_npz_file_is_read(name, save, tmp_path):
    put_npz(tmp_path / "data", name, save=save)
    assert_right(data.load(name), "published files")
    assert_right(data.load(name), "cached form")


def test_the_cached_form_of_keras_file_goes_to_the_projects_folder(tmp_path, own):
    put_npz(tmp_path / "data", "mnist")
    data.load("mnist")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist.npz"]
    assert (own / "mnist" / "test_labels.npy").is_file()


def alter(arrays):
    list(arrays.values())[-1][0] ^= 1


def shorten(arrays):
    arrays |= {name: array[:1] for name, array in arrays.items()}


def rename(arrays):
    arrays["another"] = arrays.popitem()[1]


def widen(arrays):
    arrays |= {name: array.astype(np.int64) for name, array in arrays.items()}


@pytest.mark.parametrize("spoil", [alter, shorten, rename, widen])
@pytest.mark.parametrize("name", copies.NPZ)
def test_an_npz_file_with_other_arrays_is_refused_by_name(name, spoil, tmp_path, own):
    put_npz(tmp_path / "data", name, spoil)
    with pytest.raises(data.DataUnavailable, match=rf"published files: [^;]*{name}.npz"):
        data.load(name)
    assert not list(tmp_path.rglob("*.npy"))


def npz_of(content, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("images.npy", content)
        archive.writestr("labels.npy", content)
    return buffer.getvalue()


def npy_header(shape):
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        npz_of(b""),
        npz_of(b"no array"),
        npz_of(npy_header((2**60,))),
        npz_of(npy_header((2**31, 2**31))),
        npz_of(npy_header((-5,))),
        npz_of(b"\x93NUMPY\1\0\x10\x27" + b"(" * 10_000),
        npz_of(npy_header((2,)) + bytes(2), zipfile.ZIP_LZMA),
        npz_of(npy_header((2,)) + bytes(2), zipfile.ZIP_BZIP2),
    ],
    ids=range(10),
)
def test_a_false_npz_file_is_refused_in_a_sentence(content, tmp_path):
    (tmp_path / "svhn-part.npz").write_bytes(content)
    with pytest.raises(ValueError, match="svhn-part.npz is cut off or altered"):
        copies.arrays("svhn-part", tmp_path)


def test_an_npz_file_is_unzipped_no_further_than_its_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "LARGEST", 10_000)
    content = npy_header((10**7,)) + bytes(10**7)
    (tmp_path / "svhn-part.npz").write_bytes(npz_of(content, zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="svhn-part.npz is cut off or altered"):
        copies.arrays("svhn-part", tmp_path)


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_pickle_in_an_npz_file_is_loaded(tmp_path):
    sprung, file = tmp_path / "sprung", tmp_path / "data" / "mnist.npz"
    np.savez(file, **dict.fromkeys(KERAS, np.array([Trap(sprung)], dtype=object)))
    np.load(file, allow_pickle=True)["x_train"]
    assert sprung.exists()  # the trap works ...
    sprung.unlink()
    with pytest.raises(data.DataUnavailable, match=r"mnist.npz is cut off or altered"):
        data.load("mnist")
    assert not sprung.exists()  # ... and nobody stepped into it


# CIFAR-10's Python version


@pytest.mark.parametrize("file", copies.PICKLED)
def test_cifar_10_pickles_are_refused_in_a_sentence_and_not_loaded(file, tmp_path):
    marker, folder = tmp_path / "unpickled", tmp_path / "data"
    batch, *_ = pickles(str(marker))
    if file.endswith(".tar.gz"):
        with tarfile.open(folder / file, "w:gz") as tar:
            info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
            info.size = len(batch)
            tar.addfile(info, io.BytesIO(batch))
    else:
        (folder / file).mkdir()
        (folder / file / "data_batch_1").write_bytes(batch)
    with pytest.raises(data.DataUnavailable, match=rf"{file} is not read.*only the binary version"):
        data.load("cifar10")
    assert not marker.exists()
    pickle.loads(batch)
    assert marker.exists()  # it would have run


def test_the_binary_version_is_read_beside_the_other(tmp_path):
    put(tmp_path / "data", "cifar10")
    (tmp_path / "data" / "cifar-10-python.tar.gz").touch()
    assert_right(data.load("cifar10"), "published files")


# SVHN's part


def test_how_to_place_the_part_is_one_sentence():
    with pytest.raises(data.DataUnavailable) as caught:
        data.load("svhn-part")
    why, how = str(caught.value).split("\n")
    assert why.startswith("svhn-part could not be had: cached form: ")
    assert how == data.how_to_place("svhn-part") == (
        "Put test_32x32.mat (or svhn-part.npz) into the folder data/, or set BNN_DATA to the "
        "folder that holds them, and try again."
    )


def test_the_part_holds_back_its_last_images_and_tests_on_the_first(monkeypatch):
    believe(monkeypatch, REAL)
    assert store.SIZES["svhn-part"] == (6_419, 10_000)
    rows, labels = np.arange(6_419), np.resize(np.arange(10, dtype=np.uint8), 6_419)
    part = data.Dataset("svhn-part", rows, labels, rows[:0], labels[:0], "here", "", False)
    split = data.split(part)
    assert np.array_equal(split.train_images, rows[:5_419])
    assert np.array_equal(split.validation_images, rows[5_419:])


@pytest.fixture(scope="module")
def real_part():
    """The real images and labels, in the order of SVHN's test file."""
    try:
        return copies.arrays("svhn-part", REAL_FOLDER)
    except FileNotFoundError:
        pytest.skip("svhn-part.npz is not in the data folder")


def test_the_real_part_is_the_same_from_either_file(real_part, tmp_path, monkeypatch):
    believe(monkeypatch, {"store": REAL["store"]})
    folder = tmp_path / "data"
    (folder / "svhn-part.npz").symlink_to(REAL_FOLDER.resolve() / "svhn-part.npz")
    from_npz = data.load("svhn-part")
    assert from_npz.source == "published files"
    for path in (folder / "svhn-part").iterdir():
        path.unlink()
    (folder / "svhn-part.npz").unlink()
    content = tiny_sets.mat(*real_part)
    (folder / "test_32x32.mat").write_bytes(content)
    monkeypatch.setitem(sources.FILES, "svhn-part", {"test_32x32.mat": tiny_sets.md5(content)})
    from_mat = data.load("svhn-part")
    assert from_mat.source == "published files" and from_mat.sha256 == from_npz.sha256
    assert np.array_equal(from_mat.test_images, real_part[0][:10_000])
    assert np.array_equal(from_mat.train_labels, real_part[1][10_000:])


@pytest.mark.parametrize("kind", ["drawn", "real"])
def test_the_reader_of_mat_files_gives_back_the_pixels(kind, tmp_path, request):
    if kind == "real":
        images, labels = (array[:300] for array in request.getfixturevalue("real_part"))
    else:
        images, labels = draw_arrays("svhn")[:2]
    assert set(labels) == set(range(10))  # the digit 0 too, which the file calls 10
    (tmp_path / "any.mat").write_bytes(tiny_sets.mat(images, labels))
    found = decoding.mat(tmp_path / "any.mat")
    assert [array.dtype for array in found] == [np.uint8, np.uint8]
    assert np.array_equal(found[0], images) and np.array_equal(found[1], labels)
