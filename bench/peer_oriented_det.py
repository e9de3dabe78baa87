"""One training of oriented-det's Rotated RetinaNet from scratch, run by peers.py in an environment that has it (Apache-2.0).

python peer_oriented_det.py '{"data": ..., "images": ..., "size": ..., "epochs": ..., "seed": ..., "out": ...}'
    prints JSON: CPU seconds at the end of each epoch, detections by image, images a second, versions

Network, anchors, targets, losses, flips, schedule and suppression are those of its configuration for DOTA
(rotated_retinanet/dota_le90_1x.json) on its smallest ResNet, with its learning rate for eight images instead of two.
That configuration builds on ImageNet's weights with frozen norms, which from random weights cannot learn: here they do.
"""

import json
import random
import sys
from importlib import metadata
from pathlib import Path
from time import process_time

import numpy as np
import torch
from oriented_det.data.dota import DOTADataset, DOTASample
from oriented_det.geometry.rbox import RBox
from oriented_det.geometry.transforms import flip_horizontal, flip_vertical, scale
from oriented_det.models.backbones.resnet_fpn import build_resnet_fpn_backbone
from oriented_det.models.rotated_retinanet import RotatedRetinaNet
from PIL import Image
from torch import Tensor, nn

MEAN, STD = (0.307941, 0.311986, 0.297761), (0.192315, 0.187769, 0.181551)
BATCH, RATE = 8, 0.01


def network(classes: int) -> RotatedRetinaNet:
    body = build_resnet_fpn_backbone(
        "resnet18",
        trainable_layers=5,
        norm_layer=nn.BatchNorm2d,
        returned_layers=[2, 3, 4],
        use_p6p7_extra_levels=True,
    )
    anchors = {"octave_base_scale": 4, "scales_per_octave": 3, "anchor_ratios": [0.5, 1.0, 2.0]}
    coder = {"target_means": (0.0,) * 5, "target_stds": (1.0,) * 5}
    after = {"score_threshold": 0.001, "final_nms_iou_threshold": 0.1, "max_detections_per_image": 2000}
    layout = {"returned_layers": [2, 3, 4], "fpn_extra_level": True, "stacked_convs": 4}
    options = anchors | coder | after | layout
    return RotatedRetinaNet(classes, backbone=body, box_reg_loss_type="l1", **options)


def read(path: Path, size: int) -> tuple[Tensor, float]:
    "An image, shrunk or enlarged to its long side and padded to a square; and by how much."
    image = Image.open(path).convert("RGB")
    by = size / max(image.size)
    small = np.asarray(image.resize([round(by * side) for side in image.size], Image.Resampling.BILINEAR))
    pixels = (torch.from_numpy(small.copy()).permute(2, 0, 1) / 255 - torch.tensor(MEAN).view(3, 1, 1)) / (
        torch.tensor(STD).view(3, 1, 1)
    )
    square = torch.zeros(3, size, size)
    square[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return square, by


def sample(one: DOTASample, classes: list[str], size: int) -> tuple[Tensor, dict]:
    "An image and its target, perhaps flipped."
    image, by = read(one.image_path, size)
    boxes = [scale(object.rbox, by) for object in one.annotations]
    if random.random() < 0.5:
        image, boxes = image.flip(2), [flip_horizontal(box, size) for box in boxes]
    if random.random() < 0.5:
        image, boxes = image.flip(1), [flip_vertical(box, size) for box in boxes]
    labels = torch.tensor([classes.index(object.class_name) + 1 for object in one.annotations])
    return image, {"rboxes": boxes, "labels": labels}


def train(data: Path, size: int, epochs: int) -> tuple[RotatedRetinaNet, list[str], list[float]]:
    "The network, its classes, and CPU seconds at the end of each epoch."
    started, clock = process_time(), []
    folder = DOTADataset(data / "train", difficult_strategy="keep", filter_empty_gt=True)
    samples = [folder[i] for i in range(len(folder))]
    classes = sorted({object.class_name for one in samples for object in one.annotations})
    model = network(len(classes)).train()
    steps = -(-len(samples) // BATCH)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=1e-4)
    warm = min(500, steps)  # as many steps as its own, but at most an epoch
    drops = [epochs * steps * 8 // 12, epochs * steps * 11 // 12]
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1, (i + 1) / warm) * 0.1 ** sum(i >= drop for drop in drops)
    )
    for _ in range(epochs):
        random.shuffle(samples)
        for i in range(0, len(samples), BATCH):
            images, targets = zip(
                *(sample(one, classes, size) for one in samples[i : i + BATCH]), strict=True
            )
            losses = model(list(images), list(targets))
            optimizer.zero_grad()
            (losses["loss_classifier"] + losses["loss_box_reg"]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 35.0)
            optimizer.step()
            rate.step()
        clock.append(process_time() - started)
    return model.eval(), classes, clock


def row(box: RBox, by: float, score: float, label: int) -> list[float]:
    "In the pixels of the image as it is."
    return [box.cx / by, box.cy / by, box.width / by, box.height / by, box.angle, score, label - 1]


@torch.inference_mode()
def detect(model: RotatedRetinaNet, paths: list[Path], size: int) -> dict:
    "Detections of each image, and images a CPU second after the first one."
    found = {}
    model([read(paths[0], size)[0]])
    start = process_time()
    for path in paths:
        image, by = read(path, size)
        answer = model([image])[0]
        columns = answer["rboxes"], answer["scores"].tolist(), answer["labels"].tolist()
        found[path.stem] = [row(box, by, score, label) for box, score, label in zip(*columns, strict=True)]
    return {"images_per_s": len(paths) / (process_time() - start), "detections": found}


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(asked["seed"])
    random.seed(asked["seed"])
    model, classes, clock = train(Path(asked["data"]), asked["size"], asked["epochs"])
    found = detect(model, sorted(Path(asked["images"]).iterdir()), asked["size"])
    versions = {name: metadata.version(name) for name in ("oriented-det", "torch")}
    print(json.dumps({"clock": clock, "versions": versions, "classes": classes, **found}))


if __name__ == "__main__":
    main()
