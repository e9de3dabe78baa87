"Assigners against recorded ones and against their definitions, written with full matrices and loops."

from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.geometry.boxes import hbb2obb, inside_margin, obb2hbb
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.samples import anchors as anchors_module
from atss_nb.samples import assign as module
from atss_nb.samples import nearest as nearest_module
from atss_nb.samples import overlapping as overlapping_module
from atss_nb.samples.anchors import AnchorGrid, AnchorLevel, Anchors, compare
from atss_nb.samples.assign import ATSS, CenterSampling, MaxIoU
from atss_nb.samples.claims import stack_ground_truths
from atss_nb.samples.explanation import Reason

RECORDED = np.load(Path(__file__).parent / "golden" / "06_atss.npz")
SCENES = sorted({key.split("|")[0] for key in RECORDED.files})


# The definitions


def all_pairs(anchors, gts):
    "Distance, IoU and depth of the centre of every anchor and ground truth, each (G, N)."
    return compare(anchors, torch.arange(len(anchors)).expand(len(gts), -1), gts.double())


def first_best(scores):
    "Row of the highest score above -1 in each column, the first of equals up to rounding; -1 without any."
    if not len(scores):
        return torch.full(scores.shape[1:], -1)
    high = scores.amax(0)
    rows = torch.arange(len(scores))[:, None]
    first = torch.where(scores >= high - 1e-12, rows, len(scores)).amin(0)
    return torch.where(high > -1, first, -1)


def atss_slowly(anchors, gts, rule):
    gts = gts.double()
    if rule.upright:
        sides = obb2hbb(gts)[:, 2:] - obb2hbb(gts)[:, :2]
        gts = torch.cat([gts[:, :2], sides, torch.zeros(len(gts), 1)], 1)
    _, iou, margin = all_pairs(anchors, gts)
    centres, scores = anchors.boxes[:, :2].double(), torch.full_like(iou, -1)
    for g, box in enumerate(gts):
        distance, candidates = (centres - box[:2]).square().sum(1).tolist(), []
        for level in anchors.levels:
            near = sorted((distance[i], i) for i in range(level.start, level.start + level.count))
            k = rule.k * (level.per_location if rule.per_location else 1)
            candidates += [i for _, i in near[:k]]
        values = iou[g, candidates]
        threshold = values.mean() + (values.std() if len(values) > 1 else 0)
        for i in candidates:
            if iou[g, i] >= threshold - 1e-12 and margin[g, i] > rule.margin:
                scores[g, i] = iou[g, i]
    return first_best(scores)


def max_iou_slowly(anchors, gts, rule):
    _, iou, _ = all_pairs(anchors, gts)
    if not len(gts):
        return torch.full((len(anchors),), -1)
    best, owner = iou.amax(0), first_best(iou)
    index = torch.where(best >= rule.pos - 1e-12, owner, torch.where(best >= rule.neg - 1e-12, -2, -1))
    for g, row in enumerate(iou if rule.low_quality else ()):
        if row.max() > 0 and row.max() >= rule.min_pos:
            index[row >= row.max() - 1e-12] = g
    return index


def center_slowly(anchors, gts, rule):
    gts = gts.double()
    _, iou, margin = all_pairs(anchors, gts)
    scores = torch.full_like(iou, -inf)
    for g, (x, y, w, h, t) in enumerate(gts):
        dx, dy = anchors.boxes[:, 0].double() - x, anchors.boxes[:, 1].double() - y
        u, v = (dx * t.cos() + dy * t.sin()).abs(), (dy * t.cos() - dx * t.sin()).abs()
        far = torch.maximum(w / 2 + u, h / 2 + v)
        for level, (low, high) in zip(anchors.levels, rule.ranges, strict=True):
            rows = torch.arange(len(anchors))
            keep = (rows >= level.start) & (rows < level.start + level.count) & (margin[g] > rule.margin)
            keep &= (far >= low) & (far <= high)
            if rule.radius is not None:
                keep &= torch.maximum(u, v) < rule.radius * level.stride
            scores[g, keep] = 1e12 - w * h
    return first_best(scores)


