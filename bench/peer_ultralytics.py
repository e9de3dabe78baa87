"""One training of yolo11n-obb from scratch, run by peers.py in an environment that has Ultralytics (AGPL-3.0).

python peer_ultralytics.py '{"data": ..., "images": ..., "size": ..., "epochs": ..., "seed": ..., "out": ...}'
    prints JSON: CPU seconds at the end of each epoch, detections by image, images a second, versions
"""

import json
import sys
from pathlib import Path
from time import process_time

import cv2
import torch
import ultralytics
from ultralytics import YOLO

ALONE = {"device": "cpu", "workers": 0, "amp": False, "plots": False, "val": False, "verbose": False}


def detect(model: YOLO, paths: list[Path], size: int) -> dict:
    "Detections of each image as its own validation makes them, and images a CPU second after the first one."
    found, images = {}, [cv2.imread(str(path)) for path in paths]
    options = {"imgsz": size, "conf": 0.001, "iou": 0.7, "max_det": 300, "device": "cpu", "verbose": False}
    model.predict(images[0], **options)
    start = process_time()
    for path, image in zip(paths, images, strict=True):
        obb = model.predict(image, **options)[0].obb
        found[path.stem] = torch.cat([obb.xywhr, obb.conf[:, None], obb.cls[:, None]], 1).tolist()
    return {"images_per_s": len(paths) / (process_time() - start), "detections": found}


def main() -> None:
    asked = json.loads(sys.argv[1])
    cv2.setNumThreads(0)
    model, clock, started = YOLO("yolo11n-obb.yaml"), [], process_time()

    def note(trainer) -> None:
        torch.set_num_threads(1)
        clock.append(process_time() - started)

    model.add_callback("on_train_start", note)
    model.add_callback("on_train_epoch_end", note)
    words = {"data": asked["data"], "imgsz": asked["size"], "epochs": asked["epochs"], "seed": asked["seed"]}
    model.train(**words, batch=8, pretrained=False, project=asked["out"], name="run", exist_ok=True, **ALONE)
    trained = YOLO(Path(asked["out"]) / "run/weights/last.pt")
    versions = {"ultralytics": ultralytics.__version__, "torch": torch.__version__}
    found = detect(trained, sorted(Path(asked["images"]).iterdir()), asked["size"])
    found["classes"] = list(trained.names.values())
    print(json.dumps({"clock": clock, "versions": versions, **found}))


if __name__ == "__main__":
    main()
