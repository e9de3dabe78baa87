"""Real trainings: which rule of choosing positives learns most, what fine-tuning is worth, and zoom with averaging.

python bench/runs.py scenes                                       rules, one or nine anchors, from a box or a point
python bench/runs.py tuning --data ../shared/data/boxes_obb       from scratch and from the shipped weights, few images and all
python bench/runs.py defaults [--data ../shared/data/boxes_obb]   `atss train` by itself, and with neither zoom nor averaging

All write data/results/, and while they run, runs/. A run that was stopped goes on when it is started again.
"""

import argparse
import json
import os
import random
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

from torchvision.transforms.v2.functional import to_pil_image

from atss_nb.data.datasets import read_image
from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.data.transforms import fit_scale, resize
from atss_nb.model.config import ModelConfig
from atss_nb.training.loop import load_model, train
from atss_nb.training.settings import TrainConfig, open_split
from atss_nb.training.trainer import validate
from common import ROOT, arguments, command_line, processor, write
from trainings import about, draw, timed_training

RESULTS = ROOT / "data" / "results"
NINE = {"scales_per_octave": 3, "ratios": (0.5, 1.0, 2.0)}
RULES = {
    "ATSS, one anchor": {},
    "MaxIoU, one anchor": {"assigner": "max_iou"},
    "MaxIoU, nine anchors": {"assigner": "max_iou", **NINE},
    "ATSS, nine anchors": NINE,
    "ATSS, a point": {"regression": "point"},
    "centre sampling, a point": {"assigner": "center", "regression": "point"},
}


def scenes(args: argparse.Namespace) -> None:
    home = ROOT / "runs" / "scenes"
    draw(home / "data", train=(200, 0), test=(100, 1))
    small = ModelConfig.small(strides=(8, 16, 32, 64))
    config = TrainConfig(
        str(home / "data"), small, classes=DOTA_V10_CLASSES, epochs=args.epochs, validations=0
    )
    path = args.out or RESULTS / "scenes.json"
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    known = {(row["rule"], row["seed"]) for row in rows}
    for seed, rule in product(args.seeds, RULES):
        if (rule, seed) not in known:
            changes = RULES[rule]
            mine = replace(config, model=replace(small, **changes), seed=seed)
            out = home / f"{rule} {seed}".replace(",", "").replace(" ", "_")
            row = {"rule": rule, "seed": seed, "cpu": processor()} | timed_training(mine, out, args.device)
            model, _, _ = load_model(out / "last.pt")
            score = validate(model.to(args.device), open_split(mine, "test"))
            row |= {"AP50": score.AP50, "AP75": score.AP75, "mAP": score.mAP}
            rows.append(row)
            print(f"{rule:22} seed {seed}: AP50 {score.AP50:.3f}, {row['seconds']:.0f} s", flush=True)
            shown = replace(config, data="runs/scenes/data")
            write(path, about(args.device, shown) | {"runs": rows})


STARTS = {"from scratch": {}, "from scenes": {"weights": "scenes", "old_lr": 0.3}}
IMAGES, STEPS, BATCH = (20, 0, 5), 192, 8  # 0: all of them


def shrink(home: Path, split: str, size: int, out: Path) -> None:
    "A copy of a split with small images, which are quick to read; its labels as they are, but as long as its images."
    for image in sorted((home / split / "images").iterdir()) if not out.exists() else ():
        pixels = read_image(image)
        scale = fit_scale(pixels.shape[-2:], size)
        rows = [
            line.split()
            for line in (home / split / "labelTxt" / f"{image.stem}.txt").read_text().splitlines()
        ]
        lines = [
            " ".join([*(f"{scale * float(x):.3f}" for x in row[:8]), *row[8:]])
            for row in rows
            if len(row) > 8
        ]
        for part in ("images", "labelTxt"):
            (out / part).mkdir(parents=True, exist_ok=True)
        to_pil_image(resize(pixels.float() / 255, {}, scale)[0].clamp(0, 1)).save(
            out / "images" / f"{image.stem}.png"
        )
        (out / "labelTxt" / f"{image.stem}.txt").write_text("\n".join(lines))


