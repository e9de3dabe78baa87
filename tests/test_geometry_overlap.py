"Overlap against exact arithmetic, Shapely and finite differences; its operators inside torch."

import math
import platform
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd import gradcheck

from atss_nb.geometry import operators
from atss_nb.geometry.boxes import obb2poly
from atss_nb.geometry.kernels import overlap_area, overlap_pair
from atss_nb.geometry.operators import frames
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.geometry.polygons import intersection_polygon

FOLDER = Path(__file__).parent / "golden"
PAIRS, GRADS = np.load(FOLDER / "01_iou_pairs.npz"), np.load(FOLDER / "02_iou_grad.npz")
A, B = torch.tensor(PAIRS["a"]), torch.tensor(PAIRS["b"])
THIN = PAIRS["category"] == "extreme_aspect_1000"
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def some_boxes(n: int, seed: int, extent: float = 1024.0) -> torch.Tensor:
    draw = np.random.default_rng(seed)
    sides = np.exp(draw.uniform(math.log(6), math.log(300), (n, 2)))
    return torch.tensor(np.c_[draw.uniform(0, extent, (n, 2)), sides, draw.uniform(-4, 4, n)])


@both_precisions
@pytest.mark.parametrize("swap", [False, True])
def test_exact_pairs(dtype, swap):
    a, b = (B, A) if swap else (A, B)
    value = box_iou_rotated(a.to(dtype), b.to(dtype), aligned=True).double().numpy()
    error = np.abs(value - PAIRS["iou" if dtype == torch.float64 else "iou_f32in"])
    assert np.isfinite(value).all() and value.min() >= 0 and value.max() <= 1
    assert error[~THIN].max() <= (1e-12 if dtype == torch.float64 else 2e-6)
    assert error[THIN].max() <= (1e-12 if dtype == torch.float64 else 1e-4)


def test_over_the_first_box():
    value = box_iou_rotated(A, B, "iof", aligned=True).numpy()
    np.testing.assert_allclose(value, PAIRS["iof_a"], atol=1e-12, rtol=0)


@both_precisions
def test_no_area_no_overlap(dtype):
    flat = torch.tensor([[5, 5, 0, 9, 0.3], [5, 5, 9, 0, 0.3], [5, 5, 0, 0, 0]], dtype=dtype)
    solid = torch.tensor([[5, 5, 9, 9, 0.1]], dtype=dtype)
    for mode in ("iou", "iof"):
        assert not box_iou_rotated(flat, torch.cat([flat, solid]), mode).any()
        assert not box_iou_rotated(solid, flat, mode).any()


@pytest.mark.parametrize("side", [1e19, 3e19, 1e25, 1e38])
def test_areas_that_float32_cannot_hold(side):
    huge = torch.tensor([[0, 0, side, side, 0.0], [0, 0, side, side, 0.3], [5, 5, side, side, 0.1]])
    some = torch.cat([huge, torch.tensor([[5.0, 5, 9, 9, 0.1]])])
    for mode in ("iou", "iof"):
        value = box_iou_rotated(some, some, mode)
        assert ((value >= 0) & (value <= 1)).all()
    assert not box_iou_rotated(huge, huge).any()


@both_precisions
@pytest.mark.parametrize("mode", ["iou", "iof"])
def test_no_area_no_gradient(dtype, mode):
    flat = torch.tensor(
        [[5, 5, 0, 9, 0.3], [5, 5, 9, 0, 0.3], [5, 5, 0, 0, 0], [5, 5, 0, 9, 0.3]], dtype=dtype
    )
    other = torch.tensor([[5, 5, 9, 9, 0.1]] * 3 + [[5, 5, 0, 9, 0.3]], dtype=dtype)
    for a, b in ((flat, other), (other, flat)):
        sides = [t.clone().requires_grad_() for t in (a, b)]
        for grad in torch.autograd.grad(box_iou_rotated(*sides, mode, aligned=True).sum(), sides):
            assert not grad.any()


