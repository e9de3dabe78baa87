"""Train the weights that come with the package, and write them with their card to atss_nb/weights.

python bench/weights.py scenes                                    draws 900 scenes, trains on 800 of them (half an hour)
python bench/weights.py hit-uav --data ../shared/data/hit_uav     HIT-UAV (Suo et al. 2023), two hours; also data/results/hit_uav*

One thread of a CPU; a run that was stopped goes on when it is started again. What it does is in runs/weights/.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from atss_nb.data.datasets import DetectionDataset, open_dataset
from atss_nb.evaluation.task1 import write_task1
from atss_nb.inference.predict import predict
from atss_nb.model.config import ModelConfig
from atss_nb.training.checkpoints import load_checkpoint
from atss_nb.training.defaults import labels_kept
from atss_nb.training.loop import load_model
from atss_nb.training.settings import TrainConfig, open_split
from atss_nb.training.trainer import validate
from atss_nb.training.weights import save_weights
from common import ROOT, arguments, processor, write
from trainings import about, draw, timed_training

RUNS, WEIGHTS, RESULTS = ROOT / "runs/weights", ROOT / "atss_nb/weights", ROOT / "data/results"
THREE = ("Person", "Car", "Bicycle")

ABOUT = {
    "scenes": """Trained on procedural scenes of 256 px that this package draws itself; its licence covers the data, too.
It is for first steps: lessons, tests, pictures, and as a beginning for fine-tuning. It has never seen a photograph.""",
    "hit-uav": """Trained on HIT-UAV, infrared drone images of 640 x 512 px (Suo et al., HIT-UAV: A high-altitude infrared
thermal dataset for Unmanned Aerial Vehicle-based object detection, Scientific Data 10:227, 2023, CC BY 4.0).
It must not be used to watch people: it is for lessons, and as a beginning for fine-tuning on images like these.""",
}


def scenes_config(args: argparse.Namespace) -> TrainConfig:
    home = draw(RUNS / "scenes-data", train=(800, 100), val=(100, 101))
    return TrainConfig(str(home), ModelConfig.small(), epochs=40, zoom=1.5, ema=0.998, precision="bfloat16")


def hit_uav_config(args: argparse.Namespace) -> TrainConfig:
    return TrainConfig.suggest(args.data, precision="bfloat16")


CONFIGS = {"scenes": scenes_config, "hit-uav": hit_uav_config}


def card(name: str, score, config: TrainConfig, taken: float, images: int) -> str:
    "What somebody should know before using the weights."
    rows = "\n".join(f"| {kind} | {ap['0.50']:.3f} |" for kind, ap in sorted(score.per_class.items()))
    return f"""# {name}

{ABOUT[name]}

- Command: `python bench/weights.py {name}`, seed {config.seed}, {config.epochs} epochs, {config.precision}, one thread of {processor()}, PyTorch {torch.__version__}, {taken / 60:.0f} minutes of its time.
- Stored as float16. Scores below are of the stored numbers, on the {images} images of the validation split, which decided the checkpoint that was kept but was never trained on; protocol dota-devkit, exact overlap, the model's own thresholds.

AP50 {score.AP50:.3f}, AP75 {score.AP75:.3f}, mAP {score.mAP:.3f}

| class | AP50 |
|---|---|
{rows}
"""


def suppressed(model: torch.nn.Module, data: DetectionDataset, threshold: float) -> dict[str, float]:
    "AP50 of each class, and of the three with many objects, where detections that overlap by more are dropped."
    model.config = replace(model.config, nms_threshold=threshold)
    by_class = {name: ap["0.50"] for name, ap in validate(model, data).per_class.items()}
    return by_class | {"of three": sum(by_class[name] for name in THREE) / 3}


def write_results(path: Path, known: dict, val: DetectionDataset, data: str) -> None:
    "What the weights reach on the validation split, and what they find in the test split, which has no labels."
    model, config, classes = load_model(path)
    default = model.config.nms_threshold
    found = {threshold: suppressed(model, val, threshold) for threshold in (0.1, default, 0.3, 0.5)}
    # scores under 0.1 are worth 0.003 of AP, and files thrice as long
    model.config = replace(model.config, nms_threshold=default, score_threshold=0.1)
    test = open_dataset(data, "test", labels="optional")
    predictions = predict(model, test.images, classes, size=config.size, progress=True)
    write_task1(RESULTS / "hit_uav_test", predictions)
    scores = {"val_AP50": {name: found[default][name] for name in classes}}
    scores |= {"val_AP50_of_three_by_nms": {t: by_class["of three"] for t, by_class in found.items()}}
    scores |= {"train_labels_kept_by_nms": labels_kept(open_dataset(data, "train"))}
    write(
        RESULTS / "hit_uav.json", known | scores | {"nms_threshold": default, "test_images": len(predictions)}
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(CONFIGS))
    parser.add_argument("--data", help="of hit-uav: folder with train, val and test")
    args = arguments(parser)
    config, run = CONFIGS[args.name](args), RUNS / args.name
    trained = timed_training(config, run, clock=time.process_time)
    whole = load_checkpoint(run / "last.pt")["epochs"] == config.epochs
    if not whole:
        raise SystemExit("stopped: run the same command again to go on")
    model, config, classes = load_model(run)
    public = replace(config, data=f"runs/weights/{args.name}-data")  # wherever this machine has them
    path = save_weights(WEIGHTS / args.name, model, public.to_json(), classes, half=True)
    data = open_split(config, "val")
    score = validate(load_model(path)[0], data)
    text = card(args.name, score, config, trained["seconds"], len(data))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    if args.name == "hit-uav":
        write_results(path, about("cpu", public) | trained, data, args.data)
    print(score.summary(), f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)", sep="\n")


if __name__ == "__main__":
    main()