def random_boxes(n, size, dice):
    "Crowded, elongated, tiny, huge, outside, on the lines of the grid, doubled."
    boxes = torch.rand(n, 5, generator=dice)
    boxes[:, :2] = boxes[:, :2] * (max(size) + 80) - 40
    boxes[:, 2:4] = (boxes[:, 2:4] * 7 - 1.5).exp()
    boxes[:, 4] = boxes[:, 4] * 7 - 3.5
    kind = torch.randint(8, (n,), generator=dice)
    boxes[kind == 0, 3] = boxes[kind == 0, 2] / 100
    boxes[kind == 1, 2:4] = 0.3
    boxes[kind == 2, :2] = (boxes[kind == 2, :2] / 4).round() * 4
    boxes[kind == 3, 4] = 0
    boxes[kind == 4, 0] += 5000
    boxes[kind == 5, 3] = 0
    if n > 1 and dice.initial_seed() % 2:
        boxes[-1] = boxes[0]
    return boxes


def random_scene(seed):
    dice = torch.Generator().manual_seed(seed)

    def pick(*options):
        return options[int(torch.randint(len(options), (), generator=dice))]

    strides = pick((8, 16, 32, 64, 128), (8, 16), (16,), (4, 12, 40), (10.7, 32))
    ratios, scales = pick(((1.0,), 1), ((1.0,), 1), ((0.5, 1.0, 2.0), 3), ((0.5, 2.0), 1))
    grid = AnchorGrid(strides, pick(4, 8, 1.5), scales, ratios, pick(0.0, 0.5))
    size = tuple(torch.randint(1, 130, (2,), generator=dice).tolist())
    return grid(size), random_boxes(int(torch.randint(7, (), generator=dice)), size, dice)


# Against the definitions


@pytest.mark.parametrize("start", range(0, 2000, 200))
def test_atss_is_its_definition(start):
    for seed in range(start, start + 200):
        anchors, gts = random_scene(seed)
        rule = ATSS(k=(9, 9, 1, 3, 19)[seed % 5], per_location=seed % 3 == 0, upright=seed % 7 == 0)
        assert torch.equal(rule(anchors, gts).gt_index, atss_slowly(anchors, gts, rule)), seed


@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_max_iou_is_its_definition(start):
    for seed in range(start, start + 250):
        anchors, gts = random_scene(seed)
        rule = MaxIoU(0.5, 0.4, (0.0, 0.2)[seed % 2], low_quality=seed % 5 > 0)
        assert torch.equal(rule(anchors, gts).gt_index, max_iou_slowly(anchors, gts, rule)), seed


@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_center_sampling_is_its_definition(start):
    ends = [-1, 16, 40, 90, 200]
    for seed in range(start, start + 250):
        anchors, gts = random_scene(seed)
        highs = [*ends[1 : len(anchors.levels)], inf]
        ranges = tuple(zip(ends, highs, strict=False))
        rule = CenterSampling((1.5, None, 0.7, 4.0)[seed % 4], ranges)
        assert torch.equal(rule(anchors, gts).gt_index, center_slowly(anchors, gts, rule)), seed


