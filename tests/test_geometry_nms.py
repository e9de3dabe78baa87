"Suppression against reference decisions and the plain definition."

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.geometry import nms
from atss_nb.geometry.boxes import obb2hbb
from atss_nb.geometry.kernels import overlap_pair
from atss_nb.geometry.nms import batched_nms_rotated, nms_rotated, soft_nms_rotated
from atss_nb.geometry.overlap import box_iou_rotated

GOLDEN = np.load(Path(__file__).parent / "golden" / "08_nms.npz")
CASES = sorted(key.removesuffix("|ref_keep") for key in GOLDEN.files if key.endswith("|ref_keep"))


def some(n: int, seed: int, extent: float = 300.0, classes: int = 3):
    draw = torch.Generator().manual_seed(seed)
    u = torch.rand(n, 6, generator=draw)
    boxes = torch.cat([u[:, :2] * extent, 6 * 30 ** u[:, 2:4], u[:, 4:5] * 6 - 3], 1)
    return boxes, u[:, 5], torch.randint(classes, (n,), generator=draw)


def plain(boxes, scores, threshold):
    iou, kept = box_iou_rotated(boxes.double(), boxes.double()), []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not (iou[i, kept] > threshold).any():
            kept.append(i)
    return kept


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reference_decisions(case, dtype):
    kind, threshold = case.split("|thr=")
    boxes, scores, labels = (torch.tensor(GOLDEN[f"{kind}|{n}"]) for n in ("boxes", "scores", "labels"))
    boxes, threshold = boxes.to(dtype), float(np.float32(threshold))
    assert nms_rotated(boxes, scores, threshold).tolist() == GOLDEN[f"{case}|ref_keep"].tolist()
    if f"{case}|ref_keep_multiclass" in GOLDEN.files:
        kept = batched_nms_rotated(boxes, scores, labels, threshold)
        assert kept.tolist() == GOLDEN[f"{case}|ref_keep_multiclass"].tolist()


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.45, 0.9, 1.0])
@pytest.mark.parametrize("ties", [False, True])
def test_the_definition(threshold, ties):
    boxes, scores, _ = some(400, 1)
    scores = (scores * 4).round() if ties else scores
    assert nms_rotated(boxes, scores, threshold).tolist() == plain(boxes, scores, threshold)


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3, 0.5, 0.77, 0.95])
def test_the_cheap_question_is_never_wrong(threshold):
    "A small box in a large one, whose share of it is the threshold and a hair: the float32 bounds must let it pass."
    draw = np.random.default_rng(7)
    large = draw.uniform([0, 0, 20, 20, -3], [1000, 1000, 300, 300, 3], (3000, 5))
    small = large * [1, 1, 1, threshold * (1 + 1e-9), 1]
    boxes = torch.tensor(np.stack([large, small], 1)).flatten(0, 1)
    pairs = torch.arange(len(boxes)) // 2
    assert (box_iou_rotated(boxes[::2], boxes[1::2], aligned=True) > threshold).all()
    kept = batched_nms_rotated(boxes, torch.rand(len(boxes)) - pairs, pairs, threshold)
    assert len(kept) == len(large)


def test_the_cheap_question_saves_work(monkeypatch):
    "An overlap is computed only where the smaller box, and what the upright bounds share, are large enough for it."
    boxes, scores, _ = some(500, 3, 1000.0)
    boxes, asked = boxes[scores.argsort(descending=True)].double(), []

    def noted(frame, i, other, j, iof):
        asked.append((i, j))
        return overlap_pair(frame, i, other, j, iof)

    monkeypatch.setattr(nms, "overlap_pair", noted)
    for kernel in ("_covered", "_greedy"):
        monkeypatch.setattr(nms, kernel, getattr(nms, kernel).py_func)
    assert nms._keep(boxes, torch.zeros(500, dtype=torch.int64), 0.3).sum() > 200
    a, b = boxes[torch.tensor(asked)].unbind(1)
    (low_a, high_a), (low_b, high_b) = (obb2hbb(t).split(2, 1) for t in (a, b))
    shared = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp(min=0).prod(1)
    areas = torch.stack([t[:, 2] * t[:, 3] for t in (a, b)])
    assert (torch.minimum(shared, areas.amin(0)) > 0.3 / 1.3 * 0.999 * areas.sum(0)).all()


