"Five tiny heads of two other systems: outputs, targets, losses, gradients and detections against recorded ones."

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.geometry.boxes import obb2hbb
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.model import retinanet
from atss_nb.model.config import ModelConfig
from atss_nb.model.heads import HeadOutput, RetinaHead
from atss_nb.model.losses import centerness
from atss_nb.model.retinanet import postprocess, retinanet_losses
from atss_nb.model.targets import gather_targets
from atss_nb.samples.anchors import AnchorGrid, Anchors
from atss_nb.samples.assign import ATSS, MaxIoU
from atss_nb.samples.coders import DeltaXYWHA

SIZE = (128, 192)
NINE = {"scales_per_octave": 3, "ratios": (1.0, 0.5, 2.0)}
NAMES = {
    "class_tower.0": "cls_convs.0.conv",
    "box_tower.0": "reg_convs.0.conv",
    "class_tower.1": "cls_convs.0.gn",
    "box_tower.1": "reg_convs.0.gn",
}
RETINA = NAMES | {"class_conv": "retina_cls", "box_conv": "retina_reg"}
PAPER = NAMES | {"class_conv": "atss_cls", "box_conv": "atss_reg", "center_conv": "atss_centerness"}


@dataclass(frozen=True)
class Peer:
    "A recorded head, and ours that shall say the same."

    name: str
    angle: str
    assigner: ATSS | MaxIoU
    grid: dict  # of the anchors
    names: dict  # our module -> theirs
    paper: bool = False  # group norm, scales, centerness, IoU loss

    def __str__(self) -> str:
        return self.name

    @cached_property
    def golden(self) -> dict:
        return dict(np.load(Path(__file__).parent / "golden" / f"07_head_{self.name}.npz"))

    def read(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.golden[name])

    def levels(self, name: str) -> torch.Tensor:
        "Three levels in one table."
        return torch.cat([self.read(f"{name}{i}") for i in range(3)], 1)

    def theirs(self, name: str) -> str:
        module, kind = name.rsplit(".", 1)
        return f"{self.names[module]}.{kind}"

    def parameters(self, prefix: str) -> dict[str, torch.Tensor]:
        "Recorded weights, or their gradients, under our names."
        names = [n for n in self.head.state_dict() if n != "scales"]
        found = {name: self.read(f"{prefix}|{self.theirs(name)}") for name in names}
        if self.paper:
            found["scales"] = torch.stack([self.read(f"{prefix}|scales.{i}.scale") for i in range(3)])
        return found

    @cached_property
    def head(self) -> RetinaHead:
        anchors = len(AnchorGrid((8,), **self.grid).sizes(8))
        norm = "gn" if self.paper else None
        return RetinaHead(8, 2, anchors, 16, 1, norm, self.paper, 3, centerness=self.paper)

    def loaded(self) -> RetinaHead:
        self.head.load_state_dict(self.parameters("param"))
        for norm in (m for m in self.head.modules() if isinstance(m, torch.nn.GroupNorm)):
            norm.num_groups = 4  # of 4 channels, where we take 8
        return self.head

    @property
    def anchors(self) -> Anchors:
        "1.x renames its squares when it makes angles legal: they stand at minus a quarter turn, and so do their deltas."
        grid = AnchorGrid((8, 16, 32), **self.grid)(SIZE)
        turn = torch.tensor([0, 0, 0, 0, -math.pi / 2]) if self.paper else torch.zeros(5)
        return replace(grid, boxes=grid.boxes + turn)

    @property
    def coder(self) -> DeltaXYWHA:
        return DeltaXYWHA.preset(self.angle)

    @property
    def config(self) -> ModelConfig:
        loss = (
            {"box_loss": "linear", "box_weight": 2.0} if self.paper else {"box_loss": "l1", "box_weight": 1.0}
        )
        return ModelConfig(angle=self.angle, pre_nms=200, max_detections=100, **loss)

    def outputs(self) -> HeadOutput:
        return self.loaded()([self.read(f"feat{i}") for i in range(3)])

    def targets(self, second_empty: bool = False) -> list[dict]:
        both = [{"boxes": self.read(f"gt{i}"), "labels": self.read(f"gt_label{i}")} for i in (0, 1)]
        if second_empty:
            both[1] = {key: value[:0] for key, value in both[1].items()}
        return both

    def assign(self, anchors, boxes) -> torch.Tensor:
        """Our assignment, with the recorded choice where anchors tie.

        MaxIoU saves the best anchors of every object, and some objects are overlapped equally by many: a tiny one that
        each of them holds whole, or one that lies just between them. We take every one of them; the record, computed
        in float32, those that rounding put on top.
        """
        found = self.assigner(anchors, boxes).gt_index
        for i, gts in enumerate(boxes if isinstance(self.assigner, MaxIoU) else []):
            recorded = self.levels("target|labels")[i], self.levels("target|label_weights")[i] > 0
            for g, iou in enumerate(box_iou_rotated(gts, anchors.boxes)):
                tie = (iou > iou.max() - 1e-6) & (iou < 0.5)
                if int(tie.sum()) > 1:
                    given = torch.where(recorded[0] < 2, g, torch.where(recorded[1], -1, -2))
                    found[i, tie] = given[tie]
        return found


