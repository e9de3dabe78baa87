"""Every row of the result table at full size, for a few steps, on real images: losses, seconds, memory, resume, score.

Each row runs in a process of its own, on images of DOTA in that row's data set's own files, cut by the row's own tiling:
steps, a checkpoint, the same number of steps after --resume, predictions for the tiles of an image that was not
learnt from, merged, and a score (of no meaning). Rows that the JSON holds already are left out: a killed run goes on.
Nothing of a row is changed but what the JSON says: random weights, because ImageNet's are no part of the project, with
nothing frozen and norms that learn; epochs of one step, twice STEPS of them; no warm-up.

python bench/rehearsal.py DOTA [NAME ...] [--steps 2]                DOTA: a folder with images/ and labelTxt/
python bench/rehearsal.py DOTA --steps 10 --precision bfloat16       three times as fast where the CPU knows it
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from atss_nb.data.convert import LabelledSet, write_dataset
from atss_nb.data.detections import Detections
from atss_nb.data.dota import read_dota
from atss_nb.data.folders import LabelledImage
from atss_nb.recipes.recipes import override, run_recipe, score_recipe
from atss_nb.recipes.table import RECIPES, Recipe
from atss_nb.training.checkpoints import load_checkpoint, read_log
from common import RESULTS, apart, command_line, commit, machine, resident, write

SPLITS = {"train": ("P0706", "P0005"), "val": ("P1478__1__853___962",), "test": ("P1888",)}
OF_SHIPS = dict.fromkeys(SPLITS, ("P0706",))  # the one image with ships; train and val fill a batch
NAMES = {"plane": "airplane", "small-vehicle": "vehicle", "large-vehicle": "vehicle"}  # in DIOR-R


def labelled(recipe: Recipe, home: Path, split: str, name: str) -> LabelledImage:
    "An image of DOTA with the objects that a data set has a class for."
    label = read_dota(home / "labelTxt" / f"{name}.txt")
    new = [one if one in recipe.data.classes else NAMES.get(one, one.replace("-", "")) for one in label.names]
    kept = [i for i, one in enumerate(new) if one in recipe.data.classes]
    objects = Detections.from_polygons(
        label.polygons[kept], [new[i] for i in kept], difficult=label.difficult[kept]
    )
    image = next((home / "images").glob(f"{name}.*"))
    return LabelledImage(f"{split}_{name}", split, image, annotation=objects)


def data_of(recipe: Recipe, home: Path, out: Path) -> None:
    "Real images in the files of a row's data set."
    splits = OF_SHIPS if recipe.data.format == "hrsc2016" else SPLITS
    images = [labelled(recipe, home, split, name) for split, names in splits.items() for name in names]
    write_dataset(recipe.data.format, LabelledSet("", images, recipe.data.classes), out, report=False)


def rehearse(recipe: Recipe, home: Path, steps: int, precision: str) -> dict:
    "Steps, a checkpoint, as many again after resuming, predictions, a score."
    changes = ["model.weights=None", "schedule.warmup_steps=0"]  # so statistics are those of the batch
    changes += [f"machine.precision={precision}"] if precision != recipe.machine.precision else []
    report = {
        "size": list(recipe.transforms.size),
        "batch_size": recipe.optimizer.batch_size,
    }
    with TemporaryDirectory() as folder:
        data, run = Path(folder) / "data", Path(folder) / "run"
        data_of(recipe, home, data)
        clock = [time.perf_counter()]
        for half in (1, 2):  # epochs of one step: also where few images make one batch
            row = override(recipe, [*changes, f"schedule.epochs={half * steps}"])
            run_recipe(row, data, run, progress=False, steps=1, resume=half > 1)
            clock.append(time.perf_counter())
        rows = [row for row in read_log(run / "log.jsonl") if "loss" in row]
        scores = score_recipe(row, run)
        clock.append(time.perf_counter())
        report |= {"step_reached": load_checkpoint(run / "last.pt")["step"], "changes": changes}
        tiles = {split: len(list((run / "tiles" / split / "images").glob("*"))) for split in SPLITS}
    report |= {"tiles": tiles, "losses": [[one["step"], one["loss"]] for one in rows]}
    report |= {"first_half_s": clock[1] - clock[0], "resumed_half_s": clock[2] - clock[1]}
    report |= {"images_per_s": rows[-1]["images_per_s"], "score_s": clock[3] - clock[2]}
    counts = {name: sum(c["detections"] for c in score.counts.values()) for name, score in scores.items()}
    report |= {"detections": counts, "AP50": {name: score.AP50 for name, score in scores.items()}}
    return report | {"peak_gb": resident("VmHWM") / 1e9, "precision": row.machine.precision}


def table(rows: dict[str, dict]) -> str:
    lines = [
        f"{'recipe':36} {'batch':>5} {'steps':>5} {'loss, first and last':>22} {'images/s':>8} {'peak':>8}"
    ]
    for name, r in rows.items():
        losses = f"{r['losses'][0][1]:.2f} {r['losses'][-1][1]:.2f}"
        lines.append(
            f"{name:36} {r['batch_size']:5} {r['step_reached']:5} {losses:>22} {r['images_per_s']:8.3f} {r['peak_gb']:5.1f} GB"
        )
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("dota", type=Path)
    parser.add_argument("names", nargs="*", help="rows; without: all")
    parser.add_argument("--steps", type=int, default=2, help="before, and again after resuming")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        print(json.dumps(rehearse(RECIPES[args.one], args.dota, args.steps, args.precision)))
        return
    end = "" if args.precision == "float32" else f"_{args.precision}"
    path = args.out or RESULTS / f"rehearsal{end}.json"
    how = ["--steps", args.steps, "--precision", args.precision]
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    for name in args.names or RECIPES:
        if name in rows:
            continue
        about = {"commit": commit(), "date": time.strftime("%Y-%m-%d")}
        rows[name] = apart(__file__, args.dota, "--one", name, *how) | about
        write(path, {"machine": machine(), "python": platform.python_version(), "rows": rows})
        print(
            f"{name}: {rows[name]['first_half_s'] + rows[name]['resumed_half_s']:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    print(table(rows))


if __name__ == "__main__":
    main()
