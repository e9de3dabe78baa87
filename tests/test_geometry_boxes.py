"Boxes against reference conversions, torchvision's own formats, and properties over every pair of conventions."

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import convert_bounding_box_format
from torchvision.tv_tensors import BoundingBoxes

from atss_nb.geometry.boxes import (
    AngleDef,
    check_boxes,
    flip_boxes,
    hbb2obb,
    inside_margin,
    obb2hbb,
    obb2poly,
    poly2obb,
    regularize,
    rotate_boxes,
    scale_boxes,
    shift_boxes,
)
from atss_nb.geometry.conventions import convert
from atss_nb.geometry.polygons import hull_area

GOLDEN = np.load(Path(__file__).parent / "golden" / "03_conversions.npz")
KIND = GOLDEN["category"]
RECTANGLE = ~np.isin(KIND, ["quad_not_rect_int", "degenerate"])
DEFINITIONS = [d.value for d in AngleDef]
RANGES = {  # lowest angle, highest angle, lowest included, side w >= h
    "oc": (0, math.pi / 2, False, False),
    "oc_old": (-math.pi / 2, 0, True, False),
    "ultralytics": (0, math.pi / 2, True, False),
    "le90": (-math.pi / 2, math.pi / 2, True, True),
    "le135": (-math.pi / 4, 3 * math.pi / 4, True, True),
    "detectron2": (-180, 180, True, False),
    "torchvision": (-180, 180, True, False),
    "torchvision_xywhr": (-180, 180, True, False),
    "torchvision_xyxyxyxy": None,
}
definition = pytest.mark.parametrize("name", DEFINITIONS)


def polygons(key: str) -> torch.Tensor:
    return torch.tensor(GOLDEN[key]).double().view(-1, 4, 2)


def turn_between(a, b) -> np.ndarray:
    "Angle between two directions without a head."
    return np.abs((a - b + math.pi / 2) % math.pi - math.pi / 2)


def corner_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    "How far the corners of two boxes lie apart, as sets."
    return torch.cdist(obb2poly(a.double()), obb2poly(b.double())).amin(-1).max().item()


