"""Take the pictures that README, notebooks and site show, and write them to nbs/images.

python tools/pictures.py explorers [--dark] [--run runs/demo]    explorer_*.png, in JupyterLab; needs a recorded run
python tools/pictures.py microscope                              microscope.webp, moving
python tools/pictures.py report runs/demo/report.html            report.png: the first screen of a demo's report
python tools/pictures.py photograph IMAGE                        photograph.png: what `hit-uav` detects on an image of HIT-UAV

`--out FOLDER` writes elsewhere. All but the last need Chromium.
"""

import argparse
import io
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import browser, lab, open_notebook, write_notebook  # noqa: E402
from test_explorers_browser import View, middle  # noqa: E402

from atss_nb import load  # noqa: E402
from atss_nb.explore.explorers import COLORS  # noqa: E402
from atss_nb.explore.microscope import Microscope  # noqa: E402
from atss_nb.explore.page import EXPLORERS, explorer_code  # noqa: E402
from atss_nb.explore.standalone import save_page  # noqa: E402

KEYS = {
    "microscope": ["n", "n", "."],
    "player": ["End"],
}  # pressed before the picture of an explorer is taken

# Explorers


def explorers(args: argparse.Namespace) -> None:
    "All of them in one notebook."
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "run").mkdir()
        for name in ("watched.jsonl", "watched.png"):
            shutil.copy(args.run / name, folder / "run")
        write_notebook(
            folder / "all.ipynb", [explorer_code(n, "run" if n == "player" else None) for n in EXPLORERS]
        )
        with lab(folder, args.dark) as url, browser(1120, 1900, 1.25, args.dark) as (page, _):
            open_notebook(page, url, "all.ipynb")
            take(page, args.out)


def take(page, out: Path) -> None:
    count = f"document.querySelectorAll('.atss-explorer canvas[data-draws]').length === {len(EXPLORERS)}"
    page.wait_for_function(f"() => {count}", timeout=120_000)
    for i, name in enumerate(EXPLORERS):
        explorer = page.locator(".atss-explorer").nth(i)
        explorer.locator("canvas.scene").first.focus()
        for key in KEYS.get(name, []):
            page.keyboard.press(key)
        page.wait_for_timeout(600)
        page.mouse.move(0, 0)
        path = out / f"explorer_{name}.png"
        explorer.locator("xpath=..").locator("xpath=..").screenshot(path=path)
        slim(Image.open(path).convert("RGB")).save(path, optimize=True)


def slim(picture: Image.Image) -> Image.Image:
    "256 colours, a third of the size; those that mean something are among them, however small their dots."
    kept = [*COLORS["levels"], *COLORS["palette"], *COLORS["outcomes"].values()]
    own = picture.quantize(256 - len(kept)).getpalette()[: 3 * (256 - len(kept))]
    palette = Image.new("P", (1, 1))
    palette.putpalette(own + [part for color in kept for part in ImageColor.getrgb(color)])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


# The microscope, moving

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
        "The page when it has answered: that happens in the next frame."
        self.view.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
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
        self.view.settle()
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


def microscope(args: argparse.Namespace) -> None:
    """A tennis court is dragged over the scene and turned by its handle, and back.

    Each picture is taken after the page has answered; a browser draws no pointer into its pictures, so that one is drawn here.
    """
    with tempfile.TemporaryDirectory() as folder, browser(1180, 900) as (page, _):
        save_page(Microscope(), Path(folder) / "page.html")
        page.goto((Path(folder) / "page.html").as_uri())
        film = Film(View(page, 0))
        film.view.settle()
        play(film, 0)
    first, *rest = film.frames
    options = {"save_all": True, "loop": 0, "quality": 40, "method": 6}
    first.save(args.out / "microscope.webp", append_images=rest, duration=film.times, **options)


# What comes out


def report(args: argparse.Namespace) -> None:
    "What is seen of a report when it is opened."
    with browser(1060, 980, 0.8) as (page, _):
        page.goto(args.report.resolve().as_uri())
        page.screenshot(path=args.out / "report.png")
    slim(Image.open(args.out / "report.png").convert("RGB")).save(args.out / "report.png", optimize=True)


def photograph(args: argparse.Namespace) -> None:
    "The detections above half, drawn on the image."
    axes = load("hit-uav")(args.image).above(0.5).plot()
    axes.figure.savefig(args.out / "photograph.png", dpi=125, bbox_inches="tight", pad_inches=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "nbs/images")
    kinds = parser.add_subparsers(required=True)
    kind = kinds.add_parser("explorers")
    kind.add_argument("--dark", action="store_true", help="the dark theme")
    kind.add_argument("--run", type=Path, default=ROOT / "runs/demo", help="a run that recorded itself")
    kind.set_defaults(take=explorers)
    kinds.add_parser("microscope").set_defaults(take=microscope)
    kind = kinds.add_parser("report")
    kind.add_argument("report", type=Path)
    kind.set_defaults(take=report)
    kind = kinds.add_parser("photograph")
    kind.add_argument("image", type=Path)
    kind.set_defaults(take=photograph)
    args = parser.parse_args()
    args.take(args)


if __name__ == "__main__":
    main()
