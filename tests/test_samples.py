"Anchors and coders against recorded ones, the nearest anchors against the slow way, and the way there and back."

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atss_nb.geometry.boxes import AngleDef, obb2poly, regularize
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.samples import anchors as anchors_module
from atss_nb.samples import nearest as module
from atss_nb.samples.anchors import AnchorGrid, Anchors, compare
from atss_nb.samples.coders import DeltaXYWHA, DistanceLTRB, wrap_half_turn
from atss_nb.samples.nearest import nearest_anchors

GOLDEN = Path(__file__).parent / "golden"
RECORDED = np.load(GOLDEN / "05_anchors.npz")
LEVELS = json.loads((GOLDEN / "05_anchors.json").read_text())
CODER = np.load(GOLDEN / "04_box_coder.npz")
GRIDS = {
    "atss_spo1_r1": AnchorGrid(),
    "retina_spo3_r3": AnchorGrid(scales_per_octave=3, ratios=(1.0, 0.5, 2.0)),
    "spo3_r3_paperorder": AnchorGrid(scales_per_octave=3, ratios=(0.5, 1.0, 2.0)),
    "spo1_r3": AnchorGrid(ratios=(0.5, 1.0, 2.0)),
    "spo3_r1": AnchorGrid(scales_per_octave=3),
}


# Anchors


@pytest.mark.parametrize("key", [k for k in RECORDED.files if k.count("|") == 1])
def test_anchors_as_recorded(key):
    size, name = key.split("|")
    width, height = map(int, size.split("x"))
    anchors = GRIDS[name]((height, width))
    torch.testing.assert_close(anchors.boxes, torch.from_numpy(RECORDED[key]), rtol=0, atol=1e-4)
    assert [level.count for level in anchors.levels] == RECORDED[key + "|num_level"].tolist()
    if name == "atss_spo1_r1":
        assert (anchors.boxes.numpy() == RECORDED[key]).all()


