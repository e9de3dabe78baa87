"""Images a second, from the file to what a detector takes, beside the decoders of Pillow and torchvision alone.

python bench/data.py [FOLDER ...]    folders with images/ and labelTxt/; prints a table, writes bench/results/data.json
"""

from pathlib import Path
from statistics import median

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from atss_nb.data.datasets import DotaDataset, read_image
from atss_nb.data.dota import read_dota
from common import RESULTS, ROOT, arguments, command_line, machine, seconds, write

DATA = ROOT.parent / "shared/data"  # real images, where they are at hand
FOLDERS = [
    DATA / "dota/tiles/train",
    DATA / "hit_uav/val",
    DATA / "aerial_airport/valid",
    ROOT / "data/sample",
]


def pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def torchvision_alone(path: Path) -> torch.Tensor:
    return decode_image(str(path), ImageReadMode.RGB)


def rates(works: dict, repeats: int = 7) -> dict[str, float]:
    "Calls a second of each list of calls: the median of several rounds, in which all take turns, after one to warm up."
    times = {name: [] for name in works}
    for _ in range(repeats + 1):
        for name, (work, items) in works.items():
            times[name].append(seconds(lambda: list(map(work, items))) / len(items))  # noqa: B023  called at once
    return {name: 1 / median(rounds[1:]) for name, rounds in times.items()}


def measure(folder: Path, most: int) -> dict[str, float]:
    "Images or label files a second, of the first images of a folder."
    dataset = DotaDataset(folder, min_side=0)
    paths = dataset.images[:most]
    numbers = range(len(paths))
    labels = [path.parent.with_name("labelTxt") / f"{path.stem}.txt" for path in paths]
    return rates(
        {
            "Pillow": (pillow, paths),
            "torchvision": (torchvision_alone, paths),
            "read_image": (read_image, paths),
            "sample": (dataset.__getitem__, numbers),
            "target": (dataset.target, numbers),
            "label file": (read_dota, labels),
        }
    )


def title(folder: Path) -> str:
    path = min((folder / "images").iterdir())
    with Image.open(path) as image:
        size = "x".join(map(str, image.size))
    return f"{folder.relative_to(folder.parents[1])}, {image.format} {size}"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--images", type=int, default=24, help="at most so many of each folder (24)")
    args = arguments(parser)
    folders = args.folders or [folder for folder in FOLDERS if folder.is_dir()]
    rows = {title(f.resolve()): measure(f, args.images) for f in folders}
    for name, row in rows.items():
        print(name)
        for what, rate in row.items():
            print(f"  {what:14}{rate:10.0f} a second{rate / row['Pillow']:8.2f} of Pillow")
    facts = machine(Pillow=PIL.__version__, torchvision=torchvision.__version__)
    write(args.out or RESULTS / "data.json", {"machine": facts, "a second": rows})


if __name__ == "__main__":
    main()
