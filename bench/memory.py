"""Peak memory of a training step of every recipe on the CPU, at its own image size and batch size.

Each kind of step runs in a process of its own; rows that differ in epochs, tiles or labels only share one.

python bench/memory.py [NAME ...]    prints a table and writes bench/results/memory.json
"""

import argparse
import json
import platform
import sys
from dataclasses import replace

import torch

from atss_nb.core.devices import best_precision
from atss_nb.model.build import build_model
from atss_nb.recipes.recipes import train_config
from atss_nb.recipes.table import RECIPES, Recipe
from atss_nb.training.step import make_optimizer, train_step
from common import RESULTS, apart, command_line, machine, resident, seconds, write


def step_of(recipe: Recipe) -> tuple:
    "What decides the memory of a step."
    return recipe.model, recipe.transforms.size, recipe.optimizer.batch_size


def run_steps(recipe: Recipe) -> dict:
    "Two steps on noise with 100 objects an image: the second one holds the optimiser's momentum, too."
    config = replace(train_config(recipe, ""), precision=best_precision("cpu"))
    model = build_model(recipe.model, len(recipe.data.classes), pretrained=False)
    optimizer, rng, (height, width) = (
        make_optimizer(model, config),
        torch.Generator().manual_seed(0),
        config.size,
    )
    boxes = (
        torch.rand(config.batch_size, 100, 5, generator=rng) * torch.tensor([width, height, 100, 60, 1.5]) + 4
    )
    labels = torch.zeros(100, dtype=torch.long)
    images = [torch.rand(3, height, width, generator=rng) for _ in boxes]
    targets = [{"boxes": one, "labels": labels} for one in boxes]
    before = resident("VmHWM") / 1e9
    steps = [seconds(lambda: train_step(model, images, targets, optimizer, config)) for _ in range(2)]
    most = resident("VmHWM") / 1e9
    return {"precision": config.precision, "before_gb": before, "peak_gb": most, "step_s": sum(steps) / 2}


def measure(recipe: Recipe) -> dict:
    "The same in a fresh process."
    size, batch = list(recipe.transforms.size), recipe.optimizer.batch_size
    return {"size": size, "batch_size": batch} | apart(__file__, "--one", recipe.name)


def table(rows: dict[str, dict]) -> str:
    lines = [f"{'recipe':36} {'batch':>5} {'image':>11} {'precision':>9} {'peak':>8}"]
    for name, r in rows.items():
        image = "x".join(map(str, r["size"]))
        lines.append(f"{name:36} {r['batch_size']:5} {image:>11} {r['precision']:>9} {r['peak_gb']:5.1f} GB")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("names", nargs="*", help="rows; without: all")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run_steps(RECIPES[args.one])))
        return
    done, rows = {}, {}
    for name in args.names or RECIPES:
        kind = step_of(RECIPES[name])
        done[kind] = done.get(kind) or measure(RECIPES[name])
        rows[name] = done[kind]
        print(f"{name}: {rows[name]['peak_gb']:.1f} GB", file=sys.stderr, flush=True)
    print(table(rows))
    report = {"machine": machine(), "python": platform.python_version(), "rows": rows}
    write(args.out or RESULTS / "memory.json", report)


if __name__ == "__main__":
    main()
