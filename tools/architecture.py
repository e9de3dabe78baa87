"""Draw the packages and what they import: nbs/images/architecture.svg, and the table in ARCHITECTURE.md.

The graph is the one that tests/test_package.py reads from the code, imports inside functions counted. A package
stands above all that it imports. An arrow that others imply is left out: whoever imports `model` has `samples`.
In ARCHITECTURE.md a row begins with a package's name and a hand-written word on what it holds; the rest is filled
in: `| `core` | what it holds | what it imports | its modules |`. `--check` writes nothing and fails on a difference.
"""

import re
import sys
import textwrap
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from test_package import BELOW, GRAPH  # noqa: E402

PICTURE = ROOT / "nbs/images/architecture.svg"
PAGE = ROOT / "ARCHITECTURE.md"
# Where a package stands from left to right, 0 to 2; from bottom to top it stands where the graph puts it.
COLUMNS = {
    "core": 1.5, "geometry": 0.5, "samples": 0, "data": 2, "model": 0, "tiles": 1, "scenes": 2, "evaluation": 1,
    "training": 0, "inference": 0, "recipes": 1, "plots": 0, "explore": 2, "cli": 1,
}  # fmt: skip
WIDTH, HEIGHT, STEP_X, STEP_Y, MARGIN = 272, 72, 318, 112, 18  # of a box, from box to box, around all [px]
STYLE = """
  text { font-family: system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
  .name { font-size: 16px; font-weight: 600 }
  .files { font-size: 11px; fill: #59636e }
  rect { fill: #f6f8fa; stroke: #8c959f; stroke-width: 1.2 }
  path { fill: none; stroke: #8c959f; stroke-width: 1.4 }
  marker path { fill: #8c959f; stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .files { fill: #a9b4c0 }
    rect { fill: #1b222b; stroke: #6e7a87 }
    path { stroke: #6e7a87 }
    marker path { fill: #6e7a87 }
  }"""


def rooms() -> dict[str, set[str]]:
    "Each package with those below it that its modules import."
    found: dict[str, set[str]] = {name: set() for name in BELOW}
    for module, others in GRAPH.items():
        room = module.split(".")[0]
        found[room] |= {other.split(".")[0] for other in others} & set(BELOW[room].split())
    return found


def modules(room: str) -> list[str]:
    return sorted(name.split(".")[1] for name in GRAPH if name.startswith(room + ".") and "__" not in name)


def reached(graph: dict[str, set[str]], room: str) -> set[str]:
    "All that a package stands on, over others, too."
    return graph[room].union(*(reached(graph, other) for other in graph[room]))


def reduced(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    "Without the arrows that others imply."
    return {
        room: {other for other in below if not any(other in reached(graph, via) for via in below)}
        for room, below in graph.items()
    }


def floor(graph: dict[str, set[str]], room: str) -> int:
    return 1 + max((floor(graph, other) for other in graph[room]), default=-1)


def box(room: str, x: float, y: float) -> str:
    "A package: its name and its modules."
    lines = textwrap.wrap(", ".join(modules(room)), 46)
    files = "".join(
        f'<text class="files" x="{x:.0f}" y="{y + 36 + 13 * i:.0f}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    frame = f'<rect x="{x - WIDTH / 2:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
    return f'{frame}<text class="name" x="{x:.0f}" y="{y + 20:.0f}">{room}</text>{files}'


def arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = (start[0], start[1] + HEIGHT), (end[0], end[1] - 5)
    bend = (y1 - y0) / 2
    return f'<path d="M{x0:.0f} {y0:.0f}C{x0:.0f} {y0 + bend:.0f} {x1:.0f} {y1 - bend:.0f} {x1:.0f} {y1:.0f}" marker-end="url(#tip)"/>'


def picture() -> str:
    graph = rooms()
    top = max(floor(graph, room) for room in graph)
    width = 2 * MARGIN + WIDTH + STEP_X * max(COLUMNS.values())
    at = {
        room: (MARGIN + WIDTH / 2 + STEP_X * COLUMNS[room], MARGIN + STEP_Y * (top - floor(graph, room)))
        for room in graph
    }
    height = 2 * MARGIN + STEP_Y * top + HEIGHT
    arrows = [arrow(at[a], at[b]) for a, below in reduced(graph).items() for b in sorted(below, key=at.get)]
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/></marker>'
    title = "The packages of atss_nb and what they import"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
            f"<title>{title}</title><style>{STYLE}\n</style><defs>{tip}</defs>",
            *arrows,
            *(box(room, *place) for room, place in at.items()),
            "</svg>\n",
        ]
    )


def page(text: str) -> str:
    "ARCHITECTURE.md with today's imports and modules in its table; every package has a row."
    graph, seen = rooms(), []

    def row(match: re.Match) -> str:
        room, words = match[1], match[2]
        if room not in graph:
            raise SystemExit(f"ARCHITECTURE.md: there is no package {room}")
        seen.append(room)
        below = ", ".join(f"`{other}`" for other in BELOW if other in reduced(graph)[room]) or "nothing"
        return f"| `{room}` | {words} | {below} | {', '.join(modules(room))} |"

    text = re.sub(r"^\| `(\w+)` \| ([^|\n]+) \|.*$", row, text, flags=re.M)
    if sorted(seen) != sorted(graph):
        raise SystemExit(
            f"ARCHITECTURE.md: expected one row for each of {', '.join(graph)}; found {', '.join(seen)}"
        )
    return text


def main() -> None:
    pages = {PICTURE: picture()}
    if PAGE.exists():
        pages[PAGE] = page(PAGE.read_text(encoding="utf-8"))
    old = [
        path for path, text in pages.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv and old:
        names = ", ".join(str(path.relative_to(ROOT)) for path in old)
        sys.exit(f"{names}: not what the code imports; run make format")
    for path in old:
        path.write_text(pages[path], encoding="utf-8")


if __name__ == "__main__":
    main()
