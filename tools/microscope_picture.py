"""Take the moving picture of the microscope that the README shows: nbs/images/microscope.webp.

python tools/microscope_picture.py [--out FILE]    needs Chromium; the page is that of `atss explore microscope --html`

A tennis court is dragged over the scene and turned by its handle, and back. Each picture is taken after the page has
answered; a browser draws no pointer into its pictures, so that one is drawn here.
"""

import argparse
import io
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import browser  # noqa: E402
from test_explorers_browser import View, middle  # noqa: E402

from atss_nb.explore.microscope import Microscope  # noqa: E402
from atss_nb.explore.standalone import save_page  # noqa: E402

Point = tuple[float, float]
ARROW = [(0, 0), (0, 17), (4, 13), (7, 20), (10, 19), (7, 12), (12, 12)]  # [px]
STEPS, SHORT, LONG = 10, 90, 700  # pictures of a movement; how long one is seen, and the last one of it [ms]
MOVES = [((-110, -120), 40), ((60, -60), -70), ((50, 180), 30)]  # of the court: way [px], then turn [degrees]


def way(start: Point, end: Point) -> Iterator[Point]:
    "From one place to another, slowly at both ends."
    for i in range(1, STEPS + 1):
        share = (1 - math.cos(math.pi * i / STEPS)) / 2
        yield tuple(a + share * (b - a) for a, b in zip(start, end, strict=True))


class Film:
    "Pictures of the two rules at work, with the pointer in them."

    def __init__(self, view: View):
        self.view, self.stage = view, view.root.locator(".stage").bounding_box()
        self.frames, self.times = [], []

    def take(self, pointer: Point) -> None:
        "The page when it has answered."
        self.view.settle()
        picture = Image.open(io.BytesIO(self.view.page.screenshot(clip=self.stage))).convert("RGB")
        x, y = pointer[0] - self.stage["x"], pointer[1] - self.stage["y"]
        ImageDraw.Draw(picture).polygon([(x + a, y + b) for a, b in ARROW], fill="white", outline="black")
        self.frames.append(picture)

    def drag(self, start: Point, end: Point) -> None:
        "From here to there in the scene [px of the scene]."
        mouse = self.view.page.mouse
        mouse.move(*self.view.place(*start))
        mouse.down()
        for place in way(start, end):
            mouse.move(*self.view.place(*place))
            self.take(self.view.place(*place))
        mouse.up()
        self.times += [SHORT] * (STEPS - 1) + [LONG]


def handle(box: list[float], distance: float) -> Point:
    "Where a box is turned: beside the middle of its upper side."
    return box[0] + distance * math.sin(box[4]), box[1] - distance * math.cos(box[4])


def play(film: Film, index: int) -> None:
    "Move and turn the object, and bring it back."
    for (dx, dy), turn in MOVES:
        x, y = middle(film.view.boxes[index])
        film.drag((x, y), (x + dx, y + dy))
        box = film.view.boxes[index].tolist()
        reach = box[3] / 2 + 26 / float(film.view.data("scale"))
        film.drag(handle(box, reach), handle([*box[:4], box[4] + math.radians(turn)], reach))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "nbs/images/microscope.webp")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browser(1180, 900) as (page, _):
        save_page(Microscope(), Path(folder) / "page.html")
        page.goto((Path(folder) / "page.html").as_uri())
        film = Film(View(page, 0))
        film.view.settle()
        play(film, 0)
    first, *rest = film.frames
    first.save(args.out, save_all=True, append_images=rest, duration=film.times, loop=0, quality=40, method=6)
    print(f"wrote {args.out}, {args.out.stat().st_size / 1000:.0f} kB, {len(film.frames)} pictures")


if __name__ == "__main__":
    main()