@both_precisions
def test_apart_is_exactly_zero(dtype):
    apart = np.isin(PAIRS["category"], ["disjoint_far"])
    assert not box_iou_rotated(A[apart].to(dtype), B[apart].to(dtype), aligned=True).any()


@both_precisions
def test_a_gap_along_any_axis_is_exactly_zero(dtype):
    "Neighbours in a small field: many miss each other by a little, along an axis of either box."
    a, b = (some_boxes(3000, seed, 90.0) * torch.tensor([1, 1, 0.4, 0.4, 1.0]) for seed in (11, 12))
    far = 1e-6 if dtype == torch.float64 else 1e-2
    polygons = [shapely.polygons(obb2poly(t).numpy()) for t in (a, b)]
    gap = shapely.distance(*polygons)
    value = box_iou_rotated(a.to(dtype), b.to(dtype), aligned=True).numpy()
    assert ((gap > far) & (gap < 10)).sum() > 200 and (gap == 0).sum() > 200
    assert not value[gap > far].any()
    assert (value[shapely.area(shapely.intersection(*polygons)) > 1] > 0).all()


numbers = st.sampled_from([0.0, 1e-40, 1e-20, 1e-6, 1.0, math.pi / 2, 300.0, 1e6, 1e15])
any_box = st.tuples(numbers, numbers, numbers, numbers, numbers)


@both_precisions
@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.tuples(any_box, any_box), min_size=1, max_size=30))
def test_never_nan_never_outside(dtype, rows):
    a, b = torch.tensor(rows, dtype=dtype).unbind(1)
    a.requires_grad_(), b.requires_grad_()
    for mode in ("iou", "iof"):
        value = box_iou_rotated(a, b, mode, aligned=True)
        assert ((value >= 0) & (value <= 1)).all()
    giou = box_iou_rotated(a.detach(), b.detach(), "giou", aligned=True)
    assert ((giou >= -1) & (giou <= 1)).all()


@pytest.mark.parametrize("swap", [False, True])
@both_precisions
def test_exact_gradients(dtype, swap):
    a, b = (torch.tensor(GRADS[name], dtype=dtype).requires_grad_() for name in "ab")
    box_iou_rotated(*((b, a) if swap else (a, b)), aligned=True).sum().backward()
    grad, left, right = a.grad.double().numpy(), GRADS["grad_left"], GRADS["grad_right"]
    smooth = np.broadcast_to(GRADS["smooth"].reshape(len(grad), -1), grad.shape)
    assert np.isfinite(grad).all()
    assert np.abs(grad - GRADS["grad"])[smooth].max() <= (1e-6 if dtype == torch.float64 else 1e-3)
    if dtype == torch.float64:
        low, high = np.minimum(left, right)[~smooth], np.maximum(left, right)[~smooth]
        assert (grad[~smooth] >= low - 1e-6).all() and (grad[~smooth] <= high + 1e-6).all()


@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
def test_gradcheck(mode):
    a, b = (some_boxes(30, seed, 60).requires_grad_() for seed in (1, 2))
    assert gradcheck(lambda p, q: box_iou_rotated(p, q, mode, aligned=True), (a, b))


def test_only_aligned_is_differentiable():
    a = some_boxes(3, 1).requires_grad_()
    with pytest.raises(RuntimeError, match="does not require grad"):
        box_iou_rotated(a, a).sum().backward()
    with torch.no_grad():
        assert not box_iou_rotated(a, a, aligned=True).requires_grad


@pytest.fixture
def threads(monkeypatch) -> set[int]:
    "The threads that have worked, as torch may use two."
    before, used = torch.get_num_threads(), set()

    def noted(work, rows, pairs):
        allowed = torch.get_num_threads()

        def note(start, stop):
            used.add(threading.get_ident())
            assert 0 <= start <= stop <= rows
            work(start, stop)
            end = time.monotonic() + 10  # a busy machine may be slow to start the other one
            while len(used) < allowed and time.monotonic() < end:
                time.sleep(1e-3)

        in_threads(note, rows, pairs)

    in_threads = operators._in_threads
    monkeypatch.setattr(operators, "_in_threads", noted)
    torch.set_num_threads(2)
    yield used
    torch.set_num_threads(before)


