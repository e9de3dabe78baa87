"What an assigner does to a data set, against counting with loops."

import json

import pytest
import torch

from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import ATSS, CenterSampling, MaxIoU
from atss_nb.samples.groups import GROUPS, group_objects, group_row
from atss_nb.samples.statistics import (
    assignment_report,
    compare_assigners,
    comparison,
    comparison_by,
    standard_rules,
)

SIZES = [(128, 160), (96, 96), (128, 160), (64, 64)]


class Labels:
    "Four images of three sizes; the last one is empty, the second has objects on top of each other."

    classes = ("ship", "shed")

    def __init__(self):
        dice = torch.Generator().manual_seed(0)
        self.boxes = [
            torch.rand(n, 5, generator=dice) * torch.tensor([120, 120, 40, 20, 3]) for n in (7, 5, 9, 0)
        ]
        self.boxes[1][:4] = torch.tensor([50.0, 50, 20, 9, 0.4])
        self.boxes[1][4] = torch.tensor([36.0, 36, 3, 2, 0])  # between the centers of the finest level
        self.labels = [torch.arange(len(b)) % 2 for b in self.boxes]

    def __len__(self) -> int:
        return len(self.boxes)

    def target(self, i: int) -> dict:
        return {"image_id": f"image {i}", "size": SIZES[i], "boxes": self.boxes[i], "labels": self.labels[i]}


@pytest.mark.parametrize("rule", [ATSS(), ATSS(k=3), MaxIoU()], ids=str)
def test_rows_are_counted_one_by_one(rule):
    data, grid = Labels(), AnchorGrid((8, 16, 32))
    report, row = assignment_report(data, rule, grid), 0
    for i, boxes in enumerate(data.boxes):
        anchors = grid(SIZES[i])
        index = rule(anchors, boxes).gt_index
        for g in range(len(boxes)):
            counts = [int((index[v.start : v.start + v.count] == g).sum()) for v in anchors.levels]
            assert report.levels[row].tolist() == counts and report.image[row] == i
            alone = (rule(anchors, boxes[g : g + 1]).gt_index == 0).any()
            assert bool(report.orphans[row]) == (sum(counts) == 0)
            assert bool(report.crowded[row]) == (sum(counts) == 0 and bool(alone))
            row += 1
    assert row == len(report.boxes) and report.images == tuple(f"image {i}" for i in range(4))
    assert report.labels.tolist() == torch.cat(data.labels).tolist()


def test_objects_on_top_of_each_other_are_crowded_out_and_slivers_are_not():
    report = assignment_report(Labels(), ATSS(), AnchorGrid((8, 16, 32)))
    second = report.image == 1
    assert report.crowded[second].tolist() == [False, True, True, True, False]
    assert report.orphans[second].tolist() == [False, True, True, True, True]
    listed = [o for o in report.to_dict()["orphans"] if o["image"] == "image 1"]
    assert [o["crowded"] for o in listed] == [True, True, True, False]
    assert [o["class"] for o in listed] == ["shed", "ship", "shed", "ship"]
    assert listed[-1]["box"] == [36, 36, 3, 2, 0]


def test_tables_share_out_the_objects():
    report = assignment_report(Labels(), ATSS(), AnchorGrid((8, 16, 32)))
    (whole,) = report.table()
    total = report.levels.sum(1).double()
    assert whole["objects"] == 21 and whole["positives"] == pytest.approx(total.mean().item(), abs=1e-4)
    assert whole["std"] == pytest.approx(total.std(unbiased=False).item(), abs=1e-4)
    assert sum(whole["levels"]) == pytest.approx(whole["positives"], abs=1e-3)
    for by in GROUPS:
        rows = report.table(by)
        assert sum(r["objects"] for r in rows) == 21 and all(r["objects"] for r in rows)
        assert sum(r["orphans"] for r in rows) == whole["orphans"] == int(report.orphans.sum())
        assert sum(r["crowded"] for r in rows) == whole["crowded"] == int(report.crowded.sum())
    assert [r["group"] for r in report.table("class")] == ["ship", "shed"]
    assert json.loads(report.to_json())["all"] == whole


