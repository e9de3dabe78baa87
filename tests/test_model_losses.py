"The losses against exact references: 400-bit overlap and its derivative, float64 focal loss."

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atss_nb.geometry.boxes import obb2poly
from atss_nb.model.gaussian_losses import gwd_loss, kfiou_loss, kld_loss, probiou_loss
from atss_nb.model.losses import (
    IOU_LOSSES,
    centerness,
    focal_loss,
    giou_loss,
    l1_loss,
    rotated_iou_loss,
    smooth_l1_loss,
)

GOLDEN = np.load(Path(__file__).parent / "golden" / "07_losses.npz")
SMOOTH = torch.from_numpy(GOLDEN["smooth"])
by_mode = pytest.mark.parametrize("mode", IOU_LOSSES)


def golden(name: str, dtype=torch.float64) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name]).to(dtype)


def error_scale(mode: str) -> torch.Tensor:
    "How much an error of the IoU is magnified: the logarithm does it by 1 / IoU."
    return 1 / golden("exact_iou").clamp(min=1e-6) if mode == "log" else torch.ones(len(SMOOTH))


@by_mode
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_rotated_iou_loss(mode, dtype, tolerance):
    loss = rotated_iou_loss(golden("pred", dtype), golden("target", dtype), mode)
    assert loss.dtype == dtype
    rows = torch.ones_like(SMOOTH) if dtype == torch.float64 else SMOOTH
    error = (loss.double() - golden(f"exact_loss_{mode}")).abs() / error_scale(mode).clamp(max=100)
    assert error[rows].max() <= tolerance


@by_mode
def test_rotated_iou_gradient(mode):
    pred = golden("pred").requires_grad_()
    rotated_iou_loss(pred, golden("target"), mode).sum().backward()
    error = (pred.grad - golden(f"exact_grad_{mode}")).abs() / error_scale(mode)[:, None]
    assert pred.grad.isfinite().all()
    assert error[SMOOTH].max() <= 1e-6