@both_precisions
@pytest.mark.parametrize("extent", [60, 1024, 20_000])
def test_pairwise_is_aligned_whatever_the_loop_and_the_threads(dtype, extent, threads):
    a, b = some_boxes(301, 3, extent).to(dtype), some_boxes(1400, 4, extent).to(dtype)
    for mode in ("iou", "iof"):
        want = torch.stack([box_iou_rotated(row.expand(1400, 5), b, mode, aligned=True) for row in a])
        for n in (1, 2):
            threads.clear()
            torch.set_num_threads(n)
            assert torch.equal(box_iou_rotated(a, b, mode), want)
            assert len(threads) == n


@pytest.mark.parametrize(
    ("n", "m", "width", "height", "loop"),
    [
        (256, 1024, 20_000, 20_000, "_near_pairs"),
        (256, 1024, 60, 20_000, "_near_pairs"),
        (256, 1024, 60, 60, "_all_pairs"),
        (255, 1024, 20_000, 20_000, "_all_pairs"),
        (256, 1023, 20_000, 20_000, "_all_pairs"),
    ],
)
def test_blocks_are_for_many_boxes_that_are_far_apart(n, m, width, height, loop, monkeypatch):
    used, spread = set(), torch.tensor([width, height, 1, 1, 1])
    for name in ("_all_pairs", "_near_pairs"):
        monkeypatch.setattr(operators, name, lambda *_, name=name: used.add(name))
    box_iou_rotated(some_boxes(n, 1, 1.0) * spread, some_boxes(m, 2, 1.0) * spread)
    assert used == {loop}


def test_blocks_hold_neighbours():
    "All boxes once, the last one again where a block has room, in bounds of about an eighth of each side."
    frame = frames(some_boxes(4090, 1, 20_000))
    places, blocks, limits = operators._into_blocks(frame)
    order, room = np.split(places.flatten(), [4090])
    assert sorted(order) == [*range(4090)] and room.tolist() == [order[-1]] * 6
    assert np.array_equal(blocks, frame[:, places].transpose(1, 0, 2))
    around = operators.bounds(frame)[:, places]
    assert np.array_equal(limits[:2], around[:2].min(2)) and np.array_equal(limits[2:], around[2:].max(2))
    assert (limits[2:] - limits[:2]).mean() < 1.5 * 20_000 / 8


