"""A row of the result table, R50 and le90, learns eight tiles of DOTA by heart, as far as its epochs go: a detector that cannot has a fault.

python bench/by_heart.py TILES    TILES: a folder with train and val, each with images/ and labelTxt/

Writes bench/results/by_heart.json. A run that was stopped goes on when it is started again. Nothing of the row's detector
is changed but that it begins with random weights, because ImageNet's are no part of the project; nor of its tiles, batch
and losses. So nothing is frozen, and norms learn at first. They see two tiles at a time, and the statistics that they keep
for the day of use fit no pair: the same weights are also scored with those of each pair, and a second run goes on from the
first with norms that stand still, as they do in the row. AdamW learns the tiles in fewer steps than SGD does, and no image
is mirrored, so that it is these tiles that are known. Scored on the tiles that were learnt: a number of no other meaning.
"""

import json
from dataclasses import replace
from pathlib import Path

from torch import nn

from atss_nb.evaluation.evaluate import evaluate
from atss_nb.model.detect import predict_dataset
from atss_nb.recipes.recipes import find_recipe, override, train_config
from atss_nb.training.loop import load_model
from atss_nb.training.settings import TrainConfig, open_split
from common import RESULTS, ROOT, arguments, command_line, resident, write
from trainings import about, timed_training

ROW = "retina-r50-le90-1x-dota"
HOME = ROOT / "runs/by-heart"


def scored_by_pairs(run: Path, config: TrainConfig) -> dict[str, float]:
    "AP of a run's last weights where each pair of tiles is normalized by its own statistics, as in training."
    model, data = load_model(run / "last.pt")[0], open_split(config, config.val_split)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = norm.running_var = None
    score = evaluate(*predict_dataset(model, data, batch_size=2), data.classes)
    return {"AP50": score.AP50, "mAP": score.mAP}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("tiles", type=Path)
    parser.add_argument("--epochs", type=int, default=240, help="while norms learn")
    parser.add_argument("--frozen", type=int, default=40, help="epochs while norms stand still")
    parser.add_argument("--precision", default="auto")
    args = arguments(parser)
    row = override(find_recipe(ROW), ["model.weights=None"])
    config = replace(
        train_config(row, args.tiles), val_split="trainval",  # what is learnt from
        epochs=args.epochs, validations=max(1, args.epochs // 20), augment=False, precision=args.precision,
        optimizer="adamw", lr=1e-4, schedule="cosine", warmup_steps=20, weight_decay=0.05, decay_vectors=False,
    )  # fmt: skip
    first = timed_training(config, HOME / "run")
    first["by_pairs"] = scored_by_pairs(HOME / "run", config)
    frozen = replace(
        config, model=replace(config.model, norm_eval=True), weights=str(HOME / "run/last.pt"),
        epochs=args.frozen, validations=max(1, args.frozen // 10),
    )  # fmt: skip
    second = timed_training(frozen, HOME / "frozen")
    public = replace(config, data="TILES")  # wherever this machine has them
    report = {"row": ROW, **about("cpu", public), **first, "frozen": {"epochs": args.frozen, **second}}
    write(args.out or RESULTS / "by_heart.json", report | {"peak_gb": round(resident("VmHWM") / 1e9, 1)})
    print(json.dumps(first["validations"] + second["validations"], indent=1))


if __name__ == "__main__":
    main()
