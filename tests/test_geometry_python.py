"Every kernel as plain Python (NUMBA_DISABLE_JIT=1), which a debugger can step through, gives the same numbers."

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.evaluation.evaluate import evaluate
from atss_nb.geometry.boxes import obb2poly, poly2obb
from atss_nb.geometry.nms import nms_rotated, soft_nms_rotated
from atss_nb.geometry.operators import _all_pairs
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.geometry.quads import batched_nms_polygons, quad_iou
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import ATSS, MaxIoU


def some_boxes(dtype: torch.dtype) -> torch.Tensor:
    u = torch.rand(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.cat([u[:, :2] * 60, 6 + 50 * u[:, 2:4], u[:, 4:] * 6 - 3], 1).to(dtype)


def overlaps(boxes: torch.Tensor) -> dict[str, torch.Tensor]:
    answers, scores, polys = {}, boxes[:, 0] / 60, obb2poly(boxes)
    for mode in ("iou", "iof", "giou"):
        answers[mode] = box_iou_rotated(boxes, boxes.flip(0), mode)
        pair = [t.clone().requires_grad_() for t in (boxes, boxes.flip(0))]
        value = box_iou_rotated(*pair, mode, aligned=True)
        answers[f"{mode} aligned"] = value.detach()
        answers[f"{mode} slopes"] = torch.cat(torch.autograd.grad(value.sum(), pair))
    answers["nms"] = nms_rotated(boxes, scores, 0.3)
    answers["soft nms"], answers["soft scores"] = soft_nms_rotated(boxes, scores)
    answers["smallest"] = poly2obb(
        polys + torch.linspace(-2, 2, 320, dtype=boxes.dtype).view_as(polys), "le90"
    )
    answers["quads"] = torch.from_numpy(quad_iou(polys.numpy(), polys.flip(0).numpy()))
    kept = batched_nms_polygons(polys.numpy(), scores.numpy(), np.zeros(40), 0.3)
    return answers | {"kept polygons": torch.from_numpy(kept)}


def answers() -> dict[str, torch.Tensor]:
    "What every kernel says about forty boxes, in both precisions."
    single, double = (some_boxes(dtype) for dtype in (torch.float32, torch.float64))
    found = {f"{t.dtype} {name}": value for t in (single, double) for name, value in overlaps(t).items()}
    none = torch.zeros(40, dtype=torch.int64)
    prediction, target = (
        {"boxes": double, "scores": double[:, 0] / 60, "labels": none},
        {"boxes": double + 0.4},
    )
    for protocol in ("dota-devkit", "mmrotate", "probiou"):
        got = evaluate([prediction], [target | {"labels": none}], ["ship"], protocol=protocol)
        found[protocol] = torch.tensor(list(got.per_class["ship"].values()))
    for assigner in (ATSS(), MaxIoU()):
        name = type(assigner).__name__
        found[name], found[f"{name} iou"] = assigner(AnchorGrid()((64, 64)), single[:5])
    with pytest.raises(ValueError, match="boxes1, row 39"):
        box_iou_rotated(torch.where(torch.arange(40)[:, None] == 39, torch.inf, double), double)
    return found


def test_python_gives_the_same_numbers_bit_for_bit(tmp_path):
    code = "import sys, torch, test_geometry_python as t; torch.save((type(t._all_pairs).__name__, t.answers()), sys.argv[1])"
    env = os.environ | {
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
    }
    subprocess.run([sys.executable, "-c", code, tmp_path / "answers.pt"], env=env, check=True, timeout=300)
    kind, python = torch.load(tmp_path / "answers.pt")
    assert kind == "function" != type(_all_pairs).__name__
    compiled = answers()
    assert python.keys() == compiled.keys()
    for name, value in compiled.items():
        assert value.numel() and torch.equal(value, python[name]), name
