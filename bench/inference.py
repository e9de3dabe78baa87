"""Memory and time of looking through windows at one large image, in a process of its own.

python bench/inference.py [--size 20000]    prints the numbers, writes bench/results/inference.json

An untrained small detector searches an image of random fields, a striped PNG on disk. Memory is what Linux calls
VmHWM, the most that was ever resident, beyond what the process had before the image was opened.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from atss_nb.model.detectors import ModelConfig, build_model
from atss_nb.run.huge import plan_windows, predict_windows

ROOT = Path(__file__).resolve().parent.parent
WINDOW, OVERLAP = 1024, 200


def resident(key: str) -> int:
    "Bytes of memory of this process: VmRSS now, VmHWM at most so far."
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def paint(path: Path, size: int, seed: int = 0) -> None:
    "A square image of random blocks, without holding more than libvips does of it."
    import pyvips

    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (-(-size // 32), -(-size // 32), 3), np.uint8)
    image = pyvips.Image.new_from_array(blocks).zoom(32, 32).crop(0, 0, size, size)
    image.copy(interpretation="srgb").write_to_file(str(path), compression=1)


def search(path: Path, batch_size: int) -> dict:
    "What one prediction takes; called in a process that has done nothing else."
    torch.manual_seed(0)
    model = build_model(ModelConfig.small(score_threshold=0.012), 15).eval()
    predict_windows(model, torch.zeros(3, 256, 256), ["x"] * 15)  # compiles what is compiled
    before, start = resident("VmRSS"), perf_counter()
    found = predict_windows(model, path, ["x"] * 15, WINDOW, OVERLAP, batch_size=batch_size)
    seconds, most = perf_counter() - start, resident("VmHWM")
    return {"before": before, "most": most, "seconds": seconds, "objects": len(found)}


def measure(size: int, batch_size: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scene.png"
        paint(path, size)
        words = [sys.executable, __file__, "--child", str(path), "--batch-size", str(batch_size)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    numbers = json.loads(done.stdout.splitlines()[-1])
    decoded, extra = 3 * size * size, numbers["most"] - numbers["before"]
    windows = len(plan_windows((size, size), WINDOW, OVERLAP))
    return {
        "size": size,
        "windows": windows,
        "batch_size": batch_size,
        "decoded_mb": decoded / 1e6,
        "before_mb": numbers["before"] / 1e6,
        "most_mb": numbers["most"] / 1e6,
        "prediction_mb": extra / 1e6,
        "seconds": numbers["seconds"],
        "objects": numbers["objects"],
    }


def machine() -> dict:
    return {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=20_000, help="side of the image [px]")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/inference.json")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(search(args.child, args.batch_size)))
        return
    row = measure(args.size, args.batch_size)
    print("\n".join(f"{key:14} {value:.0f}" for key, value in row.items()))
    known = json.loads(args.out.read_text())["runs"] if args.out.exists() else []
    runs = [one for one in known if one["size"] != args.size] + [row]
    args.out.write_text(
        json.dumps({"machine": machine(), "torch": torch.__version__, "runs": runs}, indent=1)
    )


if __name__ == "__main__":
    main()