def test_gradients_whatever_the_threads(threads):
    sides = [some_boxes(40_001, seed, 60).requires_grad_() for seed in (1, 2)]
    weights, found = torch.rand(40_001, dtype=torch.float64), []
    for n in (1, 2):
        threads.clear()
        torch.set_num_threads(n)
        found.append(torch.autograd.grad((weights * box_iou_rotated(*sides, aligned=True)).sum(), sides))
        assert len(threads) == n
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two) and one.any(1).float().mean() > 0.5


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 1000])
@pytest.mark.parametrize("allowed", [1, 2, 3])
@pytest.mark.parametrize("pairs", [0, 199_999, 399_999, 400_000, 10_000_000])
def test_slices_are_all_rows_once(rows, allowed, pairs, monkeypatch):
    slices = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: allowed)
    operators._in_threads(lambda start, stop: slices.append(range(start, stop)), rows, pairs)
    assert sorted(i for part in slices for i in part) == [*range(rows)]
    workers = min(allowed, rows, pairs // 200_000)
    assert len(slices) == (4 * workers if workers > 1 else 1)


def test_places_that_coincide():
    a, b = some_boxes(300, 5), some_boxes(1100, 6)
    b[:, :2] = 7.0
    loop = np.empty((300, 1100))
    operators._all_pairs(frames(a), frames(b), False, loop, 0, 300)
    assert np.array_equal(box_iou_rotated(a, b).numpy(), loop)


def test_python_and_numba_agree_to_the_bit():
    for dtype in (torch.float32, torch.float64):
        fa, fb = (frames(t[::100].to(dtype)) for t in (A, B))
        compiled = np.empty(fa.shape[1], fa.dtype)
        operators._aligned_pairs(fa, fb, False, compiled)
        python = [overlap_pair(fa, i, fb, i, False) for i in range(len(compiled))]
        assert np.array_equal(compiled, np.array(python, fa.dtype))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 instructions")
@pytest.mark.parametrize(("real", "divide"), [(numba.float32, "vdivps"), (numba.float64, "vdivpd")])
def test_the_compiler_vectorised_the_loop(real, divide):
    if "avx2" not in numba.core.codegen.get_host_cpu_features():
        pytest.skip("this processor has no 256-bit vectors")
    table, index = real[:, ::1], numba.int64
    loop = numba.njit(error_model="numpy", nogil=True)(operators._all_pairs.py_func)
    loop.compile((table, table, numba.boolean, table, index, index))
    code = next(iter(loop.inspect_asm().values()))
    assert any(divide in line and ("ymm" in line or "zmm" in line) for line in code.splitlines())


def test_callable_from_other_compiled_code():
    @numba.njit
    def twice(a, b):
        return 2 * overlap_area(a[0], a[1], a[2], a[3], a[4], b[0], b[1], b[2], b[3], b[4])

    for i in range(0, len(A), 500):
        assert twice(A[i].numpy(), B[i].numpy()) == pytest.approx(2 * PAIRS["inter"][i], rel=1e-9, abs=1e-9)


def test_plain_python_on_two_boxes():
    for i in range(0, len(A), 9):
        area = overlap_area(*A[i].tolist(), *B[i].tolist())
        assert area == pytest.approx(PAIRS["inter"][i], rel=1e-9, abs=1e-9)


def test_memory_that_is_not_contiguous():
    a, b = some_boxes(50, 7), some_boxes(40, 8)
    wide = torch.zeros(50, 11, dtype=torch.float64)
    wide[:, ::2][:, :5] = a
    turned = b.T.contiguous().T
    assert torch.equal(box_iou_rotated(wide[:, ::2][:, :5], turned), box_iou_rotated(a, b))
    p, q = (t[:40].clone().requires_grad_() for t in (a, b))
    box_iou_rotated(p.T.contiguous().T, q, aligned=True).sum().backward()
    assert p.grad.isfinite().all()


def test_nothing_to_compare():
    none, some = torch.zeros(0, 5), some_boxes(3, 1).float()
    for mode in ("iou", "iof", "giou"):
        assert box_iou_rotated(none, some, mode).shape == (0, 3)
        assert box_iou_rotated(some, none, mode).shape == (3, 0)
        assert box_iou_rotated(none, none, mode, aligned=True).shape == (0,)
    empty = none.clone().requires_grad_()
    box_iou_rotated(empty, none, aligned=True).sum().backward()
    assert empty.grad.shape == (0, 5)


def broken(column: int, value: float) -> torch.Tensor:
    boxes = some_boxes(4, 1).float()
    boxes[2, column] = value
    return boxes


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    ("column", "value"), [(0, math.nan), (4, math.inf), (2, -1.0), (3, -1e-6), (1, -math.inf)]
)
def test_bad_boxes_are_named(column, value, aligned):
    good, bad = some_boxes(4, 1).float(), broken(column, value)
    with pytest.raises(ValueError, match="boxes1, row 2"):
        box_iou_rotated(bad, good, aligned=aligned)
    with pytest.raises(ValueError, match="boxes2, row 2"):
        box_iou_rotated(good, bad, aligned=aligned)


