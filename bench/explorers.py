"""Frames and answers a second while an object is dragged in an explorer, in a real browser.

python bench/explorers.py [--seconds 4]    prints a table and writes bench/results/explorers.json

The microscope, the walk and the dial answer in the page; the tiling asks Python in every frame that it can.
"""

import platform
import sys
from statistics import median
from threading import Thread

import numpy as np
import torch

from common import RESULTS, ROOT, arguments, command_line, machine, seconds, write

sys.path.insert(0, str(ROOT / "tests"))

from browser import browser  # noqa: E402

from atss_nb.explore.explorers import Explorer  # noqa: E402
from atss_nb.explore.microscope import Microscope  # noqa: E402
from atss_nb.explore.page import ExplorerServer, make_explorer  # noqa: E402

DRAG = """async ([object, seconds]) => {
    const c = document.querySelector('.atss-explorer canvas.scene'), d = c.dataset, seen = [], took = [];
    const watch = new MutationObserver(() => (seen.push(+d.request), took.push(+d.took)));
    watch.observe(c, {attributeFilter: ['data-request']});
    c.setPointerCapture = () => {};
    const box = JSON.parse(d.boxes)[object], frame = c.getBoundingClientRect(), s = +d.scale;
    const [along, down] = [0.2 * box[2] * Math.cos(box[4]), 0.2 * box[2] * Math.sin(box[4])];  // beside the middle, inside
    const at = [frame.left + +d.left + (box[0] + along) * s, frame.top + +d.top + (box[1] + down) * s];
    const send = (type, dx) => c.dispatchEvent(new PointerEvent(type,
        {clientX: at[0] + dx, clientY: at[1] + dx / 3, bubbles: true, pointerId: 1}));
    send('pointerdown', 0);
    const before = {...d}, start = performance.now();
    let now = start, i = 0;
    while (now - start < 1000 * seconds) {
        now = await new Promise(f => requestAnimationFrame(f));
        send('pointermove', 5 + 40 * Math.abs(Math.sin(i++ / 20)));
    }
    const passed = (performance.now() - start) / 1000, after = {...d};
    send('pointerup', 0);
    const rate = key => (after[key] - before[key]) / passed;
    watch.disconnect();
    const ordered = seen.every((r, k) => !k || r >= seen[k - 1]);
    return {frames: rate('draws'), answers: rate('answers'), took: took.filter(Number.isFinite), stale: after.stale - before.stale, ordered}
}"""


def crowded(count: int = 400, size: tuple[int, int] = (3000, 4000)) -> Microscope:
    "Many small objects on a large image."
    rng = torch.Generator().manual_seed(0)
    low, high = torch.tensor([0.0, 0, 20, 12, -1.6]), torch.tensor([size[1], size[0], 120.0, 60, 1.6])
    boxes = low + (high - low) * torch.rand(count, 5, generator=rng)
    y, x = np.indices(size)
    image = np.stack([(x // 16 + y // 16) % 96 + 60, x // 40 + 60, y // 30 + 60], 2).astype(np.uint8)
    return Microscope(image, boxes)


def cases() -> dict[str, tuple[Explorer, int]]:  # name -> explorer, the object that is dragged
    made = {name: (make_explorer(name), 0) for name in ("microscope", "walk", "dial", "tiling")}
    many = crowded()
    return made | {"400 objects": (many, most_alone(many.boxes))}


def most_alone(boxes: torch.Tensor) -> int:
    "The box that a hand takes without touching another one."
    apart = torch.cdist(boxes[:, :2], boxes[:, :2]).fill_diagonal_(torch.inf)
    return int(apart.amin(1).argmax())


def python_ms(explorer: Explorer, count: int = 20) -> float | None:  # median [ms]
    "What Python needs for an answer, without the way to the browser; None where it is too much for it."
    times = []
    for _ in range(count):
        try:
            times.append(1000 * seconds(lambda: explorer.respond(explorer.boxes)))
        except ValueError:
            return None
    return median(times)


def drag(page, name: str, explorer: Explorer, moved: int, lasting: float) -> dict:
    with ExplorerServer(explorer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        page.goto(server.address)
        page.wait_for_function("() => document.querySelector('canvas.scene')?.dataset.busy === ''")
        page.evaluate(DRAG, [moved, 1])  # compile
        page.wait_for_timeout(1000)  # where the boxes are now is written when the hand rests
        found = page.evaluate(DRAG, [moved, lasting])
        page.goto("about:blank")
        server.shutdown()
    took = found.pop("took")
    answer = median(took) if took else None
    return {
        "explorer": name,
        "boxes": len(explorer.boxes),
        "answer_ms": answer,
        "python_ms": python_ms(explorer),
    } | found


def measure(lasting: float) -> list[dict]:
    with browser(1600, 1000) as (page, watch):
        rows = [drag(page, name, *case, lasting) for name, case in cases().items()]
        assert not watch.complaints, watch.complaints
    return rows


def table(rows: list[dict]) -> str:
    head = f"{'explorer':>12} {'boxes':>6} {'frames/s':>9} {'answers/s':>10} {'in the page':>12} {'in Python':>11} {'in order':>9}"
    lines = [head]
    for r in rows:
        page, python = (f"{r[k]:.1f} ms" if r[k] is not None else "-" for k in ("answer_ms", "python_ms"))
        numbers = f"{r['frames']:9.1f} {r['answers']:10.1f} {page:>12} {python:>11}"
        lines.append(f"{r['explorer']:>12} {r['boxes']:6} {numbers} {'yes' if r['ordered'] else 'NO':>9}")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=4, help="of dragging")
    args = arguments(parser)
    rows = measure(args.seconds)
    print(table(rows))
    report = {"machine": machine(), "python": platform.python_version(), "rows": rows}
    write(args.out or RESULTS / "explorers.json", report)


if __name__ == "__main__":
    main()
