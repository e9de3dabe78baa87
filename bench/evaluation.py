"""Time of average precision: 500 images, 60 objects and 300 detections in each, 15 classes, one thread.

python bench/evaluation.py [--images 500]    prints a table and writes bench/results/evaluation.json
"""

import numpy as np
import torch

from atss_nb.evaluation.evaluate import IOU_THRESHOLDS, evaluate
from atss_nb.geometry.boxes import obb2poly
from common import RESULTS, arguments, command_line, machine, median_seconds, write

PEERS = {"mmrotate 0.x, AP50": 8.6, "DOTA kit, AP50": 18.4}  # measured earlier on a machine of this kind [s]


def make_case(images: int, objects: int = 60, detections: int = 300, classes: int = 15) -> tuple[list, list]:
    "Detections scattered around their objects, the worse the lower their score."
    rng, predictions, targets = np.random.default_rng(0), [], []
    for _ in range(images):
        boxes = rng.uniform([0, 0, 20, 10, -1.5], [1024, 1024, 90, 40, 1.5], (objects, 5))
        labels, source = rng.integers(classes, size=objects), rng.integers(objects, size=detections)
        doubt = rng.random(detections)
        moved = boxes[source] + doubt[:, None] * rng.normal(0, [9, 9, 3, 3, 0.3], (detections, 5))
        moved[:, 2:4] = moved[:, 2:4].clip(4)
        scores = 1 / (1 + np.exp(6 * doubt - 3 + rng.normal(0, 1.5, detections)))
        predictions.append({"boxes": moved, "labels": labels[source], "scores": scores})
        targets.append({"boxes": boxes, "labels": labels, "difficult": rng.random(objects) < 0.1})
    return predictions, targets


def with_corners(samples: list[dict]) -> list[dict]:
    return [s | {"polys": obb2poly(torch.from_numpy(s["boxes"])).numpy()} for s in samples]


NAMES = [f"class {k}" for k in range(15)]


def measure(case: tuple[list, list], thresholds: list[float], protocol: str = "dota-devkit") -> float:
    return median_seconds(lambda: evaluate(*case, NAMES, iou_thresholds=thresholds, protocol=protocol), 5)


def by_overlap(case: tuple[list, list]) -> dict[str, dict[str, float]]:
    "The same detections with everything equal but the overlap: the shared area, and ProbIoU."
    pair = {name: evaluate(*case, NAMES, protocol=name) for name in ("mmrotate", "probiou")}
    return {name: {key: getattr(e, key) for key in ("AP50", "AP75", "mAP")} for name, e in pair.items()}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--images", type=int, default=500)
    args = arguments(parser)
    boxes = make_case(args.images)
    cases = {"boxes": boxes, "labelled corners": tuple(map(with_corners, boxes))}
    rows = {}
    for name, case in cases.items():
        for title, thresholds in (("AP50", [0.5]), ("ten thresholds", IOU_THRESHOLDS)):
            rows[f"{name}, {title}"] = measure(case, thresholds)
    rows["boxes as clouds, ten thresholds"] = measure(boxes, IOU_THRESHOLDS, "probiou")
    for name, time in (rows | PEERS).items():
        print(f"{name:36} {time:7.3f} s")
    scores = by_overlap(boxes)
    for name, row in scores.items():
        print(f"{name:12}", *(f"{key} {value:.3f}" for key, value in row.items()))
    report = {"machine": machine(images=args.images), "seconds": rows, "peers": PEERS, "by overlap": scores}
    write(args.out or RESULTS / "evaluation.json", report)


if __name__ == "__main__":
    main()
