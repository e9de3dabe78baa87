"""Time and memory of ATSS: the k nearest by index arithmetic, against two ways that look at every anchor.

python bench/assign.py [--seconds 20]    prints a table and writes bench/results/assign.json
"""

import ctypes
import platform
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torchvision.ops import box_iou

from atss_nb.geometry.boxes import inside_margin
from atss_nb.geometry.conventions import convert
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.samples.anchors import AnchorGrid, Anchors
from atss_nb.samples.assign import ATSS, MaxIoU
from common import RESULTS, arguments, boxes_like_dota, command_line, machine, resident, seconds, write

GRIDS = {21_824: AnchorGrid(), 196_416: AnchorGrid(scales_per_octave=3, ratios=(0.5, 1, 2))}
COUNTS = (10, 100, 500, 2000)


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
    chosen = values >= values.mean(0) + values.std(0)
    chosen &= inside_margin(anchors.boxes[:, :2], gts).gather(0, near) > 0.01
    best = torch.full_like(iou, -1).scatter_(0, near, torch.where(chosen, values, -1))
    high, owner = best.max(1)
    return torch.where(high >= 0, owner, -1)


def peak(work) -> float | None:  # [MB] above what was there before; None where the system does not tell
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier work left behind would hide what this one takes
        Path("/proc/self/clear_refs").write_text("5")  # forget the earlier peak
    except (OSError, AttributeError):
        return None
    before = resident("VmRSS")
    work()
    return (resident("VmHWM") - before) / 2**20


def measure(work, limit: float) -> dict:
    work()
    times, extra = [], peak(work)
    while len(times) < 3 or (len(times) < 51 and sum(times) < 1):
        times.append(seconds(work))
        if times[-1] > limit / 3:
            break
    return {
        "ms": 1000 * median(times),
        "least_ms": 1000 * min(times),
        "repeats": len(times),
        "peak_mb": extra,
    }


def compare(limit: float) -> list[dict]:
    methods = {"ATSS": ATSS(), "definition": definition, "matrix": matrix, "MaxIoU": MaxIoU()}
    rows = []
    for anchors in (grid((1024, 1024)) for grid in GRIDS.values()):
        per_object = dict.fromkeys(methods, 0.0)  # [s]
        for count in COUNTS:
            gts = boxes_like_dota(count, 1024.0).float()
            for name, method in methods.items():
                if per_object[name] * count > limit:
                    continue
                row = {"method": name, "anchors": len(anchors), "gts": count}
                rows.append(row | measure(partial(method, anchors, gts), limit))
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
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="do not start what would take longer")
    args = arguments(parser)
    for grid in GRIDS.values():  # compile
        for rule in (ATSS(), MaxIoU()):
            rule(grid((64, 64)), boxes_like_dota(3, 64.0).float())
    rows = compare(args.seconds)
    print("median times on one thread, and the most memory taken on top\n" + table(rows))
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    write(args.out or RESULTS / "assign.json", {"machine": machine(threads=1), **versions, "rows": rows})


if __name__ == "__main__":
    main()
