"""A row of the result table, R50 and le90, learns eight tiles of DOTA by heart, as far as its epochs go: a detector that cannot has a fault.

python bench/by_heart.py TILES [--epochs 80]    TILES: a folder with train and val, each with images/ and labelTxt/

Writes bench/results/by_heart.json. A run that was stopped goes on when it is started again. Nothing of the row's detector
is changed but that it begins with random weights, because ImageNet's are no part of the project, with nothing frozen
and norms that learn; nor of its tiles, batch and losses. AdamW learns them in fewer steps than SGD does, and no image
is mirrored, so that it is these tiles that are known. Scored on the tiles that were learnt: a number of no other meaning.
"""

import json
from dataclasses import replace
from pathlib import Path

from atss_nb.recipes.recipes import find_recipe, override, train_config
from common import RESULTS, ROOT, arguments, command_line, resident, write
from trainings import about, timed_training

ROW = "retina-r50-le90-1x-dota"
HOME = ROOT / "runs/by-heart"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--precision", default="auto")
    args = arguments(parser)
    row = override(find_recipe(ROW), ["model.weights=None"])
    config = replace(
        train_config(row, args.tiles), val_split="trainval",  # what is learnt from
        epochs=args.epochs, validations=max(1, args.epochs // 20), augment=False, precision=args.precision,
        optimizer="adamw", lr=1e-4, schedule="cosine", warmup_steps=20, weight_decay=0.05, decay_vectors=False,
    )  # fmt: skip
    public = replace(config, data="TILES")  # wherever this machine has them
    report = {"row": ROW, **about("cpu", public), **timed_training(config, HOME / "run")}
    write(args.out or RESULTS / "by_heart.json", report | {"peak_gb": round(resident("VmHWM") / 1e9, 1)})
    print(json.dumps(report["validations"], indent=1))


if __name__ == "__main__":
    main()