@definition
@pytest.mark.parametrize("fit", ["min_area", "edges"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poly2obb_gives_the_true_box(name, fit, dtype):
    boxes, true = poly2obb(polygons("poly").to(dtype), name, fit).double(), GOLDEN[f"true_obb_{name}"]
    assert corner_distance(boxes[RECTANGLE], torch.tensor(true)[RECTANGLE]) < 1e-3
    clear = RECTANGLE & ~GOLDEN[f"ambiguous_{name}"]
    assert np.abs(boxes.numpy() - true)[clear, :4].max() < 1e-3
    assert turn_between(boxes.numpy()[clear, 4], true[clear, 4]).max() < 1e-4


def test_quadrilaterals_that_are_no_rectangles():
    quads = KIND == "quad_not_rect_int"
    edges, theirs = poly2obb(polygons("poly")[quads], "le135", "edges"), GOLDEN["np_poly2obb_le135"][quads]
    there = np.isfinite(theirs).all(1)
    np.testing.assert_allclose(edges[there], theirs[there], atol=1e-4)
    smallest = poly2obb(polygons("poly")[quads], "le90")[:, 2:4].prod(1)
    best = shapely.area(shapely.oriented_envelope(shapely.multipoints(polygons("poly")[quads].numpy())))
    np.testing.assert_allclose(smallest, best, rtol=1e-9)


@definition
def test_regularize_and_the_ways_out(name):
    wild, canonical = torch.tensor(GOLDEN["wild_obb"]).double(), GOLDEN[f"obb_{name}"]
    np.testing.assert_allclose(regularize(wild, name), canonical, atol=1e-6)
    boxes = torch.tensor(canonical).double()
    np.testing.assert_allclose(obb2hbb(boxes), GOLDEN[f"obb2xyxy_{name}"], atol=1e-3)
    assert torch.cdist(obb2poly(boxes), polygons(f"obb2poly_{name}")).amin(-1).max() < 1e-3


def test_old_oc_is_a_different_definition():
    wild = torch.tensor(GOLDEN["wild_obb"]).double()
    np.testing.assert_allclose(convert(wild, "le90", "oc_old"), GOLDEN["v1_regularize64_oc"], atol=1e-12)


# floats that make trouble: whole quarter turns and their neighbours
QUARTERS = [math.nextafter(k * math.pi / 4, to) for k in range(-9, 10) for to in (-99, k * math.pi / 4, 99)]
angles = st.one_of(st.sampled_from(QUARTERS), st.floats(-30, 30))
sides = st.one_of(st.sampled_from([0.0, 1.0, 1.0, 50.0]), st.floats(0.01, 2000))
centres = st.floats(-3000, 3000)
batches = st.lists(st.tuples(centres, centres, sides, sides, angles), min_size=1, max_size=20)
PAIRS = list(itertools.product(RANGES, RANGES))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=12, deadline=None)
@given(rows=batches)
def test_every_pair_of_conventions(dtype, rows):
    ours = torch.tensor(rows, dtype=dtype)
    far = 1e-9 if dtype == torch.float64 else 3e-3
    for src, dst in PAIRS:
        there = convert(convert(ours, "le90", src), src, dst)
        assert there.dtype == dtype
        assert corner_distance(convert(there, dst, "le90"), ours) < far, (src, dst)
        again = convert(there, dst, dst)
        if dst in ("oc", "oc_old", "ultralytics", "le90", "le135"):
            assert torch.equal(again, there), (src, dst)
        if RANGES[dst]:
            low, high, closed, long_side = RANGES[dst]
            low, high = torch.tensor([low, high], dtype=dtype)
            t = there[:, 4]
            assert ((t >= low) & (t < high) if closed else (t > low) & (t <= high)).all(), (src, dst)
            assert not long_side or (there[:, 2] >= there[:, 3]).all()


@definition
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_borders_are_exact(name, dtype):
    low, high, closed, _ = RANGES[name]
    low, high = torch.tensor([low, high], dtype=dtype)
    box = torch.tensor([[5, 7, 30, 10, 0]], dtype=dtype).repeat(2, 1)
    box[0, 4], box[1, 4] = low, high
    inside, outside = (box[:1], box[1:]) if closed else (box[1:], box[:1])
    assert torch.equal(regularize(inside, name), inside)
    moved = regularize(outside, name)
    assert moved[0, 4] == (low if closed else high)
    assert corner_distance(moved, outside) < 1e-4


def test_torchvision_agrees():
    boxes = torch.tensor(GOLDEN["wild_obb"]).double()
    formats = {"CXCYWHR": "torchvision", "XYWHR": "torchvision_xywhr", "XYXYXYXY": "torchvision_xyxyxyxy"}
    for theirs, ours in formats.items():
        known = BoundingBoxes(convert(boxes, "le90", "torchvision"), format="CXCYWHR", canvas_size=(9, 9))
        want = torch.as_tensor(convert_bounding_box_format(known, new_format=theirs))
        got = convert(boxes, "le90", ours)
        if theirs == "XYXYXYXY":
            assert torch.cdist(got.view(-1, 4, 2), want.view(-1, 4, 2)).amin(-1).max() < 1e-6
        else:
            torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
        assert corner_distance(convert(want, ours, "le90"), boxes) < 1e-6


@settings(max_examples=30, deadline=None)
@given(rows=batches, turn=st.floats(-7, 7))
def test_boxes_move_as_their_corners_do(rows, turn):
    boxes = torch.tensor(rows, dtype=torch.float64)
    corners, size = obb2poly(boxes), (700, 900)
    cos, sin = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64)
    middle = torch.tensor([40.0, -3.0], dtype=torch.float64)
    moves = {
        "horizontal": (flip_boxes(boxes, size), corners * torch.tensor([-1, 1]) + torch.tensor([900, 0])),
        "vertical": (
            flip_boxes(boxes, size, "vertical"),
            corners * torch.tensor([1, -1]) + torch.tensor([0, 700]),
        ),
        "diagonal": (flip_boxes(boxes, size, "diagonal"), torch.tensor([900, 700]) - corners),
        "shift": (shift_boxes(boxes, 3, -4), corners + torch.tensor([3, -4])),
        "scale": (scale_boxes(boxes, 1.7, 1.7), corners * 1.7),
        "rotate": (rotate_boxes(boxes, turn, (40, -3)), (corners - middle) @ rotation + middle),
    }
    for name, (moved, want) in moves.items():
        assert torch.cdist(obb2poly(moved), want).amin(-1).max() < 1e-8, name


