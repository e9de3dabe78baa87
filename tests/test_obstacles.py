"Nothing that the doctor passes stops a training: many small odd data sets, each looked at and then trained on."

import json
import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atss_nb.cli.main import _parse
from atss_nb.cli.runs import _train_config
from atss_nb.data.convert import read_dataset, write_dataset
from atss_nb.data.doctor import examine
from atss_nb.training.loop import train

SHIP = "4 4 20 4 20 12 4 12 {} 0\n"
ONE_SHIP = SHIP.format("ship")


def image(path: Path, size=(64, 48), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(path.name.encode())
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3))
    Image.fromarray(pixels.astype(np.uint8)).convert(mode).save(path, **options)


def dota(root: Path, splits=("train", "val"), label=ONE_SHIP, count=3, suffix=".png", **options):
    for split in splits:
        (root / split / "labelTxt").mkdir(parents=True)
        for i in range(count):
            image(root / split / f"images/{split}{i}{suffix}", **options)
            (root / split / f"labelTxt/{split}{i}.txt").write_text(label)


def other(root: Path, format: str):
    "The same images in another format."
    dota(root / "dota")
    write_dataset(format, read_dataset("dota", root / "dota"), root / "made", report=False)
    shutil.rmtree(root / "dota")
    for path in (root / "made").iterdir():
        path.rename(root / path.name)
    (root / "made").rmdir()