RULES = [ATSS(), ATSS(per_location=True, k=4), MaxIoU(), CenterSampling(None), CenterSampling()]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_batch_is_its_images(rule):
    dice = torch.Generator().manual_seed(3)
    anchors = AnchorGrid(scales_per_octave=2)((160, 200))
    images = [random_boxes(n, (160, 200), dice) for n in (5, 0, 9, 1)]
    ignore = [torch.rand(len(b), generator=dice) < 0.4 for b in images]
    together = rule(anchors, images, ignore)
    assert together.gt_index.shape == together.iou.shape == (4, len(anchors))
    for i, (boxes, flags) in enumerate(zip(images, ignore, strict=True)):
        alone = rule(anchors, boxes, flags)
        assert torch.equal(together.gt_index[i], alone.gt_index)
        assert torch.equal(together.iou[i], alone.iou)
        plain = rule(anchors, boxes).gt_index
        owners = torch.where(flags, -2, torch.arange(len(flags)))
        owners = torch.cat([owners, torch.tensor([-2, -1])])  # index -2 and -1 stay what they are
        assert torch.equal(alone.gt_index, owners[plain])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_iou_is_that_of_the_ground_truth(rule):
    dice = torch.Generator().manual_seed(4)
    anchors = AnchorGrid()((160, 200))
    gts = random_boxes(12, (160, 200), dice)
    answer, iou = rule(anchors, gts), all_pairs(anchors, gts)[1]
    positive = answer.gt_index >= 0
    assert positive.any() and (answer.iou[~positive] == 0).all()
    expected = iou.gather(0, answer.gt_index.clamp(min=0)[None])[0][positive].float()
    torch.testing.assert_close(answer.iou[positive], expected, rtol=0, atol=1e-6)
    assert answer.gt_index.dtype == torch.int64 and answer.iou.dtype == torch.float32


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_explanations_explain(rule):
    dice = torch.Generator().manual_seed(5)
    anchors = AnchorGrid()((160, 200))
    gts = random_boxes(12, (160, 200), dice)
    why, index = rule.explain(anchors, gts), rule(anchors, gts).gt_index
    assert torch.equal(why.assignment.gt_index, index)
    rows, positive = torch.arange(len(gts))[:, None].expand_as(why.index), why.reason == Reason.POSITIVE
    got = torch.zeros(len(gts), len(anchors), dtype=torch.bool)
    got[rows[positive], why.index[positive]] = True
    assert torch.equal(got, index[None] == torch.arange(len(gts))[:, None])
    lost = why.reason == Reason.LOST
    assert (index[why.index[lost]] != rows[lost]).all()
    starts = torch.tensor([level.start for level in anchors.levels])
    level = torch.bucketize(why.index.contiguous(), starts, right=True) - 1
    assert torch.equal(level, why.level.expand_as(level))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_batch_is_explained_image_by_image(rule):
    "The rows of each image's ground truths, whatever happens in the others."
    dice = torch.Generator().manual_seed(8)
    anchors = AnchorGrid(scales_per_octave=2)((160, 200))
    images = [random_boxes(n, (160, 200), dice) for n in (5, 0, 9, 1)]
    together, alone = rule.explain(anchors, images), [rule.explain(anchors, b) for b in images]
    assert (together.reason == Reason.POSITIVE).any()
    for name in ("index", "reason", "distance", "iou", "margin", "inside"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(one, name) for one in alone])), name


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_loose_anchors_take_the_general_path(seed):
    anchors, gts = random_scene(seed)
    rows = [anchors.boxes[v.start : v.start + v.count] for v in anchors.levels]
    loose = Anchors.loose(rows)
    for rule in (ATSS(), ATSS(k=3), MaxIoU()):
        assert torch.equal(rule(loose, gts).gt_index, rule(anchors, gts).gt_index)
    truths = stack_ground_truths(loose, gts, None)
    ours, other = (
        f(loose, truths, 0.0) for f in (module.best_overlaps, overlapping_module._best_overlaps_on)
    )
    torch.testing.assert_close(ours.iou, other.iou, rtol=0, atol=1e-9)
    assert torch.equal(ours.owner, other.owner) and torch.equal(ours.reserved, other.reserved)


def test_turned_proposals_are_anchors_too():
    for seed in range(60):
        dice = torch.Generator().manual_seed(seed)
        proposals = Anchors.loose([random_boxes(n, (150, 150), dice) for n in (80, 3, 0, 40)])
        gts = random_boxes(6, (150, 150), dice)
        for rule, slowly in ((ATSS(), atss_slowly), (MaxIoU(), max_iou_slowly)):
            assert torch.equal(rule(proposals, gts).gt_index, slowly(proposals, gts, rule)), (seed, rule)
        near = torch.randint(len(proposals), (6, 20), generator=dice)
        pairs = proposals.boxes.double()[near].view(-1, 5), gts.double().repeat_interleave(20, 0)
        other = box_iou_rotated(*pairs, aligned=True).view(6, 20)
        torch.testing.assert_close(compare(proposals, near, gts.double())[1], other, rtol=0, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6))
def test_order_of_ground_truths_only_breaks_ties(seed):
    anchors, gts = random_scene(seed)
    gts = gts.unique(dim=0)
    order = torch.randperm(len(gts), generator=torch.Generator().manual_seed(seed))
    a, b = ATSS()(anchors, gts), ATSS()(anchors, gts[order])
    same = torch.where(b.gt_index >= 0, order[b.gt_index.clamp(min=0)] if len(order) else b.gt_index, -1)
    gap = a.gt_index != same
    torch.testing.assert_close(a.iou[gap], b.iou[gap])


