"Average precision against two published evaluators, a brute-force twin, and input that should be refused."

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.data.detections import Detections
from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.evaluation.cases import as_case
from atss_nb.evaluation.evaluate import PROTOCOLS, Evaluation, choose_protocol, evaluate, match_image
from atss_nb.evaluation.precision import average_precision
from atss_nb.evaluation.protocols import compare_protocols, protocol_table
from atss_nb.evaluation.task1 import read_results
from atss_nb.geometry.boxes import obb2hbb, obb2poly, poly2obb
from atss_nb.geometry.overlap import box_iou_rotated

GOLDEN = Path(__file__).parent / "golden"
SET = GOLDEN / "09_eval_noties"
METRICS = ("area", "voc07")
OPEN = ("dota-devkit", "mmrotate")  # protocols that leave the metric open


def known_rows(evaluation: Evaluation, expected: dict, key: str) -> list[tuple[float, float]]:
    "Our number and the expected one, where both exist."
    rows = [
        (value, expected[key.format(threshold=threshold, name=name)])
        for name, ap in evaluation.per_class.items()
        for threshold, value in ap.items()
    ]
    return [(ours, theirs) for ours, theirs in rows if ours is not None and isinstance(theirs, float)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("protocol", "mode"), [("dota-devkit", "difficult_ignore"), ("mmrotate", "difficult_regular")]
)
def test_same_numbers_as_mmrotate_on_the_same_boxes(metric, protocol, mode):
    "All 140 numbers; no IoU of this set is so near a threshold that > or >= would matter."
    data = np.load(SET / "mmrotate_inputs.npz")
    images = sorted({key.split("|")[0] for key in data.files})
    detections = [data[f"{i}|det_obb_score_label"] for i in images]
    predictions = [{"boxes": d[:, :5], "scores": d[:, 5], "labels": d[:, 6].astype(int)} for d in detections]
    targets = [
        {
            "boxes": data[f"{i}|gt_obb_le90"],
            "labels": data[f"{i}|gt_label"],
            "difficult": data[f"{i}|gt_difficult"] != 0,
        }
        for i in images
    ]
    expected = json.loads((SET / "expected_mmrotate.json").read_text())
    ours = evaluate(predictions, targets, DOTA_V10_CLASSES, metric, protocol=protocol)
    rows = known_rows(ours, expected, f"{mode}|{{threshold}}|{metric}|{{name}}")
    assert len(rows) >= 140  # the kit has no number for a class without objects
    if protocol == "mmrotate":
        np.testing.assert_allclose(*zip(*rows, strict=True), atol=1e-6)
        assert len(rows) == 150
        assert abs(ours.AP50 - expected[f"{mode}|0.50|{metric}|mAP"]) < 1e-6
    else:
        ours_, theirs = np.array([row for row in rows if row[1] > 0]).T
        np.testing.assert_allclose(ours_, theirs, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", ["09_eval_noties", "09_eval_ties"])
def test_same_numbers_as_the_development_kit_on_the_same_files(name, metric):
    "All numbers that the kit gives, from the corners as labelled; ties in the order of the file."
    folder = GOLDEN / name
    files = read_results(
        folder / "Task1", folder / "labelTxt", DOTA_V10_CLASSES, imageset=folder / "imageset.txt"
    )
    expected = json.loads((folder / "expected_devkit.json").read_text())["stable"]
    ours = files.evaluate(metric)
    for kind, ap in ours.per_class.items():
        for threshold, value in ap.items():
            theirs = expected[f"{threshold}|{metric}|{kind}"]
            if isinstance(theirs, str):  # without detections the kit crashes; the answer is 0
                assert kind == "roundabout" and value == 0.0
            else:
                assert value == theirs or value == pytest.approx(theirs, abs=1e-6)
    listed = [ap["0.50"] for ap in ours.per_class.values() if ap["0.50"] is not None]
    assert len(listed) == (15 if metric == "voc07" else 14)
    assert pytest.approx(np.mean(listed), abs=1e-12) == ours.AP50


def test_other_orders_of_ties_stay_within_the_kits_range():
    folder, rng = GOLDEN / "09_eval_ties", np.random.default_rng(0)
    expected = json.loads((folder / "expected_devkit.json").read_text())
    low, high = expected["tie_shuffle_min"], expected["tie_shuffle_max"]
    files = read_results(folder / "Task1", folder / "labelTxt", DOTA_V10_CLASSES)
    seen = set()
    for _ in range(6):
        mixed = replace(files, dets=files.dets.take(rng.permutation(len(files.dets.label))))
        ours = mixed.evaluate("voc07", [0.5, 0.75])
        seen.add(ours.AP50)
        for kind, ap in ours.per_class.items():
            for threshold, value in ap.items():
                key = f"{threshold}|voc07|{kind}"
                if isinstance(low.get(key), float):
                    assert low[key] - 0.03 <= value <= high[key] + 0.03  # the range of twelve orders
    assert len(seen) > 1


@pytest.mark.parametrize(
    "case", json.loads((GOLDEN / "09_eval_edge_cases.json").read_text()), ids=lambda c: c["name"]
)
@pytest.mark.parametrize("metric", METRICS)
def test_edge_cases_of_both_evaluators(case, metric):
    predictions, targets = [], []
    for image, objects in case["gts"].items():
        found = [d for d in case["dets"] if d["image"] == image]
        predictions.append(sample(found) | {"scores": torch.tensor([d["score"] for d in found])})
        targets.append(
            sample(objects) | {"difficult": torch.tensor([o["difficult"] for o in objects]).bool()}
        )
    for protocol, key in (("dota-devkit", "devkit"), ("mmrotate", "mmrotate_difficult_regular")):
        ours = evaluate(predictions, targets, ["ship"], metric, [case["iou_thr"]], protocol).AP50
        expected = case[f"{key}_{metric}"]
        if ours is None:  # no object to find: the kit says 0 / 0 or 0, mmrotate 0
            assert expected in (None, 0.0)
        else:  # without detections the kit crashes; the answer is 0
            assert ours == pytest.approx(0.0 if isinstance(expected, str) else expected, abs=1e-6)


def sample(objects: list[dict]) -> dict:
    polys = torch.tensor([o["poly"] for o in objects], dtype=torch.float64).view(-1, 4, 2)
    return {"boxes": poly2obb(polys, "le90"), "labels": torch.zeros(len(objects), dtype=torch.int64)}


def random_case(seed: int, images: int = 4, classes: int = 3) -> tuple[list[dict], list[dict]]:
    "Crowded little images, with ties, difficult objects and images without anything."
    rng, predictions, targets = np.random.default_rng(seed), [], []
    for _ in range(images):
        g, m = rng.integers(0, 7, 2)
        boxes = rng.uniform([0, 0, 8, 4, -2], [40, 40, 24, 16, 2], (g, 5))
        found = rng.uniform([0, 0, 8, 4, -2], [40, 40, 24, 16, 2], (m, 5))
        if g and m:
            found[: m // 2 + 1] = boxes[rng.integers(g, size=m // 2 + 1)] + rng.normal(
                0, 0.8, (m // 2 + 1, 5)
            ) * [1, 1, 1, 1, 0.1]
            found[:, 2:4] = found[:, 2:4].clip(0)
        labels = rng.integers(classes, size=g)
        targets.append({"boxes": boxes, "labels": labels, "difficult": rng.random(g) < 0.2})
        scores = rng.integers(0, 6, m) / 5
        predictions.append({"boxes": found, "labels": rng.integers(classes, size=m), "scores": scores})
    return predictions, targets


def probiou(one: np.ndarray, others: np.ndarray) -> list[float]:
    "One minus the Hellinger distance of normal distributions, from its definition with matrices (arXiv 2106.06072)."

    def moments(box):
        cos, sin = np.cos(box[4]), np.sin(box[4])
        turn = np.array([[cos, -sin], [sin, cos]])
        return box[:2], turn @ np.diag(box[2:4] ** 2 / 12) @ turn.T

    values = []
    for box in others:
        (p, first), (q, second) = moments(one), moments(box)
        mean, dets = (first + second) / 2, np.linalg.det(first) * np.linalg.det(second)
        if dets <= 0:
            values.append(0.0)
            continue
        distance = (p - q) @ np.linalg.inv(mean) @ (p - q) / 8
        distance += np.log(np.linalg.det(mean) / np.sqrt(dets)) / 2
        values.append(1 - np.sqrt(max(0.0, 1 - np.exp(-distance))))
    return values


def twin(predictions, targets, label, threshold, metric, protocol) -> float | None:
    "Average precision from the definition, with lists."
    rule = PROTOCOLS[protocol]
    objects = [t["boxes"][t["labels"] == label] for t in targets]
    hard = [(t["difficult"] & rule.ignore_difficult)[t["labels"] == label] for t in targets]
    total = sum(int((~h).sum()) for h in hard)
    rows = [
        (-score, i, m)
        for i, p in enumerate(predictions)
        for m, (score, k) in enumerate(zip(p["scores"], p["labels"], strict=True))
        if k == label
    ]
    hits, taken = [], set()
    for _, i, m in sorted(rows):
        found = predictions[i]["boxes"][m]
        if rule.overlap == "gaussian":
            iou = probiou(found, objects[i]) or [0.0]
        else:
            boxes = torch.from_numpy(found)[None], torch.from_numpy(objects[i])
            iou = box_iou_rotated(*boxes)[0].tolist() or [0.0]
        best = iou.index(max(iou))
        if not (iou[best] > threshold if rule.strict else iou[best] >= threshold):
            hits.append(0)
        elif not hard[i][best]:
            hits.append(int((i, best) not in taken))
            taken.add((i, best))
    precision = [sum(hits[: n + 1]) / (n + 1) for n in range(len(hits))]
    recall = [sum(hits[: n + 1]) / max(total, 1) for n in range(len(hits))]
    if not total:
        return None
    if metric == "voc07":
        rungs = [
            max((p for p, r in zip(precision, recall, strict=True) if r >= t), default=0)
            for t in np.arange(0, 1.1, 0.1)
        ]
        return sum(rungs) / 11
    return sum(max(precision[n:]) for n, hit in enumerate(hits) if hit) / total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(METRICS), st.sampled_from([*OPEN, "probiou"]))
def test_equals_its_brute_force_twin(seed, metric, protocol):
    predictions, targets = random_case(seed)
    ours = evaluate(predictions, targets, ["a", "b", "c"], metric, [0.3, 0.5, 0.75], protocol)
    for label, ap in enumerate(ours.per_class.values()):
        for threshold, value in ap.items():
            expected = twin(predictions, targets, label, float(threshold), metric, protocol)
            if expected is None:  # nothing to find: each protocol has its own answer
                assert value in (0.0, None)
                continue
            assert value == expected or value == pytest.approx(expected, abs=1e-9)


def test_probiou_is_no_overlap():
    "Values worked out by hand: a square moved by half its width, inside one of twice its side, and turned."
    square = np.array([10.0, 10, 6, 6, 0])
    for change, shared, alike in (
        ([0, 0, 0, 0, 0], 1, 1),
        ([3, 0, 0, 0, 0], 1 / 3, 1 - (1 - np.exp(-3 / 8)) ** 0.5),
        ([0, 0, 6, 6, 0], 1 / 4, 1 - (1 / 5) ** 0.5),
        ([0, 0, 0, 0, np.pi / 4], 0.5**0.5, 1),
    ):
        found = {"boxes": (square + change)[None], "scores": [0.5], "labels": [0]}
        target = {"boxes": square[None], "labels": [0]}
        for protocol, value in (("mmrotate", shared), ("probiou", alike)):
            for threshold, ap in ((value - 1e-6, 1.0), (value + 1e-6, 0.0)):
                if threshold <= 1:
                    got = evaluate([found], [target], ["a"], "area", [threshold], protocol)
                    assert got.mAP == ap, (change, protocol, threshold)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_verdicts_of_single_images_add_up(seed):
    predictions, targets = random_case(seed)
    ours = evaluate(predictions, targets, ["a", "b", "c"], iou_thresholds=[0.5])
    for label, name in enumerate(ours.per_class):
        recall = ours.curves[name].recall
        hits = sum(
            int((match_image(p, t)[0][p["labels"] == label] == 1).sum())
            for p, t in zip(predictions, targets, strict=True)
        )
        objects = ours.counts[name]["gts"] - ours.counts[name]["difficult"]
        assert (recall[-1] if len(recall) else 0) * max(objects, 1) == pytest.approx(hits)


def test_found_objects_have_a_hit_each():
    for seed in range(20):
        for p, t in zip(*random_case(seed), strict=True):
            verdict, found = match_image(p, t)
            assert (verdict == 1).sum() == found.sum()
            assert not (found & t["difficult"]).any()


def test_corners_of_boxes_stand_in_where_none_are_labelled():
    "Corners on one side only: the boxes of the other side are overlapped by their own corners."
    predictions, targets = random_case(4, images=8)
    cornered = [
        [s | {"polys": obb2poly(torch.from_numpy(s["boxes"])).numpy()} for s in side]
        for side in (predictions, targets)
    ]
    whole = evaluate(*cornered, "abc")
    for mixed in ((predictions, cornered[1]), (cornered[0], targets)):
        for name, ap in evaluate(*mixed, "abc").per_class.items():
            assert ap == pytest.approx(whole.per_class[name])
    assert whole.mAP > 0


def test_the_rungs_of_each_metric():
    "Precision 1 up to half of the objects, then 1/2 or nothing: 0.5 is the 6th of 11 rungs and the 51st of 101."
    half, rest = (np.array([0.5]), np.array([1.0])), (np.array([0.5, 1.0]), np.array([1.0, 0.5]))
    for metric, rungs in (("voc07", 11), ("coco101", 101)):
        below = rungs // 2 + 1
        assert average_precision(*half, metric) == pytest.approx(below / rungs, abs=1e-12)
        assert average_precision(*rest, metric) == pytest.approx((below + rungs) / 2 / rungs, abs=1e-12)
    assert (average_precision(*half), average_precision(*rest)) == (0.5, 0.75)


def test_a_threshold_of_one_is_the_last():
    target = {"boxes": np.array([[20.0, 20, 20, 10, 0]]), "labels": np.array([0])}
    (ap,) = evaluate(
        [target | {"scores": np.ones(1)}], [target], "a", None, [1.0], "mmrotate"
    ).per_class.values()
    assert ap == {"1.00": 1.0}
    for threshold in (0.0, 1.01):
        with pytest.raises(ValueError, match="numbers in"):
            evaluate([], [], "a", None, [threshold])


def test_a_class_of_which_there_is_nothing_has_no_number():
    "Without objects and without detections; a single detection turns voc07's answer under DOTA's kit into 0."
    target = {"boxes": np.array([[20.0, 20, 20, 10, 0]]), "labels": np.array([0])}
    silent, claimed = (target | {"scores": np.array([0.9]), "labels": np.array([k])} for k in (0, 1))
    for metric, value in (("voc07", 0.0), ("area", None)):
        without = evaluate([silent], [target], ["a", "b"], metric).per_class["b"]
        assert set(without.values()) == {None}
        assert evaluate([silent], [target], ["a", "b"], metric).mAP == 1.0
        assert set(evaluate([claimed], [target], ["a", "b"], metric).per_class["b"].values()) == {value}
    for protocol in ("mmrotate", "hrsc-voc07", "hrsc-voc12"):  # 0, which does not enter the mean
        result = evaluate([silent], [target], ["a", "b"], protocol=protocol)
        assert result.per_class["b"]["0.50"] == 0.0 and result.AP50 == 1.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_each_protocol_counts(protocol):
    "Half an overlap at 0.5, a difficult object, and a box turned the other way within the same upright one."
    kit, upright = protocol == "dota-devkit", protocol == "coco"
    whole, half = torch.tensor([[40.0, 40, 20, 20, 0]]), torch.tensor([[40.0, 45, 20, 10, 0]])
    left, right = (torch.tensor([[40.0, 40, 40, 10, t]]) for t in (-0.5, 0.5))
    for box, found, difficult, outcome in (
        (whole, half, False, 0 if kit else 1),
        (whole, whole, True, -1 if kit else 1),
        (left, right, False, 1 if upright else 0),
    ):
        one = {"labels": torch.tensor([0])}
        target = one | {"boxes": box, "difficult": torch.tensor([difficult])}
        prediction = one | {"boxes": found, "scores": torch.tensor([0.9])}
        assert match_image(prediction, target, 0.5, protocol)[0].tolist() == [outcome]
    own = {"hrsc-voc07": "voc07", "coco": "coco101"}
    assert choose_protocol(protocol).metric == own.get(protocol, "area")


def test_a_box_without_area_is_a_detection_that_hits_nothing():
    target = {"boxes": torch.tensor([[20.0, 20, 20, 10, 0]]), "labels": torch.tensor([0])}
    flat = target | {"boxes": target["boxes"] * torch.tensor([1, 1, 0, 1, 1]), "scores": torch.ones(1)}
    result = evaluate([flat], [target], ["a"])
    assert result.counts["a"]["detections"] == 1 and result.AP50 == 0.0


def test_outlines_of_some_images_give_all_images_outlines():
    corners = torch.tensor([[[0.0, 0], [20, 0], [20, 10], [0, 10]]])
    drawn = Detections(None, torch.tensor([0]), ("a",), torch.ones(1), "x", corners=corners)
    plain = Detections(drawn.boxes, torch.tensor([0]), ("a",), torch.ones(1), "y")
    case = as_case([drawn, plain], [drawn, plain], ["a"])
    assert case.dets.polys.shape == case.gts.polys.shape == (2, 8)


def test_perfect_and_hopeless():
    _, targets = random_case(3)
    perfect = [{**t, "scores": np.full(len(t["boxes"]), 0.5)} for t in targets]
    result = evaluate(perfect, targets, ["a", "b", "c"])
    assert result.AP50 == result.AP75 == result.mAP == 1.0
    away = [{**p, "boxes": p["boxes"] + [1000, 0, 0, 0, 0]} for p in perfect]
    assert evaluate(away, targets, ["a", "b", "c"]).mAP == 0.0


def test_tensors_arrays_and_devices_give_the_same():
    predictions, targets = random_case(8)
    tensors = [
        [{k: torch.as_tensor(v) for k, v in s.items()} for s in samples] for samples in (predictions, targets)
    ]
    assert evaluate(*tensors, "abc").to_json() == evaluate(predictions, targets, "abc").to_json()


def test_json_and_summary():
    predictions, targets = random_case(8)
    targets = [t | {"labels": t["labels"] % 2} for t in targets]
    result = evaluate(predictions, targets, ["a", "b", "none"])
    data = json.loads(result.to_json())
    assert data["per_class"]["none"]["0.50"] is None and set(data["per_class"]["a"]) == {
        f"{50 + 5 * i}"[:2].join(("0.", "")) for i in range(10)
    }
    assert data["counts"]["a"].keys() == {"gts", "difficult", "detections"}
    assert data["AP50"] == np.mean([data["per_class"][name]["0.50"] for name in "ab"])
    lines = result.summary().split("\n")
    assert len(lines) == 5 and lines[-1].startswith("mean") and lines[3].split()[-1] == "-"
    assert (
        len(
            {
                len(line)
                for line in evaluate(predictions, targets, ["a", "b", "a long name"]).summary().split("\n")
            }
        )
        == 1
    )


def test_missing_thresholds_have_no_number():
    predictions, targets = random_case(8)
    result = evaluate(predictions, targets, "abc", iou_thresholds=[0.4])
    assert result.AP50 is None and result.AP75 is None and result.mAP is not None


GOOD = {"boxes": torch.tensor([[10.0, 10, 8, 4, 0.3]] * 3), "labels": torch.tensor([0, 1, 0])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": torch.tensor([0.5, 0.5, torch.nan])}, r"predictions\[1\]\['scores'\] row 2 is nan"),
        ({"scores": torch.tensor([0.5, torch.inf, 0.5])}, r"predictions\[1\]\['scores'\] row 1 is inf"),
        ({"labels": torch.tensor([0, 2, 0])}, r"predictions\[1\]\['labels'\] row 1 is 2.* from 0 to 1"),
        ({"labels": torch.tensor([-1, 0, 0])}, r"predictions\[1\]\['labels'\] row 0 is -1"),
        ({"labels": torch.tensor([0, 0.5, 0])}, r"predictions\[1\]\['labels'\] row 1 is 0.5"),
        ({"scores": torch.ones(2)}, r"predictions\[1\]\['scores'\] has shape \(2,\), expected \(3,\)"),
        ({"boxes": torch.ones(3, 4)}, r"predictions\[1\]\['boxes'\] has shape \(3, 4\), expected \(3, 5\)"),
        ({"boxes": GOOD["boxes"] * torch.tensor([1, 1, -1, 1, 1])}, r"predictions\[1\]\['boxes'\] row 0"),
        ({"boxes": GOOD["boxes"] * torch.nan}, r"predictions\[1\]\['boxes'\] row 0"),
    ],
)
def test_bad_predictions_are_named(change, message):
    good = GOOD | {"scores": torch.ones(3)}
    with pytest.raises(ValueError, match=message):
        evaluate([good, good | change], [GOOD, GOOD], ["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], [GOOD], ["a", "b"]), "predictions has 0 images, expected 1"),
        (([GOOD], [GOOD], ["a", "b"]), r"predictions\[0\] has \['boxes', 'labels'\], expected also 'scores'"),
        (([], [], ["a"], "voc12"), "metric is 'voc12', expected one of area, voc07, coco101 for dota-devkit"),
        (([], [], ["a"], "area", [0.5, 1.5]), "iou_thresholds"),
        (([], [], ["a"], "area", []), "iou_thresholds"),
        (([], [], ["a"], "area", [0.5], "voc"), "protocol='voc': expected one of 'dota-devkit'"),
        (
            ([], [], ["a"], "voc07", [0.5], "hrsc-voc12"),
            "metric is 'voc07', expected one of area for hrsc-voc12",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*arguments)


def test_bad_targets_are_named():
    fine = {"boxes": torch.zeros(0, 5), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    with pytest.raises(ValueError, match=r"targets\[0\]\['labels'\] row 1 is 1"):
        evaluate([fine], [GOOD], ["a"])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_corners_of_boxes_are_judged_like_the_boxes(seed):
    predictions, targets = random_case(seed)
    drawn = [
        [s | {"polys": obb2poly(torch.as_tensor(s["boxes"]))} for s in samples]
        for samples in (predictions, targets)
    ]
    by_box, by_corner = (
        evaluate(*both, ["a", "b", "c"]).per_class for both in ((predictions, targets), drawn)
    )
    for name in by_box:
        assert list(by_corner[name].values()) == pytest.approx(list(by_box[name].values()), abs=1e-9)


def test_polygons_are_checked():
    bad = GOOD | {"scores": torch.ones(3), "polys": torch.full((3, 4, 2), torch.nan)}
    with pytest.raises(ValueError, match=r"predictions\[0\]\['polys'\] row 0"):
        evaluate([bad], [GOOD], ["a", "b"])
    with pytest.raises(ValueError, match=r"has \['boxes', 'labels'.*expected also 'polys'"):
        fine = bad | {"polys": torch.ones(3, 4, 2)}
        evaluate([fine, GOOD | {"scores": torch.ones(3)}], [GOOD, GOOD], ["a", "b"])


def test_the_fixed_protocols_are_mmrotates_rules_with_their_metric():
    predictions, targets = random_case(11, images=30)
    results = {
        (e.protocol, e.metric): e for e in compare_protocols(as_case(predictions, targets, ["a", "b", "c"]))
    }
    for name, metric in (("hrsc-voc07", "voc07"), ("hrsc-voc12", "area")):
        assert results[name, metric].per_class == results["mmrotate", metric].per_class
    one, empty = results["mmrotate", "area"], evaluate([], [], ["a"])
    _, known, unknown = protocol_table([one, empty]).split("\n")
    assert known.split() == ["mmrotate", "area", *(f"{v:.4f}" for v in (one.AP50, one.AP75, one.mAP))]
    assert unknown.split() == ["dota-devkit", "area", "-", "-", "-"]


def test_coco_agrees_with_its_own_evaluator_on_its_own_format():
    coco = pytest.importorskip("faster_coco_eval")
    predictions, targets = random_case(5, images=20)
    truth, found, names = coco.COCO(), coco.COCO(), ["a", "b", "c"]
    base = {"images": [{"id": i + 1} for i in range(20)], "categories": [{"id": k + 1} for k in range(3)]}
    sides = []
    for samples in (targets, predictions):
        rows = []
        for i, s in enumerate(samples):
            for m, (x1, y1, x2, y2) in enumerate(obb2hbb(torch.as_tensor(s["boxes"])).tolist()):
                row = {"id": len(rows) + 1, "image_id": i + 1, "category_id": int(s["labels"][m]) + 1}
                row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0}
                rows.append(row | ({"score": float(s["scores"][m])} if "scores" in s else {}))
        sides.append(rows)
    truth.dataset, found.dataset = (base | {"annotations": rows} for rows in sides)
    truth.createIndex(), found.createIndex()
    run = coco.COCOeval_faster(truth, found, "bbox")
    run.evaluate(), run.accumulate(), run.summarize()
    ours = evaluate(predictions, targets, names, protocol="coco")
    assert [ours.mAP, ours.AP50, ours.AP75] == pytest.approx(list(run.stats[:3]), abs=1e-9)
    for name, curve in ours.curves.items():
        assert curve.recall.tolist() == pytest.approx([n / 100 for n in range(101)])
        assert curve.precision.mean() == pytest.approx(ours.per_class[name]["0.50"])
