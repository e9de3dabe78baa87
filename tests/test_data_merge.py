"Merging what was found in tiles: the development kit's results, and split -> detect -> merge without loss."

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.cli.main import atss
from atss_nb.core.errors import LabelError
from atss_nb.data.dota import read_dota, task1_line, write_dota
from atss_nb.evaluation.evaluate import evaluate
from atss_nb.evaluation.task1 import read_task1
from atss_nb.geometry.quads import quad_iou
from atss_nb.scenes.scenes import write_scenes
from atss_nb.tiles.merge import (
    batched_nms_polygons,
    merge_images,
    merge_results,
    read_tile_detections,
    tile_from_name,
)
from atss_nb.tiles.split import split
from atss_nb.tiles.tiles import Tiling

GOLDEN = Path(__file__).parent / "golden/10_merge"


def rows(path: Path) -> list[tuple]:
    "The lines of a file as numbers, in an order of their own."
    lines = [line.split() for line in path.read_text().splitlines()]
    return sorted((line[0], *map(float, line[1:])) for line in lines)


@pytest.mark.parametrize("given, expected", [
    ("split_results", "expected_poly_nms"), ("split_results_hbb", "expected_rec_nms"),
])  # fmt: skip
def test_golden(given, expected, tmp_path):
    "The same detections as the kit keeps, at the same places."
    counts = merge_results(GOLDEN / given, tmp_path, iou_threshold=0.3)
    meta = json.loads((GOLDEN / "meta.json").read_text())
    assert sum(before for before, _ in counts.values()) == meta["n_in"]
    assert (
        sum(after for _, after in counts.values())
        == meta["n_out_poly" if "poly" in expected else "n_out_rec"]
    )
    for path in (GOLDEN / expected).iterdir():
        found, golden = rows(tmp_path / path.name), rows(path)
        assert [row[0] for row in found] == [row[0] for row in golden]
        assert np.abs(np.array([r[1:] for r in found]) - np.array([r[1:] for r in golden])).max() <= 1e-6


def perfect_detections(tiles: Path, folder: Path, seed: int = 0, whole_only: bool = False) -> None:
    "Every labelled object of every tile, with a score of its own."
    rng, lines = np.random.default_rng(seed), {}
    for path in sorted((tiles / "labelTxt").iterdir()):
        label = read_dota(path)
        for kind, poly, cut in zip(label.names, label.polygons, label.difficult, strict=True):
            if not (whole_only and cut):
                lines.setdefault(kind, []).append(task1_line(path.stem, rng.uniform(0.5, 1), poly))
    folder.mkdir()
    for kind, text in lines.items():
        (folder / f"Task1_{kind}.txt").write_text("".join(text))


def keep_small(path: Path, longest: int, size: int) -> None:
    "Leave only objects that some tile holds whole: shorter than the overlap, and within the image."
    label = read_dota(path)
    low, high = label.xyxy[:, :2], label.xyxy[:, 2:]
    fits = ((high - low < longest) & (low >= 1) & (high < size - 2)).all(1)
    write_dota(path, label[fits].replace(meta={}))


@pytest.mark.parametrize("nms", ["polygon", "rotated"])
@pytest.mark.parametrize("style, rates", [
    ("exact", (1,)), ("mmrotate", (0.5, 1)), ("dota-devkit", (1,)), ("dota-devkit", (1, 1.5)),
])  # fmt: skip
def test_round_trip(style, rates, nms, tmp_path):
    "Split, detect perfectly, merge: every object once, AP 1. The kit's tiles know whole pixels only."
    write_scenes(tmp_path / "scenes", 2, 500, seed=11)
    kit = style == "dota-devkit"
    for path in (tmp_path / "scenes/labelTxt").iterdir() if kit else ():
        keep_small(path, 120, 500)
    tiling = Tiling(style, 300, 150, rates, min_iof=1 if kit else 0.7, min_image_rate=0)
    assert not split(tmp_path / "scenes", tmp_path / "tiles", tiling).lost
    perfect_detections(tmp_path / "tiles", tmp_path / "found", whole_only=kit)
    words = ["--tiles", tmp_path / "tiles", "--nms", nms]
    code, text = atss("merge", tmp_path / "found", tmp_path / "merged", *words)
    assert code == 0, text
    labels = {p.stem: read_dota(p) for p in sorted((tmp_path / "scenes/labelTxt").iterdir())}
    classes = sorted({kind for label in labels.values() for kind in label.names})
    predictions = read_task1(tmp_path / "merged", classes, list(labels))
    targets = [as_target(label, classes) for label in labels.values()]
    assert [len(p.boxes) for p in predictions] == [len(label) for label in labels.values()]
    result = evaluate(predictions, targets, classes)
    assert result.AP50 == 1 and (kit or result.AP75 == 1)