def assert_same_detections(peer: Peer, one: HeadOutput, image: int, anchors: Anchors) -> None:
    "What we make of a head's numbers is what its system made of them."
    if (
        peer.paper
    ):  # it counts pairs of anchor and class, we count anchors: leave it the best 200 pairs of each level
        for level in one.logits.split([v.count for v in anchors.levels]):
            least = level.flatten().sort(descending=True).values[:200][-1]
            level[level < least] = -100
        boxes, scores = peer.read(f"result{image}|bboxes"), peer.read(f"result{image}|scores").sqrt()
    else:
        boxes, scores = peer.read(f"result{image}|dets").split([5, 1], 1)
    ours = postprocess(one, SIZE, anchors, peer.coder, peer.config)
    assert torch.equal(ours["labels"], peer.read(f"result{image}|labels"))
    torch.testing.assert_close(ours["scores"], scores.flatten(), rtol=1e-4, atol=1e-5)
    assert box_iou_rotated(ours["boxes"], boxes.float(), aligned=True).min() > 0.999


RECORDS = [
    Peer("retina_le90", "le90", MaxIoU(), NINE, RETINA),
    Peer("retina_oc_hbb", "oc", MaxIoU(), NINE, RETINA),
    Peer("atss0x_le90", "le90", ATSS.preset("mmrotate-0.x"), {}, RETINA),
    Peer("atss0x_le135", "le135", ATSS.preset("mmrotate-0.x"), {}, RETINA),
    Peer("atss1x_le90", "le90", ATSS.preset("mmrotate-1.x"), {}, PAPER, paper=True),
]
by_peer = pytest.mark.parametrize("peer", RECORDS, ids=str)


def upright(targets: list[dict]) -> list[dict]:
    "Upright boxes around the boxes, for the peer that assigns by those."
    for t in targets:
        x1, y1, x2, y2 = obb2hbb(t["boxes"]).unbind(1)
        t["boxes"] = torch.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0 * x1], 1)
    return targets


@by_peer
def test_outputs(peer):
    outputs = peer.outputs()
    for level, a in enumerate(peer.anchors.levels):
        here, per = slice(a.start, a.start + a.count), a.per_location
        pairs = [(outputs.logits, "cls_score", 2), (outputs.deltas, "bbox_pred", 5)]
        if peer.paper:
            pairs.append((outputs.centerness[..., None], "centerness", 1))
        for ours, name, numbers in pairs:
            theirs = peer.read(f"{name}{level}").view(2, per, numbers, a.height, a.width)
            ours = ours[:, here].reshape(2, a.height, a.width, per, numbers)
            torch.testing.assert_close(ours, theirs.permute(0, 3, 4, 1, 2), rtol=1e-4, atol=1e-5)


def matches(peer: Peer, second_empty: bool = False):
    "Who learns what, and its truth; the circumscribed-box peer assigns by upright boxes."
    truth = peer.targets(second_empty)
    shown = upright(peer.targets(second_empty)) if peer.name.endswith("hbb") else truth
    return gather_targets(peer.assign(peer.anchors, [t["boxes"] for t in shown]), truth)


@pytest.mark.parametrize("peer", [p for p in RECORDS if not p.paper], ids=str)
def test_targets(peer):
    """Who learns what. Of the head of 1.x no targets were recorded.

    Its assigner is compared in `test_samples_assign`, and its losses and gradients below hang on them.
    """
    found = matches(peer)
    counted = peer.levels("target|label_weights") > 0
    labels = torch.where(found.labels < 0, 2, found.labels)
    assert torch.equal(found.labels == -2, ~counted)
    assert torch.equal(labels[counted], peer.levels("target|labels")[counted])
    ours = peer.coder.encode(peer.anchors.boxes[found.anchor], found.boxes)
    theirs = peer.levels("target|bbox_targets")[found.image, found.anchor]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len(found.image) == int(peer.golden["target|num_total_pos"])


def losses(peer: Peer, monkeypatch, second_empty: bool = False) -> dict[str, torch.Tensor]:
    "The detector's own losses; only what the peer is known to do otherwise is changed."
    found = matches(peer, second_empty)
    if peer.paper:  # it measures how central an anchor is in the upright box around the object
        hulls = {"boxes": found.boxes}
        upright([hulls])
        monkeypatch.setattr(retinanet, "centerness", lambda points, boxes: centerness(points, hulls["boxes"]))
    return retinanet_losses(peer.outputs(), peer.anchors, found, peer.coder, peer.config)


@by_peer
@pytest.mark.parametrize(("empty", "prefix"), [(False, "loss|"), (True, "loss_second_image_empty|")])
def test_losses(peer, empty, prefix, monkeypatch):
    ours = losses(peer, monkeypatch, empty)
    found = matches(peer, empty)
    positives = [int((found.image == i).sum()) for i in (0, 1)]
    # the peers divide by the sum over images of max(positives, 1), and so count an empty image as one positive
    divided = sum(positives) / sum(max(n, 1) for n in positives)
    names = {"classification": "loss_cls", "box": "loss_bbox", "centerness": "loss_centerness"}
    for name, value in ours.items():
        expected = peer.golden[f"{prefix}{names[name]}"].sum()
        share = 1 if name == "box" and peer.paper else divided  # that one is divided by the sum of centerness
        assert value.item() * share == pytest.approx(expected, rel=1e-4), name


@by_peer
def test_gradients(peer, monkeypatch):
    total = losses(peer, monkeypatch)
    peer.head.zero_grad()
    sum(total.values()).backward()
    assert sum(total.values()).item() == pytest.approx(float(peer.golden["loss|total"]), rel=1e-4)
    recorded = peer.parameters("grad")
    for name, parameter in peer.head.named_parameters():
        torch.testing.assert_close(
            parameter.grad, recorded[name], rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@by_peer
@pytest.mark.parametrize("image", [0, 1])
def test_detections(peer, image):
    outputs = peer.outputs()
    one = HeadOutput(*(None if x is None else x[image].detach() for x in outputs))
    assert_same_detections(peer, one, image, peer.anchors)
