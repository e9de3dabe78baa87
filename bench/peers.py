"""What users would pick instead, trained on the same images for the same CPU seconds, and scored alike.

python bench/peers.py [--peer atss ultralytics oriented_det] [--data scenes boxes_obb] [--seconds 400 1000] [--seeds 0 1 2]
    does what bench/results/peers.json lacks and notes it there, run by run; stopped, it goes on when started again

Everybody has one thread, random weights at first, and the epochs that fit into the budget by a trial of two; ours
computes in bfloat16 where the CPU does, as `atss train` always does, the others in float32, as they do on a CPU.
Peers live in environments of their own under runs/peers/, made here; what cannot be installed is left out, and
the report says why. Data: 300 scenes as the demo draws them and 60 unseen ones; photographs of boxes (--boxes).
"""

import json
import os
import subprocess
import sys
import venv
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from atss_nb.data.convert import read_dataset, write_dataset
from atss_nb.data.datasets import open_dataset
from atss_nb.evaluation.evaluate import evaluate
from atss_nb.scenes.scenes import write_scenes
from common import RESULTS, ROOT, apart, arguments, command_line, machine, write

HOME = ROOT / "runs/peers"
PEERS = {  # name -> what pip installs
    "ultralytics": "ultralytics==8.4.190",  # AGPL-3.0
    "oriented_det": "oriented-det==0.4.1",  # Apache-2.0
}
PROTOCOLS = ("dota-devkit", "probiou")
SIZES = {"scenes": 256, "boxes_obb": 416}  # long side, for everybody [px]


def megabytes(folder: Path) -> dict[str, int]:
    "Of an environment: all of it, and what is not PyTorch and its libraries for GPUs."
    sizes = {p: p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()}
    rest = [size for path, size in sizes.items() if not {"torch", "nvidia", "triton"} & set(path.parts)]
    return {"megabytes": round(sum(sizes.values()) / 1e6), "megabytes_besides_torch": round(sum(rest) / 1e6)}


def install(name: str) -> dict:
    "Make the environment of a peer, once. Says what it took, in CPU seconds, or why there is none."
    folder, facts = HOME / name, HOME / f"{name}.json"
    if facts.exists():
        return json.loads(facts.read_text())
    venv.create(folder, with_pip=True)
    command = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", PEERS[name]]
    started = sum(os.times()[2:4])
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    taken, reasons = sum(os.times()[2:4]) - started, done.stderr.strip().splitlines() or ["pip failed"]
    failed = {"skipped": reasons[-1]} if done.returncode else {}
    write(facts, {"asked": PEERS[name], "seconds": round(taken), **megabytes(folder), **failed})
    return json.loads(facts.read_text())


def prepare(data: str, seed: int, boxes: Path) -> tuple[Path, Path]:  # as DOTA, as YOLO
    "The data set of a seed in both formats, drawn or converted once."
    plain = boxes if data == "boxes_obb" else HOME / f"scenes{seed}"
    if data == "scenes" and not (plain / "test").exists():
        for i, (split, count) in enumerate({"train": 300, "test": 60}.items()):
            write_scenes(plain / split, count, 256, 2 * seed + i)  # those of `atss demo --seed`
    yolo = HOME / f"{plain.name}-yolo"
    if not yolo.exists():
        write_dataset("yolo-obb", read_dataset("dota", plain), yolo, report=False)
        names = next(yolo.glob("*.yaml"))
        if "val:" not in names.read_text():  # asked for by Ultralytics, and read once, after the last epoch
            names.write_text("val: images/test\n" + names.read_text())
    return plain, yolo


def run_one(peer: str, data: str, epochs: int, seed: int, boxes: Path) -> dict:
    "One training in a process of its own, and its score."
    plain, yolo = prepare(data, seed, boxes)
    ours = peer == "atss"
    home = next(yolo.glob("*.yaml")) if peer == "ultralytics" else plain
    asked = {"data": str(home), "images": str(plain / "test/images")}
    asked |= {"size": SIZES[data], "epochs": epochs, "seed": seed, "out": str(HOME / f"run-{peer}-{data}")}
    python = sys.executable if ours else HOME / peer / "bin/python"
    outcome = apart(Path(__file__).with_name(f"peer_{peer}.py"), json.dumps(asked), python=python)
    return outcome | {"epochs": epochs, **score(outcome.pop("detections"), outcome.pop("classes"), plain)}


