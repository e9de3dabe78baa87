"""One training as `atss train` does it, run by peers.py.

python bench/peer_atss.py '{"data": ..., "images": ..., "size": ..., "epochs": ..., "seed": ..., "out": ...}'
    prints JSON: CPU seconds at the end of each epoch, detections by image, images a second, versions
"""

import json
import sys
from importlib import metadata
from pathlib import Path
from time import process_time

import torch

from atss_nb.data.datasets import read_image
from atss_nb.inference.detector import Detector, load
from atss_nb.training.loop import train
from atss_nb.training.settings import TrainConfig


def detect(detector: Detector, paths: list[Path]) -> dict:
    "Detections of each image, and images a CPU second after the first one."
    found, images = {}, [read_image(path) for path in paths]
    detector(images[0], precision="auto")
    start = process_time()
    for path, image in zip(paths, images, strict=True):
        answer = detector(image, precision="auto")
        rows = torch.cat([answer.boxes, answer.scores[:, None], answer.labels[:, None]], 1)
        found[path.stem] = rows.tolist()
    return {"images_per_s": len(paths) / (process_time() - start), "detections": found}


def main() -> None:
    asked = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    images, out = asked.pop("images"), asked.pop("out")
    clock = []
    config = TrainConfig.suggest(**asked, validations=0)
    started = process_time()
    train(config, out, progress=False, watch=lambda *_: clock.append(process_time() - started))
    versions = {name: metadata.version(name) for name in ("atss_nb", "torch")}
    detector = load(out, "cpu")
    found = {"classes": detector.classes, **detect(detector, sorted(Path(images).iterdir()))}
    print(json.dumps({"clock": clock, "versions": versions, **found}))


if __name__ == "__main__":
    main()
