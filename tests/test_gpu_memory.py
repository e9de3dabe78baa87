"""How much of a GPU a training step fills, counted without one.

On the "meta" device a step makes all its tensors, with sizes and without numbers. The sum of those that are alive at
once is what a GPU must hold; the workspaces of its libraries come on top, and bench/train.py measures both there."""

import weakref
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from atss_nb.model.batches import LateCheck
from atss_nb.model.config import ModelConfig
from atss_nb.model.detectors import build_model
from atss_nb.run.settings import TrainConfig
from atss_nb.run.step import make_optimizer, train_step


class Living(TorchDispatchMode):
    "Bytes of the storages that are alive, and the most there were at once."

    def __init__(self, *tensors: torch.Tensor):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0
        for tensor in tensors:
            self.count(tensor)

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta" and storage._cdata not in self.sizes:
            self.sizes[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, storage._cdata)

    def forget(self, name: int) -> None:
        self.now -= self.sizes.pop(name)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.count(leaf)
        return result


def test_the_counter():
    with Living() as living:
        one = torch.empty(100, device="meta")
        two = torch.cat([one, one])[:50]  # a view keeps all of it
        del one
        assert living.now == 800 and living.peak == 1200
        del two
    assert living.now == 0


def peak(config: TrainConfig, side: int, monkeypatch) -> float:  # [GB]
    "The most that two steps hold; the second has the optimiser's memory, too."
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    model = build_model(config.model, 15, pretrained=False).to("meta")
    model.check, optimizer = LateCheck(), make_optimizer(model, config)
    boxes = torch.tensor([[200.0, 200, 90, 40, 0.4]]).repeat(100, 1)
    target = {"boxes": boxes, "labels": torch.zeros(100, dtype=torch.int64)}
    images = [torch.empty(3, side, side, device="meta") for _ in range(config.batch_size)]
    with Living(*model.parameters(), *model.buffers(), *images) as living:
        for _ in range(2):
            train_step(model, images, [target] * len(images), optimizer, config)
    return living.peak / 1e9


@pytest.mark.parametrize("anchors", [{}, {"scales_per_octave": 3, "ratios": (0.5, 1.0, 2.0)}], ids=["1", "9"])
def test_a_resnet50_fits_where_its_peers_do(anchors, monkeypatch):
    "mmrotate's tables state 3.12 GB and more for its rotated ATSS: ResNet-50, two images of 1024 px, float32."
    model = ModelConfig.resnet(50, **anchors)
    config = TrainConfig("", model, batch_size=2, optimizer="sgd", precision="float32")
    most = peak(config, 1024, monkeypatch)
    print(f"{most:.2f} GB")
    assert 2 < most < 3.1