def test_uneven_scaling_of_upright_boxes_is_exact():
    boxes = torch.tensor([[10.0, 20, 6, 4, 0], [10, 20, 6, 4, math.pi / 2]])
    want = obb2poly(boxes) * torch.tensor([2.0, 0.5])
    assert torch.cdist(obb2poly(scale_boxes(boxes, 2, 0.5)), want).amin(-1).max() < 1e-5


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(centres, centres, sides, sides, angles), min_size=2, max_size=2))
def test_hull_area(rows):
    a, b = torch.tensor(rows, dtype=torch.float64)
    want = shapely.MultiPoint(torch.cat([obb2poly(a), obb2poly(b)]).numpy()).convex_hull.area
    assert hull_area(a, b).item() == pytest.approx(want, rel=1e-9, abs=1e-5)


def test_upright_boxes_and_points_inside():
    xyxy = torch.tensor([[1.0, 2, 9, 6]])
    assert torch.equal(obb2hbb(hbb2obb(xyxy)), xyxy)
    margin = inside_margin(torch.tensor([[1.0, 2], [5, 4], [0, 4]]), hbb2obb(xyxy))
    assert margin[:, 0].tolist() == [0, 2, -1]


def test_bad_input_is_named():
    nan = torch.tensor([[0, 0, 1, 1, 0], [0, 0, 1, math.nan, 0]])
    with pytest.raises(ValueError, match="anchors, row 1"):
        check_boxes(nan, "anchors")
    with pytest.raises(ValueError, match=r"boxes: expected floating point"):
        check_boxes(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="polys, row 2"):
        poly2obb(torch.tensor([0.0, 0, math.inf]).view(3, 1, 1).expand(3, 4, 2), "oc")
    with pytest.raises(ValueError, match="fit: expected"):
        poly2obb(torch.zeros(1, 4, 2), "oc", "best")
    with pytest.raises(ValueError, match="dst: expected one of"):
        convert(torch.zeros(1, 5), "oc", "opencv")
    with pytest.raises(ValueError, match="direction: expected"):
        flip_boxes(torch.zeros(1, 5), (9, 9), "left")


def test_shapes_without_boxes_and_with_more_axes():
    assert poly2obb(torch.zeros(0, 4, 2), "oc").shape == (0, 5)
    assert poly2obb(torch.rand(2, 3, 4, 2), "le90").shape == (2, 3, 5)
    assert regularize(torch.zeros(0, 5), "oc").shape == (0, 5)
    assert poly2obb(torch.full((1, 4, 2), 7.0), "le90")[0].tolist() == [7, 7, 0, 0, 0]


def test_more_axes_are_rows_in_another_order():
    draw = torch.Generator().manual_seed(0)
    boxes = torch.rand(2, 3, 5, generator=draw, dtype=torch.float64) * torch.tensor([90, 90, 40, 20, 6]) + 1
    other = boxes.roll(1, 0) + torch.tensor([5, 5, 9, 9, 1])
    polys = obb2poly(boxes) + torch.rand(2, 3, 4, 2, generator=draw)
    moves = [
        obb2poly,
        obb2hbb,
        lambda b: hbb2obb(obb2hbb(b)),
        lambda b: flip_boxes(b, (90, 120), "diagonal"),
        lambda b: rotate_boxes(b, 0.3, (4, 5)),
        lambda b: scale_boxes(b, 0.5, 0.7),
        lambda b: shift_boxes(b, 1, 2),
        lambda b: hull_area(b, other.reshape(b.shape)),
        *(lambda b, name=name: regularize(b, name) for name in DEFINITIONS),
        *(
            lambda b, name=name: convert(b, "le90", name)
            for name in ("oc_old", "detectron2", "torchvision_xywhr")
        ),
    ]
    for move in moves:
        assert torch.equal(move(boxes).flatten(0, 1), move(boxes.flatten(0, 1)))
        assert torch.equal(move(boxes)[1, 2], move(boxes.flatten(0, 1))[5])
    for fit in ("edges", "min_area"):
        assert torch.equal(
            poly2obb(polys, "le90", fit).flatten(0, 1), poly2obb(polys.flatten(0, 1), "le90", fit)
        )
        assert torch.equal(poly2obb(polys[0, 0], "le90", fit), poly2obb(polys, "le90", fit)[0, 0])
    boxes[1, 0, 2] = -7.5
    with pytest.raises(ValueError, match="boxes, row 3: .* -7.5"):
        check_boxes(boxes)
    polys[1, 1, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"polys, row 4: .*\[\[nan"):
        poly2obb(polys, "le90")


def test_importing_compiles_nothing():
    code = """
from atss_nb.geometry import kernels, nms, operators
print(kernels.fit_smallest_boxes.signatures, operators._all_pairs.signatures)"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] []"
