"""Time of the first answers of a fresh process: with nothing compiled yet, and again from what the first one kept.

Also of a first prediction on the command line, with shipped weights, beside `import torch, torchvision`.

python bench/start.py [--runs 3]    prints a table and writes bench/results/start.json
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from itertools import product
from statistics import median

from common import RESULTS, ROOT, arguments, command_line, machine, seconds, write

ANSWERS = {
    "overlap": "from atss_nb import box_iou_rotated; box_iou_rotated(boxes, boxes)",
    "ATSS": "from atss_nb import ATSS, AnchorGrid; ATSS()(AnchorGrid()((256, 256)), boxes)",
    "microscope": "from atss_nb import Microscope; Microscope()",
}
LIMITS = {"overlap": 3.0, "ATSS": 6.0, "microscope": 8.0}  # cold, in seconds after `import torch`
CODE = """
import time, torch
boxes = torch.tensor([[60.0, 40, 80, 20, 0.5], [70, 50, 60, 30, -0.4]])
start, cpu = time.perf_counter(), time.process_time()
{answer}
first, first_cpu = time.perf_counter() - start, time.process_time() - cpu
start = time.perf_counter()
{answer}
print(first, first_cpu, time.perf_counter() - start)
"""


def first_answer(answer: str, cache: str) -> dict[str, float]:
    "Seconds after `import torch` of the first and of the second answer of a process."
    one = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-c", CODE.format(answer=answer)]
    run = subprocess.run(command, env=os.environ | one, capture_output=True, text=True, check=True)
    return dict(zip(("first", "first, CPU", "second"), map(float, run.stdout.split()), strict=True))


def predict_seconds(runs: int) -> dict[str, float]:
    "Of whole processes: importing PyTorch, a first prediction, and one with what the first has compiled."
    took = {"imports": [], "cold": [], "kept": []}
    photo, imports = ROOT / "data/sample/images/0000.png", [sys.executable, "-c", "import torch, torchvision"]
    with tempfile.TemporaryDirectory() as home:
        for i, name in product(range(runs), took):
            words = ["predict", "scenes", photo, "--out", f"{home}/{name} {i}"]
            command = (
                imports if name == "imports" else [sys.executable, "-m", "atss_nb.cli", *map(str, words)]
            )
            caches = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": f"{home}/cache {i}"}
            work = partial(subprocess.run, command, env=caches, capture_output=True, check=True)
            took[name].append(seconds(work))
    return {name: median(times) for name, times in took.items()}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    args = arguments(parser)
    rows = {}
    for name, answer in ANSWERS.items():
        cold, warm = [], []
        for _ in range(args.runs):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(first_answer(answer, cache))
                warm.append(first_answer(answer, cache))
        fastest = (min(runs, key=lambda row: row["first"]) for runs in (cold, warm))
        rows[name] = dict(zip(("cold", "kept"), fastest, strict=True)) | {"limit": LIMITS[name]}
        shown = (f"{key} {row['first']:6.2f} s" for key, row in list(rows[name].items())[:2])
        print(
            f"{name:12}", *shown, f"again {rows[name]['kept']['second']:6.3f} s, limit {LIMITS[name]:.0f} s"
        )
    command = predict_seconds(args.runs)
    ratio = command["kept"] / command["imports"]
    print(
        *(f"{name} {took:.2f} s" for name, took in command.items()), f"{ratio:.2f} times the imports, limit 2"
    )
    report = {"machine": machine(runs=args.runs), "seconds": rows, "predict": {**command, "ratio": ratio}}
    write(args.out or RESULTS / "start.json", report)


if __name__ == "__main__":
    main()