def as_target(label, classes) -> dict:
    boxes = label.boxes
    return {"boxes": boxes, "labels": torch.tensor([classes.index(kind) for kind in label.names])}


corner = st.tuples(st.integers(-30, 30), st.integers(-30, 30))
quad = st.tuples(st.integers(0, 60), st.lists(corner, min_size=4, max_size=4))


@given(st.lists(st.tuples(quad, st.integers(0, 5), st.integers(0, 2)), max_size=14), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_polygon_suppression_against_its_definition(found, threshold):
    "Any quadrilaterals, crossing ones too, with ties in the scores."
    polys = np.array([np.array(points) + place for (place, points), *_ in found], float).reshape(-1, 4, 2)
    scores, groups = (np.array([one[i] for one in found], int) for i in (1, 2))
    kept = []
    for i in np.lexsort([-scores, groups]):
        rivals = [j for j in kept if groups[j] == groups[i]]
        if not rivals or quad_iou(polys[[i]], polys[rivals]).max() <= threshold:
            kept.append(i)
    assert batched_nms_polygons(polys, scores, groups, threshold).tolist() == kept


def test_polygons_and_rectangles_share_what_shapely_says():
    rng = np.random.default_rng(1)
    polys = rng.uniform(0, 60, (30, 1, 2)) + np.array([[-9, -6], [9, -4], [8, 7], [-8, 5]])
    kept = batched_nms_polygons(polys, np.arange(30.0), np.zeros(30), 0.1)
    shapes = shapely.polygons(polys[kept])
    shared = shapely.area(shapely.intersection(shapes[:, None], shapes[None]))
    iou = shared / (shapely.area(shapes)[:, None] + shapely.area(shapes) - shared)
    assert (iou[~np.eye(len(kept), dtype=bool)] <= 0.1).all() and len(kept) < 30


@pytest.mark.parametrize("name, style, message", [
    ("P0001", None, "expected a tile's name"),
    ("P0001__16__0___0", None, "16 may be a size or a rate"),
    ("P0001__0__0___0", None, "expected a tile's name"),
    ("P0001__0.5__0___0", "mmrotate", "whole number of pixels, got 0.5"),
    ("P0001__1__0___-5", None, "expected a tile's name"),
    ("P0001__1__0___0", "paddle", "style: expected mmrotate or dota-devkit"),
])  # fmt: skip
def test_names_that_are_refused(name, style, message):
    with pytest.raises(ValueError, match=message):
        tile_from_name(name, style)


@pytest.mark.parametrize("lines, message", [
    (["a__1__0___0 0.5 0 0 9 0 9 9 0 9", "a__1024__0___0 0.5 0 0 9 0 9 9 0 9"], "expected one kind"),
    (["a__1__0___0 0.5 0 0 9 0 9 9 0 9", "a 0.5 0 0 9 0 9 9 0 9"], "line 2: 'a': expected a tile's name"),
    (["a__1__0___0 0.5 0 0 9 0 9 9 0"], "line 1"),
    (["a__1__0___0 nan 0 0 9 0 9 9 0 9"], "line 1"),
])  # fmt: skip
def test_files_that_are_refused(lines, message, tmp_path):
    "Nothing is written, and the command says it in one line."
    (tmp_path / "in").mkdir()
    (tmp_path / "in/Task1_plane.txt").write_text("")
    (tmp_path / "in/Task1_ship.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(LabelError, match=message):
        merge_results(tmp_path / "in", tmp_path / "out")
    code, text = atss("merge", tmp_path / "in", tmp_path / "out")
    assert code == 1 and "Task1_ship.txt" in text and not (tmp_path / "out").exists()


def test_empty_missing_and_same_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected Task1"):
        merge_results(tmp_path, tmp_path / "out")
    (tmp_path / "Task1_ship.txt").write_text("")
    assert merge_results(tmp_path, tmp_path / "out") == {"Task1_ship.txt": (0, 0)}
    assert (tmp_path / "out/Task1_ship.txt").read_text() == ""
    assert merge_images(read_tile_detections(tmp_path / "Task1_ship.txt"), nms="rotated") == []
    with pytest.raises(FileExistsError, match="choose another folder"):
        merge_results(tmp_path, tmp_path)
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(LabelError, match="expected what a split writes"):
        merge_results(tmp_path, tmp_path / "out", tmp_path)
