"""Everything that is measured on a GPU, in one command and one file: tests, overlap, training steps, and a training.

python bench/gpu.py [--data ../shared/data/hit_uav]    prints a table and writes bench/results/gpu.json

Each part runs in a process of its own, and the file is written after each. A step of a ResNet-50 at 1,024 px, two
images at a time, is held against the same network with a loss that costs nothing. With `--data`, 12 epochs of HIT-UAV.
With `--device cpu` all of it is rehearsed at sizes that say nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from atss_nb.training.checkpoints import read_log
from common import RESULTS, ROOT, command_line, machine, seconds, write

TESTS = ("tests/test_geometry_cuda.py", "tests/test_training_cuda.py")
STEP = ("--model", "resnet50", "--side", "1024", "--batch", "2", "--frozen", "--workers", "4")
REHEARSAL = (
    "--model",
    "small",
    "--side",
    "128",
    "--batch",
    "2",
    "--frozen",
    "--workers",
    "0",
    "--steps",
    "2",
)
NETWORK_SHARE, PEAK_MB = 0.85, 3100  # wanted of a step, and of its memory in float32


def bench(name: str, *words: object) -> dict:
    "What a benchmark writes, when it runs in a process of its own."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, ROOT / "bench" / name, *words, "--out", out]
        subprocess.run([str(word) for word in command], check=True)
        return json.loads(out.read_text(encoding="utf-8"))


def tests() -> dict:
    "The last line of the tests that need a GPU; they are skipped without one."
    command = [sys.executable, "-m", "pytest", "-q", "-n0", *TESTS]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return {"passed": done.returncode == 0, "said": done.stdout.splitlines()[-1]}


def step(device: str, precision: str) -> dict:
    words = REHEARSAL if device == "cpu" else STEP
    found = bench("train.py", *words, "--device", device, "--precision", precision)
    times = found["seconds"]
    share, images = times["network alone"] / times["whole step"], found["asked"]["batch"] / times["running"]
    return found | {"network_share": share, "images_per_s": images}


def training(args: argparse.Namespace) -> dict:
    "The command, for so many epochs: the best validation."
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "train",
            "--data",
            args.data,
            "--epochs",
            args.epochs,
            "--device",
            args.device,
            "--out",
            folder,
        ]
        subprocess.run([sys.executable, "-m", "atss_nb.cli", *map(str, words)], check=True)
        rows = [row for row in read_log(Path(folder) / "log.jsonl") if "AP50" in row]
    return max(rows, key=lambda row: row["AP50"])


def parts(args: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    found = {
        "tests": tests,
        "step, float32": lambda: step(args.device, "float32"),
        "step, bfloat16": lambda: step(args.device, "bfloat16"),
        "overlap": lambda: bench("overlap.py", "--device", args.device, "--repeats", args.repeats),
    }
    if args.data:
        found["HIT-UAV"] = lambda: training(args)
    return found


def lines(found: dict[str, dict]) -> list[str]:
    "What was reached, a line a part."
    texts = [f"tests            {found['tests']['said']}"]
    for name in (name for name in found if name.startswith("step")):
        one = found[name]
        texts.append(
            f"{name:16} {one['images_per_s']:.1f} images/s, {one['network_share']:.0%} of a step is the network "
            f"(wanted {NETWORK_SHARE:.0%}), peak {one['peak_mb']:,.0f} MB (wanted {PEAK_MB:,} in float32)"
        )
    for row in found.get("overlap", {}).get("rows", []):
        if row["who"] == "here":
            texts.append(f"{row['work']:54} {row['dtype']} {row['value']:10.2f} {row['unit']}")
    if "HIT-UAV" in found:
        texts.append(
            f"HIT-UAV          {found['HIT-UAV']['epoch'] + 1} epochs, val AP50 {found['HIT-UAV']['AP50']:.3f}"
        )
    return texts


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--data", help="HIT-UAV: folder with train and val; without: no training")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--epochs", type=int, default=12, help="of the training")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("bench/gpu.py needs a GPU that PyTorch can use; --device cpu rehearses it")
    gpu = torch.cuda.get_device_name() if args.device == "cuda" else None
    report = {"machine": machine(gpu=gpu), "torch": torch.__version__, "seconds": {}, "parts": {}}
    for name, work in parts(args).items():
        print(f"== {name}", flush=True)
        report["seconds"][name] = seconds(lambda work=work, name=name: report["parts"].update({name: work()}))
        write(args.out or RESULTS / "gpu.json", report)
    print("\n".join(lines(report["parts"])))


if __name__ == "__main__":
    main()
