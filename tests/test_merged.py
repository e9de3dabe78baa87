"Tiles are scored as the whole images they were cut from, in one call: by `atss test`, and by a recipe."

import json

import pytest
import torch

from atss_nb.cli.main import main
from atss_nb.data.datasets import DotaDataset
from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.evaluation.errors import error_types
from atss_nb.inference.predict import whole_images
from atss_nb.tiles.split import split
from atss_nb.tiles.tiles import Tiling


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "Scenes, their tiles at two scales, and a run on the tiles that shrinks them."
    folder = tmp_path_factory.mktemp("merged")
    for part, seed in (("train", 0), ("test", 1)):
        assert run("scenes", folder / "data" / part, "--n", 2, "--size", 192, "--seed", seed) == 0
        tiling = ["--size", 128, "--gap", 64, "--rates", 1, 0.75, "--min-image-rate", 0]
        assert run("split", folder / "data" / part, folder / "tiles" / part, *tiling) == 0
    words = [
        "--data",
        folder / "tiles",
        "--size",
        96,
        "--epochs",
        5,
        "--batch-size",
        4,
        "--out",
        folder / "run",
    ]
    assert run("train", *words, "--classes", *DOTA_V10_CLASSES) == 0
    return folder


def scores(path) -> dict:
    return json.loads(path.read_text())


def test_the_command_merges_what_it_found_in_tiles(trained, tmp_path, capsys):
    "The same number as the long way: predict on the tiles, write Task1 files, merge and score them."
    labels = trained / "data/test/labelTxt"
    capsys.readouterr()
    assert run("test", trained / "run", "--labels", labels, "--metric", "voc07") == 0
    printed, short = capsys.readouterr().out, scores(trained / "run/test.json")
    assert "tiles merged into 2 images" in printed and short["images"] == 2
    assert run("predict", trained / "run", trained / "tiles/test/images", "--out", tmp_path) == 0
    words = ["--tiles", trained / "tiles/test", "--metric", "voc07", "--json", tmp_path / "long.json"]
    assert run("eval", tmp_path, labels, *words, "--classes", *short["per_class"]) == 0
    long = scores(tmp_path / "long.json")
    assert sum(one["detections"] for one in long["counts"].values()) > 0
    for key in ("AP50", "AP75", "mAP"):
        assert short[key] == pytest.approx(long[key], abs=1e-6)
    assert {k: v["gts"] for k, v in short["counts"].items()} == {
        k: v["gts"] for k, v in long["counts"].items()
    }


def test_without_the_labels_the_command_says_what_it_scored(trained, capsys):
    assert run("test", trained / "run") == 0
    assert "scored tile by tile" in capsys.readouterr().out
    assert scores(trained / "run/test.json")["images"] > 2


def test_labels_of_images_that_are_not_in_the_split_do_not_count(trained, tmp_path):
    labels = trained / "data/test/labelTxt"
    for path in labels.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "another.txt").write_text("0 0 30 0 30 30 0 30 ship 0\n")
    assert run("test", trained / "run", "--labels", tmp_path) == 0
    assert scores(trained / "run/test.json")["images"] == 2


@pytest.mark.parametrize("case", ["no label", "no split", "no folder"])
def test_what_is_missing_is_named(trained, tmp_path, capsys, case):
    words = {
        "no label": ["--labels", tmp_path],
        "no split": ["--labels", trained / "data/test/labelTxt", "--data", trained / "data"],
        "no folder": ["--labels", tmp_path / "nowhere"],
    }[case]
    assert run("test", trained / "run", *words) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert ("split.json" if case == "no split" else str(tmp_path)) in error


@pytest.mark.parametrize("size", [0, 80, (60, 70)])
def test_perfect_tiles_make_perfect_images(tmp_path, size):
    "The truth of every tile, in the pixels that a network would see, is the truth of the images: all of it, once."
    assert run("scenes", tmp_path / "whole", "--n", 4, "--size", 200, "--seed", 3) == 0
    tiling = Tiling(size=120, gap=60, rates=(1.0, 0.5), min_iof=1.0)  # none is cut
    report = split(tmp_path / "whole", tmp_path / "tiles", tiling)
    tiles, predictions = DotaDataset(tmp_path / "tiles"), []
    targets = [tiles[i][1] for i in range(len(tiles))]
    for target in targets:
        long, short = size if isinstance(size, int) else size[1], size if isinstance(size, int) else size[0]
        scale = min(long / max(target["size"]), short / min(target["size"])) if size else 1.0
        boxes = target["boxes"] * torch.tensor([scale] * 4 + [1.0])
        predictions.append({"boxes": boxes, "scores": torch.rand(len(boxes)), "labels": target["labels"]})
    found = whole_images(tiles, predictions, targets, tmp_path / "whole/labelTxt", size)
    errors = error_types(found.case, 0.9)
    assert errors.counts == dict.fromkeys(errors.counts, 0) | {"missed": errors.counts["missed"]}
    lost = sum(map(len, report.lost.values()))
    assert len(found.dets.label) == report.objects - lost > 10
