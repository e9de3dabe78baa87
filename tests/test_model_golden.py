"A tiny RetinaNet head, its targets, losses, gradients and detections against recorded ones."

from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.model.detectors import ModelConfig, detect, match
from atss_nb.model.heads import RetinaHead
from atss_nb.model.losses import focal_loss
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import MaxIoU
from atss_nb.samples.coders import DeltaXYWHA

GOLDEN = np.load(Path(__file__).parent / "golden" / "07_head_retina_le90.npz")
SIZE = (128, 192)
NAMES = {
    "class_tower.0": "cls_convs.0.conv",
    "box_tower.0": "reg_convs.0.conv",
    "class_conv": "retina_cls",
    "box_conv": "retina_reg",
}


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def recorded_name(name: str) -> str:
    module, kind = name.rsplit(".", 1)
    return f"{NAMES[module]}.{kind}"


def targets(second_empty: bool = False) -> list[dict]:
    both = [{"boxes": golden(f"gt{i}"), "labels": golden(f"gt_label{i}")} for i in (0, 1)]
    if second_empty:
        both[1] = {key: value[:0] for key, value in both[1].items()}
    return both


@pytest.fixture(scope="module")
def setting():
    head = RetinaHead(8, 2, num_anchors=9, feat_channels=16, stacked_convs=1, levels=3)
    head.load_state_dict({name: golden(f"param|{recorded_name(name)}") for name in head.state_dict()})
    anchors = AnchorGrid((8, 16, 32), scales_per_octave=3, ratios=(1.0, 0.5, 2.0))(SIZE)
    return head, anchors, DeltaXYWHA.preset("le90")


def outputs(setting):
    return setting[0]([golden(f"feat{i}") for i in range(3)])


def recorded(name: str) -> torch.Tensor:
    return torch.cat([golden(f"target|{name}{i}") for i in range(3)], 1)


def tied(anchors) -> torch.Tensor:
    """Anchors that share the best IoU with object 6 of image 1.

    It is so small that many anchors hold all of it, so they overlap equally. We take every one of them;
    the record, computed in float32, those that rounding put on top.
    """
    iou = box_iou_rotated(targets()[1]["boxes"][6:7], anchors.boxes)[0]
    return iou > iou.max() - 1e-6


def assigned(anchors, truth) -> torch.Tensor:
    "Our assignment, with the recorded choice among the ties."
    index = MaxIoU()(anchors, [t["boxes"] for t in truth]).gt_index
    if len(truth[1]["boxes"]):
        tie = tied(anchors)
        index[1, tie] = torch.where(recorded("labels")[1, tie] < 2, 6, -1)
    return index


def losses(setting, truth):
    "Per level: focal loss, and L1 on the deltas of the positives, over the positives of the batch."
    head, anchors, coder = setting
    logits, deltas = outputs(setting)
    found = match(assigned(anchors, truth), truth)
    divisor = sum(max(int((found.image == i).sum()), 1) for i in range(len(truth)))
    focal = focal_loss(logits, found.labels) * (found.labels != -2)[..., None]
    wanted = coder.encode(anchors.boxes[found.anchor], found.boxes)
    box = torch.zeros_like(deltas)
    box[found.image, found.anchor] = (deltas[found.image, found.anchor] - wanted).abs()
    sizes = [level.count for level in anchors.levels]
    return [torch.stack([x.sum() for x in loss.split(sizes, 1)]) / divisor for loss in (focal, box)]


def test_outputs(setting):
    logits, deltas = outputs(setting)
    for level, a in enumerate(setting[1].levels):
        here = slice(a.start, a.start + a.count)
        for ours, name, numbers in ((logits, "cls_score", 2), (deltas, "bbox_pred", 5)):
            theirs = golden(f"{name}{level}").view(2, 9, numbers, a.height, a.width)
            torch.testing.assert_close(
                ours[:, here].view(2, a.height, a.width, 9, numbers),
                theirs.permute(0, 3, 4, 1, 2),
                rtol=1e-4,
                atol=1e-5,
            )


def test_targets(setting):
    _, anchors, coder = setting
    found = match(assigned(anchors, targets()), targets())
    counted = recorded("label_weights") > 0
    assert torch.equal(found.labels == -2, ~counted)
    assert torch.equal(torch.where(found.labels < 0, 2, found.labels)[counted], recorded("labels")[counted])
    ours = coder.encode(anchors.boxes[found.anchor], found.boxes)
    theirs = recorded("bbox_targets")[found.image, found.anchor]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert len(found.image) == int(GOLDEN["target|num_total_pos"])


@pytest.mark.parametrize(("empty", "prefix"), [(False, "loss|"), (True, "loss_second_image_empty|")])
def test_losses(setting, empty, prefix):
    focal, box = losses(setting, targets(empty))
    torch.testing.assert_close(focal.double(), golden(f"{prefix}loss_cls"), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(box.double(), golden(f"{prefix}loss_bbox"), rtol=1e-4, atol=1e-5)


def test_gradients(setting):
    head = setting[0]
    head.zero_grad()
    focal, box = losses(setting, targets())
    (focal.sum() + box.sum()).backward()
    for name, parameter in head.named_parameters():
        recorded = golden(f"grad|{recorded_name(name)}")
        torch.testing.assert_close(parameter.grad, recorded, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("image", [0, 1])
def test_detections(setting, image):
    logits, deltas = outputs(setting)
    config = ModelConfig(pre_nms=200, max_detections=100)
    ours = detect(logits[image], deltas[image], SIZE, setting[1], setting[2], config)
    theirs = golden(f"result{image}|dets")
    assert torch.equal(ours["labels"], golden(f"result{image}|labels"))
    torch.testing.assert_close(ours["scores"], theirs[:, 5], rtol=1e-4, atol=1e-5)
    assert box_iou_rotated(ours["boxes"], theirs[:, :5], aligned=True).min() > 0.999
