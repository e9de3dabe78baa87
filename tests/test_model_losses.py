"The losses against exact references: 400-bit overlap and its derivative, float64 focal loss."

from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.model.losses import IOU_LOSSES, focal_loss, rotated_iou_loss

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
