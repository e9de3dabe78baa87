"The overlap as any other operator of PyTorch: second derivatives, torch.func, one graph for any number of boxes."

import math

import pytest
import torch
from test_geometry_overlap import GRADS, PAIRS, A, B, some_boxes
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import forward_ad, gradgradcheck
from torch.export import Dim

from atss_nb.geometry import operators
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.model.losses import rotated_iou_loss

LOSSES = {
    "iou": lambda p, q: box_iou_rotated(p, q, "iou", aligned=True),
    "iof": lambda p, q: box_iou_rotated(p, q, "iof", aligned=True),
    "giou": lambda p, q: box_iou_rotated(p, q, "giou", aligned=True),
    "log": lambda p, q: rotated_iou_loss(p, q, "log"),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())


def neighbours(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    "Boxes in general position, and others that overlap them."
    boxes = some_boxes(n, seed, 60)
    draw = torch.Generator().manual_seed(seed)
    step = torch.randn(n, 5, generator=draw, dtype=torch.float64) * torch.tensor([3, 3, 2, 2, 0.2])
    return boxes, boxes + step


@every_loss
def test_differentiable_twice(loss):
    pair = [t.requires_grad_() for t in neighbours(12, 3)]
    assert gradgradcheck(loss, pair)


@every_loss
def test_a_penalty_on_the_slope(loss):
    "The derivative of a gradient's length, as a gradient penalty needs it, against differences of first derivatives."
    a, b = (t[:1] for t in neighbours(1, 5))

    def penalty(x, again):
        (slope,) = torch.autograd.grad(loss(x, b).sum(), x, create_graph=again)
        return slope.square().sum()

    x = a.clone().requires_grad_()
    (got,) = torch.autograd.grad(penalty(x, True), x)
    steps = torch.eye(5, dtype=torch.float64)[:, None] * 1e-5
    ends = [[penalty((a + sign * d).requires_grad_(), False) for sign in (1, -1)] for d in steps]
    want = torch.stack([(high - low) / 2e-5 for high, low in ends])
    torch.testing.assert_close(got[0], want, rtol=1e-5, atol=1e-8)
    assert got.abs().max() > 1e-6


@every_loss
def test_every_transform(loss):
    a, b = neighbours(6, 7)
    total, pair = (lambda p, q: loss(p, q).sum()), [t.clone().requires_grad_() for t in (a, b)]
    want = torch.autograd.grad(total(*pair), pair)
    torch.testing.assert_close(torch.func.grad(total, (0, 1))(a, b), want)
    rows = torch.arange(6)
    torch.testing.assert_close(torch.func.jacrev(loss)(a, b)[rows, rows], want[0])
    torch.testing.assert_close(torch.func.jacfwd(loss)(a, b)[rows, rows], want[0])
    value, slope = torch.func.jvp(loss, (a, b), (a.cos(), b.sin()))
    torch.testing.assert_close(value, loss(a, b))
    torch.testing.assert_close(slope, (want[0] * a.cos() + want[1] * b.sin()).sum(-1))
    bends = torch.func.hessian(total)(a, b)
    torch.testing.assert_close(bends, torch.autograd.functional.hessian(lambda p: total(p, b), a))
    assert bends[rows, :, rows].abs().amax((1, 2)).min() > 0
    batched = torch.func.vmap(loss)(a[:, None], b[:, None])
    torch.testing.assert_close(batched[:, 0], loss(a, b))
    per_sample = torch.func.vmap(torch.func.grad(lambda p, q: loss(p[None], q[None])[0]))(a, b)
    torch.testing.assert_close(per_sample, want[0])


def test_forward_mode_without_a_transform():
    a, b = neighbours(6, 9)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(a, torch.ones_like(a))
        slope = forward_ad.unpack_dual(box_iou_rotated(dual, b, aligned=True)).tangent
    x = a.clone().requires_grad_()
    (want,) = torch.autograd.grad(box_iou_rotated(x, b, aligned=True).sum(), x)
    torch.testing.assert_close(slope, want.sum(-1))


def test_matrices_inside_a_transform():
    a, b = (some_boxes(40, seed, 60).view(4, 10, 5) for seed in (1, 2))
    for mode in ("iou", "iof", "giou"):
        want = torch.stack([box_iou_rotated(p, q, mode) for p, q in zip(a, b, strict=True)])
        torch.testing.assert_close(
            torch.func.vmap(lambda p, q, mode=mode: box_iou_rotated(p, q, mode))(a, b), want
        )
    slope = torch.func.grad(lambda p: box_iou_rotated(p, b[0]).sum())(a[0])
    assert not slope.any()  # a matrix has no gradient, in a transform either


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_plain_walk_is_the_walk(dtype):
    a, b = A.to(dtype), B.to(dtype)
    for iof, key in ((False, "iou" if dtype == torch.float64 else "iou_f32in"), (True, "iof_a")):
        value = operators.plain_overlap(a, b, iof).double()
        if dtype == torch.float64 or not iof:
            assert (value - torch.tensor(PAIRS[key])).abs().max() <= (
                1e-12 if dtype == torch.float64 else 1e-6
            )
    assert not value[torch.tensor(PAIRS["category"] == "disjoint_far")].any()
    p, q = (torch.tensor(GRADS[name]).to(dtype).requires_grad_() for name in "ab")
    (slope,) = torch.autograd.grad(operators.plain_overlap(p, q, False).sum(), p)
    left, right = (torch.tensor(GRADS[f"grad_{side}"]) for side in ("left", "right"))
    off = 1e-5 if dtype == torch.float32 else 1e-6
    smooth = torch.tensor(GRADS["smooth"]).reshape(len(p), -1).expand(-1, 5)
    assert (slope - torch.tensor(GRADS["grad"]))[smooth].abs().max() <= (1e-3 if off == 1e-5 else 1e-6)
    assert (slope >= torch.minimum(left, right) - off)[~smooth].all()
    assert (slope <= torch.maximum(left, right) + off)[~smooth].all()


def test_once_is_left_to_the_kernels(monkeypatch):
    "What trains every day pays nothing for what is differentiated twice."
    monkeypatch.setattr(operators, "plain_overlap", None)
    a, b = (t.requires_grad_() for t in neighbours(5, 1))
    for loss in LOSSES.values():
        loss(a, b).sum().backward()
    assert a.grad.any() and b.grad.any()
    with pytest.raises(TypeError):
        torch.autograd.grad(box_iou_rotated(a, b, aligned=True).sum(), a, create_graph=True)


@pytest.mark.parametrize("iof", [False, True])
def test_all_that_a_compiler_asks(iof):
    a, b = neighbours(5, 2)
    for p in (a, a.requires_grad_()):
        torch.library.opcheck(operators._aligned_kernel, (p, b, iof))
    a = a.detach()
    torch.library.opcheck(operators._pairwise_kernel, (a, b[:3], iof))
    torch.library.opcheck(operators._aligned_backward_kernel, (a[:, 0].contiguous(), a, b, iof))


@pytest.mark.parametrize("mode", ["iou", "iof", "giou"])
def test_one_graph_for_any_number_of_boxes(mode):
    "With the backend that needs no C++ compiler; what is traced is the same for all."
    torch.compiler.reset()
    graphs = []

    def count(graph, example):
        graphs.append(graph)
        return graph.forward

    def loss(p, q):
        row = box_iou_rotated(p, q, mode, aligned=True)
        return (1 - row).sum() + box_iou_rotated(p, q, mode).sum()

    compiled = torch.compile(loss, backend=count, dynamic=True, fullgraph=True)
    for n in (2, 3, 5, 8, 17, 40, 100, 1000):
        a, b = neighbours(n, 1)
        torch.testing.assert_close(compiled(a, b), loss(a, b))
    assert len(graphs) == 1


def test_a_compiled_step_has_the_same_gradient_and_uses_the_kernel():
    torch.compiler.reset()
    graphs = []

    def count(graph, example):
        graphs.append(str(graph.graph))
        return graph.forward

    compiled = torch.compile(
        lambda p, q: rotated_iou_loss(p, q, "log").sum(),
        backend=aot_autograd(fw_compiler=count, bw_compiler=count),
        dynamic=True,
        fullgraph=True,
    )
    for n in (4, 9, 30):
        a, b = (t.requires_grad_() for t in neighbours(n, 1))
        want = torch.autograd.grad(rotated_iou_loss(a, b, "log").sum(), a)
        torch.testing.assert_close(torch.autograd.grad(compiled(a, b), a), want)
    assert len(graphs) == 2 and "overlap_aligned_backward" in graphs[1]


def test_a_transform_that_is_compiled():
    torch.compiler.reset()
    a, b = neighbours(9, 4)
    slope = torch.func.grad(lambda p: box_iou_rotated(p, b, aligned=True).sum())
    torch.testing.assert_close(torch.compile(slope, backend="eager", fullgraph=True)(a), slope(a))


class _Overlaps(torch.nn.Module):
    def forward(self, a, b):
        return box_iou_rotated(a, b, aligned=True), box_iou_rotated(a, b, "giou")


def test_exported_for_any_number_of_boxes():
    n, example = Dim("n", min=2), neighbours(9, 1)
    program = torch.export.export(_Overlaps(), example, dynamic_shapes=({0: n}, {0: n}))
    for size in (5, 9, 200):
        pair = neighbours(size, 2)
        torch.testing.assert_close(program.module()(*pair), _Overlaps()(*pair))


def test_no_box_no_overlap_and_no_trouble_in_a_transform():
    none, some = torch.zeros(0, 5), torch.tensor([[5.0, 5, 4, 2, 0.3]])
    assert torch.func.grad(lambda p: box_iou_rotated(p, none, aligned=True).sum())(none).shape == (0, 5)
    flat = some * torch.tensor([1, 1, 0, 1, 1])
    assert not torch.func.hessian(lambda p: box_iou_rotated(p, some, aligned=True).sum())(flat).any()
    quarter = torch.tensor([[5.0, 5, 2, 4, 0.3 + math.pi / 2]])
    assert (
        torch.func.hessian(lambda p: box_iou_rotated(p, some, aligned=True).sum())(quarter).isfinite().all()
    )
