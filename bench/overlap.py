"""Speed of rotated overlap, its gradient and suppression, against torchvision, Shapely and plain torch.

python bench/overlap.py                  prints a table and writes bench/results/overlap.json (about 3 minutes)
python bench/overlap.py --device cuda    the same work on a GPU, to bench/results/overlap_cuda.json
"""

import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version

import numba
import shapely
import torch
import torchvision

from atss_nb.geometry.boxes import obb2poly
from atss_nb.geometry.conventions import convert
from atss_nb.geometry.nms import nms_rotated
from atss_nb.geometry.overlap import box_iou_rotated
from common import RESULTS, boxes_like_dota, command_line, median_seconds, write

EXTENTS = {"tile (centres in 1024 px)": 1024.0, "dense (centres in 100 px)": 100.0}
FIRST_CALL = """
from time import perf_counter
import torch
from atss_nb.geometry.overlap import box_iou_rotated
boxes = torch.rand(10, 5)
start = perf_counter()
box_iou_rotated(boxes, boxes)
print(perf_counter() - start)"""


def plain_iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    "The walk of notebook 02 in plain torch operations; (..., 5), (..., 5) broadcast."
    (x, y), t = (b - a)[..., :2].unbind(-1), a[..., 4] - b[..., 4]
    c, s = b[..., 4].cos(), b[..., 4].sin()
    d = torch.stack([x * c + y * s, y * c - x * s], -1)[..., None, :]
    still = torch.cat([torch.zeros_like(a[..., :2]), a[..., 2:4], torch.zeros_like(a[..., 4:])], -1).expand(
        *t.shape, 5
    )
    p = obb2poly(still + torch.nn.functional.pad(t[..., None], (4, 0)))
    q, half = p.roll(-1, -2), (b[..., 2:4] / 2)[..., None, :]
    e = q - p
    y0, y1 = (torch.minimum(torch.maximum(v[..., 1], (d - half)[..., 1]), (d + half)[..., 1]) for v in (p, q))
    slope = e[..., 0] / torch.where(e[..., 1] == 0, 1, e[..., 1])
    xs = [v[..., 0] + (h - v[..., 1]) * slope for v, h in ((p, y0), (q, y1))]
    ca, cb = (torch.minimum(torch.maximum(v, (d - half)[..., 0]), (d + half)[..., 0]) for v in xs)
    before, free, after = (xs[0] - ca).abs(), (cb - ca).abs(), (xs[1] - cb).abs()
    total = (before + free + after).clamp(min=1e-30)
    inter = ((y1 - y0) * (ca * before + (ca + cb) / 2 * free + cb * after) / total).sum(-1).clamp(min=0)
    return inter / (a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - inter)


def pairwise(report, device: str, dtype: torch.dtype, repeats: int) -> None:
    for place, extent in EXTENTS.items():
        a, b = (boxes_like_dota(n, extent, n, device=device, dtype=dtype) for n in (1000, 20_000))
        work = f"pairwise 1000 x 20,000, {place}"
        report(
            work,
            "here",
            dtype,
            2e7 / median_seconds(lambda a=a, b=b: box_iou_rotated(a, b), repeats, device) / 1e6,
        )
        p, q = (convert(t, "le90", "torchvision") for t in (a[:100], b))  # a rate needs no more than 100 rows
        theirs = median_seconds(
            lambda p=p, q=q: torchvision.ops.box_iou(p, q, fmt="cxcywhr"), repeats, device
        )
        report(work, "torchvision", dtype, 2e6 / theirs / 1e6)
        plain = median_seconds(lambda a=a, b=b: plain_iou(a[:20, None], b[None]), repeats, device)
        report(work, "plain torch", dtype, 4e5 / plain / 1e6)
        if device == "cpu" and dtype == torch.float64:
            left, right = (shapely.polygons(obb2poly(t).numpy()) for t in (a[:20], b[:1000]))
            polygons = median_seconds(
                lambda p=left, q=right: shapely.area(shapely.intersection(p[:, None], q)), 1
            )
            report(work, "Shapely", dtype, 2e4 / polygons / 1e6)


