"Every function on boxes and polygons, in every type that a tensor may have, and with angles of many turns."

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.geometry import boxes as geometry
from atss_nb.geometry.boxes import AngleDef, obb2poly, regularize, rotate_boxes
from atss_nb.geometry.conventions import convert
from atss_nb.geometry.nms import batched_nms_rotated, soft_nms_rotated
from atss_nb.geometry.numbers import near_angle, wide
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.geometry.polygons import hull_area, intersection_polygon
from atss_nb.geometry.quads import batched_nms_polygons, quad_iou

WHOLE = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
DTYPES = [*WHOLE, torch.float16, torch.bfloat16, torch.float32, torch.float64]
DEFINITIONS = [d.value for d in AngleDef]
CONVENTIONS = ["oc_old", "ultralytics", "detectron2", "torchvision", "torchvision_xywhr"]
OF_BOXES = {
    "obb2poly": obb2poly,
    "obb2hbb": geometry.obb2hbb,
    "inside_margin": lambda b: geometry.inside_margin(b[:, :2], b),
    "flip": lambda b: geometry.flip_boxes(b, (900, 700), "horizontal"),
    "flip both": lambda b: geometry.flip_boxes(b, (900, 700), "diagonal"),
    "shift": lambda b: geometry.shift_boxes(b, 0.7, -300.25),
    "rotate": lambda b: rotate_boxes(b, 0.3, (4.5, 3)),
    "scale": lambda b: geometry.scale_boxes(b, 3.5, 3.5),
    "stretch": lambda b: geometry.scale_boxes(b, 0.5, 7),
    "hull": lambda b: hull_area(b, b.flip(0)),
    "shared": lambda b: intersection_polygon(b[0], b[0]),
    **{f"to {name}": lambda b, name=name: regularize(b, name) for name in DEFINITIONS},
    **{f"to {name}": lambda b, name=name: convert(b, "le90", name) for name in CONVENTIONS},
    **{f"from {name}": lambda b, name=name: convert(b, name, "le135") for name in CONVENTIONS},
}
OF_POLYGONS = {
    "edges": lambda p: geometry.poly2obb(p, "le90", "edges"),
    "min_area": lambda p: geometry.poly2obb(p, "oc"),
    "boxes_of_edges": geometry.boxes_of_edges,
    "eight numbers": lambda p: convert(p.flatten(1), "torchvision_xyxyxyxy", "le90"),
    "hbb2obb": lambda p: geometry.hbb2obb(torch.cat([p.amin(1), p.amax(1)], -1)),
}
every_type = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])


def drawn(dtype: torch.dtype, n: int, columns: int) -> torch.Tensor:
    "Numbers that this type can hold: for whole numbers up to its end, or to a billion."
    top = min(torch.iinfo(dtype).max, 10**9) if dtype in WHOLE else 200
    return torch.randint(1, top, (n, columns), generator=torch.Generator().manual_seed(7)).to(dtype)


@every_type
@pytest.mark.parametrize("name", OF_BOXES)
def test_boxes_of_every_type(name, dtype):
    boxes = drawn(dtype, 20, 5)
    boxes[:, 4] = torch.arange(20).to(dtype)  # radians, or degrees where a convention has them
    before, got = boxes.clone(), OF_BOXES[name](boxes)
    want = OF_BOXES[name](boxes.double())
    assert got.dtype == wide(boxes).dtype and torch.equal(boxes, before)
    scale = want.abs().amax().clamp(min=1)
    torch.testing.assert_close(got.double() / scale, want / scale, rtol=0, atol=3e-6)


@every_type
@pytest.mark.parametrize("name", OF_POLYGONS)
def test_polygons_of_every_type(name, dtype):
    polys = drawn(dtype, 20, 8).view(20, 4, 2)
    got, want = OF_POLYGONS[name](polys), OF_POLYGONS[name](polys.double())
    assert got.dtype == wide(polys).dtype
    torch.testing.assert_close(obb2poly(got).double(), obb2poly(want), rtol=1e-5, atol=1e-3)


def test_whole_pixels_keep_their_angle():
    "As `torch.tensor` makes of a line of DOTA; the angle was 0, and 30 degrees of another project were 0, too."
    polys = torch.tensor([[[10, 10], [50, 30], [40, 50], [0, 30]]])
    for fit in ("min_area", "edges"):
        box = geometry.poly2obb(polys, "le90", fit)[0].tolist()
        assert box == pytest.approx([25, 30, math.hypot(40, 20), math.hypot(10, 20), math.atan2(1, 2)])
    assert regularize(torch.tensor([10, 20, 4, 8, 0]), "oc").tolist() == pytest.approx(
        [10, 20, 8, 4, math.pi / 2]
    )
    turned = convert(torch.tensor([10, 20, 8, 4, 30]), "detectron2", "le90")
    assert turned[4].item() == pytest.approx(-math.pi / 6)


