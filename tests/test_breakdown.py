"Analysis, bins, intervals, merged tiles and the commands around them; twins that do it the slow way."

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.cli.main import main
from atss_nb.core.errors import LabelError
from atss_nb.data.detections import Detections
from atss_nb.evaluation.breakdown import MEASURES, _matching, _weighted_means, analyze, bootstrap, evaluate_by
from atss_nb.evaluation.cases import as_case
from atss_nb.evaluation.errors import ERRORS, best_f1, confusion_matrix, error_types
from atss_nb.evaluation.evaluate import IOU_THRESHOLDS, evaluate
from atss_nb.evaluation.task1 import read_merged, read_results
from atss_nb.geometry.boxes import hbb2obb, obb2hbb
from atss_nb.geometry.overlap import box_iou_rotated

SET = Path(__file__).parent / "golden/09_eval_noties"
NAMES = ["a", "b", "c"]
seeds = given(st.integers(0, 10**6))
few = settings(max_examples=20, deadline=None)


def crowd(seed: int, images: int = 5) -> tuple[list[dict], list[dict]]:
    "Small images with doubles, wrong classes, difficult objects; all scores differ."
    rng, predictions, targets = np.random.default_rng(seed), [], []
    for _ in range(images):
        g, m = int(rng.integers(0, 7)), int(rng.integers(0, 9))
        boxes = rng.uniform([0, 0, 8, 4, -2], [60, 60, 40, 20, 2], (g, 5))
        found = rng.uniform([0, 0, 8, 4, -2], [60, 60, 40, 20, 2], (m, 5))
        labels, says = rng.integers(3, size=g), rng.integers(3, size=m)
        if g and m:
            on = rng.integers(g, size=m // 2 + 1)
            found[: len(on)] = boxes[on] + rng.normal(0, [1, 1, 0.5, 0.5, 0.05], (len(on), 5))
            says[: len(on) - 1] = labels[on[:-1]]
        targets.append({"boxes": boxes, "labels": labels, "difficult": rng.random(g) < 0.2})
        predictions.append({"boxes": found, "labels": says, "scores": rng.random(m)})
    return predictions, targets


@few
@seeds
def test_a_drawn_set_scores_like_its_images_written_out(seed):
    "The bootstrap's weights against `evaluate` on the images repeated."
    predictions, targets = crowd(seed)
    drawn = np.sort(np.random.default_rng(seed).integers(5, size=5))
    matching = _matching(as_case(predictions, targets, NAMES), "area", IOU_THRESHOLDS, "mmrotate")
    outcomes = np.stack(list(matching.outcomes(matching.matched.ignored).values()))
    means = _weighted_means(matching, outcomes, np.bincount(drawn, minlength=5))
    # copies of a detection stay together, those of different detections do not mix
    copies = [predictions[i] | {"scores": predictions[i]["scores"] - 1e-9 * n} for n, i in enumerate(drawn)]
    out = evaluate(copies, [targets[i] for i in drawn], NAMES, "area", protocol="mmrotate")
    if out.mAP is None:
        assert np.isnan(means).all()
    else:
        assert means == pytest.approx([out.mean(f"{t:.2f}") for t in IOU_THRESHOLDS], abs=1e-9)


@few
@seeds
def test_every_image_once_is_the_evaluation(seed):
    case = as_case(*crowd(seed), NAMES)
    matching = _matching(case, "area", IOU_THRESHOLDS, "mmrotate")
    outcomes = np.stack(list(matching.outcomes(matching.matched.ignored).values()))
    means, out = (
        _weighted_means(matching, outcomes, np.ones(5, int)),
        evaluate(*crowd(seed), NAMES, "area", protocol="mmrotate"),
    )
    if out.mAP is not None:
        assert means == pytest.approx([out.mean(f"{t:.2f}") for t in IOU_THRESHOLDS], abs=1e-12)


def slow_kinds(predictions, targets) -> tuple[list[list[int]], int]:
    "Error kinds from their definition, with loops, under mmrotate's rules."
    kinds, missed = [], 0
    for p, t in zip(predictions, targets, strict=True):
        iou = box_iou_rotated(torch.tensor(p["boxes"]), torch.tensor(t["boxes"])).numpy()
        mine, taken, blamed = [0] * len(p["boxes"]), set(), set()
        for m in np.argsort(-p["scores"], kind="stable"):
            same = [(iou[m, g], -g) for g in range(len(t["boxes"])) if t["labels"][g] == p["labels"][m]]
            other = [(iou[m, g], -g) for g in range(len(t["boxes"])) if t["labels"][g] != p["labels"][m]]
            (best, g), (wrong, o) = max(same, default=(0.0, 1)), max(other, default=(0.0, 1))
            if best >= 0.5 and g not in taken:
                mine[m] = -1
                taken.add(g)
            elif 0.1 <= best < 0.5:
                mine[m] = 0
            else:
                mine[m] = 1 if wrong >= 0.5 else 3 if best >= 0.5 else 2 if wrong > 0.1 else 4
            blamed |= {o} if mine[m] == 1 else {g} if mine[m] == 0 else set()
        kinds.append(mine)
        missed += len(t["boxes"]) - len(taken | blamed)
    return kinds, missed


@few
@seeds
def test_errors_equal_their_definition(seed):
    predictions, targets = crowd(seed)
    errors = error_types(as_case(predictions, targets, NAMES), protocol="mmrotate")
    kinds, missed = slow_kinds(predictions, targets)
    assert errors.kinds.tolist() == sum(kinds, []) and errors.counts["missed"] == missed
    assert [errors.counts[name] for name in ERRORS[:5]] == [sum(kinds, []).count(k) for k in range(5)]


@few
@seeds
def test_confusion_counts_each_object_and_each_sure_detection_once(seed):
    predictions, targets = crowd(seed)
    matrix = confusion_matrix(as_case(predictions, targets, NAMES), protocol="mmrotate")
    labels, says = (
        np.concatenate([s["labels"] for s in side]).astype(int) for side in (targets, predictions)
    )
    sure = np.concatenate([p["scores"] for p in predictions]) >= 0.3
    assert matrix[:3].sum(1).tolist() == np.bincount(labels, minlength=3).tolist()
    assert matrix[:, :3].sum(0).tolist() == np.bincount(says[sure], minlength=3).tolist()


@few
@seeds
def test_bins_share_out_the_objects(seed):
    case = as_case(*crowd(seed), NAMES)
    whole = evaluate(*crowd(seed), NAMES)
    for measure in MEASURES:
        bins = evaluate_by(case, measure)
        for name in NAMES:
            assert sum(e.positives[name] for e in bins.values()) == whole.positives[name]
            assert all(e.positives[name] or set(e.per_class[name].values()) == {None} for e in bins.values())
        edges = MEASURES[measure]
        assert list(bins) == [f"{a:g} to {b:g}" for a, b in zip(edges[:-1], edges[1:], strict=True)]
    assert MEASURES["size"][2:4] == (32, 96) and MEASURES["angle"] == (-90, -60, -30, 0, 30, 60, 90)
    one = evaluate_by(case, "size", (0, np.inf))["0 to inf"]
    assert one.mAP == whole.mAP or one.mAP == pytest.approx(whole.mAP, abs=1e-12)


def test_a_false_positive_of_another_size_costs_a_bin_nothing():
    target = {"boxes": np.array([[20.0, 20, 20, 20, 0]]), "labels": np.array([0])}
    boxes = np.array([[300.0, 300, 100, 100, 0], [20, 20, 20, 20, 0]])
    prediction = {"boxes": boxes, "labels": np.array([0, 0]), "scores": np.array([0.9, 0.8])}
    assert evaluate([prediction], [target], ["a"]).AP50 == 0.5
    bins = evaluate_by(as_case([prediction], [target], ["a"]), "size")
    assert {name: e.AP50 for name, e in bins.items() if e.AP50 is not None} == {"16 to 32": 1.0}


@few
@seeds
def test_best_f1_is_the_best_of_all_cuts(seed):
    result = evaluate(*crowd(seed), NAMES)
    for name, cut in best_f1(result).items():
        curve = result.curves[name]
        points = zip(curve.precision, curve.recall, strict=True)
        values = [2 * p * r / (p + r) for p, r in points if p + r > 0]
        assert (cut["f1"] if cut else 0) == pytest.approx(max(values, default=0))


def test_intervals_repeat_and_hold_the_number():
    files = read_results(SET / "Task1", SET / "labelTxt")
    for metric in ("voc07", "area"):  # under voc07 the kit counts a class without objects as 0
        ends, score = bootstrap(files.case, 30, metric=metric), files.evaluate(metric)
        assert (
            ends
            == bootstrap(files.case, 30, metric=metric)
            != bootstrap(files.case, 30, seed=1, metric=metric)
        )
        assert all(low < getattr(score, name) < high for name, (low, high) in ends.items())


def test_nothing_has_an_analysis():
    empty = {"boxes": np.zeros((0, 5)), "labels": np.zeros(0, int)}
    for sides in (([], []), ([empty | {"scores": np.zeros(0)}], [empty])):
        for protocol in ("dota-devkit", "mmrotate", "hrsc-voc07", "hrsc-voc12"):
            written = analyze(as_case(*sides, NAMES), protocol=protocol, samples=3).to_dict()
            assert written["AP50"] is None and written["intervals"] == {}
            json.dumps(written, allow_nan=False)


def uprighted(sides: list[dict]) -> list[dict]:
    "The same objects as upright boxes."
    return [one | {"boxes": hbb2obb(obb2hbb(torch.as_tensor(one["boxes"]))).numpy()} for one in sides]


def test_coco_is_judged_by_upright_boxes():
    "Errors, confusion and intervals are those of upright boxes under rules that are COCO's but for one."
    pytest.importorskip("faster_coco_eval")
    sides, kept = crowd(3, 60), {"metric": "area", "protocol": "mmrotate"}
    turned, upright = as_case(*sides, NAMES), as_case(*map(uprighted, sides), NAMES)
    written = analyze(turned, protocol="coco", samples=5)
    assert written.errors.counts == error_types(upright, **kept).counts != error_types(turned, **kept).counts
    assert (written.confusion == confusion_matrix(upright, protocol="mmrotate")).all()
    assert written.to_dict()["intervals"].keys() == {"AP50", "AP75", "mAP"} and len(written.protocols) == 9
    assert "COCO" in written.notes[0] and not analyze(turned, samples=2).notes


def test_our_verdicts_are_close_to_cocos():
    "The one rule that differs moves AP50 on the golden set by less than a hundredth."
    pytest.importorskip("faster_coco_eval")
    files = read_results(SET / "Task1", SET / "labelTxt")
    (ours,) = evaluate_by(files.case, "size", (0, np.inf), protocol="coco").values()
    theirs = files.evaluate(protocol="coco")
    assert pytest.approx(theirs.AP50, abs=0.01) == ours.AP50


def test_the_command_says_how_coco_was_judged(tmp_path, capsys):
    pytest.importorskip("faster_coco_eval")
    files = ["--json", tmp_path / "o.json", "--report", tmp_path / "o.html"]
    words = ["eval", SET / "Task1", SET / "labelTxt", "--protocol", "coco", *files]
    assert main([str(word) for word in words]) == 0
    written = json.loads((tmp_path / "o.json").read_text())
    assert "under coco" in capsys.readouterr().out and any("under coco" in note for note in written["notes"])
    assert sum(written["errors"]["counts"].values()) > 0 and written["by"]["size"]
    assert "under coco" in (tmp_path / "o.html").read_text(encoding="utf-8")


def test_eval_writes_report_and_json(tmp_path, capsys):
    words = ["eval", str(SET / "Task1"), str(SET / "labelTxt"), "--metric", "voc07", "--compare"]
    files = {"--json": tmp_path / "o.json", "--report": tmp_path / "deep/o.html"}
    assert main([*words, *(str(w) for pair in files.items() for w in pair)]) == 0
    written, page = json.loads(files["--json"].read_text()), files["--report"].read_text(encoding="utf-8")
    assert (
        written["confusion"][-1][-1] == 0
        and len(written["confusion"]) == 16
        and written["by"].keys() == MEASURES.keys()
    )
    assert not re.search(r"<script|@import|https?://(?!www\.w3\.org/)|\b(nan|None)\b", page)
    assert f"{100 * written['AP50']:.1f}" in page and "hrsc-voc12" in capsys.readouterr().out


def tile_results(folder: Path) -> Path:
    "The golden detections as if found in two tiles of each image that overlap everywhere."
    (folder / "Task1").mkdir()
    for path in (SET / "Task1").glob("*.txt"):
        lines = [line.split() for line in path.read_text().splitlines()]
        moved = [[f"{n}__4096__0___0", *rest] for n, *rest in lines]
        moved += [
            [f"{n}__4096__100___0", s, *map(str, np.array(c, float) - [100, 0] * 4)] for n, s, *c in lines
        ]
        (folder / "Task1" / path.name).write_text("".join(" ".join(line) + "\n" for line in moved))
    return folder / "Task1"


def test_merged_tiles_score_like_whole_images(tmp_path):
    "Doubles go; a threshold of 1 keeps whatever is not the same box."
    merged = read_merged(tile_results(tmp_path), SET / "labelTxt", iou_threshold=0.999)
    whole = read_results(SET / "Task1", SET / "labelTxt")
    assert merged.image_ids == whole.image_ids
    assert merged.evaluate("voc07").mAP == pytest.approx(whole.evaluate("voc07").mAP, abs=0.01)
    doubled = len(merged.dets.label) / len(whole.dets.label)
    assert 0.95 < doubled <= 1


def test_merged_takes_predictions_and_names_bad_ones(tmp_path):
    boxes = torch.tensor([[20.0, 20, 30, 10, 0.2]])
    labels, score = torch.tensor([0]), torch.tensor([0.9])
    parts = [
        Detections(boxes - torch.tensor([x, 0, 0, 0, 0]), labels, ("ship",), score, f"p__64__{x}___0")
        for x in (0, 8)
    ]
    shutil.copytree(SET / "labelTxt", tmp_path / "labelTxt")
    (tmp_path / "labelTxt/p.txt").write_text("")
    assert len(read_merged(parts, tmp_path / "labelTxt").dets.label) == 1
    with pytest.raises(ValueError, match="2 times"):
        read_merged([parts[0], parts[0]], tmp_path / "labelTxt")
    (tmp_path / "labelTxt/p.txt").unlink()
    with pytest.raises(LabelError, match="image 'p'; expected one of"):
        read_merged(parts, tmp_path / "labelTxt")
    limited = read_merged(parts, tmp_path / "labelTxt", imageset=SET / "imageset.txt")
    assert len(limited.dets.label) == 0
    assert limited.notes[-1] == f"1 detections in images outside {SET / 'imageset.txt'}"
    (tmp_path / "split.json").write_text('{"tiles": {"q": ["p", 0, 0, 64, 1.0]}}')
    with pytest.raises(LabelError, match="p__64__0___0"):
        read_merged(parts, tmp_path / "labelTxt", tmp_path)
