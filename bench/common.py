"What the benchmarks share: the command line, the machine, clocks, memory, boxes like DOTA's, and the JSON they write."

import argparse
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch

from atss_nb.core.files import replacing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench/results"


def command_line(doc: str | None) -> argparse.ArgumentParser:
    "Options that every benchmark has; its docstring is the help."
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the JSON goes, if not to the project's own results")
    return parser


def arguments(parser: argparse.ArgumentParser, threads: int = 1) -> argparse.Namespace:
    "What was asked for; from here on PyTorch has so many threads."
    args = parser.parse_args()
    torch.set_num_threads(threads)
    return args


def processor() -> str:
    "The name of the CPU, or of its kind where the system does not tell."
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return [*names, platform.processor(), platform.machine()][0]


def machine(**more) -> dict:
    "What a number was measured on, and more that decides it."
    return {"cpu": processor(), "cores": os.cpu_count(), **more}


def commit() -> str:
    "Of the working copy; empty outside of one."
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def write(path: Path, report: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as draft:
        draft.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def seconds(
    work: Callable[[], object], device: str = "cpu", clock: Callable[[], float] = perf_counter
) -> float:
    "The time of one call; on a GPU until it has finished."
    wait(device)
    start = clock()
    work()
    wait(device)
    return clock() - start


def wait(device: str) -> None:
    "Until a GPU has done all that it was told."
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def median_seconds(work: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    "The median time of several calls, after one to warm up."
    return median([seconds(work, device) for _ in range(repeats + 1)][1:])


def resident(key: str) -> int:
    "Bytes of memory of this process: VmRSS now, VmHWM at most so far."
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def apart(script: str | Path, *words: object, python: str | Path = sys.executable) -> dict:
    "What a benchmark prints as its last line, as JSON, when it runs in a process of its own with these words."
    command = [str(python), str(script), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def boxes_like_dota(n: int, extent: float, seed: int = 0, **to) -> torch.Tensor:
    "(n, 5) float64 or as asked: centres anywhere in a square [px], sides log-uniform from 6 to 300 px, any angle."
    draw = np.random.default_rng(seed)
    sides = np.exp(draw.uniform(math.log(6), math.log(300), (n, 2)))
    turned = draw.uniform(-math.pi / 2, math.pi / 2, n)
    return torch.tensor(np.c_[draw.uniform(0, extent, (n, 2)), sides, turned]).to(**to)