def aligned(report, device: str, dtype: torch.dtype, repeats: int) -> None:
    def both_ways(iou, a, b):
        a.grad = b.grad = None
        iou(a, b).sum().backward()

    for n in (2000, 100_000):
        a = boxes_like_dota(n, 1024.0, 1, device=device, dtype=dtype)
        b = a + torch.randn_like(a) * a.new_tensor([4, 4, 1, 1, 0.1])
        a.requires_grad_(), b.requires_grad_()
        for name, iou in (
            ("here", lambda a, b: box_iou_rotated(a, b, aligned=True)),
            ("plain torch", plain_iou),
        ):
            time = median_seconds(lambda iou=iou, a=a, b=b: both_ways(iou, a, b), 5 * repeats, device)
            report(f"aligned, forward and backward, {n:,} pairs", name, dtype, 1e3 * time)


def matrix_nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> list[int]:
    "The greedy rule on the full matrix of torchvision's overlaps."
    degrees = convert(boxes[scores.argsort(descending=True, stable=True)], "le90", "torchvision")
    covers = torchvision.ops.box_iou(degrees, degrees, fmt="cxcywhr") > threshold
    gone = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for i in range(len(boxes)):
        if not gone[i]:
            gone[i + 1 :] |= covers[i, i + 1 :]
    return (~gone).nonzero()[:, 0].tolist()


def suppression(report, device: str, repeats: int) -> None:
    for n in (2000, 10_000):
        boxes = boxes_like_dota(n, 1024.0, 5, device=device, dtype=torch.float32)
        scores = torch.rand(n, generator=torch.Generator().manual_seed(0)).to(device)
        for threshold in (0.1, 0.5):
            work = f"NMS at {threshold}, {n:,} boxes"
            time = median_seconds(
                lambda b=boxes, s=scores, t=threshold: nms_rotated(b, s, t), 3 * repeats, device
            )
            report(work, "here", torch.float32, 1e3 * time)
            if n == 2000:
                time = median_seconds(lambda b=boxes, s=scores, t=threshold: matrix_nms(b, s, t), 1, device)
                report(work, "torchvision's matrix", torch.float32, 1e3 * time)


def first_call(report) -> None:
    "The very first call of a process: with an empty cache of compiled code, and with a filled one."
    with tempfile.TemporaryDirectory() as folder:
        for state in ("compiling", "from the cache"):
            env = os.environ | {"NUMBA_CACHE_DIR": folder}
            run = subprocess.run(
                [sys.executable, "-c", FIRST_CALL], env=env, capture_output=True, text=True, check=True
            )
            report(f"first call, {state}", "here", torch.float32, 1e3 * float(run.stdout))


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    features = numba.core.codegen.get_host_cpu_features()
    widest = next((name for name in ("avx512f", "avx2", "neon") if f"+{name}" in features), "no vectors")
    return f"{platform.machine()}, {widest}, {os.cpu_count()} cores"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many runs counts")
    args = parser.parse_args()
    rows = []

    def report(work: str, who: str, dtype: torch.dtype, value: float) -> None:
        unit = "million pairs/s" if work.startswith("pairwise") else "ms"
        row = {"work": work, "who": who, "dtype": str(dtype)[6:], "threads": torch.get_num_threads()}
        rows.append(row | {"value": value, "unit": unit})
        same = [r for r in rows if r["work"] == work and r["dtype"] == row["dtype"] and r["who"] == "here"]
        ratio = same[-1]["value"] / value if unit != "ms" else value / same[-1]["value"]
        print(
            f"{row['threads']} thread(s)  {work:54} {row['dtype']} {who:21} {value:10.2f} {unit:16} here x{ratio:.1f}"
        )

    print(
        f"{machine(args.device)}; torch {torch.__version__}, torchvision {torchvision.__version__}, numba {numba.__version__}"
    )
    for threads in (1, 2) if args.device == "cpu" else (1,):
        torch.set_num_threads(threads)
        for dtype in (torch.float32, torch.float64):
            pairwise(report, args.device, dtype, args.repeats)
            aligned(report, args.device, dtype, args.repeats)
        suppression(report, args.device, args.repeats)
    if args.device == "cpu":
        first_call(report)
    packages = {name: version(name) for name in ("torch", "torchvision", "numba", "numpy", "shapely")}
    result = {"machine": machine(args.device), "packages": packages, "repeats": args.repeats, "rows": rows}
    name = "overlap.json" if args.device == "cpu" else "overlap_cuda.json"
    write(args.out or RESULTS / name, result)


if __name__ == "__main__":
    main()