def some_images(split: Path, out: Path, count: int, seed: int) -> int:
    "A folder with so many images of a split, chosen by the seed, 0 for all; says how many."
    images = sorted((split / "images").iterdir())
    chosen = random.Random(seed).sample(images, count or len(images))
    for image in chosen if not out.exists() else ():
        for part, name in (("images", image.name), ("labelTxt", f"{image.stem}.txt")):
            (out / part).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(split / part / name, out / part / name)
    return len(chosen)


def tuning(args: argparse.Namespace) -> None:
    home, rows = ROOT / "runs" / "tuning", []
    model, size = ModelConfig.small(), args.size  # the model is that of the weights
    for split in ("train", "test"):
        shrink(Path(args.data), split, size, home / "data" / split)
    for seed, count, (start, changes) in product(args.seeds, IMAGES, STARTS.items()):
        data = home / f"{count}_images_{seed}"
        images = some_images(home / "data/train", data / "train", count, seed)
        epochs = STEPS // max(images // BATCH, 1)
        settings = {"epochs": epochs, "ema": 0.998, "zoom": 1.5, "validations": 0, "save_every": STEPS}
        config = TrainConfig(str(data), model, seed=seed, batch_size=BATCH, **settings, **changes)
        out = home / f"{start} {count} {seed}".replace(" ", "_")
        row = {"start": start, "images": images, "seed": seed} | timed_training(config, out, args.device)
        score = validate(load_model(out)[0], open_split(replace(config, data=str(home / "data")), "test"))
        row |= {"AP50": score.AP50, "AP75": score.AP75, "mAP": score.mAP}
        del row["seconds"]  # too few to be worth knowing
        rows.append(row)
        print(f"{start}, {images} images, seed {seed}: AP50 {score.AP50:.3f}", flush=True)
        shown = replace(config, data="runs/tuning/data")
        write(args.out or RESULTS / "tuning.json", about(args.device, shown) | {"size": size, "runs": rows})


WAYS = {"as suggested": {}, "neither": {"zoom": 1.0, "ema": 0.0}}


def defaults(args: argparse.Namespace) -> None:
    home, path = ROOT / "runs" / "defaults", args.out or RESULTS / "defaults.json"
    data = args.data or draw(home / "scenes", train=(300, 40), val=(40, 41), test=(60, 42))
    rows = json.loads(path.read_text())["runs"] if path.exists() else []
    known = {(row["data"], row["run"], row["seed"]) for row in rows}
    for seed, (run, changes) in product(args.seeds, WAYS.items()):
        row = {"data": Path(data).name, "run": run, "seed": seed}
        if tuple(row.values()) not in known:
            config = TrainConfig.suggest(data, seed=seed, **changes)
            out = home / "_".join(map(str, row.values())).replace(" ", "_")
            train(config, out, args.device, resume=True)
            model, config, _ = load_model(out)  # now with its classes
            score = validate(model.to(args.device), open_split(config, "test"))
            rows.append(row | {"AP50": score.AP50, "AP75": score.AP75, "mAP": score.mAP})
            print(f"{row}: AP50 {score.AP50:.3f}, mAP {score.mAP:.3f}", flush=True)
            shown = replace(config, data=f"runs/defaults/{row['data']}")
            write(path, about(args.device, shown) | {"runs": rows})


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("run", choices=["scenes", "tuning", "defaults"])
    parser.add_argument("--data", help="of tuning and defaults: folder with train and test")
    parser.add_argument("--size", type=int, default=128, help="of tuning: long side of the images [px]")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    args = arguments(parser, threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    {"scenes": scenes, "tuning": tuning, "defaults": defaults}[args.run](args)


if __name__ == "__main__":
    main()
