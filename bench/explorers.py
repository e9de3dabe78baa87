"""Frames and answers a second while an object is dragged in the microscope and in the overlap walk, in a real browser.

python bench/explorers.py [--seconds 4]    prints a table and writes bench/results/explorers.json
"""

import platform
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import RESULTS, ROOT, arguments, command_line, machine, seconds, write

sys.path.insert(0, str(ROOT / "tests"))

from browser import browser, lab, open_notebook, write_notebook  # noqa: E402

from atss_nb.explore.geometry import OverlapWalk  # noqa: E402
from atss_nb.explore.microscope import Microscope  # noqa: E402
from atss_nb.explore.page import explorer_code  # noqa: E402

MEASURED = {"microscope": (Microscope, 3), "walk": (OverlapWalk, 0)}  # explorer, the object that is dragged
DRAG = """async ([n, object, seconds]) => {
    const c = document.querySelectorAll('.atss-explorer canvas.scene')[n], d = c.dataset, seen = [];
    const watch = new MutationObserver(() => seen.push(+d.request));
    watch.observe(c, {attributeFilter: ['data-request']});
    c.setPointerCapture = () => {};
    const box = JSON.parse(d.boxes)[object], frame = c.getBoundingClientRect(), s = +d.scale, m = +d.margin;
    const at = [frame.left + m + (box[0] + 0.2 * box[2]) * s, frame.top + m + (box[1] + 0.2 * box[3]) * s];
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
    return {frames: rate('draws'), answers: rate('answers'), stale: after.stale - before.stale, ordered}
}"""


def kernel_ms(kind) -> float:  # median [ms]
    "What Python needs for an answer, without the way to the browser."
    explorer, times = kind(), []
    for i in range(40):
        explorer.scene = explorer.scene | {"request": i}
        times.append(1000 * seconds(explorer.refresh))
    return median(times)


def drag(page, number: int, name: str, lasting: float) -> dict:
    kind, moved = MEASURED[name]
    page.locator(".atss-explorer canvas.scene").nth(number).scroll_into_view_if_needed()
    page.evaluate(DRAG, [number, moved, 1])  # compile
    found = page.evaluate(DRAG, [number, moved, lasting])
    return {"explorer": name, "boxes": len(kind().boxes), "kernel_ms": kernel_ms(kind)} | found


def measure(lasting: float) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        write_notebook(Path(folder) / "bench.ipynb", [explorer_code(name) for name in MEASURED])
        with lab(Path(folder)) as url, browser() as (page, watch):
            open_notebook(page, url, "bench.ipynb")
            ready = "document.querySelectorAll('.atss-explorer canvas[data-draws]').length"
            page.wait_for_function(f"() => {ready} === {len(MEASURED)}", timeout=120_000)
            rows = [drag(page, i, name, lasting) for i, name in enumerate(MEASURED)]
        assert not watch.complaints, watch.complaints
    return rows


def table(rows: list[dict]) -> str:
    lines = [
        f"{'explorer':>12} {'boxes':>6} {'frames/s':>9} {'answers/s':>10} {'in Python':>10} {'in order':>9}"
    ]
    for r in rows:
        numbers = f"{r['frames']:9.1f} {r['answers']:10.1f} {r['kernel_ms']:7.1f} ms"
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