@every_type
def test_overlap_computes_or_refuses(dtype):
    boxes = torch.tensor([[50, 50, 30, 20, 1], [55, 50, 30, 20, 1]]).to(dtype)
    if dtype in WHOLE:
        with pytest.raises(ValueError, match="boxes1: expected floating point"):
            box_iou_rotated(boxes, boxes)
        with pytest.raises(ValueError, match="boxes: expected floating point"):
            batched_nms_rotated(boxes, torch.ones(2), torch.zeros(2), 0.5)
        return
    torch.testing.assert_close(
        box_iou_rotated(boxes, boxes).double(),
        box_iou_rotated(boxes.double(), boxes.double()),
        atol=1e-6,
        rtol=0,
    )


def test_complex_numbers_are_refused_by_name():
    with pytest.raises(ValueError, match="boxes: expected real numbers, got torch.complex64"):
        obb2poly(torch.zeros(1, 5, dtype=torch.complex64))
    with pytest.raises(ValueError, match="polys: expected real numbers"):
        geometry.poly2obb(torch.zeros(1, 4, 2, dtype=torch.complex64), "oc")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.float16, np.float32, np.float64])
def test_polygons_of_numpy_and_scores_of_every_type(dtype):
    polys = np.array([[[0, 0], [40, 0], [40, 20], [0, 20]]] * 3).astype(dtype)
    assert quad_iou(polys, polys).tolist() == [[1.0] * 3] * 3
    scores = np.array([0, 9, 3]).astype(dtype)  # minus 0 is the largest uint8 there is not
    assert batched_nms_polygons(polys, scores, np.zeros(3), 0.5).tolist() == [1]


def test_softened_scores_of_whole_numbers():
    boxes = torch.tensor([[50, 50, 30, 20, 0.1], [52, 50, 30, 20, 0.1]])
    _, lowered = soft_nms_rotated(boxes, torch.tensor([9, 8]))
    assert lowered[0] == 9 and 0 < lowered[1] < 8 and lowered[1] % 1 > 0


turns = st.integers(-40_000, 40_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(turns, st.floats(-4, 4)), min_size=1, max_size=10))
def test_thousands_of_radians(dtype, rows):
    "The number given is exact, however many turns it is; the corners say where it points."
    angles = torch.tensor([n + t for n, t in rows], dtype=dtype)
    boxes = torch.tensor([[30.0, 20, 50, 10, 0]], dtype=dtype).repeat(len(rows), 1)
    boxes[:, 4] = angles
    corners = obb2poly(boxes.double())
    far = 1e-11 if dtype == torch.float64 else 3e-5
    for name in [*DEFINITIONS, *CONVENTIONS]:
        back = convert(convert(boxes, "le90", name), name, "le90").double()
        assert torch.cdist(obb2poly(back), corners).amin(-1).max() < far, name
    one = rotate_boxes(rotate_boxes(boxes, 12_345.0), -12_345.0).double()
    assert torch.cdist(obb2poly(one), corners).amin(-1).max() < 4 * far
    other = boxes + torch.tensor([5, 3, 0, 0, 0.4], dtype=dtype)
    near = [torch.cat([b[:, :4].double(), near_angle(b[:, 4:])], 1) for b in (boxes, other)]
    torch.testing.assert_close(hull_area(boxes, other).double(), hull_area(*near), rtol=1e-5, atol=0)


def test_degrees_of_many_turns_are_exact():
    box = torch.tensor([[10.0, 20, 8, 4, 360_000 * 10 + 30]])
    assert convert(box, "detectron2", "le90")[0, 4].item() == pytest.approx(-math.pi / 6, abs=1e-7)


@pytest.mark.parametrize("angle", [8.5, -100.0, 5000.25, 1e6, 1e12, -1e17])
def test_near_angle_against_all_digits_of_pi(angle):
    from mpmath import mp, mpf

    with mp.workdps(60):
        want = float(mpf(angle) - 2 * mp.pi * mp.nint(mpf(angle) / (2 * mp.pi)))
    assert near_angle(torch.tensor([angle], dtype=torch.float64)).item() == pytest.approx(
        want, rel=1e-15, abs=4e-16
    )
