"""A training step never asks the device for an answer, and sends nothing that it would have to wait for.

Tensors on the "meta" device have shapes and no numbers: who reads one, or needs to know how many rows of a mask are
true, gets an error. A step that runs there runs on a GPU without stopping it; test_training_cuda.py asks a real one."""

from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.model.retinanet import BOX_LOSSES
from atss_nb.model.targets import LateCheck, RunHooks, check_finite
from atss_nb.training.settings import TrainConfig
from atss_nb.training.step import make_optimizer, train_step
from atss_nb.training.trainer import _follow, averaged

aten = torch.ops.aten
COPIES, LOOKUPS = (aten._to_copy.default, aten.copy_.default), (aten.index.Tensor, aten.index_put_.default)
MAKERS = torch.tensor, torch.as_tensor, torch.Tensor.new_tensor


class Copies(TorchDispatchMode):
    "Raises where the host sends a tensor and waits until it has arrived."

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result, kwargs, sent = function(*args, **(kwargs or {})), kwargs or {}, []
        if function in COPIES and not (kwargs.get("non_blocking") or args[2:3] == (True,)):
            sent = [args[COPIES.index(function)]]
        elif function in LOOKUPS:
            sent = [rows for rows in args[1] if rows is not None]
        if sent and result.device.type == "meta" and any(x.device.type == "cpu" for x in sent):
            raise RuntimeError("the host waited for what it sent")
        return result


class Numbers(TorchFunctionMode):
    "Raises where numbers of Python become a tensor on the device: they are sent at once."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function in MAKERS and result.device.type == "meta":
            raise RuntimeError("the host waited for what it sent")
        return result


def batch() -> tuple[list, list]:
    "An image with objects, one of which is ignored, and an image without."
    boxes = torch.tensor([[40.0, 40, 30, 12, 0.4], [90, 60, 20, 20, -1.0]])
    some = {"boxes": boxes, "labels": torch.tensor([0, 2]), "ignore": torch.tensor([False, True])}
    none = {"boxes": torch.zeros(0, 5), "labels": torch.zeros(0, dtype=torch.int64)}
    return [torch.rand(3, 128, 128), torch.rand(3, 100, 90)], [some, none]


def step(config: TrainConfig, check=None) -> None:
    "The second step of a run, in which everything is there that is sent once."
    model = build_model(config.model, num_classes=3).to("meta")
    model.run_hooks, config = RunHooks(check=check or LateCheck()), replace(config, precision="float32")
    optimizer, average = make_optimizer(model, config), averaged(model, 0.9)
    train_step(model, *batch(), optimizer, config)
    with Copies(), Numbers():
        losses = train_step(model, *batch(), optimizer, config)
        _follow(average, model, 0.9)
    assert losses["loss"].device.type == losses["grad_norm"].device.type == "meta"


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
def test_one_stage(box_loss):
    step(TrainConfig("", ModelConfig.small(box_loss=box_loss)))


@pytest.mark.parametrize("change", [{"optimizer": "sgd"}, {"accumulate": 2}], ids=str)
def test_optimizers_and_parts(change):
    step(replace(TrainConfig("", ModelConfig.small()), **change))


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig.small(centerness=True),
        ModelConfig.small(assigner="center", regression="point", centerness=True),
        ModelConfig.small(scales_per_octave=3, ratios=(0.5, 1.0, 2.0)),
        ModelConfig.small(assigner="max_iou"),
        ModelConfig.paper(),
        ModelConfig.resnet(18, weights=None),
    ],
    ids=["centerness", "points", "nine anchors", "MaxIoU", "paper", "resnet18"],
)
def test_other_detectors(model):
    step(TrainConfig("", replace(model, weights=None)))


def test_these_would_be_noticed():
    "What is known to wait: a check at once, and numbers of the host that become a tensor on the device."
    config = TrainConfig("", ModelConfig.small())
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        step(config, check_finite)
    there = torch.zeros(3, device="meta")
    for wait in (
        lambda: torch.tensor([1.0, 2.0], device="meta"),
        lambda: there.new_tensor([1.0, 2.0]),
        lambda: torch.zeros(3).to("meta"),
        lambda: there.copy_(torch.zeros(3)),
        lambda: there[torch.tensor([0, 1])],
    ):
        with pytest.raises(RuntimeError, match="waited"), Copies(), Numbers():
            wait()
