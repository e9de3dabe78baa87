"The paper's tables for oriented boxes: trainings that go on after a stop, and what they come to."

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from atss_nb.data.datasets import read_image
from atss_nb.data.dota import read_dota
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import ATSS
from atss_nb.scenes.scenes import write_scenes

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "bench"))

import labels  # noqa: E402
import paper  # noqa: E402

from paper_tables import difference, read_runs, write_tables  # noqa: E402

TINY = paper.Extent(side=64, train=6, test=4, epochs=1, photographs=1)


def test_trainings_go_on_where_they_stopped_and_become_tables(tmp_path):
    paper.backbone_weights(tmp_path)
    paper.make_data(tmp_path, "scenes", TINY, tmp_path)
    about = {"device": "here", "commit": "none", "extent": asdict(TINY)}
    arms = ["retinanet-atss", "upright inside", "retinanet-9-atss, k an anchor"]
    jobs = [paper.Job(tmp_path, "scenes", arm, 0, TINY.epochs, "cpu", about) for arm in arms]
    path = tmp_path / "runs.jsonl"
    assert paper.run_all(jobs[:2], path) == []
    first, second = path.read_text().splitlines(keepends=True)
    path.write_text(first + second[:100])  # killed while it wrote
    assert [row["arm"] for row in read_runs(path)] == arms[:1]
    lost = jobs[0]._replace(data="nowhere")
    (failed,) = paper.run_all(paper.unfinished([lost, *jobs], path), path)
    assert "nowhere" in failed
    rows = read_runs(path)
    assert [row["arm"] for row in rows] == arms
    assert path.read_text().startswith(first)  # what was finished is left alone
    assert (
        rows[1]["drawn"] == json.loads(second)["drawn"]
        and rows[1]["positives"] == json.loads(second)["positives"]
    )
    write_tables(tmp_path)
    tables = json.loads((tmp_path / "tables.json").read_text())
    assert [line["arm"] for line in tables["turned"]["lines"]] == arms[:2]
    text = (tmp_path / "README.md").read_text()
    assert "upright inside | 1 |" in text and "6 images of 64 px" in text


