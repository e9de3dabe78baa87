"""What putting each kind of mistake right gains, beside tidecv 1.0.1 (MIT licence) on upright boxes.

`python tests/test_tide.py` writes the recorded numbers again; it needs tidecv, which no requirement names.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.evaluation.cases import as_case
from atss_nb.evaluation.errors import ERRORS, error_types
from atss_nb.evaluation.evaluate import evaluate
from atss_nb.geometry.boxes import obb2hbb

GOLDEN = Path(__file__).parent / "golden/11_tide.json"
NAMES = ["ship", "plane", "lorry"]
THEIRS = dict(zip(ERRORS, ("Loc", "Cls", "Both", "Dupe", "Bkg", "Miss"), strict=True))


def photograph(seed: int) -> tuple[dict, dict]:
    "Upright boxes on a grid, so that no two of a class overlap; detections with every kind of mistake."
    rng = np.random.default_rng(seed)
    count = 30
    cells = rng.permutation(64)[:count]
    middle = np.stack([cells % 8, cells // 8], 1) * 60 + 40 + rng.uniform(-5, 5, (count, 2))
    boxes = np.concatenate([middle, rng.uniform(20, 45, (count, 2)), np.zeros((count, 1))], 1)
    labels = rng.integers(3, size=count)
    found = np.repeat(np.arange(count), rng.choice([0, 1, 1, 1, 2], count))
    guess = boxes[found] + rng.choice([0.5, 4, 12], (len(found), 1)) * rng.normal(
        0, [1, 1, 1, 1, 0], (len(found), 5)
    )
    stray = rng.uniform([0, 0, 20, 20, 0], [500, 500, 45, 45, 1e-9], (5, 5)) * [1, 1, 1, 1, 0]
    says = np.where(rng.random(len(found)) < 0.2, rng.integers(3, size=len(found)), labels[found])
    prediction = {
        "boxes": np.concatenate([guess, stray]).clip([-99, -99, 2, 2, 0], None),
        "labels": np.concatenate([says, rng.integers(3, size=5)]),
        "scores": rng.permutation(len(found) + 5) / 100 + 0.01,  # no two alike
    }
    return prediction, {"boxes": boxes, "labels": labels}


def scene(seed: int, images: int = 4) -> tuple[list[dict], list[dict]]:
    predictions, targets = zip(*(photograph(100 * seed + i) for i in range(images)), strict=True)
    scores = np.random.default_rng(seed).permutation(sum(len(p["scores"]) for p in predictions)) / 1000 + 0.01
    parts = np.split(scores, np.cumsum([len(p["scores"]) for p in predictions])[:-1])
    return [p | {"scores": s} for p, s in zip(predictions, parts, strict=True)], list(targets)


def by_tidecv(predictions: list[dict], targets: list[dict]) -> dict:
    "AP50, counts and gains as tidecv gives them."
    from tidecv import TIDE, Data

    truth, found = Data("truth"), Data("found", max_dets=1000)
    for i, (p, t) in enumerate(zip(predictions, targets, strict=True)):
        for side, data in ((t, truth), (p, found)):
            corners = obb2hbb(torch.as_tensor(side["boxes"])).numpy()
            for row, (box, label) in enumerate(zip(corners, side["labels"].tolist(), strict=True)):
                xywh = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                if side is t:
                    data.add_ground_truth(i, label, xywh)
                else:
                    data.add_detection(i, label, float(side["scores"][row]), xywh)
    tide = TIDE()
    run = tide.evaluate(truth, found, pos_threshold=0.5, background_threshold=0.1, mode=TIDE.BOX)
    gains, counts = run.fix_main_errors(), run.count_errors()
    return {
        "AP50": run.ap / 100,
        "counts": {ours: counts[name] for ours, name in _named(counts).items()},
        "gains": {ours: gains[name] / 100 for ours, name in _named(gains).items()},
    }


def _named(kinds: dict) -> dict:
    "Our name -> tidecv's class of errors."
    return {ours: kind for ours, short in THEIRS.items() for kind in kinds if kind.short_name == short}


def ours(predictions: list[dict], targets: list[dict]) -> dict:
    rules = {"protocol": "mmrotate", "metric": "coco101"}
    errors = error_types(as_case(predictions, targets, NAMES), **rules)
    score = evaluate(predictions, targets, NAMES, iou_thresholds=[0.5], **rules).AP50
    return {"AP50": score, "counts": errors.counts, "gains": errors.gains}


def assert_same(mine: dict, theirs: dict) -> None:
    assert mine["counts"] == theirs["counts"]
    assert mine["AP50"] == pytest.approx(theirs["AP50"], abs=1e-9)
    assert mine["gains"] == pytest.approx(theirs["gains"], abs=1e-9)


RECORDED = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {"cases": []}


@pytest.mark.parametrize("case", RECORDED["cases"], ids=lambda case: f"seed {case['seed']}")
def test_gains_are_those_of_tidecv(case):
    sides = scene(case["seed"])
    assert all(case["counts"].values()), "every kind of mistake is there"
    assert sum(side["boxes"].sum() for half in sides for side in half) == pytest.approx(case["sum"])
    assert_same(ours(*sides), case)


def test_gains_are_those_of_tidecv_today():
    pytest.importorskip("tidecv")
    for seed in range(20, 30):
        assert_same(ours(*scene(seed)), by_tidecv(*scene(seed)))


def boxes(*rows: tuple) -> np.ndarray:
    return np.array([(x, y, 40.0, 20.0, angle) for x, y, angle in rows]).reshape(-1, 5)


def test_five_of_ten_at_an_overlap_of_two_fifths_cost_half_of_the_points():
    "Struck out they gained nothing, since they are the least sure; turned boxes as well as upright ones."
    shift = 40 * 3 / 7  # along the box: (40 - d) / (40 + d) = 0.4
    for angle in (0.0, 0.6):
        objects = boxes(*((80.0 * i, 50.0, angle) for i in range(10)))
        found = objects.copy()
        found[5:, :2] += shift * np.array([np.cos(angle), np.sin(angle)])
        prediction = {"boxes": found, "labels": np.zeros(10, int), "scores": np.linspace(0.9, 0.1, 10)}
        target = {"boxes": objects, "labels": np.zeros(10, int)}
        errors = error_types(as_case([prediction], [target], ["ship"]))
        assert errors.counts == dict.fromkeys(ERRORS, 0) | {"localisation": 5}
        assert errors.gains == pytest.approx(dict.fromkeys(ERRORS, 0.0) | {"localisation": 0.5})


def test_an_object_is_put_right_once_by_the_surest():
    "Two boxes beside one object: one becomes its hit, the other goes. On an object with a hit, both go."
    target = {"boxes": boxes((0, 0, 0)), "labels": np.array([0])}
    beside = {
        "boxes": boxes((18, 0, 0), (-20, 0, 0)),
        "labels": np.array([0, 0]),
        "scores": np.array([0.3, 0.8]),
    }
    errors = error_types(as_case([beside], [target], ["ship"]))
    assert (
        errors.counts["localisation"] == 2 and errors.gains["localisation"] == 1.0 and not errors.missed.any()
    )
    hit = {"boxes": boxes((0, 0, 0)), "labels": np.array([0]), "scores": np.array([0.1])}
    both = {key: np.concatenate([beside[key], hit[key]]) for key in hit}
    errors = error_types(as_case([both], [target], ["ship"]))
    assert errors.gains["localisation"] == pytest.approx(2 / 3)  # from one in three to one in one


def test_a_repaired_class_moves_to_the_list_of_that_class():
    target = {"boxes": boxes((0, 0, 0), (200, 0, 0)), "labels": np.array([0, 1])}
    found = {"boxes": target["boxes"], "labels": np.array([1, 1]), "scores": np.array([0.9, 0.5])}
    errors = error_types(as_case([found], [target], ["ship", "quay"]))
    assert errors.counts["class"] == 1 and errors.gains["class"] == pytest.approx(1 - (0 + 0.5) / 2)


def test_missed_objects_leave_the_count():
    target = {"boxes": boxes((0, 0, 0), (200, 0, 0)), "labels": np.array([0, 0])}
    found = {"boxes": target["boxes"][:1], "labels": np.array([0]), "scores": np.array([0.9])}
    assert error_types(as_case([found], [target], ["ship"])).gains["missed"] == pytest.approx(0.5)


def record() -> None:

    seeds = range(3)
    rows = [{"seed": s, "sum": sum(float(i["boxes"].sum()) for h in scene(s) for i in h)} for s in seeds]
    cases = [row | by_tidecv(*scene(row["seed"])) for row in rows]
    GOLDEN.write_text(json.dumps({"made by": "tidecv 1.0.1", "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    record()