@pytest.mark.parametrize("row", LEVELS, ids=lambda r: f"{r['image']}-{r['config']}-{r['level']}")
def test_levels_as_recorded(row):
    grid = GRIDS.get(row["config"])
    if grid is None:
        pytest.fail(f"the recording has a configuration that is not tested: {row['config']}")
    anchors = grid((row["image"][1], row["image"][0]))
    level = anchors.levels[row["level"]]
    boxes = anchors.boxes[level.start : level.start + level.count]
    assert (level.stride, level.height, level.width) == (row["stride"], *row["featmap_hw"])
    assert (level.count, level.per_location) == (row["num"], row["num_base"])
    np.testing.assert_allclose(boxes[:12], row["first_rows"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(boxes[-1], row["last_row"], rtol=0, atol=1e-4)
    if row["config"] == "atss_spo1_r1":
        assert hashlib.sha256(boxes.numpy().astype("<f4").tobytes()).hexdigest() == row["sha256_f32_le"]


@pytest.mark.parametrize("name", ["atss_spo1_r1", "retina_spo3_r3"])
@pytest.mark.parametrize("angle", AngleDef)
def test_legal_angles_as_recorded(name, angle):
    grid = AnchorGrid(scales_per_octave=GRIDS[name].scales_per_octave, ratios=GRIDS[name].ratios, angle=angle)
    ours, recorded = grid((384, 512)).boxes, torch.from_numpy(RECORDED[f"512x384|{name}|v1_{angle.value}"])
    overlap = box_iou_rotated(ours.double(), recorded.double(), aligned=True)
    assert overlap.min() > 1 - 1e-5
    if angle is AngleDef.OC:
        assert ((ours[:, 4] > 0) & (ours[:, 4] <= math.pi / 2 + 1e-6)).all()
    else:
        assert (ours[:, 2] >= ours[:, 3]).all()


def test_points_loose_and_cache():
    anchors = GRIDS["retina_spo3_r3"]((100, 60))
    assert torch.equal(anchors.points, AnchorGrid()((100, 60)).boxes[:, :2])
    assert GRIDS["retina_spo3_r3"]((100, 60)) is anchors
    assert GRIDS["spo3_r3_paperorder"]((100, 60)) is not anchors
    loose = Anchors.loose([anchors.boxes[:7], anchors.boxes[:0], anchors.boxes[7:9]])
    assert [(v.count, v.start, v.stride) for v in loose.levels] == [(7, 0, 0), (0, 7, 0), (2, 7, 0)]
    assert len(loose) == 9


def test_anchors_from_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        boxes = AnchorGrid(strides=(8,))((40, 48)).boxes
    weight = torch.ones(5, requires_grad=True)
    (boxes * weight).sum().backward()
    assert weight.grad is not None


@st.composite
def grids(draw):
    strides = draw(st.lists(st.sampled_from([4, 8, 12, 16, 10.7, 32, 64]), min_size=1, max_size=3))
    options = {
        "scales_per_octave": draw(st.integers(1, 3)),
        "center_offset": draw(st.sampled_from([0.0, 0.5])),
    }
    ratios = draw(st.sampled_from([(1.0,), (0.5, 2.0), (0.5, 1.0, 2.0)]))
    return AnchorGrid(tuple(strides), 4, ratios=ratios, **options)


@settings(max_examples=200, deadline=None)
@given(
    grids(), st.tuples(st.integers(1, 150), st.integers(1, 150)), st.integers(1, 30), st.integers(0, 10**6)
)
def test_nearest_anchors_are_the_nearest(grid, size, k, seed):
    anchors, dice = grid(size), torch.Generator().manual_seed(seed)
    points = torch.rand(8, 2, generator=dice).double() * 400 - 120
    points[::2] = (points[::2] / 2).round() * 2
    points[0] = 1e7
    ks = [min(k, level.count) for level in anchors.levels]
    slow = []
    for level, n in zip(anchors.levels, ks, strict=True):
        centres = anchors.boxes[level.start : level.start + level.count, :2].double()
        distance = (centres[None] - points[:, None]).square().sum(-1)
        slow.append(distance.sort(dim=1, stable=True).indices[:, :n] + level.start)
        assert torch.equal(module._nearest_on(anchors.boxes, level, points, n), slow[-1])
    assert torch.equal(nearest_anchors(anchors, points, ks), torch.cat(slow, 1))


def test_nearest_of_anchors_that_stand_anywhere():
    dice = torch.Generator().manual_seed(2)
    parts = [torch.rand(n, 5, generator=dice) * 100 for n in (40, 7)]
    parts[0][5] = parts[0][3]  # equally far: the lower index first
    loose, points = Anchors.loose(parts), torch.rand(12, 2, generator=dice).double() * 140 - 20
    points[0] = parts[0][3, :2].double()
    near = nearest_anchors(loose, points, [6, 3])
    for part, columns, start in ((parts[0], near[:, :6], 0), (parts[1], near[:, 6:], 40)):
        distance = (part[None, :, :2].double() - points[:, None]).square().sum(-1)
        assert torch.equal(columns - start, distance.sort(dim=1, stable=True).indices[:, : columns.shape[1]])
    assert near[0, :2].tolist() == [3, 5]


def test_nearest_anchors_is_compiled_to_a_cache():
    nearest_anchors(AnchorGrid()((64, 64)), torch.zeros(1, 2).double(), [1] * 5)
    stats = module._nearest_all.stats
    assert stats.cache_path and sum(stats.cache_hits.values()) + sum(stats.cache_misses.values()) > 0


def test_compare_agrees_with_the_geometry():
    dice = torch.Generator().manual_seed(0)
    anchors = GRIDS["retina_spo3_r3"]((128, 128))
    boxes = torch.rand(20, 5, generator=dice).double() * torch.tensor([160, 160, 120, 60, 3])
    index = torch.randint(len(anchors), (20, 30), generator=dice)
    ours, other = compare(anchors, index, boxes), anchors_module._compare_on(anchors, index, boxes)
    for a, b in zip(ours, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


# Coders

KEYS = [key.removeprefix("enc0|") for key in CODER.files if key.startswith("enc0|")]


def numbers(name: str) -> torch.Tensor:
    return torch.from_numpy(CODER[name])


@pytest.mark.parametrize("key", KEYS)
def test_coder_as_recorded(key):
    angle, nf, es, pxy = key.split("|")
    factor = None if nf == "nf=None" else float(nf[3:])
    coder = DeltaXYWHA(angle, factor, es == "es=1", pxy == "pxy=1")
    anchors, boxes, deltas = numbers(f"anchor_{angle}"), numbers(f"gt_{angle}"), numbers("delta_in")
    shape = tuple(CODER["max_shape"].tolist())
    results = {
        "enc0": coder.encode(anchors, boxes),
        "dec0": coder.decode(anchors, deltas),
        "dec1": coder.decode(anchors, deltas),
        "dec0clip": coder.decode(anchors, deltas, shape),
        "dec0_of_enc": coder.decode(anchors, coder.encode(anchors, boxes)),
    }
    for name, ours in results.items():
        torch.testing.assert_close(ours, numbers(f"{name}|{key}"), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("angle", ["oc", "le135", "le90"])
def test_means_and_stds_as_recorded(angle):
    means, stds = (tuple(CODER[name].tolist()) for name in ("means", "stds"))
    coder = DeltaXYWHA(angle, None, True, True, means, stds)
    anchors = numbers(f"anchor_{angle}")
    encoded, decoded = (
        coder.encode(anchors, numbers(f"gt_{angle}")),
        coder.decode(anchors, numbers("delta_in")),
    )
    torch.testing.assert_close(encoded, numbers(f"meanstd_enc0|{angle}"), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded, numbers(f"meanstd_dec0|{angle}"), rtol=1e-5, atol=1e-5)


def test_presets():
    chosen = {a: DeltaXYWHA.preset(a) for a in AngleDef}
    assert [
        (c.norm_factor, c.edge_swap, c.proj_xy)
        for c in (chosen[AngleDef(a)] for a in ("oc", "le135", "le90"))
    ] == [
        (None, False, False),
        (1, False, True),
        (None, True, True),
    ]
    assert DeltaXYWHA.preset("le90", proj_xy=False).proj_xy is False
    with pytest.raises(ValueError):
        DeltaXYWHA.preset("le45")


sides = st.floats(1, 500)
rectangle = st.tuples(st.floats(-800, 800), st.floats(-800, 800), sides, sides, st.floats(-7, 7))


def corners(box: torch.Tensor) -> torch.Tensor:
    "Corners from a start that does not depend on the name of the box."
    poly = obb2poly(box)
    angles = torch.atan2(*(poly - box[:2]).flip(-1).unbind(-1))
    return poly[angles.argsort()]


def same_rectangle(a: torch.Tensor, b: torch.Tensor) -> bool:
    gap = torch.cdist(corners(a), corners(b)).min(1).values.max()
    return bool(gap < 1e-6 * (1 + b.abs().max()))


@settings(max_examples=300, deadline=None)
@given(rectangle, rectangle, st.sampled_from(list(AngleDef)), st.booleans(), st.booleans())
def test_there_and_back(anchor, box, angle, edge_swap, proj_xy):
    anchor, box = (regularize(torch.tensor(v, dtype=torch.float64), angle) for v in (anchor, box))
    if (box[2:4] / anchor[2:4]).log().abs().max() > 4 or (box[[3, 2]] / anchor[2:4]).log().abs().max() > 4:
        return  # decoding does not reach that far
    means, stds = (0.1, -0.2, 0.0, 0.3, 0.05), (0.1, 0.1, 0.2, 0.2, 0.1)
    for coder in (DeltaXYWHA.preset(angle), DeltaXYWHA(angle, 2, edge_swap, proj_xy, means, stds)):
        assert same_rectangle(coder.decode(anchor, coder.encode(anchor, box)), box)


@settings(max_examples=200, deadline=None)
@given(rectangle, rectangle, st.floats(-3, 3), st.floats(0.2, 5))
def test_deltas_of_a_turned_and_resized_image_are_the_same(anchor, box, turn, scale):
    pair = torch.tensor([anchor, box], dtype=torch.float64)
    cos, sin = math.cos(turn), math.sin(turn)
    moved = pair.clone()
    moved[:, :2] = pair[:, :2] @ torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    moved[:, :4] *= scale
    moved[:, 4] += turn
    coder = DeltaXYWHA("le90", proj_xy=True)
    gap = (coder.encode(*pair) - coder.encode(*moved)).abs()
    gap[4] = min(gap[4], math.pi - gap[4])
    assert gap.max() < 1e-6 * (1 + coder.encode(*pair).abs().max())


@example((0.0, 0.0, 1.0, 2.0, -2.220446049250313e-16), 0.0, 0.25, AngleDef.LE90, False)
@settings(max_examples=200, deadline=None)
@given(
    rectangle, st.floats(-0.49, 0.49), st.floats(-0.49, 0.49), st.sampled_from(list(AngleDef)), st.booleans()
)
def test_distances_there_and_back(box, u, v, angle, in_sides):
    box = regularize(torch.tensor(box, dtype=torch.float64), angle)
    cos, sin = box[4].cos(), box[4].sin()
    du, dv = u * box[2], v * box[3]
    point = box[:2] + torch.stack([du * cos - dv * sin, du * sin + dv * cos])
    anchor = torch.cat([point, torch.tensor([24.0, 40.0, 0.0])])
    coder = DistanceLTRB(angle, in_sides)
    distances = coder.encode(anchor, box)
    assert (distances[:4] > 0).all()
    assert same_rectangle(coder.decode(anchor, distances), box)
    if not in_sides:
        assert torch.equal(coder.encode(point, box), distances)


def test_distances_below_zero_and_shape():
    coder = DistanceLTRB("le90")
    box = coder.decode(torch.tensor([[5.0, 6.0]]), torch.tensor([[-3.0, 2, -1, 2, 4.0]]), max_shape=(4, 4))
    assert box[0, :4].tolist() == [3, 3, 0, 4]
    assert -math.pi / 2 <= box[0, 4] < math.pi / 2


def test_coder_computes_in_float32_at_least():
    anchors, deltas = torch.tensor([[1000.5, 2000.5, 32, 32, 0]]), torch.zeros(1, 5)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        decoded = DeltaXYWHA("le90").decode(anchors, deltas.to(dtype))
        assert decoded.dtype == torch.float32 and decoded[0, :2].tolist() == [1000.5, 2000.5]
    assert DeltaXYWHA("le90").decode(anchors.double(), deltas.double()).dtype == torch.float64


def test_decoding_is_differentiable_and_broadcasts():
    anchors = AnchorGrid()((64, 64)).boxes
    deltas = (torch.randn(3, len(anchors), 5) * 0.1).requires_grad_()
    for coder in (DeltaXYWHA.preset("le90"), DeltaXYWHA.preset("le135"), DistanceLTRB("le90", in_sides=True)):
        boxes = coder.decode(anchors, deltas)
        assert boxes.shape == deltas.shape
        (grad,) = torch.autograd.grad(boxes.sum(), deltas)
        assert grad.isfinite().all()


@pytest.mark.parametrize("side", [0.0, -3.0, math.nan])
def test_boxes_without_sides_are_refused(side):
    boxes = torch.tensor([[0.0, 0, 0.5, 5, 0], [0, 0, side, 5, 0]])
    with pytest.raises(ValueError, match="boxes, row 1: expected sides > 0"):
        DeltaXYWHA("le90").encode(boxes.abs().nan_to_num(1) + 1, boxes)


def test_no_boxes_are_no_problem():
    empty = torch.zeros(0, 5)
    for coder in (DeltaXYWHA.preset("oc"), DistanceLTRB("oc")):
        assert coder.encode(empty, empty).shape == coder.decode(empty, empty).shape == (0, 5)


@settings(max_examples=200, deadline=None)
@given(st.floats(-50, 50), st.sampled_from(["le90", "le135"]))
def test_wrapped_angles_are_the_same_direction(angle, definition):
    wrapped = wrap_half_turn(torch.tensor(angle, dtype=torch.float64), definition).item()
    start = {"le90": -math.pi / 2, "le135": -math.pi / 4}[definition]
    assert start - 1e-12 <= wrapped <= start + math.pi
    assert abs(math.sin(wrapped - angle)) < 1e-9
