"From finished trainings to tables: means, differences with their intervals, and what the seeds could have shown."

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from atss_nb.core.files import replacing
from atss_nb.evaluation.breakdown import paired_difference
from atss_nb.recipes.paper import PAPER_RECIPES

MEASURES = ("AP50", "AP75", "mAP")


class Table(NamedTuple):
    "What is compared: each arm with the first, or with the one that it names."

    title: str
    data: str
    arms: dict[str, str | None]  # arm -> with which it is compared; None: with nothing


def _chain(*arms: str) -> dict[str, str | None]:
    "Each with the one before it."
    return {arms[0]: None} | dict(zip(arms[1:], arms[:-1], strict=True))


def _against(first: str, *others: str) -> dict[str, str | None]:
    return {first: None} | dict.fromkeys(others, first)


ATSS_ROW = "retinanet-atss"
_STEPS = [f"retinanet-{step}" for step in ("gn", "giou", "inside", "centerness", "imprs")]
_HALVES = ("upright overlap", "upright inside", "upright both")
_THREE = {
    "retinanet": None, "retinanet-imprs": "retinanet", ATSS_ROW: "retinanet-imprs",
    "fcos": "retinanet-imprs", "fcos-sampling": "fcos", "fcos-atss": "fcos",
}  # fmt: skip
_FIVE = {name: other for name, other in _THREE.items() if name != "retinanet"} | {"retinanet-imprs": None}
_FOUR = {
    "retinanet-imprs": None, ATSS_ROW: "retinanet-imprs", "fcos-sampling": "retinanet-imprs", "fcos-atss": "fcos-sampling",
}  # fmt: skip
_RADIANS = [f"le135 in radians, {loss}" for loss in ("smooth L1", "rotated IoU", "GIoU")]
_LOSSES = [
    f"{a} {x}" for x in ("smooth L1", "rotated IoU", "KLD", "ProbIoU") for a in ("le90", "oc", "le135")
]
TABLES = {
    "1": Table("Table 1: from RetinaNet to FCOS, each line with the one before it", "scenes", _chain("retinanet", *_STEPS, "fcos")),
    "2": Table("Table 2: which anchors, and from what a box is learnt", "scenes", {
        "retinanet-imprs": None, "fcos-iou": "retinanet-imprs", "retinanet-size": "retinanet-imprs", "fcos": "retinanet-size",
    }),
    "3": Table("Table 3: ATSS in both", "scenes", _THREE),
    "turned": Table("Turned or upright: of what ATSS asks its two questions", "scenes", _against(ATSS_ROW, *_HALVES)),
    "4": Table("Table 4: k, each with 9", "scenes", _against(ATSS_ROW, *(f"k-{k}" for k in (3, 5, 7, 11, 13, 15, 17, 19)))),
    "5": Table("Table 5: the size of the anchor [strides], each with 4", "scenes", _against(ATSS_ROW, *(f"scale {s}" for s in (2, 3, 6, 8)), "offset 0")),
    "6": Table("Table 6: the shape of the anchor, each with 1:1", "scenes", _against(ATSS_ROW, "ratio 1:2", "ratio 1:4")),
    "7": Table("Table 7: how many anchors", "scenes", {
        "retinanet-9": None, "retinanet-9-imprs": "retinanet-9", "retinanet-9-atss": "retinanet-9-imprs",
        "retinanet-9-atss, k an anchor": "retinanet-9-atss", "retinanet-3x1-atss": ATSS_ROW, "retinanet-1x3-atss": ATSS_ROW,
        ATSS_ROW: "retinanet-9-atss",
    }),
    "losses": Table("Angles and losses, each with le90 and GIoU", "scenes", _against(ATSS_ROW, "oc GIoU", "le135 GIoU", *_LOSSES)),
    "unit": Table("le135 with the turn in radians, each with the turn in half turns", "scenes", dict.fromkeys(name.replace(" in radians,", "") for name in _RADIANS) | {name: name.replace(" in radians,", "") for name in _RADIANS}),
    "long": Table("Table 3 after three times as many epochs", "long", _FOUR),
    "hard": Table("Table 3 and the upright questions on hard scenes", "hard", _THREE | dict.fromkeys(_HALVES, ATSS_ROW)),
    "upright": Table("Table 3 with upright boxes", "upright", _THREE),
    "drone": Table("Table 3 on tiles of HIT-UAV", "drone", _FIVE),
    "airport": Table("Table 3 with upright boxes, on tiles of GDIT Aerial Airport", "airport", _FIVE),
}  # fmt: skip


def _row(line: str) -> dict | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # cut off by a crash
        return None


def read_runs(path: Path) -> list[dict]:
    "The finished trainings, the last of each kind."
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [row for line in lines if (row := _row(line))]
    return list({(row["data"], row["arm"], row["seed"]): row for row in rows}.values())


def append_run(path: Path, row: dict) -> None:
    "One more line, in one piece, so that two processes can write; after what a crash cut off, on a line of its own."
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" * cut_off + json.dumps(row) + "\n")


def _scores(rows: Iterable[dict], measure: str) -> dict[int, np.ndarray]:  # seed -> (1 + D,)
    return {row["seed"]: np.r_[row[measure], row["drawn"][measure]] for row in rows}