def test_classes_never_meet():
    boxes, scores, labels = some(500, 2, classes=7)
    kept = batched_nms_rotated(boxes, scores, labels * 1000, 0.2)
    alone = [torch.nonzero(labels == c)[:, 0] for c in range(7)]
    want = torch.cat([rows[nms_rotated(boxes[rows], scores[rows], 0.2)] for rows in alone])
    assert kept.tolist() == want[scores[want].argsort(descending=True, stable=True)].tolist()
    assert batched_nms_rotated(
        boxes[:1].repeat(9, 1), scores[:9], torch.arange(9), 0.0
    ).sort().values.tolist() == [*range(9)]


def test_many_boxes_make_no_matrix():
    boxes, scores, _ = some(30_000, 3, 6000.0)  # a matrix of their overlaps would hold 900 million numbers
    kept = nms_rotated(boxes, scores, 0.1)
    assert not (box_iou_rotated(boxes[kept[:500]], boxes[kept[:500]]).triu(1) > 0.1).any()


def test_nothing_and_one():
    boxes, scores, labels = some(1, 4)
    assert nms_rotated(boxes[:0], scores[:0], 0.5).tolist() == []
    assert batched_nms_rotated(boxes, scores, labels, 0.5).tolist() == [0]
    assert nms_rotated(boxes[:0], scores[:0], 0.5).dtype == torch.int64
    assert [t.tolist() for t in soft_nms_rotated(boxes[:0], scores[:0])] == [[], []]


def test_bad_input_is_named():
    boxes, scores, labels = some(4, 5)
    with pytest.raises(ValueError, match="boxes, row"):
        nms_rotated(boxes * torch.tensor([1, 1, -1, 1, 1]), scores, 0.5)
    with pytest.raises(ValueError, match="boxes: expected floating point"):
        nms_rotated(boxes[:, :4], scores, 0.5)
    with pytest.raises(ValueError, match=r"scores: expected \(4,\)"):
        nms_rotated(boxes, scores[:3], 0.5)
    with pytest.raises(ValueError, match=r"idxs: expected \(4,\)"):
        batched_nms_rotated(boxes, scores, labels[:3], 0.5)
    with pytest.raises(ValueError, match="scores, row 1"):
        nms_rotated(boxes, torch.tensor([1, math.nan, 0, 0]), 0.5)
    with pytest.raises(ValueError, match="iou_threshold: expected 0 to 1"):
        nms_rotated(boxes, scores, 1.5)
    with pytest.raises(ValueError, match="iou_threshold: expected 0 to 1"):
        nms_rotated(boxes, scores, -0.1)


def test_soft_suppression():
    boxes, scores, labels = some(200, 6)
    kept, lowered = soft_nms_rotated(boxes, scores, labels, sigma=0.3, min_score=0.05)
    iou = box_iou_rotated(boxes.double(), boxes.double()) * (labels[:, None] == labels)
    want, alive, order = scores.double().clone(), torch.ones(200, dtype=torch.bool), []
    while alive.any() and want[alive].max() >= 0.05:
        best = int(torch.where(alive, want, -1).argmax())
        order.append(best)
        alive[best] = False
        want[alive] *= torch.exp(-(iou[best, alive] ** 2) / 0.3)
    assert kept.tolist() == order
    torch.testing.assert_close(lowered, want[order].float())


def test_soft_suppression_takes_the_first_of_equals():
    "Far apart, no score changes; on one spot, each later one is lowered by all before it."
    apart = torch.tensor([[90.0 * i, 0, 9, 9, 0] for i in range(4)])
    kept, lowered = soft_nms_rotated(apart, torch.full((4,), 0.5))
    assert kept.tolist() == [0, 1, 2, 3] and lowered.tolist() == [0.5] * 4
    kept, lowered = soft_nms_rotated(apart[:1].expand(3, 5), torch.full((3,), 0.5), sigma=1.0)
    assert kept.tolist() == [0, 1, 2]
    assert lowered.tolist() == pytest.approx([0.5, 0.5 / math.e, 0.5 / math.e**2])


def test_soft_suppression_stops_at_a_thousandth():
    boxes = torch.tensor([[0, 0, 9, 9, 0.0], [50, 0, 9, 9, 0], [90, 0, 9, 9, 0]])
    kept, lowered = soft_nms_rotated(boxes, torch.tensor([0.0009, 0.5, 0.0011]))
    assert kept.tolist() == [1, 2] and lowered.tolist() == pytest.approx([0.5, 0.0011])


def test_reference_cases_are_all_there():
    assert len(CASES) == len(json.loads((Path(__file__).parent / "golden" / "08_nms.json").read_text()))
