"""Memory and time of predicting on one large scene, or a folder of them, in a process of its own.

python bench/inference.py [--size 20000] [--images 1]    prints the numbers, writes bench/results/inference.json

A small detector with strides 8 to 64, untrained, searches a tiled TIFF: procedural scenes of 1000 px, each turned
and mirrored at random, side by side. Memory is what Linux calls VmHWM, the most that was ever resident, beyond what
the process had before the image was opened; the decoded image would come on top, but is never held. The network's share is the
part of all threads' time in which backbone, pyramid and head compute; the rest is reading, decoding boxes, suppression
and merging, as far as it does not happen beside the network. Two batches compute at the same time, each with half of
the threads, where there are two.
"""

import argparse
import json
import platform
import sys
import tempfile
from pathlib import Path
from threading import get_ident
from time import perf_counter

import numpy as np
import torch

from atss_nb.core.devices import best_precision
from atss_nb.inference.predict import predict
from atss_nb.inference.views import plan_passes
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.scenes.scenes import make_scene
from common import RESULTS, apart, command_line, machine, resident, write

CLASSES = [f"class{k}" for k in range(15)]
BOUND_MB = 2500  # beyond the decoded image, at 20,000 x 20,000
SIDE, KINDS = 1000, 12  # of a scene [px]; how many are drawn


def paint(path: Path, size: int, seed: int = 0) -> None:
    "A square scene as a tiled TIFF, without holding more than libvips does of it."
    import pyvips

    rng, count = np.random.default_rng(seed), -(-size // SIDE)
    scenes = [np.asarray(make_scene((SIDE, SIDE), seed=i).image) for i in range(KINDS)]
    photos = [np.rot90(x, k)[:, ::mirror] for x in scenes for k in range(4) for mirror in (1, -1)]
    photos = [pyvips.Image.new_from_array(np.ascontiguousarray(x)) for x in photos]
    chosen = [photos[i] for i in rng.integers(0, len(photos), count * count)]
    scene = pyvips.Image.arrayjoin(chosen, across=count).crop(0, 0, size, size)
    scene.copy(interpretation="srgb").tiffsave(str(path), tile=True, compression="jpeg", bigtiff=True)


def clocked(model: torch.nn.Module) -> list[float]:
    "Seconds that each of the network's parts takes in each thread, noted from now on."
    spent, started = [], {}
    for part in model.children():
        part.register_forward_pre_hook(lambda *_: started.update({get_ident(): perf_counter()}))
        part.register_forward_hook(lambda *_: spent.append(perf_counter() - started[get_ident()]))
    return spent


def search(folder: Path, batch_size: int) -> dict:
    "What predicting a folder takes; called in a process that has done nothing else."
    torch.manual_seed(0)
    model = build_model(ModelConfig.small(score_threshold=0.02, strides=(8, 16, 32, 64)), 15).eval()
    predict(model, [torch.zeros(3, 256, 256)] * 2, CLASSES)  # compiles what is compiled
    spent, before, start = clocked(model), resident("VmRSS"), perf_counter()
    found = predict(model, folder, CLASSES, batch_size=batch_size, precision="auto")
    seconds, most = perf_counter() - start, resident("VmHWM")
    sides = min(2, torch.get_num_threads())
    share, objects = sum(spent) / seconds / sides, sum(map(len, found))
    return {"before": before, "most": most, "seconds": seconds, "network_share": share, "objects": objects}


def measure(size: int, images: int, batch_size: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        for i in range(images):
            paint(Path(folder) / f"scene{i}.tif", size, seed=i)
        numbers = apart(__file__, "--child", folder, "--batch-size", batch_size)
    windows = images * sum(len(one.windows) for one in plan_passes((size, size)))
    return {
        "size": size,
        "images": images,
        "windows": windows,
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "precision": best_precision(torch.device("cpu")),
        "decoded_mb": 3 * size * size / 1e6,
        "before_mb": numbers["before"] / 1e6,
        "most_mb": numbers["most"] / 1e6,
        "prediction_mb": (numbers["most"] - numbers["before"]) / 1e6,
        "bound_mb": BOUND_MB,
        "seconds": numbers["seconds"],
        "windows_per_s": windows / numbers["seconds"],
        "network_share": numbers["network_share"],
        "objects": numbers["objects"],
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--size", type=int, default=20_000, help="side of the image [px]")
    parser.add_argument("--images", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(search(args.child, args.batch_size)))
        return
    row = measure(args.size, args.images, args.batch_size)
    print(
        *(
            f"{key:14} {value if isinstance(value, str) else format(value, ',.3f')}"
            for key, value in row.items()
        ),
        sep="\n",
    )
    out = args.out or RESULTS / "inference.json"
    known = json.loads(out.read_text(encoding="utf-8"))["runs"] if out.exists() else []
    runs = [one for one in known if (one["size"], one["images"]) != (args.size, args.images)]
    runs = sorted([*runs, row], key=lambda one: one["size"])
    facts = machine(python=platform.python_version(), torch=torch.__version__)
    write(out, {"machine": facts, "runs": runs})
    if row["prediction_mb"] > BOUND_MB:
        sys.exit(f"{row['prediction_mb']:.0f} MB beyond the process before: expected at most {BOUND_MB}")


if __name__ == "__main__":
    main()
