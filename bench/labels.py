"""What ATSS gives to every labelled object of real data sets, before any training: data/results/paper/labels.json.

python bench/labels.py [FOLDER]    FOLDER: with hit_uav, boxes_obb, aerial_airport and dota; what is not there is left out

For each data set: k from 3 to 19, the first anchor in the corner or in the middle of its cell, and how deep in its
object the center of a positive has to lie; for all objects, and for those that are at least three times as long as wide.
"""

from dataclasses import replace
from pathlib import Path

import torch

from atss_nb.data.datasets import DotaDataset
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import ATSS
from atss_nb.samples.groups import group_row
from atss_nb.samples.statistics import AssignmentReport, compare_assigners
from common import ROOT, arguments, command_line, write

SETS = {
    "HIT-UAV": "hit_uav/train",
    "parcels": "boxes_obb/train",
    "airports": "aerial_airport/train",
    "DOTA": "dota",
}
GRID = AnchorGrid(center_offset=0.5)
RULES = {
    **{f"k = {k}": (GRID, ATSS(k)) for k in (3, 5, 7, 9, 11, 13, 15, 17, 19)},
    "offset 0": (replace(GRID, center_offset=0.0), ATSS()),
    **{f"{margin:g} px deep": (GRID, ATSS(margin=margin)) for margin in (0.0, 0.51, 1.0, 2.0, 4.0)},
}


def rows_of(report: AssignmentReport) -> dict[str, dict]:
    "Objects, positives and orphans of all objects, and of the long ones."
    sides = report.boxes[:, 2:4]
    groups = {"all": torch.ones(len(sides), dtype=torch.bool), "long": sides.amax(1) >= 3 * sides.amin(1)}
    rows = {name: group_row(name, report.levels[m], report.crowded[m]) for name, m in groups.items()}
    return {
        name: {key: row[key] for key in ("objects", "positives", "orphans")} for name, row in rows.items()
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT.parent / "shared/data")
    args = arguments(parser)
    found = {}
    for name, place in SETS.items():
        if (args.folder / place).exists():
            data = DotaDataset(args.folder / place)
            reports = compare_assigners(data, RULES)
            found[name] = {
                "images": len(data),
                "rules": {rule: rows_of(one) for rule, one in reports.items()},
            }
            print(name, len(data), found[name]["rules"]["k = 9"], flush=True)
    write(
        args.out or ROOT / "data/results/paper/labels.json",
        {"command": "python bench/labels.py", "sets": found},
    )


if __name__ == "__main__":
    main()
