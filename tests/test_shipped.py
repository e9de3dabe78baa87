"The weights that come with the package: found by name everywhere a run is, without a download."

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from atss_nb import Detections, evaluate, load, make_scene
from atss_nb.cli.main import atss
from atss_nb.data.datasets import open_dataset
from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.training.loop import load_model


def test_scenes_finds_what_a_new_scene_shows():
    detector = load("scenes", device="cpu")
    scenes = [make_scene(256, (12345, i)) for i in range(12)]
    found = detector([scene.image for scene in scenes])
    assert all(isinstance(one, Detections) for one in found)
    names = detector.classes
    targets = [scene.objects for scene in scenes]
    labels = [torch.tensor([names.index(name) for name in one.names]) for one in targets]
    truth = [{"boxes": one.boxes, "labels": k} for one, k in zip(targets, labels, strict=True)]
    assert evaluate(found, truth, names).AP50 > 0.85


def test_a_shipped_name_is_a_run_for_the_command(tmp_path):
    Image.fromarray(make_scene(256, 7).image).save(tmp_path / "harbour.png")
    out = tmp_path / "found"
    code, text = atss("predict", "scenes", tmp_path / "harbour.png", "--out", out, "--format", "json")
    assert code == 0, text
    (page,) = json.loads((out / "predictions.json").read_text())["images"]
    assert any(one["score"] > 0.5 for one in page["objects"])


HIT_UAV = ("Bicycle", "Car", "OtherVehicle", "Person")
DRONE = Path(__file__).parents[2] / "shared/data/hit_uav"
KNOWN = {"scenes": set(DOTA_V10_CLASSES), "hit-uav": set(HIT_UAV)}


@pytest.mark.parametrize("name", KNOWN)
def test_the_header_says_what_it_is(name):
    model, config, classes = load_model(name)
    assert set(classes) <= KNOWN[name] and config.data == f"runs/weights/{name}-data"
    assert next(model.parameters()).dtype is torch.float32 and not model.training


@pytest.mark.skipif(not (DRONE / "val").exists(), reason=f"needs the published images in {DRONE}")
def test_hit_uav_scores_what_its_card_says_on_images_it_has_not_learned():
    detector, data = load("hit-uav", device="cpu"), open_dataset(DRONE, "val", classes=HIT_UAV)
    some = [data[i] for i in range(0, len(data), 24)]
    found = detector([image for image, _ in some])
    score = evaluate(found, [target for _, target in some], HIT_UAV).per_class
    assert score["Car"]["0.50"] > 0.7 and score["Person"]["0.50"] > 0.7


def test_a_name_that_is_none_is_answered_with_those_that_are():
    with pytest.raises(FileNotFoundError, match=r"shipped weights: .*scenes"):
        load("scene")
