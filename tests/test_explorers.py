"Explorers without a browser: whatever a scene holds, the answer is JSON that says what is wrong, and the next one is right."

import json
import re
from importlib import import_module
from pathlib import Path

import pytest

from atss_nb import explore
from atss_nb.explore.geometry import AngleDial, OverlapWalk
from atss_nb.explore.microscope import Microscope
from atss_nb.explore.page import EXPLORERS
from atss_nb.explore.results import TrainingPlayer
from atss_nb.explore.samples import AnchorTiling, BoxCoder

KINDS = {
    name: getattr(import_module(f"atss_nb.explore.{module}"), kind)
    for name, (module, kind) in EXPLORERS.items()
    if name != "player"  # it has no boxes to move, and wants a run
}
BOXES = {  # what becomes of every box, and what is said of the first one
    "no area": (lambda x, y, w, h, t: [x, y, 0, 0, t], "no area"),
    "a line": (lambda x, y, w, h, t: [x, y, w, 0, t], "no area"),
    "off the image": (lambda x, y, w, h, t: [-5000, 9000, w, h, t], "object 1 is off the image"),
    "not a number": (lambda x, y, w, h, t: [float("nan")] * 5, "object 1: expected 5 finite numbers"),
    "nothing": (lambda x, y, w, h, t: [None] * 5, "object 1: expected 5 finite numbers"),
    "three numbers": (lambda x, y, w, h, t: [x, y, w], "object 1: expected 5 finite numbers"),
    "negative sides": (lambda x, y, w, h, t: [x, y, -w, h, t], "sides >= 0"),
    "huge": (lambda x, y, w, h, t: [x, y, 1e7, 1e7, t], ""),
    "tiny": (lambda x, y, w, h, t: [x, y, 1e-9, 1e-9, t], ""),
    "turned often": (lambda x, y, w, h, t: [x, y, w, h, 1e6], ""),
}
SCENES = {  # what else may be wrong, and what some explorer says of it
    "no boxes": {"boxes": []},
    "nobody is selected": {"selected": 99},
    "no such anchor": {"picked": 10**9},
    "scores beyond 1": {"scores": [2.0] * 8},
    "no scores": {"scores": None},
    "more objects than boxes": {"truths": 77},
}


def note_of(explorer) -> str:
    "All that the page shows in words, after a look at whether it can show it."
    json.dumps(explorer.answer, allow_nan=False)
    assert explorer.answer["request"] == explorer.scene.get("request", 0)
    return " · ".join([explorer.answer.get("error", ""), explorer.trouble, *explorer.answer["notes"]])


@pytest.mark.parametrize("what", BOXES)
@pytest.mark.parametrize("name", KINDS)
def test_bad_boxes_are_named_and_forgotten(name, what):
    spoil, reason = BOXES[what]
    explorer = KINDS[name]()
    before = explorer.answer
    good = explorer.scene
    explorer.scene = good | {"boxes": [spoil(*row) for row in good["boxes"]], "request": 7}
    assert reason in note_of(explorer)
    explorer.scene = good
    assert explorer.answer == before


@pytest.mark.parametrize("what", SCENES)
@pytest.mark.parametrize("name", KINDS)
def test_bad_scenes_break_nothing(name, what):
    explorer = KINDS[name]()
    before, good = explorer.answer, explorer.scene
    explorer.scene = good | SCENES[what] | {"request": 7}
    text = note_of(explorer)
    assert "object is not" not in text and "has no attribute" not in text  # words of ours, not of Python's
    explorer.scene = good
    assert explorer.answer == before


@pytest.mark.parametrize("kind", [AngleDial, AnchorTiling, OverlapWalk, BoxCoder])
def test_the_wrong_number_of_boxes_is_said(kind):
    explorer = kind()
    explorer.scene = explorer.scene | {"boxes": [[1.0, 1, 1, 1, 0]] * 9}
    assert "9" in note_of(explorer)


def test_a_picture_that_is_lost(tmp_path):
    assert "cannot be read" in note_of(Microscope(str(tmp_path / "nowhere.png")))
    truth = {"image": "watched.png", "boxes": [[20.0, 20, 10, 5, 0.1]], "labels": [0], "names": ["ship"]}
    row = {"boxes": [], "labels": [], "scores": [], "positives": []}
    (tmp_path / "watched.jsonl").write_text(f"{json.dumps(truth)}\n{json.dumps(row)}\n")
    player = TrainingPlayer(tmp_path)
    assert "the picture cannot be read" in note_of(player)
    assert player.answer["counts"]["missed"] == 1  # and all the rest is there


def test_another_scene_from_the_start():
    few, every = Microscope(seed=7), Microscope(seed=7, few=0)
    assert 0 < len(few.boxes) <= 5 < len(every.boxes)
    every.few = 5
    assert every.boxes.tolist() == few.boxes.tolist()


def test_colors_have_one_meaning():
    "No explorer paints with a colour of its own: levels, outcomes and roles come from Python, and the palette is for what is only told apart."
    own = {"#ffffff"}  # objects, and what must show on any ground
    for path in sorted(Path(explore.__file__).parent.glob("*.js")):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"#[0-9a-f]{6}", text)) <= own, path.name
        assert not re.findall(r"palette\[[01]\]", text), path.name  # those are roles


def test_a_recording_that_is_lost(tmp_path):
    assert "recorded no image" in note_of(TrainingPlayer(tmp_path))
    (tmp_path / "watched.jsonl").write_text("{}\n")
    assert "watched.jsonl, line 1: " in note_of(TrainingPlayer(tmp_path))