def test_edges_begin_a_group():
    sides = torch.tensor([[0, 0, 8.0, 8, 0], [0, 0, 7.99, 8, 0], [0, 0, 300, 300, 0], [0, 0, 1, 1, 0]])
    group, names = group_objects(torch.zeros(4).long(), sides, (), "size")
    assert [names[g] for g in group] == ["8 to 16 px", "0 to 8 px", "from 256 px", "0 to 8 px"]
    shapes = torch.tensor([[0, 0, 30.0, 20, 0], [0, 0, 20, 29, 0], [0, 0, 2, 100, 0]])
    group, names = group_objects(torch.zeros(3).long(), shapes, (), "aspect")
    assert [names[g] for g in group] == ["1.5 to 2 : 1", "1 to 1.5 : 1", "from 8 : 1"]
    turned = torch.tensor(
        [[0, 0, 3, 1, a] for a in (0.0, 0.1, -0.1, 1.5, 0.785398, 2.4)], dtype=torch.float64
    )
    group, names = group_objects(torch.zeros(6).long(), turned, (), "angle")
    angles = ["0 to 5°", "5 to 15°", "5 to 15°", "0 to 5°", "35 to 45°", "35 to 45°"]
    assert [names[g] for g in group] == angles
    with pytest.raises(ValueError, match="by='colour': expected one of 'class', 'size', 'aspect', 'angle'"):
        group_objects(torch.zeros(1).long(), sides[:1], (), "colour")


def test_groups_are_the_same_for_every_data_set():
    names = {
        by: list(group_objects(torch.zeros(0).long(), torch.zeros(0, 5), (), by)[1]) for by in GROUPS[1:]
    }
    assert [n.split(" ")[0] for n in names["size"][:-1]] == ["0", "8", "16", "32", "64", "128"]
    assert names["aspect"] == [
        *("1 to 1.5 : 1", "1.5 to 2 : 1", "2 to 3 : 1", "3 to 5 : 1", "5 to 8 : 1"),
        "from 8 : 1",
    ]
    assert names["angle"] == ["0 to 5°", "5 to 15°", "15 to 25°", "25 to 35°", "35 to 45°"]


def test_an_empty_group_has_no_means():
    row = group_row("none", torch.zeros(0, 3).long(), torch.zeros(0).bool())
    assert row == {
        "group": "none",
        "objects": 0,
        "positives": None,
        "std": None,
        "orphans": 0,
        "crowded": 0,
        "levels": None,
    }


def test_resizing_is_that_of_the_detectors():
    "The long side becomes `size`, and objects shrink with their image."
    data, grid = Labels(), AnchorGrid((8, 16, 32))
    half = assignment_report(data, ATSS(), grid, size=80)
    torch.testing.assert_close(half.boxes[:7, :4], data.boxes[0][:, :4] / 2)
    index = ATSS()(grid((64, 80)), half.boxes[:7]).gt_index
    assert half.positives[:7].tolist() == [int((index == g).sum()) for g in range(7)]
    for same in (None, 0):
        assert assignment_report(data, ATSS(), grid, size=same).boxes.equal(torch.cat(data.boxes))


def test_rules_side_by_side():
    grid = AnchorGrid((8, 16, 32))
    rules = standard_rules(grid, ks=(3, 9))
    assert list(rules) == [
        "MaxIoU, 1 anchor",
        "MaxIoU, 9 anchors",
        "centre sampling",
        "ATSS, k = 3",
        "ATSS, k = 9",
    ]
    assert len(rules["MaxIoU, 9 anchors"][0]((8, 8)).boxes) == 9 * 3
    sampling = rules["centre sampling"][1]
    assert isinstance(sampling, CenterSampling) and sampling.ranges == (
        (-1, 64),
        (64, 128),
        (128, float("inf")),
    )
    reports = compare_assigners(Labels(), rules)
    for name, (places, rule) in rules.items():
        assert reports[name].levels.equal(assignment_report(Labels(), rule, places).levels)
    lines = comparison(reports).split("\n")
    assert len(lines) == 6 and all(line.startswith(name) for line, name in zip(lines[1:], rules, strict=True))
    by_class = comparison_by(reports, "class").split("\n")
    assert (
        len(by_class) == 7
        and by_class[0].split() == ["ship", "shed"]
        and by_class[1].split() == ["objects", "12", "9"]
    )
    first = reports["ATSS, k = 3"].table("class")[0]
    assert (
        f"{first['positives']:.2f}" in by_class[5] and f"({100 * first['orphans'] / 12:.2g} %)" in by_class[5]
    )


def test_a_summary_has_every_table():
    report = assignment_report(Labels(), ATSS(), AnchorGrid((8, 16, 32)))
    text = report.summary()
    assert "21" in text.split("\n")[2] and "on strides       8      16      32" in text
    assert [line for line in text.split("\n") if line.startswith("by ")] == [f"by {by}" for by in GROUPS]


def test_nothing_and_no_labels():
    class Nothing(Labels):
        def __len__(self) -> int:
            return 0

    report = assignment_report(Nothing(), ATSS())
    assert report.table()[0]["objects"] == 0 and report.table("size") == [] and "0 images" in report.summary()

    class Unknown(Labels):
        def target(self, i: int) -> dict:
            return {"image_id": f"image {i}", "size": SIZES[i]}

    with pytest.raises(ValueError, match="image 0: no labels"):
        assignment_report(Unknown(), ATSS())
