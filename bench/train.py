"""Where the time of a training goes, and how near it comes to the network alone.

python bench/train.py [--model resnet18] [--side 512] [--batch 8] [--workers 1] [--device cpu]
    prints a table and writes bench/results/train.json, or train_gpu.json
"""

import argparse
import os
import resource
import tempfile
from collections.abc import Iterator
from itertools import islice
from statistics import median
from time import perf_counter

import torch
from torch import nn

from atss_nb.core.devices import autocast, send
from atss_nb.data.datasets import read_image
from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.model.config import ModelConfig
from atss_nb.model.targets import normalized_batch
from atss_nb.scenes.scenes import write_scenes
from atss_nb.training.settings import TrainConfig, open_split
from atss_nb.training.step import train_step
from atss_nb.training.trainer import Trainer
from common import RESULTS, command_line, machine, median_seconds, seconds, write


class Waiting:
    "Batches, and the seconds it took to get each."

    def __init__(self, stream: Iterator):
        self.stream, self.seconds = stream, []

    def __next__(self):
        start = perf_counter()
        batch = next(self.stream)
        self.seconds.append(perf_counter() - start)
        return batch


def ceiling(run: Trainer, images: list[torch.Tensor], repeats: int) -> float:
    "The same network on a batch that is there already, with the simplest of losses."
    model, optimizer = run.model, run.optimizer
    batch = normalized_batch(images, model.backbone.multiple)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(batch.device, run.config.precision):
            predicted = model.head(model.backbone(batch))
        sum(x.float().square().mean() for x in predicted if x is not None).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-6)  # hardly moves the weights
        optimizer.step()

    return median_seconds(work, repeats, batch.device.type)


def parts(run: Trainer, images: list, targets: list, repeats: int) -> dict[str, float]:
    "Seconds a step of what can be measured by itself."
    device, config = run.engine.device.type, run.config
    paths, plain = run.data.images[: len(images)], open_split(config, "train")
    pixels = [plain[i] for i in range(len(images))]
    there, size = [send(image, run.engine.device) for image in images], images[0].shape[-2:]
    return {
        "decoding": median_seconds(lambda: [read_image(p) for p in paths], repeats),
        "augmentation": median_seconds(lambda: [run.data.transforms(*one) for one in pixels], repeats),
        "assignment": median_seconds(lambda: run.model.anchor_targets(targets, size), repeats, device),
        "optimizer": median_seconds(run.optimizer.step, repeats, device),
        "network alone": ceiling(run, there, repeats),
        "whole step": median_seconds(
            lambda: train_step(run.network, there, targets, run.optimizer, config), repeats, device
        ),
    }


def running(run: Trainer, steps: int) -> dict[str, float]:
    "The real loop after two steps to warm up: seconds a step, and of them those spent waiting for images."
    run.stream = waiting = Waiting(run.stream)
    loop = run.epoch()
    list(islice(loop, 2))
    whole = seconds(lambda: list(islice(loop, steps)), run.engine.device.type)
    return {"running": whole / steps, "waiting": median(waiting.seconds[2:])}


def memory(device: torch.device) -> float:  # [MB] the most taken so far
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(args: argparse.Namespace, folder: str) -> dict:
    write_scenes(f"{folder}/train", n=args.batch * (args.steps + 2), size=args.side, seed=0)
    small, kept = args.model == "small", {"frozen_stages": 1, "norm_eval": True} if args.frozen else {}
    model = ModelConfig.small() if small else ModelConfig.resnet(int(args.model[6:]), weights=None, **kept)
    config = TrainConfig(
        folder, model, classes=DOTA_V10_CLASSES, batch_size=args.batch, epochs=1000, validations=0,
        precision=args.precision, workers=args.workers, lr=1e-6, optimizer="sgd" if args.frozen else "adamw",
    )  # fmt: skip
    run = Trainer(config, args.device)
    images, targets = zip(*(run.data[i] for i in range(args.batch)), strict=True)
    found = running(run, args.steps) | parts(run, list(images), list(targets), args.repeats)
    return {"seconds": found, "precision": run.config.precision, "peak_mb": memory(run.engine.device)}


def table(found: dict[str, float], batch: int) -> str:
    whole = found["running"]
    lines = [f"{'part':16}{'a step':>12}{'of the loop':>13}{'images/s':>10}"]
    for name in (
        "decoding",
        "augmentation",
        "assignment",
        "optimizer",
        "network alone",
        "whole step",
        "running",
    ):
        lines.append(
            f"{name:16}{1000 * found[name]:9.1f} ms{found[name] / whole:13.1%}{batch / found[name]:10.2f}"
        )
    lines.append(f"{'waiting':16}{1000 * found['waiting']:9.1f} ms{found['waiting'] / whole:13.1%}")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--model", default="resnet18", help="small, resnet18, ..., resnet101")
    parser.add_argument("--side", type=int, default=512, help="of the images [px]")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--frozen", action="store_true", help="train what recipes with borrowed weights train"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=8, help="of the real loop, after two more")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    threads = max((os.cpu_count() or 1) - args.workers, 1)
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, folder)
    print(
        f"{args.model}, {args.batch} images of {args.side} px, {found['precision']}, peak {found['peak_mb']:.0f} MB"
    )
    print(table(found["seconds"], args.batch))
    gpu = torch.cuda.get_device_name() if args.device.startswith("cuda") else None
    asked = {name: value for name, value in vars(args).items() if name != "out"}
    facts = machine(threads=threads, gpu=gpu)
    report = {"machine": facts, "torch": torch.__version__, "asked": asked, **found}
    write(args.out or RESULTS / ("train_gpu.json" if gpu else "train.json"), report)


if __name__ == "__main__":
    main()