def test_a_later_equal_ground_truth_gets_nothing():
    anchors, box = AnchorGrid()((128, 128)), torch.tensor([[60.0, 60, 50, 20, 0.3]])
    assert set(ATSS()(anchors, box.expand(3, 5)).gt_index.tolist()) == {-1, 0}


def mirrored(seed):
    "Two boxes that are images of each other in a point, a line or a diagonal through the anchor at (64, 64)."
    x, y, w, h, t = (torch.rand(5, generator=torch.Generator().manual_seed(seed)) - 0.5).tolist()
    x, y, w, h = round(256 * x) / 16, round(256 * y) / 16, 8 + 60 * abs(w), 8 + 60 * abs(h)
    image = ((-x, -y, w, h, t), (-x, y, w, h, -t), (y, x, h, w, -t))[seed % 3]
    return torch.tensor([(x, y, w, h, t), image]) + torch.tensor([64, 64, 0, 0, 0])


@pytest.mark.parametrize("rule", [ATSS(), MaxIoU(0.2, 0.1, low_quality=False)], ids=str)
@pytest.mark.parametrize("path", ["compiled", "tensors"])
def test_rounding_does_not_choose_between_mirror_images(rule, path, request):
    if path == "tensors":
        request.getfixturevalue("tensor_path")
    anchors, ties = AnchorGrid()((128, 128)), 0
    for seed in range(300):
        gts = mirrored(seed)
        iou, why = all_pairs(anchors, gts)[1], rule.explain(anchors, gts)
        equal = ((iou[0] - iou[1]).abs() < 1e-12) & (why.assignment.gt_index >= 0)
        assert not equal[why.index[0][why.reason[0] == Reason.LOST]].any(), seed
        ties += int(equal.sum())
    assert ties > 300


# Against recorded ones


def scene(name):
    width, height = RECORDED[f"{name}|img_wh"].tolist()
    return AnchorGrid()((height, width)), torch.from_numpy(RECORDED[f"{name}|gt"]).float()


def recorded(name, key):
    return torch.from_numpy(RECORDED[f"{name}|{key}"].astype(np.int64)) - 1


