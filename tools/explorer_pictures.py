"""Take the pictures of the explorers that the notebooks show: nbs/images/explorer_*.png.

python tools/explorer_pictures.py [--dark] [--run runs/demo] [--out nbs/images]    needs Chromium and a recorded run
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import browser, lab, open_notebook, write_notebook  # noqa: E402
from PIL import Image, ImageColor  # noqa: E402

from atss_nb.explore.explorers import COLORS  # noqa: E402
from atss_nb.explore.page import EXPLORERS, explorer_code  # noqa: E402

KEYS = {"microscope": ["n", "n", "."], "player": ["End"]}  # pressed before the picture is taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dark", action="store_true", help="the dark theme")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/demo", help="a run that recorded itself")
    parser.add_argument("--out", type=Path, default=ROOT / "nbs/images")
    args = parser.parse_args()
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


if __name__ == "__main__":
    main()