@by_mode
def test_weighted_sums(mode):
    loss, weight = rotated_iou_loss(golden("pred"), golden("target"), mode), golden("weight")
    assert (loss * weight).sum().item() == pytest.approx(GOLDEN[f"exact_sum_{mode}"].item(), abs=1e-5)
    assert (loss * weight).mean().item() == pytest.approx(GOLDEN[f"exact_mean_{mode}"].item(), abs=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_focal_loss(dtype, tolerance):
    logits = golden("focal_logits", dtype).requires_grad_()
    labels = golden("focal_labels", torch.int64)
    loss = focal_loss(logits, torch.where(labels == 15, -1, labels))
    loss.sum().backward()
    scale = golden("focal_none_f64").abs().clamp(min=1)
    assert ((loss.double() - golden("focal_none_f64")).abs() / scale).max() <= tolerance
    assert (logits.grad.double() - golden("focal_grad_f64")).abs().max() <= tolerance
    weighted = (loss * golden("focal_weight", dtype)[:, None]).sum() / 50
    assert weighted.item() == pytest.approx(GOLDEN["focal_weighted_avgfactor50_f64"].item(), rel=1e-5)


def test_half_precision_is_widened():
    boxes = torch.tensor([[1000.0, 1000, 60, 20, 0.3]])
    with torch.autocast("cpu", torch.bfloat16):
        loss = rotated_iou_loss(boxes + torch.tensor([1.0, 0, 0, 0, 0]), boxes)
    assert loss.dtype == torch.float32
    assert 0.02 < loss.item() < 0.1
    assert focal_loss(torch.zeros(2, 3, dtype=torch.bfloat16), torch.tensor([0, -1])).dtype == torch.float32


def test_no_pairs():
    pred = torch.zeros(0, 5, requires_grad=True)
    rotated_iou_loss(pred, torch.zeros(0, 5), "log").sum().backward()
    assert pred.grad.shape == (0, 5)
    assert focal_loss(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).shape == (0, 3)


def test_differences_of_deltas():
    numbers = (golden(f"l1_{name}", torch.float32).reshape(-1, 1) for name in ("pred", "target", "weight"))
    pred, target, weight = numbers
    rows = weight[:, 0]  # one number a row, for the record weighs each of them
    assert ((l1_loss(pred, target) * rows).sum() / 7).item() == pytest.approx(float(GOLDEN["l1_avg7"]), 1e-5)
    for beta, name in ((1.0, "1.0000"), (1 / 9, "0.1111")):
        loss = (smooth_l1_loss(pred, target, beta) * rows).sum() / 7
        assert loss.item() == pytest.approx(float(GOLDEN[f"smoothl1_beta{name}_avg7"]), 1e-5)


def test_giou_pulls_boxes_together():
    pred = golden("pred").requires_grad_()
    loss = giou_loss(pred, golden("target"))
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    assert (loss >= -1e-9).all() and (loss <= 2).all() and grad.isfinite().all()
    apart = golden("exact_iou") == 0
    assert apart.any() and (loss[apart] >= 1).all()


GAUSSIAN = {"gwd": gwd_loss, "kld": kld_loss, "kfiou": kfiou_loss, "probiou": probiou_loss}
by_cloud = pytest.mark.parametrize("name", GAUSSIAN)
side, place = st.floats(0.5, 1000), st.floats(-500, 500)
box = st.tuples(place, place, side, side, st.floats(-10, 10))


def covariance(box: np.ndarray) -> np.ndarray:
    c, s = np.cos(box[4]), np.sin(box[4])
    turn = np.array([[c, -s], [s, c]])
    return turn @ np.diag(box[2:4] ** 2 / 4) @ turn.T


def root(m: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(m)
    return vectors @ np.diag(np.sqrt(np.maximum(values, 0))) @ vectors.T


def by_matrices(name: str, pred: np.ndarray, target: np.ndarray) -> float:
    "The same four from their definitions, with matrices."
    d, one, two = pred[:2] - target[:2], covariance(pred), covariance(target)
    offset, det = d @ np.linalg.inv(two) @ d, np.linalg.det
    if name == "gwd":
        distance = d @ d + np.trace(one + two - 2 * root(root(one) @ two @ root(one)))
        return 1 - 1 / (1 + np.log1p(max(distance, 0)))
    if name == "kld":
        kl = (offset + np.trace(np.linalg.inv(two) @ one) + np.log(det(two) / det(one))) / 2 - 1
        return 1 - 1 / (1 + np.log1p(max(kl, 0)))
    if name == "kfiou":
        shared = np.sqrt(det(one - one @ np.linalg.inv(one + two) @ one))
        return np.log1p(offset) + 1 - 3 * shared / (np.sqrt(det(one)) + np.sqrt(det(two)) - shared)
    one, two = one / 3, two / 3
    mean = (one + two) / 2
    b = d @ np.linalg.inv(mean) @ d / 8 + np.log(det(mean) / np.sqrt(det(one) * det(two))) / 2
    return np.sqrt(-np.expm1(-max(b, 0)))


@by_cloud
@given(pred=box, target=box)
def test_clouds_against_matrices(name, pred, target):
    ours = GAUSSIAN[name](*(torch.tensor([b]).double() for b in (pred, target))).item()
    assert ours == pytest.approx(by_matrices(name, np.array(pred), np.array(target)), rel=1e-5, abs=2e-4)


@by_cloud
@given(target=box)
def test_clouds_of_the_same_box(name, target):
    target = torch.tensor([target])
    pred = torch.stack([*target[:, :2].T, target[:, 3], target[:, 2], target[:, 4] + np.pi / 2], 1)
    pred.requires_grad_()
    loss = GAUSSIAN[name](pred, target)
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    # ProbIoU is a square root, GWD is in pixels: rounding in float32 shows
    assert loss.item() < 0.3 if name == "gwd" else loss.item() < 0.02
    assert grad.isfinite().all()


@by_cloud
def test_clouds_of_degenerate_boxes(name):
    rows = [[5.0, 5, 0, 0, 0], [5, 5, 0, 1e4, 1], [1e5, -1e5, 1e4, 1e4, 2], [0, 0, 1e-6, 1, 0]]
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4)).T
    pred, target = (torch.tensor(rows)[i] for i in pairs)
    pred = pred.clone().requires_grad_()
    loss = GAUSSIAN[name](pred, target)
    (grad,) = torch.autograd.grad(loss.sum(), pred)
    assert loss.isfinite().all() and grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert GAUSSIAN[name](pred.bfloat16(), target.bfloat16()).dtype == torch.float32


@given(target=box, u=st.floats(-0.6, 0.6), v=st.floats(-0.6, 0.6))
def test_centerness_by_distances_to_the_sides(target, u, v):
    target = torch.tensor([target]).double()
    corners = obb2poly(target)[0]
    along, down = corners[1] - corners[0], corners[3] - corners[0]
    point = target[0, :2] + u * along + v * down
    left, top = 0.5 + u, 0.5 + v
    pairs = [(min(s, 1 - s), max(s, 1 - s)) for s in (left, top)]
    expected = np.prod([max(low, 0) / high for low, high in pairs]) ** 0.5
    assert centerness(point[None], target).item() == pytest.approx(expected, abs=2e-5)