@pytest.mark.parametrize("name", SCENES)
def test_atss_as_recorded(name):
    anchors, gts = scene(name)
    safe = torch.from_numpy(RECORDED[f"{name}|safe_anchor_mask"].astype(bool))
    expected = {
        "ref_gt_inds_eps0.01": ATSS(),
        "ref_gt_inds_strict": ATSS(margin=0),
        "mmrotate1_le90|gt_inds": ATSS.preset("mmrotate-1.x"),
        "mmrotate0_obb_le90|gt_inds": ATSS.preset("mmrotate-0.x"),
    }
    for key, rule in expected.items():
        if f"{name}|{key}" not in RECORDED.files:  # the peer asked for nine of fewer anchors and raised
            continue
        assert torch.equal(rule(anchors, gts).gt_index[safe], recorded(name, key)[safe]), key
    threshold = ATSS().explain(anchors, gts).threshold.numpy()
    np.testing.assert_allclose(threshold, RECORDED[f"{name}|ref_thr"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SCENES)
def test_horizontal_atss_as_recorded(name):
    anchors, gts = scene(name)
    doubtful = torch.from_numpy(RECORDED[f"{name}|ambiguous_gt_hbb"].astype(bool))
    doubtful = torch.cat([doubtful, torch.zeros(1, dtype=torch.bool)])  # -1: no ground truth
    expected = {
        "ref_hbb_gt_inds": ATSS(upright=True),
        "mmdet2_hbb|gt_inds": ATSS.preset("mmdet"),
        "mmdet3_hbb|gt_inds": ATSS.preset("mmdet"),
        "mmrotate0_circumhbb_oc|gt_inds": ATSS.preset("mmrotate-0.x-hbb"),
    }
    for key, rule in expected.items():
        if f"{name}|{key}" not in RECORDED.files:
            continue
        ours, theirs = rule(anchors, gts).gt_index, recorded(name, key)
        clear = ~doubtful[ours] & ~doubtful[theirs]
        assert torch.equal(ours[clear], theirs[clear]), key
    upright = hbb2obb(obb2hbb(gts))
    ours, again = ATSS.preset("mmdet")(anchors, gts).gt_index, ATSS()(anchors, upright).gt_index
    clear = ~doubtful[ours] & ~doubtful[again]
    assert torch.equal(ours[clear], again[clear])  # a horizontal box is an oriented one


NINE = AnchorGrid(scales_per_octave=3, ratios=(1.0, 0.5, 2.0))  # ratios in the peer's order


@pytest.mark.parametrize("key, grid", [("1anchor", AnchorGrid()), ("9anchor", NINE)])
def test_max_iou_as_recorded(key, grid):
    "Where the peer's overlaps, whose errors are recorded, leave no doubt about a threshold or a tie."
    clear, doubtful = 0, 0
    for name in [n for n in SCENES if f"{n}|mmrotate0_maxiou_{key}|gt_inds" in RECORDED.files]:
        width, height = RECORDED[f"{name}|img_wh"].tolist()
        anchors, gts = grid((height, width)), scene(name)[1]
        iou = all_pairs(anchors, gts)[1]
        if (
            not len(gts) or (iou.amax(1) == 0).any()
        ):  # the peer gives such a ground truth all anchors it misses
            continue
        error = torch.from_numpy(RECORDED[f"{name}|mmcv_iou_err_per_gt"]).double()[:, None] + 1e-4
        best = iou.amax(0)
        doubt = ((best - 0.5).abs() < error.max()) | ((best - 0.4).abs() < error.max())
        close = (iou > best - 2 * error) & (best > 0.4)
        doubt |= close.sum(0) > 1
        top = iou >= iou.amax(1, keepdim=True) - 2 * error  # may be the best anchor of its ground truth
        doubt |= (top & (top.sum(1, keepdim=True) > 1)).any(0)
        ours = MaxIoU()(anchors, gts).gt_index
        theirs = recorded(name, f"mmrotate0_maxiou_{key}|gt_inds")
        assert torch.equal(ours[~doubt], theirs[~doubt]), name
        clear += int((~doubt & (best > 0.2)).sum())
        doubtful += int((doubt & (best > 0.2)).sum())
    assert clear > 2 * doubtful


@pytest.mark.parametrize(
    "rule", [ATSS(margin=0.0), ATSS(margin=16.0), CenterSampling(2.0, ((-1, inf),), 16.0)], ids=str
)
@pytest.mark.parametrize("path", ["compiled", "tensors"])
def test_a_center_exactly_at_the_margin_is_outside(rule, path, request):
    if path == "tensors":
        request.getfixturevalue("tensor_path")
    anchors, box = AnchorGrid((16,))((80, 96)), torch.tensor([[40.0, 32, 48, 64, 0]])
    why = rule.explain(anchors, box)  # centers at x = 16, 32, 48, 64: depth 0, 16, 16, 0
    at = (why.margin == rule.margin) & (why.iou > 0)
    assert at.any() and not why.inside[at].any() and (why.reason[at] != Reason.POSITIVE).all()
    if rule.margin == 0:
        assert why.inside.any() and why.inside[why.margin > 0].all()


@pytest.mark.parametrize("path", ["compiled", "tensors"])
def test_an_overlap_exactly_at_a_threshold_reaches_it(path, request):
    "0.5 is positive, 0.4 ignored; a hair less is not."
    if path == "tensors":
        request.getfixturevalue("tensor_path")
    anchors, rule = (
        Anchors.loose([torch.tensor([[20.0, 20, 20, 20, 0]])]),
        MaxIoU(0.5, 0.4, low_quality=False),
    )
    for height, index in ((10, 0), (9.999, -2), (8, -2), (7.999, -1)):
        box = torch.tensor([[20.0, 20, 20, height, 0]])
        assert rule(anchors, box).gt_index.tolist() == [index], height
    reasons = [
        rule.explain(anchors, torch.tensor([[20.0, 20, 20, h, 0]])).reason.item() for h in (10, 8, 7.999)
    ]
    assert reasons == [Reason.POSITIVE, Reason.BETWEEN, Reason.BELOW_THRESHOLD]


def test_both_ends_of_a_range_of_sizes_are_in_it():
    "An object that reaches exactly 64 px from its center belongs to the levels up to and from 64 px."
    anchors, box = AnchorGrid((8, 16))((160, 160)), torch.tensor([[64.0, 64, 128, 128, 0]])
    index = CenterSampling(0.5, ((-1, 64), (64, inf)))(anchors, box).gt_index
    at = (anchors.boxes[:, :2] == 64).all(1)
    assert at.sum() == 2 and torch.equal(index >= 0, at)


def test_the_best_anchor_needs_min_pos():
    "Exactly `min_pos` is enough; the overlap that is reported is its own, whatever came before."
    anchors, boxes = (
        Anchors.loose([torch.tensor([[20.0, 20, 20, 20, 0]])]),
        torch.tensor([[20.0, 20, 20, 4, 0]]),
    )
    assert MaxIoU(0.5, 0.4, 0.2)(anchors, boxes).gt_index.tolist() == [0]
    assert MaxIoU(0.5, 0.4, 0.2 + 1e-6)(anchors, boxes).gt_index.tolist() == [-1]
    pair = torch.tensor([[20.0, 20, 20, 16, 0], [20, 20, 20, 4, 0]])
    assert MaxIoU()(anchors, pair).gt_index.tolist() == [1]
    torch.testing.assert_close(MaxIoU()(anchors, pair).iou, torch.tensor([0.2]))


def test_defaults_are_those_of_the_literature():
    "ATSS as mmrotate 1.x, the thresholds of RetinaNet, the ranges and the radius of FCOS."
    assert ATSS() == ATSS(k=9, per_location=False, margin=0.01, upright=False)
    assert MaxIoU() == MaxIoU(pos=0.5, neg=0.4, min_pos=0.0, low_quality=True)
    ranges = ((-1, 64), (64, 128), (128, 256), (256, 512), (512, inf))
    assert CenterSampling() == CenterSampling(radius=1.5, ranges=ranges, margin=0.01)


def test_presets_differ_only_where_they_say():
    assert ATSS.preset("mmrotate-1.x") == ATSS() and ATSS.preset("paper", k=5).k == 5
    assert ATSS.preset("paper").per_location and ATSS.preset("mmdet").upright
    with pytest.raises(ValueError, match="expected one of 'paper', 'mmdet'"):
        ATSS.preset("yolo")


# The tensor path of a GPU, on a CPU and without data


@pytest.fixture
def tensor_path(monkeypatch):
    def nearest(anchors, points, ks):
        parts = zip(anchors.levels, ks, strict=True)
        return torch.cat([nearest_module._nearest_on(anchors.boxes, v, points, k) for v, k in parts], 1)

    monkeypatch.setattr(module, "nearest_anchors", nearest)
    monkeypatch.setattr(module, "compare", anchors_module._compare_on)
    monkeypatch.setattr(module, "best_overlaps", overlapping_module._best_overlaps_on)


@pytest.mark.usefixtures("tensor_path")
def test_tensor_path_is_the_definition():
    for seed in range(150):
        anchors, gts = random_scene(seed)
        for rule, slowly in ((ATSS(), atss_slowly), (ATSS(4, True), atss_slowly), (MaxIoU(), max_iou_slowly)):
            assert torch.equal(rule(anchors, gts).gt_index, slowly(anchors, gts, rule)), (seed, rule)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_tensor_path_reads_nothing_back(rule):
    "On the meta device there are no numbers: whoever wants to look at one fails."
    anchors = AnchorGrid()((512, 512), "meta")
    boxes = [torch.empty(n, 5, device="meta") for n in (7, 0, 30)]
    answer = rule(anchors, boxes, [torch.empty(len(b), dtype=torch.bool, device="meta") for b in boxes])
    assert answer.gt_index.device.type == "meta" and answer.gt_index.shape == (3, len(anchors))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_gpu_agrees_without_waiting(rule):
    dice = torch.Generator().manual_seed(6)
    images = [random_boxes(n, (512, 512), dice) for n in (40, 0, 200)]
    anchors = AnchorGrid()((512, 512), "cuda")
    on_gpu = [b.cuda() for b in images]
    rule(anchors, on_gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        answer = rule(anchors, on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(answer.gt_index.cpu(), rule(AnchorGrid()((512, 512)), images).gt_index)


# Faults


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_nothing_to_assign(rule):
    anchors = AnchorGrid()((64, 64))
    for empty in (torch.zeros(0, 5), torch.zeros(0, 5).double()):
        answer = rule(anchors, empty)
        assert (answer.gt_index == -1).all() and (answer.iou == 0).all()
        assert rule.explain(anchors, empty).reason.shape[0] == 0
    assert rule(anchors, []).gt_index.shape == (0, len(anchors))
    no_anchors = AnchorGrid()((0, 64))
    assert rule(no_anchors, torch.tensor([[5.0, 5, 5, 5, 0]])).gt_index.shape == (0,)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_no_area_no_positives(rule):
    anchors = AnchorGrid()((128, 128))
    odd = torch.tensor(
        [[64.0, 64, 0, 40, 0.3], [64, 64, 40, 0, 0], [32, 32, 0, 0, 0], [1e6, -1e6, 50, 50, 1]]
    )
    assert (rule(anchors, odd).gt_index == -1).all()
    ship = torch.tensor([[60.0, 60, 50, 30, 0.3]])
    mixed, alone = rule(anchors, torch.cat([odd, ship])).gt_index, rule(anchors, ship).gt_index
    assert torch.equal(mixed, torch.where(alone >= 0, alone + 4, alone))


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("value", [nan, inf, -5.0])
def test_what_is_no_box_is_refused(rule, value):
    anchors, boxes = AnchorGrid()((64, 64)), torch.rand(4, 5) + 1
    boxes[2, 3] = value
    with pytest.raises(ValueError, match=r"gt_boxes.* row 2"):
        rule(anchors, boxes)
    with pytest.raises(ValueError, match=r"gt_boxes\[1\].* row 2"):
        rule(anchors, [boxes[:2], boxes])


def test_wrong_arguments_are_refused():
    anchors, boxes = AnchorGrid()((64, 64)), torch.rand(4, 5) + 1
    for wrong in (boxes[0], boxes[:, :4], boxes[None]):
        with pytest.raises(ValueError, match=r"gt_boxes must have shape \(G, 5\)"):
            ATSS()(anchors, wrong)
    with pytest.raises(ValueError, match="ignore: expected 4 flags"):
        ATSS()(anchors, boxes, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError):
        ATSS()(anchors, [boxes, boxes], [torch.zeros(4, dtype=torch.bool)])
    with pytest.raises(ValueError, match="floating point"):
        ATSS()(anchors, boxes.long())
    with pytest.raises(ValueError, match="k: expected at least 1"):
        ATSS(k=0)(anchors, boxes)
    with pytest.raises(ValueError, match="levels on grids"):
        CenterSampling()(Anchors.loose([boxes] * 5), boxes)
    grid = AnchorGrid((8,))((64, 64))
    mixed = Anchors(grid.boxes, (*grid.levels, AnchorLevel(0, 1, 0, start=len(grid))))
    with pytest.raises(ValueError, match="expected 2 levels on grids"):
        CenterSampling(ranges=((-1, 64), (64, inf)))(mixed, boxes)
    with pytest.raises(ValueError, match="expected 5 levels"):
        CenterSampling()(AnchorGrid(strides=(8,))((64, 64)), boxes)


def test_ground_truths_are_not_changed_and_need_no_gradient():
    anchors = AnchorGrid()((64, 64))
    boxes = torch.tensor([[30.0, 30, 20, 10, 0.5]], requires_grad=True)
    before = boxes.detach().clone()
    answer = ATSS.preset("mmdet")(anchors, boxes)
    assert torch.equal(boxes.detach(), before) and not answer.iou.requires_grad


def test_inside_is_inside():
    dice = torch.Generator().manual_seed(9)
    anchors = AnchorGrid()((256, 256))
    gts = random_boxes(60, (256, 256), dice).double()
    index = ATSS()(anchors, gts).gt_index
    depth = inside_margin(anchors.boxes[:, :2].double(), gts)
    assert (depth.gather(1, index.clamp(min=0)[:, None])[index >= 0] > 0.01).all()