def difference(first: list[dict], second: list[dict], measure: str) -> dict | None:
    "The gain of the second in points over the seeds that both have, with its interval, and what could have been seen; None for one seed."
    both = [_scores(rows, measure) for rows in (first, second)]
    seeds = sorted(both[0].keys() & both[1].keys())
    if len(seeds) < 2:
        return None
    mean, low, high = paired_difference(*(np.stack([scores[s] for s in seeds]) for scores in both))
    error = (high - low) / (2 * 1.96)
    numbers = {"mean": mean, "low": low, "high": high, "visible": 2.8 * error}  # 80 % power at a level of 5 %
    return {name: round(value, 2) for name, value in numbers.items()} | {"seeds": len(seeds)}


def line_of(rows: list[dict], arm: str) -> dict:
    "The means of an arm, how far its seeds lie apart, and by aspect ratio: AP50, AP75, objects."
    known = PAPER_RECIPES.get(f"paper-{arm}")
    line = {"arm": arm, "seeds": len(rows), "paper": known.published.mAP if known else None}
    for measure in MEASURES:
        values = [row[measure] for row in rows]
        line[measure] = round(float(np.mean(values)), 2)
        line[f"{measure}_std"] = round(float(np.std(values, ddof=1)), 2) if len(values) > 1 else None
    for name in ("positives", "orphans", "cpu_seconds"):
        line[name] = round(float(np.mean([row[name] for row in rows])), 4)
    names = dict.fromkeys(name for row in rows for name in row["by_aspect"])
    shapes = {name: np.array([row["by_aspect"][name] for row in rows], float).mean(0) for name in names}
    line["by_aspect"] = {name: values.round(2).tolist() for name, values in shapes.items() if values[2] > 0}
    return line


def make_table(table: Table, runs: list[dict]) -> dict:
    "The lines for which there are trainings."
    of_arm = {arm: [r for r in runs if (r["data"], r["arm"]) == (table.data, arm)] for arm in table.arms}
    lines = []
    for arm, other in table.arms.items():
        if of_arm[arm]:
            gains = {m: difference(of_arm[other], of_arm[arm], m) for m in ("AP50", "mAP")} if other else {}
            gain = {measure: numbers for measure, numbers in gains.items() if numbers}
            lines.append(line_of(of_arm[arm], arm) | {"compared_with": other, "gain": gain})
    return {"title": table.title, "data": table.data, "lines": lines}


def _number(value: float | None, spread: float | None = None) -> str:
    return "" if value is None else f"{value:.1f}" + (f" ± {spread:.1f}" if spread is not None else "")


def _interval(gain: dict | None) -> str:
    return f"{gain['mean']:+.1f} ({gain['low']:+.1f} to {gain['high']:+.1f})" if gain else ""


def as_markdown(table: dict) -> str:
    rows = [
        f"### {table['title']}\n",
        "| arm | seeds | AP50 | AP75 | mAP | gain in AP50 | gain in mAP | positives | paper |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for line in table["lines"]:
        scores = [_number(line[m], line[f"{m}_std"]) for m in MEASURES]
        gains = [_interval(line["gain"].get(m)) for m in ("AP50", "mAP")]
        cells = [
            line["arm"],
            str(line["seeds"]),
            *scores,
            *gains,
            f"{line['positives']:.1f}",
            _number(line["paper"]),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


_ABOUT = """# The paper's tables, measured for oriented boxes

Written by `make paper` from `runs.jsonl`: {count} trainings, {hours:.1f} hours of one thread ({devices}; commits {commits}).
{train} images of {side} px to learn from, {test} others to be tested, {epochs} epochs in batches of 4, a test at the end. The small network with one class and strides 8 to 64, its backbone from the shipped weights (the stem and the first two stages do not learn), on procedural scenes that are drawn for it; `drone`: tiles of HIT-UAV, and the backbone of the weights `hit-uav`; `airport`: tiles of GDIT Aerial Airport (public domain). All numbers in percent.

*±* is the standard deviation over the seeds. A *gain* is the mean over the seeds of both arms, with its 95 % interval over other seeds and other test images (paired bootstrap). An interval with 0 in it shows nothing, in either direction. *paper*: AP on COCO, with upright boxes, a larger network and a longer training.

What could have been seen (80 % power at 5 %), median over the comparisons: {visible}.
"""


def _about(runs: list[dict], tables: dict[str, dict]) -> str:
    gains = [line["gain"] for table in tables.values() for line in table["lines"]]
    seen = {m: [g[m]["visible"] for g in gains if g.get(m)] for m in ("AP50", "mAP")}
    visible = ", ".join(f"{np.median(v):.1f} points of {m}" for m, v in seen.items() if v)
    return _ABOUT.format(
        count=len(runs),
        hours=sum(row["cpu_seconds"] for row in runs) / 3600,
        devices=", ".join(sorted({row["device"] for row in runs})),
        commits=", ".join(sorted({row["commit"] for row in runs})),
        **runs[-1]["extent"],
        visible=visible or "nothing yet",
    )


def write_tables(out: Path) -> None:
    "tables.json for the lessons, and README.md for people."
    runs = read_runs(out / "runs.jsonl")
    tables = {name: made for name, table in TABLES.items() if (made := make_table(table, runs))["lines"]}
    text = "\n".join([_about(runs, tables), *map(as_markdown, tables.values())])
    for name, content in (("tables.json", json.dumps(tables, indent=1) + "\n"), ("README.md", text)):
        with replacing(out / name) as draft:
            draft.write_text(content, encoding="utf-8")
