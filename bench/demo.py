"""The demo, seed by seed: what it learns, and the seconds from the first scene to the report.

python bench/demo.py [--seeds 0 1 2]    prints a table and writes bench/results/demo.json; on two cores that do nothing else

A demo that is in runs/bench-demo already is read, not run again.
"""

import json

import torch

from atss_nb.cli.demo import demo
from atss_nb.core.devices import best_precision
from atss_nb.training.settings import TrainConfig
from common import RESULTS, ROOT, arguments, command_line, machine, write

HOME = ROOT / "runs/bench-demo"
THREADS = 2


def run(seed: int) -> dict:
    "The scores of a demo and its seconds."
    path = HOME / str(seed) / "metrics.json"
    metrics = json.loads(path.read_text()) if path.exists() else demo(path.parent, seed)
    epochs = TrainConfig.from_json((path.parent / "config.json").read_text()).epochs
    scores = {name: round(metrics[name], 4) for name in ("AP50", "AP75", "mAP")}
    return {"epochs": epochs, **scores, "seconds": round(sum(metrics["seconds"].values()))}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = arguments(parser, threads=THREADS)
    about = machine(threads=THREADS, torch=torch.__version__, precision=best_precision("cpu"))
    rows = {seed: run(seed) for seed in args.seeds}
    write(args.out or RESULTS / "demo.json", {"machine": about, "seeds": rows})
    print("seed epochs   AP50   AP75    mAP seconds")
    for seed, row in rows.items():
        print(
            f"{seed:4} {row['epochs']:6} {row['AP50']:.4f} {row['AP75']:.4f} {row['mAP']:.4f} {row['seconds']:7}"
        )


if __name__ == "__main__":
    main()