def test_bad_arguments_are_named():
    boxes = some_boxes(4, 1)
    for bad in (boxes[:, :4], boxes[0], boxes[None], boxes.long()):
        with pytest.raises(ValueError, match="boxes2: expected floating point"):
            box_iou_rotated(boxes, bad)
    with pytest.raises(ValueError, match="boxes2: expected torch.float64 on cpu"):
        box_iou_rotated(boxes, boxes.float())
    with pytest.raises(ValueError, match="boxes2: expected torch.float64 on cpu"):
        box_iou_rotated(boxes, boxes.to("meta"))
    with pytest.raises(ValueError, match="boxes2: expected 4 rows"):
        box_iou_rotated(boxes, boxes[:3], aligned=True)
    with pytest.raises(ValueError, match="mode: expected"):
        box_iou_rotated(boxes, boxes, "IoU")


def test_compiled_in_one_piece():
    a, b = (some_boxes(20, seed, 60).requires_grad_() for seed in (1, 2))

    def loss(p, q):
        return (1 - box_iou_rotated(p * 1.01, q, aligned=True)).sum() + box_iou_rotated(p, q).detach().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    want, got = loss(a, b), compiled(a, b)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, a), torch.autograd.grad(want, a))


def test_one_graph_serves_any_number_of_boxes():
    "A step has another number of positives each time (pytorch#121080)."
    counted = CompileCounterWithBackend("aot_eager")

    def loss(p, q):
        return (1 - box_iou_rotated(p, q, aligned=True)).sum()

    compiled = torch.compile(loss, fullgraph=True, backend=counted, dynamic=True)
    for n in range(2, 14):
        a = some_boxes(n, n, 60)
        torch.testing.assert_close(compiled(a, a + 0.5), loss(a, a + 0.5))
    assert counted.frame_count == 1


def test_exported_for_any_number_of_boxes():
    class Overlap(torch.nn.Module):
        def forward(self, a, b):
            return box_iou_rotated(a, b)

    dims = ({0: torch.export.Dim("n")}, {0: torch.export.Dim("m")})
    made = torch.export.export(
        Overlap(), (some_boxes(5, 5, 60), some_boxes(7, 7, 60)), dynamic_shapes=dims
    ).module()
    a, b = some_boxes(2, 2, 60), some_boxes(3, 3, 60)
    assert torch.equal(made(a, b), box_iou_rotated(a, b))


def test_autocast_and_half_precision():
    a, b = (some_boxes(20, seed, 60).float() for seed in (1, 2))
    linear = torch.eye(5)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = (a @ linear).requires_grad_()
        assert coarse.dtype == torch.bfloat16
        value = box_iou_rotated(coarse, b, aligned=True)
    assert value.dtype == torch.float32
    assert torch.equal(value, box_iou_rotated(coarse.float(), b, aligned=True))
    assert torch.autograd.grad(value.sum(), coarse)[0].dtype == torch.bfloat16
    assert box_iou_rotated(a.half(), b.half()).dtype == torch.float32


def test_giou_against_shapely():
    a, b = some_boxes(200, 1, 300), some_boxes(200, 2, 300)
    polys = [shapely.polygons(obb2poly(t).numpy()) for t in (a, b)]
    hull = shapely.area(shapely.convex_hull(shapely.union(*polys)))
    union, inter = shapely.area(shapely.union(*polys)), shapely.area(shapely.intersection(*polys))
    want = inter / union - (hull - union) / hull
    np.testing.assert_allclose(box_iou_rotated(a, b, "giou", aligned=True), want, atol=1e-10)
    np.testing.assert_allclose(box_iou_rotated(a, b, "giou").diagonal(), want, atol=1e-10)


def test_shared_polygon_has_the_shared_area():
    for i in range(0, len(A), 7):
        polygon = intersection_polygon(A[i], B[i])
        area = shapely.Polygon(polygon).area if len(polygon) > 2 else 0.0
        assert len(polygon) <= 8
        assert area == pytest.approx(PAIRS["inter"][i], rel=1e-8, abs=1e-8)