def score(detections: dict[str, list], classes: list[str], home: Path) -> dict:
    "By exact overlap, and by what Ultralytics calls IoU, in the pixels of the images as they are; difficult objects left out."
    test = open_dataset(home, "test", None, classes)
    rows = [torch.tensor(detections[path.stem]).view(-1, 7) for path in test.images]  # box, score, label
    predictions = [{"boxes": r[:, :5], "scores": r[:, 5], "labels": r[:, 6].long()} for r in rows]
    targets = [test.target(i) for i in range(len(test))]
    found = {name: evaluate(predictions, targets, test.classes, protocol=name) for name in PROTOCOLS}
    scores = {name: {"AP50": one.AP50, "AP75": one.AP75, "mAP": one.mAP} for name, one in found.items()}
    return {**scores["dota-devkit"], "probiou": scores["probiou"]}


def epochs_for(clock: list[float], budget: float) -> int:
    "How many epochs fit into a budget of seconds, by the clock of a trial of two."
    epoch = clock[-1] - clock[-2]
    return max(1, round((budget - (clock[-2] - epoch)) / epoch))


def noted(out: Path) -> dict:
    "The report as it stands."
    empty = {"machine": machine(threads=1), "installed": {}, "trials": {}, "runs": {}}
    return json.loads(out.read_text()) if out.exists() else empty


def note(out: Path, part: str, more: dict) -> None:
    "Add to a part of the report; another process may have added something since it was last read."
    report = noted(out)
    write(out, report | {part: report[part] | more})


def table(runs: dict[str, dict]) -> str:
    "What each learns from a data set in a budget: means over the seeds, of AP the lowest and the highest, too."
    groups: dict[str, list[dict]] = {}
    for name, run in runs.items():
        groups.setdefault(name.rsplit(", seed", 1)[0], []).append(run)
    lines = [f"{'':34} {'seeds':>5} {'AP50':>20} {'mAP':>20} {'epochs':>6} {'CPU s':>6} {'images/s':>8}"]
    for name, group in sorted(groups.items(), key=lambda pair: pair[0].split(", ")[1:]):
        column = {key: [run[key] for run in group] for key in group[0] if key not in ("probiou", "versions")}
        spread = [f"{mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in (column["AP50"], column["mAP"])]
        pace = f"{mean(column['epochs']):6.0f} {mean(column['seconds']):6.0f} {mean(column['images_per_s']):8.1f}"
        lines.append(f"{name:34} {len(group):5} {spread[0]:>20} {spread[1]:>20} {pace}")
    return "\n".join(lines)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--peer", nargs="+", default=["atss", *PEERS], choices=["atss", *PEERS])
    parser.add_argument("--data", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--seconds", nargs="+", type=int, default=[400, 1000], help="budgets of CPU time")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--boxes", type=Path, default=ROOT.parent / "shared/data/boxes_obb")
    args = arguments(parser)
    out = args.out or RESULTS / "peers.json"
    for peer in set(args.peer) & set(PEERS):
        note(out, "installed", {peer: install(peer)})
    for seed, data, budget, peer in product(args.seeds, args.data, args.seconds, args.peer):
        report, name = noted(out), f"{peer}, {data}, {budget} s, seed {seed}"
        if name in report["runs"] or "skipped" in report["installed"].get(peer, {}):
            continue
        trial = f"{peer}, {data}"
        if trial not in report["trials"]:
            note(out, "trials", {trial: run_one(peer, data, 2, seed, args.boxes)["clock"]})
        epochs = epochs_for(noted(out)["trials"][trial], budget)
        run = run_one(peer, data, epochs, seed, args.boxes)
        note(out, "runs", {name: {"seconds": run.pop("clock")[-1], **run}})
        print(name, json.dumps(run), flush=True)
    print(table(noted(out)["runs"]))


if __name__ == "__main__":
    main()
