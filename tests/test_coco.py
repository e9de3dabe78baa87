"COCO's numbers of a set with crowds, stated areas and more than 100 detections in an image: those of pycocotools."

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atss_nb.cli.results import _case
from atss_nb.core.errors import warn
from atss_nb.data.coco import read_coco
from atss_nb.data.convert import read_dataset, write_dataset
from atss_nb.data.datasets import open_dataset
from atss_nb.evaluation.evaluate import evaluate
from atss_nb.geometry.boxes import hbb2obb
from atss_nb.training.settings import TrainConfig, open_split

pytest.importorskip("faster_coco_eval")
GOLDEN = json.loads((Path(__file__).parent / "golden/11_coco_crowds.json").read_text())
TRUTH, STATS = GOLDEN["truth"], GOLDEN["stats"]
CROWDS = sum(one["iscrowd"] for one in TRUTH["annotations"])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    for split, names in (("val", TRUTH["images"]), ("train", TRUTH["images"][:10])):
        (root / "images" / split).mkdir(parents=True)
        for one in names:
            Image.new("L", (one["width"], one["height"])).save(root / "images" / split / one["file_name"])
        known = {one["id"] for one in names}
        objects = [one for one in TRUTH["annotations"] if one["image_id"] in known]
        content = TRUTH | {"images": names, "annotations": objects}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
    return root


def score(root: Path, format: str):
    "The published detections, under the protocol coco, against a data set as it is read."
    data = open_dataset(root, "val", format, ["ship", "harbor", "buoy"])
    number = {one["file_name"][:2]: one["id"] for one in TRUTH["images"]}
    label = {3: 0, 5: 1, 9: 2}
    predictions = []
    for name in data.names:
        mine = [one for one in GOLDEN["detections"] if one["image_id"] == number[name[:2]]]
        frames = torch.tensor([one["bbox"] for one in mine], dtype=torch.float64).view(-1, 4)
        boxes = hbb2obb(torch.cat([frames[:, :2], frames[:, :2] + frames[:, 2:]], 1))
        scores = torch.tensor([one["score"] for one in mine], dtype=torch.float64)
        labels = torch.tensor([label[one["category_id"]] for one in mine], dtype=torch.int64)
        predictions.append({"boxes": boxes, "scores": scores, "labels": labels})
    targets = [data.target(i) for i in range(len(data))]
    return evaluate(predictions, targets, data.classes, protocol="coco")


def numbers(result) -> dict:
    return {"mAP": result.mAP, "AP50": result.AP50, "AP75": result.AP75, **result.means}


@pytest.mark.parametrize("format", ["coco-boxes", "coco"])
def test_the_twelve_numbers_are_those_of_pycocotools(home, format):
    result = score(home, format)
    assert numbers(result) == pytest.approx(STATS, abs=1e-9)
    assert sum(result.positives.values()) == len(TRUTH["annotations"]) - CROWDS
    assert result.to_dict()["means"] == result.means
    assert f"AR 100 {STATS['AR 100']:.3f}" in result.summary()


@pytest.mark.parametrize("format", ["coco-boxes", "coco", "labelme", "rolabelimg"])
def test_crowds_and_areas_are_kept_by_what_is_written(home, format, tmp_path):
    lost = write_dataset(format, read_dataset("coco-boxes", home), tmp_path / "out")
    assert not any("iscrowd" in line or "area" in line for line in lost)
    assert numbers(score(tmp_path / "out", format)) == pytest.approx(STATS, abs=1e-9)
    if format.startswith("coco"):
        (path,) = (tmp_path / "out/annotations").glob("*val*")
        written = json.loads(path.read_text())["annotations"]
        keys = ("iscrowd", "area")
        assert [[one[key] for key in keys] for one in written] == [
            [one[key] for key in keys] for one in TRUTH["annotations"]
        ]


def test_crowds_are_left_out_of_training_and_of_no_other_split(home):
    config = TrainConfig(str(home), format="coco-boxes")
    counts = []
    for split in ("train", "val"):
        data = open_split(config, split)
        targets = [data.target(i) for i in range(len(data))]
        counts.append(sum(int(t["iscrowd"].sum()) for t in targets if "iscrowd" in t))
        objects = sum(len(t["boxes"]) for t in targets)
        known = {one["id"] for one in TRUTH["images"][: len(data)]}
        there = [one for one in TRUTH["annotations"] if one["image_id"] in known]
        assert objects == len(there) - (split == "train") * sum(one["iscrowd"] for one in there)
    assert counts == [0, CROWDS] and sum(one["iscrowd"] for one in there) == CROWDS > 0


@pytest.mark.parametrize("protocol", ["dota-devkit", "mmrotate", "probiou"])
def test_crowds_earn_and_cost_nothing_under_any_protocol(protocol):
    boxes = torch.tensor([[20.0, 20, 10, 10, 0], [70, 70, 60, 60, 0]])
    target = {"boxes": boxes, "labels": torch.tensor([0, 0]), "iscrowd": torch.tensor([False, True])}
    prediction = {"boxes": boxes, "labels": torch.tensor([0, 0]), "scores": torch.tensor([0.5, 0.9])}
    both = evaluate([prediction], [target], ["ship"], "area", protocol=protocol)
    assert (both.AP50, both.positives) == (1.0, {"ship": 1})
    missed = {key: value[:1] for key, value in prediction.items()}
    assert evaluate([missed], [target], ["ship"], "area", protocol=protocol).AP50 == 1.0


def test_masks_are_said_to_be_turned_boxes(tmp_path, caplog):
    star = [10, 10, 30, 12, 40, 30, 20, 40, 8, 25]
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 10, 32, 30], "segmentation": [star]}
    page = {"images": [{"id": 1, "file_name": "a.png", "height": 90, "width": 120}]}
    page |= {"categories": [{"id": 1, "name": "ship"}], "annotations": [one]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(page))
    warn.cache_clear()
    with caplog.at_level(logging.WARNING, "atss_nb"):
        read_coco(path, boxes=True)
        assert not caplog.text
        read_coco(path)
    assert "1 of 1 objects are masks" in caplog.text and "coco-boxes" in caplog.text


def test_what_a_run_is_scored_by_is_in_the_pixels_of_the_files(home):
    "A network that sees images at half their size finds objects that are as small or large as before."
    half = TrainConfig(str(home), format="coco-boxes", size=320, classes=("ship", "harbor", "buoy"))
    whole, small = open_split(replace(half, size=0), "val"), open_split(half, "val")
    there, seen = ([data[i][1] for i in range(3)] for data in (whole, small))
    assert torch.allclose(seen[0]["boxes"][:, :4] * 2, there[0]["boxes"][:, :4], atol=0.01)
    case, _ = _case(small, [t | {"scores": torch.ones(len(t["labels"]))} for t in seen], seen, None, 320, 0.1)
    assert torch.allclose(
        torch.from_numpy(case.dets.boxes).float(), torch.cat([t["boxes"] for t in there]), atol=0.01
    )
    assert np.allclose(case.gts.boxes, case.dets.boxes) and len(case.gts.area) == len(case.gts.boxes)