def edit(path: Path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def coco(root: Path, split: str, **values):
    other(root, "coco")
    edit(next(root.rglob(f"*{split}*.json")), **values)


def odd_file(root: Path, make):
    "Something else than a file where an image is expected, with a label file."
    dota(root)
    make(root / "train/images/x.png")
    (root / "train/labelTxt/x.txt").write_text("")


def later(*steps):
    def make(root: Path):
        for step in steps:
            step(root)

    return make


def write(name: str, text: str):
    return lambda root: (root / name).write_text(text)


def remove(pattern: str):
    return lambda root: [path.unlink() for path in root.glob(pattern)]


ONE = [{"id": 7, "name": "ship"}]
MODES = [("L", ".png"), ("LA", ".png"), ("P", ".png"), ("RGBA", ".tif"), ("1", ".png"), ("CMYK", ".jpg")]
MODES += [
    ("I;16", ".png"),
    ("I", ".tif"),
    ("F", ".tif"),
    ("LAB", ".tif"),
    ("YCbCr", ".tif"),
    ("RGB", ".webp"),
]
SETS = {
    "healthy": dota,
    "a class only in val": later(dota, write("val/labelTxt/val0.txt", SHIP.format("crane"))),
    "a class only in test": later(
        lambda root: dota(root, ("train", "val", "test")), write("test/labelTxt/test0.txt", SHIP.format("x"))
    ),
    "an image without label": later(dota, remove("train/labelTxt/train0.txt")),
    "an image of val without label": later(dota, remove("val/labelTxt/val0.txt")),
    "a test split without labels": later(
        lambda root: dota(root, ("train", "test")), remove("test/labelTxt/*")
    ),
    "no val": lambda root: dota(root, ("train",)),
    "no train": lambda root: dota(root, ("val",)),
    "trainval": lambda root: dota(root, ("trainval", "test")),
    "no objects": lambda root: dota(root, label=""),
    "no objects in train": later(
        dota, lambda root: [p.write_text("") for p in root.glob("train/labelTxt/*")]
    ),
    "no objects in val": later(dota, lambda root: [p.write_text("") for p in root.glob("val/labelTxt/*")]),
    "thin objects": lambda root: dota(root, label="4 4 20 4 20 4.5 4 4.5 ship 0\n"),
    "hard objects": lambda root: dota(root, label=SHIP.format("ship").replace("0\n", "2\n")),
    "far corners": lambda root: dota(root, label="4 4 1e30 4 1e30 1e30 4 1e30 ship 0\n"),
    "corners that float32 cannot hold": lambda root: dota(root, label="4 4 1e39 4 1e39 1e39 4 1e39 ship\n"),
    "over the border": lambda root: dota(root, label="-40 4 20 4 20 12 -40 12 ship 0\n"),
    "crossed": lambda root: dota(root, label="4 4 20 12 20 4 4 12 ship 0\n"),
    "fifty times": lambda root: dota(root, label=SHIP.format("ship") * 50),
    "odd names": lambda root: dota(root, label=SHIP.format("$x$") + SHIP.format("no") + SHIP.format("737")),
    "one pixel": lambda root: dota(root, size=(1, 1), label="0 0 1 0 1 1 0 1 ship\n"),
    "one small image": lambda root: dota(root, size=(32, 32), count=1),
    "one image": lambda root: dota(root, size=(65, 65), count=1),
    "nine small images": lambda root: dota(root, size=(32, 32), count=9),
    "tall": lambda root: dota(root, size=(6, 4000)),
    "wide": lambda root: dota(root, size=(4000, 6), label="1 1 5 1 5 5 1 5 ship\n"),
    "a giant": later(
        dota, lambda root: Image.new("1", (20_000, 9000)).save(root / "train/images/train0.png")
    ),
    "a giant in val": later(
        dota, lambda root: Image.new("1", (20_000, 9000)).save(root / "val/images/val0.png")
    ),
    "a pipe": lambda root: odd_file(root, os.mkfifo),
    "a folder": lambda root: odd_file(root, Path.mkdir),
    "a loop": lambda root: odd_file(root, lambda path: path.symlink_to(path.name)),
    "a link to nothing": lambda root: odd_file(root, lambda path: path.symlink_to("gone.png")),
    "a label that is a pipe": later(
        dota, remove("train/labelTxt/train0.txt"), lambda root: os.mkfifo(root / "train/labelTxt/train0.txt")
    ),
    "an empty val": later(dota, remove("val/*/*")),
    "a file called val": later(lambda root: dota(root, ("train",)), write("val", "")),
    "a stray file": later(dota, write("train/images/notes.md", "")),
    "coco with a class only in val": lambda root: coco(root, "val", categories=[{"id": 1, "name": "crane"}]),
    "coco without images": later(lambda root: other(root, "coco"), remove("images/*/*")),
    "coco without an image of val": later(lambda root: other(root, "coco"), remove("images/val/val0.png")),
    "coco without annotations": lambda root: coco(root, "train", annotations=[]),
    "coco with an empty train": lambda root: coco(root, "train", images=[], annotations=[]),
    "coco with other numbers": lambda root: coco(root, "train", categories=ONE, annotations=[]),
    "yolo without labels": later(lambda root: other(root, "yolo-obb"), remove("labels/*/*")),
    "yolo without labels in val": later(lambda root: other(root, "yolo-obb"), remove("labels/val/*")),
    "yolo with a split that is not there": later(
        lambda root: other(root, "yolo-obb"),
        write("data.yaml", "train: images/train\nval: images/vall\nnames: [ship]\n"),
    ),
    "yolo with odd names": later(
        lambda root: other(root, "yolo-obb"),
        write("data.yaml", "train: images/train\nval: images/val\nnames: [no, 737]\n"),
    ),
    "hrsc without lists": later(
        lambda root: other(root, "hrsc2016"), lambda root: shutil.rmtree(root / "ImageSets")
    ),
    **{
        name: lambda root, name=name: other(root, name)
        for name in ("coco", "dior-r", "labelme", "rolabelimg")
    },
    **{f"{m}{s}": lambda root, m=m, s=s: dota(root, mode=m, suffix=s) for m, s in MODES},
}


@pytest.mark.parametrize("name", SETS)
def test_nothing_that_the_doctor_passes_stops_a_training(tmp_path, name):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    SETS[name](data)
    report = examine(data)
    if report.errors or "nothing to train on" in report.warnings:
        return
    config = _train_config(_parse(["train", "--data", str(data), "--out", str(run)]))
    small = replace(config.model, channels=8, head_convs=1)
    train(
        replace(config, model=small, epochs=1, validations=1, precision="float32"),
        run,
        steps=1,
        progress=False,
    )
    assert (run / "last.pt").is_file()


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("a class only in val", "class never trained", "crane, in val: name it with --classes"),
        ("no objects", "nothing to train on", "name the classes with --classes"),
        ("a giant", "too large to train on", "train0.png: cut it with atss split"),
        ("a giant in val", "too large to train on", "val0.png: cut it with atss split"),
        ("one small image", "too small to train on", "train0.png"),
        ("an image without label", "labels and pairs", "no label file train0.txt; --labels optional takes"),
    ],
)
def test_what_stops_a_training_is_an_error_that_says_what_helps(tmp_path, name, kind, words):
    SETS[name](tmp_path)
    report = examine(tmp_path)
    assert list(report.errors) == [kind] and words in report.errors[kind][0]


def test_advice_that_is_followed_helps(tmp_path):
    SETS["a class only in val"](tmp_path / "data")
    names = ["ship", "crane"]
    assert not examine(tmp_path / "data", classes=names).errors
    words = ["train", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), "--classes", *names]
    config = replace(_train_config(_parse(words)), epochs=1, validations=1)
    train(config, tmp_path / "run", steps=1, progress=False)


def test_numbers_that_boxes_cannot_hold_name_file_and_line(tmp_path):
    SETS["corners that float32 cannot hold"](tmp_path)
    found = examine(tmp_path).errors["labels and pairs"][0]
    assert "train0.txt, line 1: '1e39'; expected a finite number for x2" in found