def test_the_quick_command_writes_its_tables_and_leaves_finished_trainings_alone(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(paper, "HOME", tmp_path)
    monkeypatch.setattr(paper, "Extent", lambda: TINY)
    monkeypatch.setattr(sys, "argv", ["paper.py", "--quick"])
    with (
        monkeypatch.context() as broken,
        pytest.raises(RuntimeError, match="4 of 4 trainings failed: .*nowhere"),
    ):
        broken.setattr(paper, "config_of", lambda job: paper.TrainConfig("nowhere"))
        paper.main()
    capsys.readouterr()
    paper.main()
    assert "4/4 scenes, retinanet-atss, seed 0: AP50" in capsys.readouterr().out
    tables = json.loads((tmp_path / "quick" / "tables.json").read_text())
    assert [line["arm"] for line in tables["3"]["lines"]] == [
        "retinanet",
        "retinanet-imprs",
        "retinanet-atss",
        "fcos",
    ]
    paper.main()
    assert capsys.readouterr().out == ""


PROCESS = """
import sys
from pathlib import Path
sys.path.append(sys.argv.pop(1))
import paper
paper.HOME, small = Path(sys.argv.pop(1)), paper.Extent(side=64, train=6, test=4, epochs=1)
paper.Extent = lambda: small
paper.main()
"""


def test_processes_of_a_launcher_take_turns_and_the_first_writes_the_tables(tmp_path):
    pytest.importorskip("accelerate")
    (tmp_path / "work.py").write_text(PROCESS)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [*launcher, str(tmp_path / "work.py"), str(ROOT / "bench"), str(tmp_path), "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    lines = [line for line in sorted(done.stdout.splitlines()) if " AP50 " in line]
    assert [line[:3] for line in lines] == ["1/2", "1/2", "2/2", "2/2"]
    rows = read_runs(tmp_path / "quick/runs.jsonl")
    assert sorted(row["arm"] for row in rows) == ["fcos", "retinanet", "retinanet-atss", "retinanet-imprs"]
    tables = json.loads((tmp_path / "quick/tables.json").read_text())
    assert [len(tables[name]["lines"]) for name in ("1", "3")] == [3, 4]


def test_photographs_become_tiles_with_objects_of_one_class(tmp_path, monkeypatch):
    for split in ("train", "valid"):
        write_scenes(tmp_path / "aerial_airport" / split, 2, 128, 0)
    data = paper.make_data(tmp_path, "airport", TINY, tmp_path)
    for split in ("train", "test"):
        tiles = sorted((data / split / "labelTxt").glob("*.txt"))
        assert tiles and {read_image(image).shape for image in (data / split / "images").iterdir()} == {
            (3, 64, 64)
        }
        assert {name for tile in tiles for name in read_dota(tile).names} == {"object"}
    parser = argparse.Namespace(only=["drone"], photographs=tmp_path, device="cpu", seeds=1, arms=None)
    assert paper.plan(parser, tmp_path, TINY) == []  # HIT-UAV is not there


def test_real_labels_are_counted_where_they_are(tmp_path, monkeypatch):
    write_scenes(tmp_path / "boxes_obb" / "train", 3, 128, 0)
    monkeypatch.setattr(sys, "argv", ["labels.py", str(tmp_path), "--out", str(tmp_path / "labels.json")])
    labels.main()
    (found,) = json.loads((tmp_path / "labels.json").read_text())["sets"].values()
    counts = {rule: row["all"] for rule, row in found["rules"].items()}
    objects = sum(len(read_dota(path).names) for path in (tmp_path / "boxes_obb").rglob("*.txt"))
    assert {row["objects"] for row in counts.values()} == {objects} and found["images"] == 3
    assert counts["k = 19"]["positives"] > counts["k = 3"]["positives"]
    assert counts["4 px deep"]["orphans"] >= counts["k = 9"]["orphans"]


def test_a_gain_is_taken_over_the_seeds_that_both_have():
    def rows(score, seeds):
        return [
            {"seed": s, "AP50": score + s, "drawn": {"AP50": [score + s - 1, score + s + 1]}} for s in seeds
        ]

    gain = difference(rows(50, range(5)), rows(52, range(3)), "AP50")
    assert (gain["mean"], gain["seeds"]) == (2, 3) and gain["low"] == gain["high"] == 2
    assert difference(rows(50, [0, 1]), rows(52, [1, 2]), "AP50") is None  # one seed says nothing of seeds


def test_half_an_atss_is_atss_when_it_asks_the_same_box_twice():
    draw = torch.Generator().manual_seed(0)
    low, high = torch.tensor([[20.0, 20, 30, 4, -1.5], [108, 108, 90, 12, 1.5]])
    boxes = low + (high - low) * torch.rand(20, 5, generator=draw)  # long and thin ones
    anchors = AnchorGrid((8, 16))((128, 128))
    for both in (False, True):
        mixed = paper.Half(overlap=both, inside=both)(anchors, boxes)
        assert torch.equal(mixed.gt_index, ATSS(upright=both)(anchors, boxes).gt_index)
    inside = [int((paper.Half(inside=b)(anchors, boxes).gt_index >= 0).sum()) for b in (False, True)]
    assert inside[0] < inside[1]  # more centers lie inside the upright box


@pytest.mark.parametrize("data", ["scenes", "long", "hard", "upright", "drone", "airport"])
def test_every_arm_is_another_training(data, tmp_path):
    arms = {arm for where, names in paper.PLAN.values() for arm in names if where == data}
    jobs = [paper.Job(tmp_path, data, arm, 0, 1, "cpu", {}) for arm in arms]
    kinds = {(str(paper.config_of(job)), str(paper.ARMS[job.arm][1:])) for job in jobs}
    assert len(kinds) == len(arms) > 3
