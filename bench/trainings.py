"What benchmarks that train share: drawn scenes, a training whose stops do not count, and what somebody needs to run it again."

import json
import sys
import time
from pathlib import Path

import torch

from atss_nb.scenes.scenes import write_scenes
from atss_nb.training.checkpoints import read_log
from atss_nb.training.loop import train
from atss_nb.training.settings import TrainConfig
from common import processor, seconds


def draw(home: Path, **splits: tuple[int, int]) -> Path:  # name -> how many scenes, seed
    "Scenes of 256 px, once."
    for split, (count, seed) in splits.items():
        if not (home / split).exists():
            write_scenes(home / split, n=count, size=256, seed=seed)
    return home


def about(device: str, config: TrainConfig) -> dict:
    "What somebody needs to know to run it again."
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else ""
    words = " ".join([f"python bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    machine = {"device": gpu or processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    return {"command": words, "machine": machine, "config": json.loads(config.to_json())}


def timed_training(config: TrainConfig, out: Path, device: str = "cpu", clock=time.perf_counter) -> dict:
    "Train, or go on, and tell how long it took without the stops, and how the losses went."
    before = out / "seconds.txt"
    taken = seconds(lambda: train(config, out, device, resume=True), clock=clock)
    taken += float(before.read_text()) if before.exists() else 0
    before.write_text(f"{taken:.1f}")
    rows = read_log(out / "log.jsonl")
    curve = [{k: row[k] for k in ("step", "loss")} for row in rows if "loss" in row]
    counts = [(row["positives"], row["orphans"]) for row in rows if "positives" in row]
    per_object, orphans = (sum(column) / len(column) for column in zip(*counts, strict=True))
    scores = [{k: row[k] for k in ("epoch", "AP50", "mAP")} for row in rows if "AP50" in row]
    numbers = {"positives_per_object": round(per_object, 2), "orphans": round(orphans, 4)}
    return {"seconds": round(taken, 1), **numbers, "validations": scores, "losses": curve}
