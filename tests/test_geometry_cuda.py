"""The kernels for the GPU: run by Numba's simulator, compiled to machine code, and, where there is a GPU, used.

`make test-gpu` runs this file on a machine with a GPU; elsewhere the last part is skipped."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.geometry.nms import batched_nms_rotated
from atss_nb.geometry.overlap import box_iou_rotated

FOLDER = Path(__file__).parent / "golden"
SIMULATED = """
import numpy as np, torch
from atss_nb.geometry import overlap as cpu, overlap_cuda as gpu
from atss_nb.geometry.nms import batched_nms_rotated

pairs = np.load("01_iou_pairs.npz")
rows = np.arange(0, len(pairs["a"]), 40)
for dtype, exact, far in ((torch.float64, "iou", 1e-12), (torch.float32, "iou_f32in", 2e-5)):
    a, b = (torch.tensor(pairs[k][rows]).to(dtype) for k in "ab")
    value = gpu.cuda_aligned(a, b, False)
    assert np.abs(value.numpy() - pairs[exact][rows]).max() < far
    assert torch.equal(value, cpu.box_iou_rotated(a, b, aligned=True))
    assert torch.equal(gpu.cuda_pairwise(a[:9], b[:40], True), cpu.box_iou_rotated(a[:9], b[:40], "iof"))

grads = np.load("02_iou_grad.npz")
rows = np.flatnonzero(grads["smooth"].reshape(len(grads["a"]), -1).all(1))[::8]
a, b = (torch.tensor(grads[k][rows]) for k in "ab")
ga, _ = gpu.cuda_aligned_backward(torch.ones(len(rows)).double(), a, b, False)
_, gb = gpu.cuda_aligned_backward(torch.ones(len(rows)).double(), b, a, False)
for found in (ga, gb):
    assert np.abs(found.numpy() - grads["grad"][rows]).max() < 1e-6

draw = torch.Generator().manual_seed(0)
boxes = torch.rand(70, 5, generator=draw) * torch.tensor([80, 80, 30, 30, 3.0])
scores, labels = torch.rand(70, generator=draw), torch.randint(2, (70,), generator=draw)
order = scores.argsort(descending=True)
kept = order[gpu.suppress(boxes[order], labels[order], 0.3)]
assert torch.equal(kept, batched_nms_rotated(boxes, scores, labels, 0.3)) and 20 < len(kept) < 70
assert gpu.suppress(boxes[:0], labels[:0], 0.3).shape == (0,)
assert gpu.cuda_pairwise(a[:0], b, False).shape == (0, len(b))
for k, value in ((0, torch.nan), (1, torch.inf), (2, -1.0), (3, torch.inf), (4, torch.nan)):
    bad = a[:9].clone()
    bad[4, k] = value
    sound = torch.arange(9) != 4
    for good, pair in (((a[:9], b[:9]), (bad, b[:9])), ((b[:9], a[:9]), (b[:9], bad))):
        assert torch.equal(gpu.cuda_aligned(*pair, False).isfinite(), sound)
        assert torch.equal(gpu.cuda_aligned(*pair, False)[sound], gpu.cuda_aligned(*good, False)[sound])
    assert torch.equal(gpu.cuda_pairwise(bad, b, True).isnan(), ~sound[:, None].expand(9, len(b)))
"""


def test_in_the_simulator():
    env = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SIMULATED], cwd=FOLDER, env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture
def compile_ptx(monkeypatch):
    "Compile a kernel for a GPU that need not be there."
    if importlib.util.find_spec("numba_cuda") is None:
        pytest.skip("numba-cuda is not installed: pip install 'atss_nb[cuda]'")
    import numba.cuda.dispatcher
    from numba import cuda

    device = type("Device", (), {"compute_capability": (9, 0), "id": 0})
    monkeypatch.setattr(numba.cuda.dispatcher, "get_current_device", device)
    return lambda kernel, signature, cc: cuda.compile_ptx(kernel.py_func, signature, cc=cc)[0]


@pytest.mark.parametrize("cc", [(8, 0), (9, 0)], ids=["sm_80", "sm_90"])
@pytest.mark.parametrize("real", ["float32", "float64"])
def test_compiles_to_machine_code(compile_ptx, real, cc):
    from numba import types

    from atss_nb.geometry import overlap_cuda as gpu

    real = getattr(types, real)
    table, row, words, word = real[:, ::1], real[::1], types.int64[:, ::1], types.int64[::1]
    signatures = {
        gpu._fill_frames: (table, table),
        gpu._pairs: (table, table, types.boolean, table),
        gpu._aligned_pairs: (table, table, types.boolean, row),
        gpu._gradients: (row, table, table, types.boolean, table, table),
        gpu._suppressors: (table, word, types.float64, words),
        gpu._sweep: (words, word, types.boolean[::1]),
    }
    for kernel, signature in signatures.items():
        code = compile_ptx(kernel, signature, cc)
        assert f".target sm_{cc[0]}{cc[1]}" in code
        if real == types.float32 and kernel not in (gpu._fill_frames, gpu._suppressors):
            assert ".f64" not in code, f"double precision in the float32 kernel {kernel.py_func.__name__}"


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@on_a_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gpu_exact_pairs_and_gradients(dtype):
    pairs, grads = np.load(FOLDER / "01_iou_pairs.npz"), np.load(FOLDER / "02_iou_grad.npz")
    a, b = (torch.tensor(pairs[k]).to("cuda", dtype) for k in "ab")
    value = box_iou_rotated(a, b, aligned=True).cpu().numpy()
    error = np.abs(value - pairs["iou" if dtype == torch.float64 else "iou_f32in"])
    thin = pairs["category"] == "extreme_aspect_1000"
    assert error[~thin].max() <= (1e-12 if dtype == torch.float64 else 2e-6)
    assert error[thin].max() <= (1e-12 if dtype == torch.float64 else 1e-4)
    torch.testing.assert_close(
        box_iou_rotated(a[:500], b[:900]).cpu(),
        box_iou_rotated(a[:500].cpu(), b[:900].cpu()),
        atol=2e-5,
        rtol=0,
    )
    a, b = (torch.tensor(grads[k]).to("cuda", dtype).requires_grad_() for k in "ab")
    box_iou_rotated(a, b, aligned=True).sum().backward()
    smooth = np.broadcast_to(grads["smooth"].reshape(len(a), -1), a.shape)
    far = 1e-6 if dtype == torch.float64 else 1e-3
    assert np.abs(a.grad.cpu().numpy() - grads["grad"])[smooth].max() <= far


@on_a_gpu
def test_gpu_suppression_and_streams():
    draw = torch.Generator().manual_seed(0)
    boxes = torch.rand(3000, 5, generator=draw).double() * torch.tensor([500, 500, 60, 60, 3.0])
    scores, labels = torch.rand(3000, generator=draw), torch.randint(5, (3000,), generator=draw)
    want = batched_nms_rotated(boxes, scores, labels, 0.1)
    with torch.cuda.stream(torch.cuda.Stream()):
        there = [t.cuda() for t in (boxes, scores, labels)]
        assert torch.equal(batched_nms_rotated(*there, 0.1).cpu(), want)
