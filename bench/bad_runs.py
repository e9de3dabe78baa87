"""Trainings that go wrong on purpose, each with one mistake, and how it shows: data/results/bad_runs.json.

python bench/bad_runs.py        a few minutes on one thread; every run begins with the shipped weights `scenes`
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from atss_nb.cli.results import score_run
from atss_nb.data.dota import read_dota, write_dota
from atss_nb.model.config import ModelConfig
from atss_nb.samples.statistics import assignment_report
from atss_nb.scenes.scenes import write_scenes
from atss_nb.training.checkpoints import read_log
from atss_nb.training.loop import load_model, train
from atss_nb.training.settings import TrainConfig, open_split
from atss_nb.training.weights import read_weights
from common import ROOT, arguments, command_line, machine, seconds, write

SIDE, SCENES = 192, {"train": 48, "test": 60}
COARSE = ModelConfig.small(strides=(32, 64))
RUNS = {  # name -> what differs from the first
    "as it should be": {},
    "angles mirrored in the labels": {"data": "mirrored"},
    "two classes mixed up": {"data": "mixed"},
    "tested at half the size": {"test": "small"},
    "learning rate x 1000": {"lr": 1.0, "clip_norm": 1e6},
    "from scratch, 72 steps": {"weights": ""},
    "levels too coarse": {"weights": "", "model": COARSE, "epochs": 20},
}


def spoil(source: Path, target: Path, how: str) -> None:
    "A copy of a data set with one mistake in its training labels."
    shutil.copytree(source, target)
    for path in (target / "train/labelTxt").glob("*.txt"):
        labels = read_dota(path)
        corners, names = labels.polygons.numpy().copy(), list(labels.names)
        if how == "mirrored":  # the angle of each box counter-clockwise, its centre where it was
            middle = corners.mean(1, keepdims=True)
            corners = (corners - middle) * np.array([1, -1]) + middle
        else:
            swap = {"small-vehicle": "large-vehicle", "large-vehicle": "small-vehicle"}
            names = [swap.get(name, name) for name in names]
        difficult = labels.difficult
        write_dota(path, type(labels).from_polygons(corners, names, difficult=difficult))


def shrink(source: Path, target: Path) -> None:
    "The test split at half the size: images and labels."
    shutil.copytree(source / "test", target / "test")
    for path in (target / "test/images").iterdir():
        image = Image.open(path)
        image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX).save(path)
    for path in (target / "test/labelTxt").glob("*.txt"):
        labels = read_dota(path)
        corners = labels.polygons.numpy() / 2
        write_dota(path, type(labels).from_polygons(corners, labels.names, difficult=labels.difficult))


def one_run(folder: Path, name: str, changes: dict) -> dict:
    "Train with one mistake, test on clean scenes, and keep what the report says."
    changes, out = dict(changes), folder / "runs" / name.replace(" ", "_")
    test, data = folder / changes.pop("test", "clean"), folder / changes.pop("data", "clean")
    usual = {"weights": "scenes", "classes": read_weights("scenes").classes, "lr": 1e-3, "epochs": 6}
    config = TrainConfig(str(data), validations=0, precision="float32", batch_size=4, **usual | changes)
    taken = seconds(lambda: train(config, out))
    model = load_model(out)[0]
    report = assignment_report(open_split(config, "train"), model.assigner, model.anchor_grid)
    metrics = score_run(out, data=str(test))
    losses = [row for row in read_log(out / "log.jsonl") if "loss" in row]
    return {
        "name": name,
        "seconds": round(taken),
        "losses": [{key: row[key] for key in ("step", "loss")} for row in losses],
        "orphans": round(report.orphans.double().mean().item(), 4),
        **{key: metrics[key] for key in ("AP50", "AP75", "mAP", "per_class", "errors")},
    }


def main() -> None:
    arguments(command_line(__doc__))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for i, (split, count) in enumerate(SCENES.items()):
            write_scenes(folder / "clean" / split, count, SIDE, 500 + i)
        for how in ("mirrored", "mixed"):
            spoil(folder / "clean", folder / how, how)
        shrink(folder / "clean", folder / "small")
        runs = [one_run(folder, *run) for run in RUNS.items()]
    about = {
        "command": "python bench/bad_runs.py",
        "machine": machine(threads=1),
        "side": SIDE,
        "scenes": SCENES,
    }
    write(ROOT / "data/results/bad_runs.json", about | {"runs": runs})


if __name__ == "__main__":
    main()
