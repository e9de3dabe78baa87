"""The tables of the ATSS paper, measured again for oriented boxes: data/results/paper.

python bench/paper.py                     all experiments, then tables.json and README.md
python bench/paper.py --workers 2         two trainings at a time, each with one thread
python bench/paper.py --only rules k      some of them
python bench/paper.py --quick             four trainings, in minutes: runs/paper/quick
python bench/paper.py --tables            the tables of the runs that are there
torchrun --nproc-per-node 8 bench/paper.py --device cuda     one training at a time on each of eight GPUs

A finished training is a line of runs.jsonl; what was stopped goes on where it was, and what is finished is left alone.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import save_file

from atss_nb.core.engine import start_engine
from atss_nb.core.files import replacing
from atss_nb.data.dota import read_dota, write_dota
from atss_nb.evaluation.breakdown import drawn_scores, evaluate_by
from atss_nb.evaluation.cases import as_case
from atss_nb.evaluation.evaluate import evaluate_case
from atss_nb.geometry.boxes import hbb2obb, obb2hbb, obb2poly, poly2obb
from atss_nb.model import build
from atss_nb.model.config import ModelConfig
from atss_nb.model.detect import predict_dataset
from atss_nb.recipes.paper import paper_model
from atss_nb.samples.assign import ATSS
from atss_nb.samples.claims import ROUNDING, resolve_claims, stack_ground_truths
from atss_nb.samples.coders import DeltaXYWHA
from atss_nb.samples.explanation import Assignment, Explanation
from atss_nb.scenes.scenes import write_scenes
from atss_nb.tiles.split import split
from atss_nb.tiles.tiles import Tiling
from atss_nb.training.checkpoints import read_log
from atss_nb.training.loop import load_model, train
from atss_nb.training.settings import TrainConfig, open_split
from atss_nb.training.weights import read_weights
from common import ROOT, arguments, command_line, commit, processor
from paper_tables import append_run, read_runs, write_tables
from runs import some_images

RESULTS, HOME = ROOT / "data/results/paper", ROOT / "runs/paper"
SMALL = ModelConfig.small(
    strides=(8, 16, 32, 64), channels=32, head_convs=1, center_offset=0.5, centerness=True, box_loss="giou"
)  # where a row of the paper says nothing else


@dataclass(frozen=True)
class Half(ATSS):
    """ATSS that looks at the upright box around an object for one of its two questions.

    Attributes:
        overlap: whether an anchor overlaps enough is asked of the upright box
        inside: whether its center is inside is asked of the upright box
    """

    overlap: bool = False
    inside: bool = False

    def explain(self, anchors, gt_boxes, ignore=None) -> Explanation:
        "As ATSS; the candidates are the same, for the two boxes have one center."
        both = [ATSS(self.k, upright=upright).explain(anchors, gt_boxes, ignore) for upright in (False, True)]
        turned, overlap, inside = both[0], both[self.overlap], both[self.inside]
        claimed = (overlap.iou >= overlap.threshold[:, None] - ROUNDING) & inside.inside
        truths = stack_ground_truths(anchors, gt_boxes, ignore)
        owner, iou, _ = resolve_claims(truths, turned.index, claimed, overlap.iou, turned.iou)
        return replace(turned, assignment=Assignment(owner, iou))


class Arm(NamedTuple):
    "A way of training: a model, and the rule and the coder where its configuration has no name for them."

    model: ModelConfig
    rule: ATSS | None = None
    coder: DeltaXYWHA | None = None


def of_paper(name: str, **changes) -> Arm:
    "A row of the paper with oriented boxes, and what is changed besides."
    model = replace(paper_model(f"paper-{name}", SMALL), **changes)
    weight = 1.0 if model.box_loss == "smooth_l1" else 2.0  # the paper's quarter is for deltas in finer units
    return Arm(replace(model, box_weight=weight))


ATSS_ROW = "retinanet-atss"
STEPS = [
    "retinanet", *(f"retinanet-{step}" for step in ("gn", "giou", "inside", "centerness", "imprs")), "fcos"
]  # fmt: skip
RULES = ["fcos-iou", "retinanet-size", "fcos-sampling", ATSS_ROW, "fcos-atss"]
LOSSES = {
    "smooth L1": "smooth_l1",
    "rotated IoU": "linear",
    "GIoU": "giou",
    "KLD": "kld",
    "ProbIoU": "probiou",
}
HALVES = {
    "upright overlap": Half(overlap=True), "upright inside": Half(inside=True), "upright both": ATSS(upright=True)
}  # fmt: skip
RADIANS = DeltaXYWHA("le135", proj_xy=True)  # as the other two; the published one counts in half turns
NUMBERS = {
    "k": {f"k-{k}": of_paper(f"k-{k}") for k in (3, 5, 7, 11, 13, 15, 17, 19)},
    "anchors": {
        "retinanet-9": of_paper("retinanet-9"),
        "retinanet-9-imprs": of_paper("retinanet-9-imprs"),
        "retinanet-9-atss": of_paper("retinanet-9-atss", k=81),  # nine cells, as the paper counts
        "retinanet-9-atss, k an anchor": of_paper("retinanet-9-atss"),
        "retinanet-3x1-atss": of_paper("retinanet-3x1-atss", k=27),
        "retinanet-1x3-atss": of_paper("retinanet-1x3-atss", k=27),
    },
    "losses": {
        **{
            f"le135 in radians, {loss}": Arm(
                of_paper(ATSS_ROW, angle="le135", box_loss=LOSSES[loss]).model, coder=RADIANS
            )
            for loss in ("smooth L1", "rotated IoU", "GIoU")
        },
        **{
            f"{angle} {loss}": of_paper(ATSS_ROW, angle=angle, box_loss=name)
            for loss, name in LOSSES.items()
            for angle in ("le90", "oc", "le135")
            if (angle, name) != ("le90", "giou")
        },
    },
    "shape": {
        **{f"scale {scale}": of_paper(ATSS_ROW, anchor_scale=scale) for scale in (2, 3, 6, 8)},
        **{f"ratio 1:{ratio}": of_paper(ATSS_ROW, ratios=(1 / ratio,)) for ratio in (2, 4)},
        "offset 0": of_paper(ATSS_ROW, center_offset=0.0),
    },
}
ARMS = {
    **{name: of_paper(name) for name in STEPS + RULES},
    **{name: Arm(of_paper(ATSS_ROW).model, rule) for name, rule in HALVES.items()},
    **{name: arm for group in NUMBERS.values() for name, arm in group.items()},
}
SIX = ["retinanet", "retinanet-imprs", "fcos", "fcos-sampling", ATSS_ROW, "fcos-atss"]
PLAN = {  # by importance: the name of an experiment -> data, arms
    "rules": ("scenes", [*STEPS, *RULES, *HALVES]),
    **{name: ("scenes", list(NUMBERS[name])) for name in ("k", "anchors", "losses")},
    "long": ("long", SIX[1:2] + SIX[3:]),
    "hard": ("hard", [*SIX, *HALVES]),
    "upright": ("upright", SIX),
    "drone": ("drone", SIX[1:]),
    "airport": ("airport", SIX[1:]),
    "shape": ("scenes", list(NUMBERS["shape"])),
}
PHOTOGRAPHS = {
    "drone": ("hit_uav", "val"),
    "airport": ("aerial_airport", "valid"),
}  # folder, where it is tested
CHANGES = {
    "upright": {"upright": True},
    "airport": {"upright": True},
    "drone": {"anchor_scale": 2.0},
}  # people are 14 px large
BODIES = {"drone": "hit-uav"}  # shipped weights whose backbone is taken; where nothing is said, "scenes"
FEW = dict.fromkeys(("long", "upright", "drone", "airport", "shape"), 3)  # seeds


@dataclass(frozen=True)
class Extent:
    """How large everything is.

    Attributes:
        side: of the images [px]
        train: images to learn from
        test: other images
        epochs: of each training
        photographs: to learn from, and as many others
    """

    side: int = 160
    train: int = 200
    test: int = 300
    epochs: int = 5
    photographs: int = 60


def relabel(split: Path, name: Callable[[str], str], upright: bool = False) -> None:
    "Other names of classes in a split; with `upright`, the upright boxes around objects."
    for path in (split / "labelTxt").glob("*.txt"):
        labels = read_dota(path)
        corners = labels.polygons.double()
        if upright and len(corners):
            corners = obb2poly(hbb2obb(obb2hbb(poly2obb(corners, "le90"))))
        names = [name(each) for each in labels.names]
        write_dota(path, type(labels).from_polygons(corners.numpy(), names, difficult=labels.difficult))


def draw_scenes(out: Path, extent: Extent, difficulty: str = "normal", upright: bool = False) -> None:
    "Scenes in which every object is of one class: what is compared is how boxes are learnt."
    for seed, (name, count) in enumerate({"train": extent.train, "test": extent.test}.items()):
        write_scenes(out / name, count, extent.side, 700 + seed, difficulty=difficulty)
        relabel(out / name, lambda _: "object", upright)


def cut_photographs(out: Path, extent: Extent, source: Path, test: str) -> None:
    "Tiles with objects of some photographs, all of one class as the scenes."
    for name, there in (("train", "train"), ("test", test)):
        some_images(source / there, out / "whole" / name, extent.photographs, 0)
        split(out / "whole" / name, out / name, Tiling(size=extent.side, gap=0), progress=False)
        relabel(out / name, lambda _: "object")
        for labels in (out / name / "labelTxt").glob("*.txt"):
            if not len(read_dota(labels).names):
                labels.unlink()
                (out / name / "images" / f"{labels.stem}.png").unlink()


def make_data(home: Path, name: str, extent: Extent, photographs: Path) -> Path:
    "The folder of a data set, made if it is not there."
    cut = {
        data: partial(cut_photographs, source=photographs / there, test=test)
        for data, (there, test) in PHOTOGRAPHS.items()
    }
    ways = {
        "scenes": draw_scenes,
        "long": draw_scenes,
        "hard": partial(draw_scenes, difficulty="hard"),
        "upright": partial(draw_scenes, upright=True),
        **cut,
    }
    folder = home / "data" / name
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=home) as draft:
            ways[name](Path(draft) / name, extent)
            folder.parent.mkdir(exist_ok=True)
            (Path(draft) / name).rename(folder)
    return folder


def backbone_weights(home: Path, name: str = "scenes") -> Path:
    "The backbone of shipped weights without pyramid and head: what ImageNet is to the paper."
    path, stored = home / f"{name}.safetensors", read_weights(name)
    if not path.exists():
        body = {name: value for name, value in stored.state.items() if name.startswith("backbone.body.")}
        with replacing(path) as draft:
            save_file(body, draft, {"config": stored.config, "classes": json.dumps(stored.classes)})
    return path


class Job(NamedTuple):
    "One training: everything that a process needs to know."

    home: Path
    data: str
    arm: str
    seed: int
    epochs: int
    device: str
    about: dict

    @property
    def key(self) -> tuple[str, str, int]:
        return self.data, self.arm, self.seed


def config_of(job: Job) -> TrainConfig:
    model = replace(ARMS[job.arm].model, **CHANGES.get(job.data, {}))
    return TrainConfig(
        str(job.home / "data" / job.data), model, epochs=job.epochs, seed=job.seed, batch_size=4,
        weights=str(job.home / f"{BODIES.get(job.data, 'scenes')}.safetensors"), freeze=2, keep_empty=False, photometric=False,
        precision="float32", validations=0,
    )  # fmt: skip


def rounded(ap: float | None) -> float | None:
    "In percent; None where there are no objects."
    return None if ap is None else round(100 * ap, 3)


def one_run(job: Job) -> dict:
    "Train, test, and keep what is to be known: in percent, with the scores of a hundred draws of the test images."
    torch.set_num_threads(1)
    out, arm = job.home / "_".join(map(str, job.key)).replace(" ", "_"), ARMS[job.arm]
    start, busy = time.perf_counter(), time.process_time()
    rules = {"atss": lambda _: arm.rule} if arm.rule else {}
    coders = {"box": lambda *_: arm.coder} if arm.coder else {}
    alone = patch.dict(os.environ, WORLD_SIZE="1")  # processes of a launcher share trainings, not this one
    with alone, patch.dict(build._ASSIGNERS, rules), patch.dict(build._CODERS, coders):
        train(config_of(job), out, job.device, progress=False, resume=True)
        model, config, classes = load_model(out)
    test = open_split(replace(config, classes=classes), "test")
    case = as_case(*predict_dataset(model.to(job.device), test), classes)
    score, drawn = evaluate_case(case), drawn_scores(case, 100)
    numbers = {name: rounded(getattr(score, name)) for name in ("AP50", "AP75", "mAP")}
    log = [row for row in read_log(out / "log.jsonl") if "positives" in row]
    counts = {name: round(float(np.mean([row[name] for row in log])), 4) for name in ("positives", "orphans")}
    clocks = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}
    times = {name: round(value, 1) for name, value in clocks.items()}
    draws = {name: np.round(100 * drawn[name], 2).tolist() for name in ("AP50", "mAP")}
    bins = evaluate_by(case, "aspect", iou_thresholds=(0.5, 0.75))
    shapes = {name: [rounded(b.AP50), rounded(b.AP75), sum(b.positives.values())] for name, b in bins.items()}
    shutil.rmtree(out)
    key = dict(zip(("data", "arm", "seed"), job.key, strict=True))
    return key | numbers | counts | times | job.about | {"by_aspect": shapes, "drawn": draws}


def attempt(job: Job) -> tuple[Job, dict | Exception]:
    "One failure does not stop the others."
    try:
        return job, one_run(job)
    except Exception as error:
        return job, error


def outcomes(jobs: list[Job], workers: int) -> Iterator[tuple[Job, dict | Exception]]:
    "As they come."
    if workers == 1:
        yield from map(attempt, jobs)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for future in as_completed([pool.submit(attempt, job) for job in jobs]):
            yield future.result()


def unfinished(jobs: Iterable[Job], path: Path) -> list[Job]:
    known = {(row["data"], row["arm"], row["seed"]) for row in read_runs(path)}
    return [job for job in jobs if job.key not in known]


def run_all(jobs: list[Job], path: Path, workers: int = 1) -> list[str]:  # what failed
    "Each row is appended at once, so that a stop costs one training, and several processes can write."
    failed = []
    for i, (job, row) in enumerate(outcomes(jobs, workers), start=1):
        numbers = f"failed: {row!r}"
        if isinstance(row, Exception):
            failed.append(f"{job.key}: {row!r}")
        else:
            append_run(path, row)
            numbers = f"AP50 {row['AP50']:.1f}, mAP {row['mAP']:.1f}, {row['cpu_seconds']:.0f} s"
        print(f"{i}/{len(jobs)} {job.data}, {job.arm}, seed {job.seed}: {numbers}", flush=True)
    return failed


def plan(args: argparse.Namespace, home: Path, extent: Extent) -> list[Job]:
    "Experiment by experiment, and in each of them seed by seed: a stop leaves whole tables."
    machine = torch.cuda.get_device_name() if args.device.startswith("cuda") else processor()
    about = {"device": machine, "torch": torch.__version__, "commit": commit()}
    about |= {"command": "make paper", "extent": asdict(extent)}
    jobs = []
    for name in args.only:
        data, arms = PLAN[name]
        if data in PHOTOGRAPHS and not (needed := args.photographs / PHOTOGRAPHS[data][0]).exists():
            print(f"{name} is left out: no folder {needed}")
            continue
        make_data(home, data, extent, args.photographs)
        seeds = range(args.seeds or FEW.get(name, 5))
        chosen, epochs = args.arms or arms, extent.epochs * (3 if data == "long" else 1)
        jobs += [Job(home, data, a, s, epochs, args.device, about) for s in seeds for a in chosen]
    return jobs


def run_plan(args: argparse.Namespace, home: Path, path: Path) -> None:
    """What is not finished yet. Processes of a launcher take turns, each on its own device.

    The first draws the data and writes the tables, when all of them are through. Raises `RuntimeError` after the
    last training if one of them failed.
    """
    engine, jobs = start_engine(args.device, patient=True), []
    if engine.rank == 0:
        home.mkdir(parents=True, exist_ok=True)
        for name in ("scenes", *BODIES.values()):
            backbone_weights(home, name)
        jobs = unfinished(plan(args, home, Extent()), path)
    jobs = engine.same(jobs)
    mine = [job._replace(device=str(engine.device)) for job in jobs[engine.rank :: engine.world]]
    if failed := engine.gather(run_all(mine, path, args.workers)):
        raise RuntimeError(f"{len(failed)} of {len(jobs)} trainings failed: {'; '.join(failed)}")
    if engine.rank == 0:
        write_tables(path.parent)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--only", nargs="+", choices=PLAN, default=list(PLAN), metavar="NAME")
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="instead of those of the plan", metavar="ARM")
    parser.add_argument(
        "--seeds", type=int, help="how many; if not said, five, or three where less depends on them"
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--photographs",
        type=Path,
        default=ROOT.parent / "shared/data",
        help="a folder with hit_uav and aerial_airport",
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tables", action="store_true")
    args = arguments(parser)
    home, out = HOME, args.out or RESULTS
    if args.quick:
        home, out, args.only, args.seeds = HOME / "quick", HOME / "quick", ["rules"], 1
        args.arms = ["retinanet", "retinanet-imprs", "fcos", ATSS_ROW]
    if args.tables:
        write_tables(out)
    else:
        run_plan(args, home, out / "runs.jsonl")


if __name__ == "__main__":
    main()
