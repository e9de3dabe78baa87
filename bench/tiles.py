"""Tiles a second of `atss split`, beside Pillow alone, and the memory that splitting a huge image takes.

python bench/tiles.py [--scenes 2] [--huge 30000]    prints a table, writes bench/results/tiles.json

Pillow alone decodes each image, crops the same windows, pads them alike and writes PNGs: no plan, no labels, no
checksums, nothing that survives a kill. It does so with the compression that the split uses, and with its own
default. All three run in this one process, in turns; what counts is CPU time, all threads together. Memory is what Linux calls VmHWM,
the most that was ever resident, in a process of its own that has imported the library and then splits.
"""

import argparse
import json
import tempfile
from pathlib import Path
from time import process_time

import numpy as np
import PIL
from PIL import Image

from atss_nb.scenes.scenes import write_scenes
from atss_nb.tiles.split import plan_split, split
from atss_nb.tiles.tiles import STYLES, Tiling
from common import RESULTS, ROOT, apart, command_line, machine, resident, seconds, write

DOTA = ROOT.parent / "shared/data/dota"  # real images, where they are at hand
TILINGS = {"1024, gap 200": Tiling(), "512, gap 100": Tiling(size=512, gap=100)}
HUGE = {  # how libvips writes the large image
    "PNG": (".png", {"compression": 1}),
    "TIFF, tiles": (".tif", {"tile": True, "tile_width": 512, "tile_height": 512, "compression": "deflate"}),
    "TIFF, strips": (".tif", {"compression": "lzw"}),
    "JPEG": (".jpg", {"Q": 90}),
}


def pillow_alone(folder: Path, out: Path, plan: dict, tiling: Tiling, **options) -> None:
    "The same tiles with Pillow and nothing else; options of its PNG writer."
    out.mkdir()
    images = {Path(fact["file"]).stem: folder / "images" / fact["file"] for fact in plan["images"].values()}
    for image_id, path in images.items():
        with Image.open(path) as file:
            image = file.convert("RGB")
        for name, (owner, x, y, size, _) in plan["tiles"].items():
            if owner != image_id:
                continue
            tile = image.crop((x, y, min(x + size, image.width), min(y + size, image.height)))
            if tile.size != (size, size):
                full = Image.new("RGB", (size, size), STYLES[tiling.style].fill)
                full.paste(tile)
                tile = full
            tile.save(out / f"{name}.png", **options)


def rates(folder: Path, tiling: Tiling, repeats: int) -> dict[str, float]:
    "Tiles a second of all three, and our share of the others' rates: medians of rounds, after one to warm up."
    plan, rounds = plan_split(folder, tiling), []
    for _ in range(repeats + 1):
        with tempfile.TemporaryDirectory() as home:
            works = [
                lambda: split(folder, Path(home) / "split", tiling),  # noqa: B023  called at once
                lambda: pillow_alone(folder, Path(home) / "same", plan, tiling, compress_level=3),  # noqa: B023
                lambda: pillow_alone(folder, Path(home) / "default", plan, tiling),  # noqa: B023
            ]
            rounds.append([seconds(work, clock=process_time) for work in works])
            assert_same(Path(home) / "split/images", Path(home) / "same")
    times, count = np.array(rounds[1:]), len(plan["tiles"])
    ours, same, default = (count / np.median(times, 0)).tolist()
    share, share_default = np.median(times[:, 1:] / times[:, :1], 0).tolist()
    return {
        "tiles": count,
        "split": ours,
        "Pillow": same,
        "Pillow, default": default,
        "ratio": share,
        "ratio, default": share_default,
    }


def assert_same(ours: Path, theirs: Path) -> None:
    "Both wrote the same pixels."
    for path in ours.iterdir():
        with Image.open(path) as a, Image.open(theirs / path.name) as b:
            assert a.tobytes() == b.tobytes(), path.name


def paint(path: Path, size: int, options: dict) -> None:
    "A square image of random blocks, without holding more than libvips does of it."
    import pyvips

    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (-(-size // 32), -(-size // 32), 3), np.uint8)
    image = pyvips.Image.new_from_array(blocks).zoom(32, 32).crop(0, 0, size, size)
    image.copy(interpretation="srgb").write_to_file(str(path), **options)


def child(folder: Path) -> None:
    "Split one huge image in this process, which has done nothing else; prints what it took."
    before, tiles = resident("VmRSS"), []
    taken = seconds(lambda: tiles.append(split(folder, folder / "out", Tiling()).tiles))
    print(json.dumps({"before": before, "most": resident("VmHWM"), "seconds": taken, "tiles": tiles[0]}))


def huge(size: int, kind: str) -> dict:
    "Memory [bytes] and seconds of splitting a huge image."
    suffix, options = HUGE[kind]
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "images").mkdir()
        paint(Path(home) / f"images/huge{suffix}", size, options)
        return apart(__file__, "--child", home) | {
            "file": (Path(home) / f"images/huge{suffix}").stat().st_size
        }


def data_sets(home: Path, scenes: int) -> dict[str, Path]:
    "Real images where they are at hand, and large scenes."
    found = {"DOTA images": DOTA} if DOTA.is_dir() else {}
    if scenes:
        found[f"{scenes} scenes of 4000 px"] = write_scenes(home / "scenes", scenes, 4000)
    return found


def throughput(scenes: int, repeats: int) -> dict:
    rows = {}
    with tempfile.TemporaryDirectory() as home:
        for name, folder in data_sets(Path(home), scenes).items():
            for tiles, tiling in TILINGS.items():
                rows[f"{name}, {tiles}"] = row = rates(folder, tiling, repeats)
                print(
                    f"{name}, {tiles}: {row['tiles']} tiles, {row['split']:.1f} a second, "
                    f"Pillow alone {row['Pillow']:.1f}, ratio {row['ratio']:.2f} ({row['ratio, default']:.2f})"
                )
    return rows


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--scenes", type=int, default=2, help="how many scenes of 4,000 px (2)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that count (3)")
    parser.add_argument(
        "--huge", type=int, default=30_000, help="side of the huge image [px] (30000); 0: none"
    )
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child)
    result = {"tiles a second": throughput(args.scenes, args.repeats), "huge": {}}
    for kind in HUGE if args.huge else ():
        result["huge"][f"{kind}, {args.huge} px"] = row = huge(args.huge, kind)
        most, gained = row["most"] / 1e6, (row["most"] - row["before"]) / 1e6
        print(
            f"{args.huge} px, {kind}: {row['tiles']} tiles in {row['seconds']:.0f} s, at most {most:.0f} MB,"
        )
        print(f"  {gained:.0f} MB beyond the imports; the file has {row['file'] / 1e6:.0f} MB")
    write(args.out or RESULTS / "tiles.json", {"machine": machine(Pillow=PIL.__version__), **result})
    return None


if __name__ == "__main__":
    main()
