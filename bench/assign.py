"""Time and memory of ATSS: the k nearest by index arithmetic, against two ways that look at every anchor.

python bench/assign.py [--seconds 20]    prints a table and writes bench/results/assign.json
"""

import argparse
import ctypes
import json
import os
import platform
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torchvision.ops import box_iou

from atss_nb.geometry.boxes import inside_margin
from atss_nb.geometry.conventions import convert
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.samples.anchors import AnchorGrid, Anchors
from atss_nb.samples.assign import ATSS, MaxIoU

GRIDS = {21_824: AnchorGrid(), 196_416: AnchorGrid(scales_per_octave=3, ratios=(0.5, 1, 2))}
COUNTS = (10, 100, 500, 2000)


def objects(count: int, side: int = 1024) -> torch.Tensor:
    "Oriented boxes anywhere in a tile, sides log-uniform from 6 to 300 px."
    boxes = torch.rand(count, 5, generator=torch.Generator().manual_seed(0))
    boxes[:, :2] *= side
    boxes[:, 2:4] = 6 * (boxes[:, 2:4] * 3.9).exp()
    boxes[:, 4] = (boxes[:, 4] - 0.5) * torch.pi
    return boxes


def definition(anchors: Anchors, gts: torch.Tensor, k: int = 9) -> torch.Tensor:
    "ATSS as it is written: one ground truth after the other, each against all anchors, in float64."
    boxes, gts = anchors.boxes.double(), gts.double()
    best, owner = torch.full((len(boxes),), -1.0).double(), torch.full((len(boxes),), -1)
    for g, gt in enumerate(gts):
        iou = box_iou_rotated(gt.expand_as(boxes), boxes, aligned=True)
        distance, near = (boxes[:, :2] - gt[:2]).square().sum(1), []
        for v in anchors.levels:
            near.append(v.start + distance[v.start : v.start + v.count].sort(stable=True).indices[:k])
        near = torch.cat(near)
        keep = near[iou[near] >= iou[near].mean() + iou[near].std() - 1e-12]
        keep = keep[inside_margin(boxes[keep, :2], gt[None])[:, 0] > 0.01]
        keep = keep[iou[keep] > best[keep]]
        best[keep], owner[keep] = iou[keep], g
    return owner


def matrix(anchors: Anchors, gts: torch.Tensor, k: int = 9) -> torch.Tensor:
    "As the peers do it: the full matrices of overlaps (torchvision's) and distances."
    degrees = [convert(b, "le90", "torchvision") for b in (anchors.boxes, gts)]
    iou = box_iou(*degrees, fmt="cxcywhr")
    distance = torch.cdist(anchors.boxes[:, :2], gts[:, :2])
    levels = [(v.start, distance[v.start : v.start + v.count]) for v in anchors.levels]
    near = torch.cat([start + d.topk(min(k, len(d)), dim=0, largest=False).indices for start, d in levels])
    values = iou.gather(0, near)
    wanted = values >= values.mean(0) + values.std(0)
    wanted &= inside_margin(anchors.boxes[:, :2], gts).gather(0, near) > 0.01
    best = torch.full_like(iou, -1).scatter_(0, near, torch.where(wanted, values, -1))
    high, owner = best.max(1)
    return torch.where(high >= 0, owner, -1)


def memory(field: str) -> float:  # [MB]
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def peak(work) -> float | None:  # [MB] above what was there before; None where the system does not tell
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier work left behind would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # forget the earlier peak
    except (OSError, AttributeError):
        return None
    before = memory("VmRSS")
    work()
    return memory("VmHWM") - before


def measure(work, seconds: float) -> dict:
    work()
    times, extra = [], peak(work)
    while len(times) < 3 or (len(times) < 51 and sum(times) < 1):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
        if times[-1] > seconds / 3:
            break
    return {
        "ms": 1000 * median(times),
        "least_ms": 1000 * min(times),
        "repeats": len(times),
        "peak_mb": extra,
    }


def compare(seconds: float) -> list[dict]:
    methods = {"ATSS": ATSS(), "definition": definition, "matrix": matrix, "MaxIoU": MaxIoU()}
    rows = []
    for anchors in (grid((1024, 1024)) for grid in GRIDS.values()):
        per_object = dict.fromkeys(methods, 0.0)  # [s]
        for count in COUNTS:
            gts = objects(count)
            for name, method in methods.items():
                if per_object[name] * count > seconds:
                    continue
                row = {"method": name, "anchors": len(anchors), "gts": count}
                rows.append(row | measure(partial(method, anchors, gts), seconds))
                per_object[name] = rows[-1]["ms"] / 1000 / count
            if count <= 10:
                assert torch.equal(ATSS()(anchors, gts).gt_index, definition(anchors, gts))
    return rows


def table(rows: list[dict]) -> str:
    found = {(r["method"], r["anchors"], r["gts"]): r for r in rows}
    methods = list(dict.fromkeys(r["method"] for r in rows))
    lines = [f"{'anchors':>8} {'gts':>5} " + "".join(f"{m:>24}" for m in methods)]
    for n in GRIDS:
        for count in COUNTS:
            cells = []
            for m in methods:
                row = found.get((m, n, count))
                extra = "" if not row or row["peak_mb"] is None else f"{row['peak_mb']:8.1f} MB"
                cells.append(f"{row['ms']:10.2f} ms{extra:>11}" if row else f"{'not run':>24}")
            lines.append(f"{n:8,} {count:5} " + "".join(cells))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20, help="do not start what would take longer")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for grid in GRIDS.values():  # compile
        for rule in (ATSS(), MaxIoU()):
            rule(grid((64, 64)), objects(3, 64))
    rows = compare(args.seconds)
    print("median times on one thread, and the most memory taken on top\n" + table(rows))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "threads": 1}
    report = {
        "machine": machine,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "rows": rows,
    }
    (results / "assign.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
