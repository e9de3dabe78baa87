"One reader for all images: the same kinds everywhere, sizes in many threads, and Pillow's guard as it was."

import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from PIL import Image

from atss_nb.cli.images import image_paths
from atss_nb.core.files import fingerprint, read_text
from atss_nb.core.images import LARGEST, check_image, image_size, open_image, read_pixels
from atss_nb.data.convert import read_dataset
from atss_nb.data.datasets import DotaDataset
from atss_nb.data.doctor import look
from atss_nb.samples.assign import ATSS
from atss_nb.samples.statistics import assignment_report
from atss_nb.tiles.split import plan_split
from atss_nb.tiles.tiles import Tiling
from atss_nb.training.checkpoints import load_checkpoint

SHIP = "10 10 30 10 30 20 10 20 ship 0\n"


def giant_png(path, width=20_000, height=20_000):
    "400 million pixels in a file of 50 kB: all are black, a bit each."

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(bytes(height * (width // 8 + 1))))
        + chunk(b"IEND", b"")
    )
    return path


@pytest.fixture
def folder(tmp_path):
    "A data set with images of every kind of file."
    (tmp_path / "images").mkdir()
    (tmp_path / "labelTxt").mkdir()
    for i, suffix in enumerate((".png", ".jpg", ".JPEG", ".bmp", ".tif", ".TIFF", ".webp")):
        Image.new("RGB", (40 + i, 30)).save(tmp_path / f"images/{i}{suffix}")
        (tmp_path / f"labelTxt/{i}.txt").write_text(SHIP)
    return tmp_path


def test_every_part_takes_every_kind_of_file(folder):
    names = [str(i) for i in range(7)]
    assert [path.stem for path in image_paths([folder / "images"])] == names
    assert [path.stem for path in DotaDataset(folder).images] == names
    assert [one.name for one in read_dataset("dota", folder).images] == names
    assert sorted(plan_split(folder, Tiling(size=64, gap=0))["images"]) == names
    assert [look(path).size for path in sorted((folder / "images").iterdir())] == [
        (30, 40 + i) for i in range(7)
    ]


def test_hidden_files_are_no_images(folder):
    (folder / "images/._0.png").write_bytes(b"what some systems leave beside an image")
    assert len(image_paths([folder / "images"])) == len(DotaDataset(folder)) == 7
    assert len(plan_split(folder, Tiling(size=64, gap=0))["images"]) == 7


def test_a_giant_has_a_size_for_everybody(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "labelTxt").mkdir()
    path = giant_png(tmp_path / "images/giant.png")
    (tmp_path / "labelTxt/giant.txt").write_text(SHIP)
    assert image_size(path) == check_image(path, decode=True) == look(path).size == (20_000, 20_000)
    data = DotaDataset(tmp_path)
    targets = type("Sizeless", (), {"images": [path], "classes": ("ship",), "__len__": lambda self: 1})()
    targets.target = lambda i: {k: v for k, v in data.target(i).items() if k != "size"}
    assert len(assignment_report(targets, ATSS(), size=512).labels) == 1
    with pytest.raises(OSError, match=r"giant.png: .*20000 x 20000 pixels are too many at once"):
        read_pixels(path)
    assert LARGEST < 20_000**2


def lying_png(path, width, height):
    "A header, and nothing of what it promises."
    giant_png(path, 8, 8)
    data = path.read_bytes()
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    path.write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    return path


@pytest.mark.parametrize("side", [20_000, 2_000_000_000])
def test_a_header_that_lies_is_found_by_whoever_looks(tmp_path, side):
    path = lying_png(tmp_path / "a.png", side, side)
    for reader in (
        partial(check_image, decode=True),
        read_pixels,
        lambda p: open_image(p).read(0, side - 9, 9, side),
    ):
        with pytest.raises(OSError, match="a.png: "):
            reader(path)
    assert "a.png" in look(path).error


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, expected in (
        ("pipe", "a pipe; expected a file"),
        ("folder", "a folder; expected"),
        ("loop", "loop.png"),
    ):
        for reader in (image_size, read_text, fingerprint, load_checkpoint):
            with pytest.raises(OSError, match=expected):
                reader(tmp_path / f"{name}.png")


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_the_content_counts_not_the_name(tmp_path, name):
    Image.new("RGB", (40, 30), (9, 99, 199)).save(tmp_path / name, format="JPEG")
    assert image_size(tmp_path / name) == (30, 40) and read_pixels(tmp_path / name).shape == (30, 40, 3)
    Image.new("P", (40, 30)).save(tmp_path / name, format="GIF")
    with pytest.raises(OSError, match=f"{name}: cannot be read .its content is none of PNG, JPEG"):
        image_size(tmp_path / name)


def test_sixteen_bits_have_a_size_and_no_pixels(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.zeros((30, 40), np.uint16)).save(path)
    assert image_size(path) == (30, 40)
    for reader in (read_pixels, check_image, open_image):
        with pytest.raises(OSError, match="deep.png: cannot be read .pixels of mode I;16"):
            reader(path)
    assert "expected an image of 8 bits per channel" in look(path).error


def test_many_threads_read_right_sizes_and_pixels_and_leave_the_guard_alone(tmp_path, monkeypatch):
    note = Image.Exif()
    note[0x0112] = 6
    expected, rng = {giant_png(tmp_path / "giant.png"): (20_000, 20_000)}, np.random.default_rng(0)
    for i, suffix in enumerate((".png", ".jpg", ".tif", ".bmp", ".webp")):
        path, pixels = tmp_path / f"a{suffix}", rng.integers(0, 255, (30 + i, 50, 3), np.uint8)
        Image.fromarray(pixels).save(path, **{"exif": note} if suffix == ".jpg" else {})
        expected[path] = (50, 30 + i) if suffix == ".jpg" else (30 + i, 50)
    whole = {path: read_pixels(path) for path in expected if path.name != "giant.png"}
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12_345)  # somebody's own

    def read(path):
        right = image_size(path) == expected[path]
        if path in whole:
            right &= np.array_equal(open_image(path).read(0, 0, *expected[path][::-1]), whole[path])
        return right and Image.MAX_IMAGE_PIXELS == 12_345

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, list(expected) * 100))
    assert Image.MAX_IMAGE_PIXELS == 12_345
