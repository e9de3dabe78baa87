"The JavaScript twins of the explorers against Python, number by number, in a real browser."

import math
import random
from typing import NamedTuple

import pytest
import torch
from browser import CHROMIUM, browser

from atss_nb.explore.geometry import AngleDial, OverlapWalk
from atss_nb.explore.microscope import Microscope
from atss_nb.geometry.boxes import hbb2obb, obb2hbb
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import ATSS, CenterSampling, MaxIoU

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
SCENES, PER_PAGE = 240, 40
STRIDES = (8, 16, 32, 64, 128)
EXPLAIN = """([rule, extent, boxes]) => {
    const seen = rule.upright ? boxes.map(upright) : boxes;
    const { rows, owner } = explain(rule, new Grid(extent, rule.shape), seen);
    const list = row => Object.fromEntries(['index', 'level', 'distance', 'iou', 'margin', 'reason'].map(n => [n, [...row[n]]]));
    return { rows: rows.map(r => ({ ...list(r), mean: r.mean, std: r.std, threshold: r.threshold })), owner: [...owner].flatMap((g, i) => g === -1 ? [] : [[i, g]]) };
}"""


@pytest.fixture(scope="module")
def page():
    "An empty page."
    with browser() as (page, watch):
        yield page
        assert watch.complaints == []


def ask(page, explorer, expression: str, arguments: list):
    "Run an expression inside an explorer's script, once for each of the arguments."
    body = f"{explorer.script}\nreturn arguments_.map({expression})"
    return page.evaluate("([body, given]) => new Function('arguments_', body)(given)", [body, arguments])


def random_box(rng: random.Random, height: int, width: int) -> list[float]:
    "Of any size and place, also off the image; sometimes on the grid, where distances tie."
    size = math.exp(rng.uniform(math.log(2), math.log(400)))
    box = [rng.uniform(-20, width + 20), rng.uniform(-20, height + 20), size, size * rng.uniform(0.1, 1)]
    if rng.random() < 0.25:
        box = [float(16 * round(v / 16)) for v in box[:2]] + [32.0, 32.0 if rng.random() < 0.5 else 16.0]
    return [*box, rng.choice([0.0, math.pi / 2, rng.uniform(-4, 4), rng.uniform(-4, 4)])]


class Scene(NamedTuple):
    "Objects and a rule, for Python and for the twin."

    name: str
    k: int
    upright: bool
    shape: dict
    extent: tuple[int, int]
    boxes: torch.Tensor

    def asked(self) -> list:
        rule = {"name": self.name, "k": self.k, "upright": self.upright, "shape": self.shape}
        return [rule, self.extent, self.boxes.tolist()]

    def explained(self):
        (ratios, sizes), scale, offset = (self.shape[n] for n in ("tiling", "scale", "offset"))
        anchors = AnchorGrid(STRIDES, scale, sizes, tuple(ratios), offset)(self.extent)
        rule = {"ATSS": ATSS(self.k), "MaxIoU": MaxIoU(), "centre sampling": CenterSampling()}[self.name]
        return rule.explain(anchors, hbb2obb(obb2hbb(self.boxes)) if self.upright else self.boxes)


def random_scene(seed: int) -> Scene:
    rng = random.Random(seed)
    height, width = rng.randint(20, 700), rng.randint(20, 700)
    boxes = [random_box(rng, height, width) for _ in range(rng.randint(0, 7))]
    boxes += [list(b) for b in boxes[:1] if rng.random() < 0.3]  # two of one: who wins?
    scales, offsets = [4.0, 8.0, 1.25, rng.uniform(1, 8)], [0.0, 0.5, 0.05]
    tiling = rng.choice(Microscope.tiling.metadata["control"]["options"])[1]
    shape = {"tiling": tiling, "scale": rng.choice(scales), "offset": rng.choice(offsets)}
    name = rng.choice(["ATSS", "MaxIoU", "centre sampling"])
    made = torch.tensor(boxes, dtype=torch.float64).view(-1, 5)
    return Scene(name, rng.randint(1, 30), rng.random() < 0.3, shape, (height, width), made)


