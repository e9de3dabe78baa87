"Quadrilaterals of any shape against Shapely, and against the formula of DOTA's kit in its plainest form."

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.geometry.boxes import obb2poly
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.geometry.quads import batched_nms_polygons, quad_iou

corners = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=4, max_size=4)


def signed(points) -> float:
    x, y = np.asarray(points, float).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def twin(a: np.ndarray, b: np.ndarray) -> float:
    "Sixteen pairs of triangles that meet at the origin, each pair shared by Shapely, with the product of their signs."
    shared = 0.0
    for p in zip(a, np.roll(a, -1, 0), strict=True):
        for q in zip(b, np.roll(b, -1, 0), strict=True):
            one, two = [(0, 0), *p], [(0, 0), *q]
            sign = np.sign(signed(one)) * np.sign(signed(two))
            if sign:
                shared += sign * shapely.Polygon(one).intersection(shapely.Polygon(two)).area
    shared *= 1 if (signed(a) < 0) == (signed(b) < 0) else -1
    union = abs(signed(a)) + abs(signed(b)) - shared
    return min(max(shared / union, 0.0), 1.0) if union > 1e-9 else 0.0


@settings(max_examples=60, deadline=None)
@given(corners, corners)
def test_any_outline_gives_what_the_kit_defines(a, b):
    a, b = np.array(a, float), np.array(b, float)
    assert quad_iou([a], [b])[0, 0] == pytest.approx(twin(a, b), abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(corners, corners, st.integers(0, 3), st.integers(0, 3))
def test_simple_outlines_agree_with_shapely(a, b, turn_a, turn_b):
    one, two = shapely.Polygon(a), shapely.Polygon(b)
    if not (one.is_valid and two.is_valid and one.area and two.area):
        return
    expected = one.intersection(two).area / one.union(two).area
    for flip in (1, -1):
        a_ = np.roll(np.array(a, float), turn_a, 0)[::flip]
        got = quad_iou([a_], [np.roll(np.array(b, float), turn_b, 0)])[0, 0]
        assert got == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("shift", [0.0, 1e4, -3e5])
def test_rectangles_agree_with_boxes_wherever_they_are(shift):
    import torch

    rng = np.random.default_rng(1)
    boxes = torch.tensor(rng.uniform([0, 0, 5, 5, -2], [60, 60, 40, 30, 2], (40, 5)))
    boxes[:, :2] += shift
    expected = box_iou_rotated(boxes, boxes).numpy()
    assert np.abs(quad_iou(obb2poly(boxes).numpy(), obb2poly(boxes).numpy()) - expected).max() < 1e-6


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_whatever_their_size(scale):
    quad = np.array([[0.0, 0], [3, 1], [2, 4], [0, 2]]) * scale
    half = np.array([[0.0, 0], [3, 1], [2, 4], [0, 0]]) * scale
    assert quad_iou([quad], [quad])[0, 0] == pytest.approx(1)
    assert quad_iou([quad], [half])[0, 0] == pytest.approx(5 / 7)  # of areas 7 and 5


def test_nothing_and_nonsense():
    assert quad_iou(np.zeros((0, 4, 2)), np.zeros((3, 4, 2))).shape == (0, 3)
    assert quad_iou(np.zeros((2, 4, 2)), np.ones((2, 4, 2))).max() == 0
    for bad in (np.full((1, 4, 2), np.nan), np.full((1, 4, 2), np.inf), np.zeros((1, 5, 2)), np.zeros(8)):
        with pytest.raises(ValueError, match="polys1"):
            quad_iou(bad, np.zeros((1, 4, 2)))


def kept_by_definition(polys, scores, groups, threshold) -> list[int]:
    "Group by group, the best that no kept one covers."
    kept = []
    for group in np.unique(groups):
        mine = []
        for i in np.argsort(-scores, kind="stable"):
            covered = [quad_iou(polys[[i]], polys[[j]])[0, 0] > threshold for j in mine]
            if groups[i] == group and not any(covered):
                mine.append(i)
        kept += mine
    return kept


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.4, 1.0])
@pytest.mark.parametrize("extent", [30, 100])
def test_suppression_is_the_definition(threshold, extent):
    rng = np.random.default_rng(extent)
    polys = rng.uniform(0, extent, (80, 1, 2)) + rng.uniform(-20, 20, (80, 4, 2))
    scores, groups = rng.integers(0, 9, 80) / 9, rng.integers(0, 3, 80) * 1000  # equal scores keep the first
    kept = batched_nms_polygons(polys, scores, groups, threshold)
    assert kept.tolist() == kept_by_definition(polys, scores, groups, threshold)


def test_neighbours_that_touch_stay():
    square = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
    grid = np.stack([square + [10 * x, 10 * y] for x in range(3) for y in range(3)])
    assert sorted(batched_nms_polygons(grid, np.ones(9), np.zeros(9), 0.0)) == [*range(9)]
    assert batched_nms_polygons(grid[:0], np.ones(0), np.zeros(0), 0.5).shape == (0,)