def compare(scene: Scene, twin: dict) -> int:
    "How many candidates agree in every number."
    found = scene.explained()
    owner = found.assignment.gt_index
    listed = (owner != -1).nonzero()[:, 0]
    assert twin["owner"] == [[i, int(owner[i])] for i in listed.tolist()]
    count = 0
    for g, row in enumerate(twin["rows"]):
        seen = found.iou[g] > 0 if scene.name == "MaxIoU" else torch.ones_like(found.iou[g]).bool()
        assert row["index"] == found.index[g, seen].tolist()
        assert row["level"] == found.level[seen].tolist()
        assert row["reason"] == found.reason[g, seen].tolist()
        for name in ("distance", "iou", "margin"):
            numbers = torch.tensor(row[name], dtype=torch.float64)
            assert torch.allclose(numbers, getattr(found, name)[g, seen], rtol=1e-12, atol=1e-9), name
        for name in ("mean", "std", "threshold") if found.mean is not None else ():
            assert row[name] == pytest.approx(float(getattr(found, name)[g]), abs=1e-9)
        count += int(seen.sum())
    return count


def test_the_microscopes_twin_in_many_scenes(page):
    "Candidates, levels, reasons, distances, depths, IoU, means, thresholds and the assignment."
    scenes = [random_scene(seed) for seed in range(SCENES)]
    asked = [scene.asked() for scene in scenes]
    twins = [
        t for i in range(0, SCENES, PER_PAGE) for t in ask(page, Microscope, EXPLAIN, asked[i : i + PER_PAGE])
    ]
    counts = [compare(scene, twin) for scene, twin in zip(scenes, twins, strict=True)]
    print(f"{sum(counts)} candidates of {SCENES} scenes")
    assert len(counts) >= 200 and sum(counts) > 10_000


RESPOND = "given => JSON.parse(JSON.stringify(Kind.respond(given)))"


def agree(python, twin, where="answer") -> None:
    "The twin has all that Python says, to 1e-9."
    python = python.tolist() if isinstance(python, torch.Tensor) else python
    if isinstance(python, dict):
        for key, value in python.items():
            agree(value, twin[key], f"{where}.{key}")
    elif isinstance(python, list | tuple):
        assert len(python) == len(twin), where
        for i, (a, b) in enumerate(zip(python, twin, strict=True)):
            agree(a, b, f"{where}[{i}]")
    elif isinstance(python, float):
        assert twin == pytest.approx(python, rel=1e-9, abs=1e-9), where
    else:
        assert twin == python, where


@pytest.mark.parametrize("kind", [OverlapWalk, AngleDial])
def test_the_twins_of_walk_and_dial(page, kind):
    explorers, rng = [], random.Random(kind.__name__)
    for _ in range(40):
        boxes = torch.tensor([random_box(rng, 340, 440) for _ in range(2 if kind is OverlapWalk else 1)])
        boxes[:, :2] = boxes[:, :2] / 3 + 100  # most pairs overlap
        explorer = kind(boxes.double() if kind is OverlapWalk else boxes.double()[0])
        if kind is OverlapWalk:
            explorer.walked = rng.randint(0, 4)
        else:
            explorer.definition = rng.choice(["le90", "oc", "le135"])
            explorer.scene = explorer.scene | {"turn": rng.randint(-180, 180)}
        explorers.append(explorer)
    asked = []
    for e in explorers:
        settings = {c["name"]: getattr(e, c["name"]) for c in e.controls}
        asked.append({"boxes": e.boxes.tolist(), "scene": e.scene, "settings": settings, "extent": e.extent})
    twins = ask(page, kind, RESPOND.replace("Kind", kind.__name__), asked)
    for explorer, twin in zip(explorers, twins, strict=True):
        agree(explorer.respond(explorer.boxes), twin)
