"The explorers in a real browser: dragged, typed at and fed nonsense, they show what Python says of the same boxes."

import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import nbformat
import pytest
import torch
from browser import CHROMIUM, browser, clean_environment, lab, open_notebook, write_notebook
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from PIL import Image

from atss_nb.cli.main import main
from atss_nb.explore.data import TileSeam, TurnedImage
from atss_nb.explore.explorers import rounded
from atss_nb.explore.geometry import AngleDial, OverlapWalk
from atss_nb.explore.microscope import Microscope
from atss_nb.explore.page import ExplorerServer, explorer_code
from atss_nb.explore.results import PrecisionRecall, Suppression, TrainingPlayer
from atss_nb.explore.samples import AnchorTiling, BoxCoder
from atss_nb.explore.standalone import explorer_fragment, explorer_page
from atss_nb.geometry.boxes import hbb2obb, obb2hbb
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import ATSS, MaxIoU

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
NAMES = ("microscope", "walk", "dial", "tiling", "coder", "seam", "transform", "nms", "curve")
KINDS = {name: explorer_code(name) for name in NAMES} | {"player": explorer_code("player", "run")}
RULER = """from atss_nb.explore.explorers import Explorer
class Ruler(Explorer, js='class Ruler extends Explorer { tell() { return [`${number(this.answer.far, 1)} px`]; } }'):
    def respond(self, boxes):
        return {"far": (boxes[0, :2] - boxes[1, :2]).norm()}
Ruler(torch.tensor([[100., 100, 80, 30, 0.3], [130, 140, 60, 20, -0.4]]))"""
BAD = {
    "no picture": "import torch\nMicroscope('nowhere.png')",
    "no boxes": "w = Microscope()\nw.scene = {'boxes': [[1, 2, 3]]}\nw",
    "no area": "w = Microscope()\nw.scene = {'boxes': [[60, 60, 0, 0, 0], [-90, 9, 20, 20, 0]]}\nw",
    "no run": "\nTrainingPlayer('nowhere')",
    "not a number": "\nMicroscope(boxes=torch.full((1, 5), torch.nan))",
    "own explorer": RULER,
}
FLAT = "import torch\nw.boxes = w.boxes * torch.tensor([-1, 1, 0, 0, 1])\nw"  # and off the image
LOST = "w.scene = {'boxes': [[None] * 5] * len(w.scene['boxes']), 'scores': None}\nw"
MOVED = [name for name in NAMES if name != "microscope"]
BAD["crowd"] = """import torch
rng = torch.Generator().manual_seed(0)
places, ones = torch.rand(400, 2, generator=rng), torch.ones(400, 1)
boxes = torch.cat([places * torch.tensor([3900.0, 2900]) + 50, 60 * ones, 30 * ones, torch.rand(400, 1, generator=rng)], 1)
w = Microscope(torch.zeros(3, 3000, 4000), boxes, upright=True)
w"""
BAD |= {f"flat {name}": explorer_code(name).replace("\n\n", "\n\nw = ") + f"\n{FLAT}" for name in MOVED}
BAD |= {f"lost {name}": explorer_code(name).replace("\n\n", "\n\nw = ") + f"\n{LOST}" for name in MOVED}


def record_run(folder: Path) -> None:
    "The diary of an untrained detector, three epochs long."
    from atss_nb.cli.demo import watch_image
    from atss_nb.model.build import build_model
    from atss_nb.model.config import ModelConfig
    from atss_nb.scenes.scenes import write_scenes
    from atss_nb.training.settings import TrainConfig, open_split

    write_scenes(folder / "data/test", 1, 128, 3)
    config = TrainConfig(str(folder / "data"))
    dataset, out = open_split(config, "test"), folder / "run"
    out.mkdir()
    torch.manual_seed(0)
    model = build_model(ModelConfig.small(score_threshold=0.0, max_detections=20), len(dataset.classes))
    watch = watch_image(out, dataset, 0)
    for epoch in range(3):
        watch(model, epoch)


class View:
    "One explorer on the page."

    def __init__(self, page, number: int):
        self.page, self.number = page, number
        self.root = page.locator(".atss-explorer").nth(number)
        self.canvas = self.root.locator("canvas.scene").first

    def data(self, name: str) -> str:
        return self.canvas.get_attribute(f"data-{name}")

    @property
    def boxes(self) -> torch.Tensor:
        return torch.tensor(json.loads(self.data("boxes")), dtype=torch.float64)

    def text(self, selector: str) -> str:
        return self.root.locator(selector).first.inner_text()

    def wait(self, condition: str) -> None:
        "Wait until a JavaScript condition on the explorer's `root` holds."
        script = f"n => {{ const root = document.querySelectorAll('.atss-explorer')[n]; return {condition} }}"
        self.page.wait_for_function(script, arg=self.number)

    def settle(self) -> None:
        "Wait until every question has its answer, and the answer is drawn."
        self.wait("root.querySelector('canvas.scene').dataset.busy === ''")

    def place(self, x: float, y: float) -> tuple[float, float]:
        "A point of the scene on the page."
        self.canvas.scroll_into_view_if_needed()
        frame, scale = self.canvas.bounding_box(), float(self.data("scale"))
        left, top = float(self.data("left")), float(self.data("top"))
        return frame["x"] + left + x * scale, frame["y"] + top + y * scale

    def on_chart(self, right: float, down: float) -> tuple[float, float]:
        "A point of the chart on the page [px from its left, or from its right where negative; from its top]."
        chart = self.root.locator("canvas.chart").first
        chart.scroll_into_view_if_needed()
        frame = chart.bounding_box()
        return frame["x"] + right % frame["width"], frame["y"] + down

    def drag(self, start: tuple[float, float], dx: float, dy: float, steps: int = 8) -> None:
        (x, y), mouse, scale = self.place(*start), self.page.mouse, float(self.data("scale"))
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + dx * scale, y + dy * scale, steps=steps)
        mouse.up()
        self.settle()

    def keys(self, *names: str) -> None:
        self.canvas.focus()
        for name in names:
            self.page.keyboard.press(name)
        self.settle()


def made(code: str):
    "The explorer that a cell shows."
    *lines, last = code.split("\n")
    exec(
        "\n".join(lines),
        space := {"torch": torch, "TrainingPlayer": TrainingPlayer, "Microscope": Microscope},
    )
    return eval(last, space)


@contextmanager
def served(explorer) -> Iterator[str]:  # the page's address
    with ExplorerServer(explorer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()


@pytest.fixture(scope="module")
def opened():
    "A browser in the dark theme, at twice the density."
    with browser(density=2, dark=True) as (page, watch):
        yield page, watch


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explorers")
    record_run(folder)
    return folder / "run"


@pytest.fixture
def view(opened, request):
    "One of them on a page of its own; afterwards, nothing may have complained or left the machine."
    page, watch = opened
    code = (KINDS | BAD)[request.param]
    if request.param == "player":
        code = code.replace("'run'", repr(str(request.getfixturevalue("run_folder"))))
    with served(made(code)) as address:
        page.goto(address)
        view = View(page, 0)
        view.settle()
        yield view
        page.goto("about:blank")
    seen = [*watch.complaints, *watch.foreign]
    watch.complaints.clear()  # each test answers for its own page
    watch.foreign.clear()
    assert seen == []


def on(name: str):
    return pytest.mark.parametrize("view", [name], indirect=True)


def middle(box: torch.Tensor) -> tuple[float, float]:
    "A point of a box that no candidate and no handle covers."
    return float(box[0]) + 0.21 * float(box[2]) * float(box[4].cos()), float(box[1]) + 0.21 * float(
        box[2]
    ) * float(box[4].sin())


@on("microscope")
def test_the_microscope_is_dragged_and_shows_what_python_says(view):
    before = view.boxes
    view.drag((float(before[3, 0]) + 35, float(before[3, 1]) + 41), 60, -25)
    after = view.boxes
    assert torch.allclose(after[3, :2] - before[3, :2], torch.tensor([60.0, -25.0]).double(), atol=0.6)
    anchors = AnchorGrid()((512, 512))
    found = ATSS().explain(anchors, after)
    assigned = found.assignment.gt_index
    assert view.text("[data-value=positives]") == str(int((assigned >= 0).sum()))
    for i, v in enumerate(anchors.levels):
        assert view.text(f"[data-level='{i}']") == str(
            int((assigned[v.start : v.start + v.count] >= 0).sum())
        )
    rows = view.root.locator("tr.pick").all_inner_texts()
    assert [r.split()[-1] for r in rows] == [f"{t:.2f}" for t in found.threshold]
    other = MaxIoU().explain(anchors, after).assignment.gt_index
    assert view.text("[data-value=others]") == str(int((other >= 0).sum()))
    view.wait("root.dataset.python === 'same'")


@on("microscope")
def test_a_candidate_tells_its_numbers(view):
    g, found = int(view.data("selected")), ATSS().explain(AnchorGrid()((512, 512)), view.boxes)
    view.keys(".")
    first = view.text(".card b")
    assert first == f"anchor {int(found.index[g, 0])}"
    assert view.text("[data-fact=IoU]") == f"{found.iou[g, 0]:.3f}"
    assert view.text("[data-fact=distance]") == f"{found.distance[g, 0]:.1f} px"
    assert (": positive:" in view.text("[data-fact=reason]")) == (int(found.reason[g, 0]) == 0)
    places = AnchorGrid()((512, 512)).boxes[found.index[g], :2]
    alone = (torch.cdist(places, places) < 1).sum(1) == 1  # levels share some of their centres
    c = int(((found.reason[g] == 0) & alone).nonzero()[-1, 0])
    x, y = places[c].tolist()
    view.page.mouse.click(*view.place(x, y))
    view.settle()
    assert view.text(".card b") == f"anchor {int(found.index[g, c])}"
    view.keys("Escape")
    assert view.root.locator(".card").count() == 0


@on("microscope")
def test_clicks_walk_through_the_candidates_of_a_spot(view):
    "Levels share some of their centres: every candidate there is reached, and the first one comes again."
    anchors, g = AnchorGrid()((512, 512)), int(view.data("selected"))
    found = ATSS().explain(anchors, view.boxes)
    mine = found.index[g]
    others = found.index[(found.reason == 0) & (torch.arange(len(found.index)) != g)[:, None]]
    apart = torch.cdist(anchors.boxes[mine, :2], anchors.boxes[torch.cat([mine, others]), :2])
    shared = (apart < 0.1).sum(1) * (apart[:, len(mine) :].amin(1) > 20)  # no positive of another object near
    assert shared.max() > 1
    spot = anchors.boxes[mine[shared.argmax()], :2]
    there = sorted(mine[(anchors.boxes[mine, :2] == spot).all(1)].tolist())
    assigned = []
    for _ in range(len(there) + 1):
        view.page.mouse.click(*view.place(*spot.tolist()))
        view.settle()
        assigned.append(int(view.text(".card b").split()[1]))
    assert assigned == [*there, there[0]]
    view.keys("Escape")


@on("microscope")
def test_everything_by_keyboard_and_undone(view):
    before, g = view.boxes, int(view.data("selected"))
    view.keys("ArrowRight", "Shift+ArrowDown", "]", "Alt+ArrowUp")
    moved = before[g] + torch.tensor([1, -10, 0, 1, torch.pi / 180])
    assert torch.allclose(view.boxes[g], moved)
    view.keys("a")
    assert len(view.boxes) == len(before) + 1
    view.keys("Delete", *["Control+z"] * 6)
    assert torch.equal(view.boxes, before)
    view.keys("Control+y")
    assert torch.allclose(view.boxes[g, 0], before[g, 0] + 1)
    view.keys("Control+z", "n")
    assert int(view.data("selected")) == (g + 1) % len(before)


@on("microscope")
def test_stretched_and_turned_by_its_handles(view):
    view.keys("n")
    g = int(view.data("selected"))
    while view.boxes[g, 2:4].amin() * float(view.data("scale")) < 45:
        view.keys("n")
        g = int(view.data("selected"))
    x, y, w, h, t = view.boxes[g].tolist()
    along = torch.tensor([t]).cos().item(), torch.tensor([t]).sin().item()
    edge = x + w / 2 * along[0], y + w / 2 * along[1]
    view.drag(edge, 20 * along[0], 20 * along[1])
    assert view.boxes[g, 2].item() == pytest.approx(w + 20, abs=0.7)
    assert view.boxes[g, 3].item() == pytest.approx(h)
    x, y, w, h, t = view.boxes[g].tolist()
    reach = h / 2 + 24 / float(view.data("scale"))
    knob = x + reach * along[1], y - reach * along[0]
    view.drag(knob, 30, 15)
    assert view.boxes[g, 4].item() != pytest.approx(t, abs=0.02)
    assert view.boxes[g, :4].tolist() == pytest.approx([x, y, w, h])
    view.keys("Control+z", "Control+z")


@on("microscope")
def test_the_rule_is_switched_undone_and_copied(view):
    choice = view.root.locator(".pane").first.get_by_label("rule")
    before = view.text("[data-value=positives]")
    choice.select_option("MaxIoU")
    view.settle()
    found = MaxIoU()(AnchorGrid()((512, 512)), view.boxes).gt_index
    assert view.text("[data-value=positives]") == str(int((found >= 0).sum()))
    view.wait("root.dataset.python === 'same'")
    view.keys("Control+z")
    assert choice.input_value() == "ATSS" and view.text("[data-value=positives]") == before
    view.root.get_by_role("button", name="Copy as Python").click()
    space = {}
    exec(view.root.get_attribute("data-copied"), space)
    positives = int((space["explanation"].assignment.gt_index >= 0).sum())
    assert view.text("[data-value=positives]") == str(positives)


@on("walk")
def test_the_walk_adds_up(view):
    view.drag(middle(view.boxes[0]), 25, 15)
    answer = OverlapWalk(view.boxes).answer
    assert view.text("[data-value=iou]") == f"{answer['numbers']['iou']:.4f}"
    assert float(view.text("[data-value=iou]")) == pytest.approx(
        box_iou_rotated(view.boxes[:1], view.boxes[1:]).item(), abs=6e-5
    )
    for i, edge in enumerate(answer["edges"]):
        assert float(view.text(f"[data-value=edge{i}]").split()[0]) == pytest.approx(edge["area"], abs=0.06)
    assert float(view.text("[data-value=g04]")) == pytest.approx(answer["gradient"][0][4], abs=6e-6)


@on("dial")
def test_the_dial_names_the_box(view):
    box = view.boxes[0]
    view.drag(middle(box), 10, -20)
    view.keys("]", "Alt+]", ".")
    dial = AngleDial(view.boxes[0])
    dial.scene = dial.scene | {"turn": 21}
    for row in dial.answer["names"]:
        shown = float(view.text(f"[data-value={row['name']}4]"))
        assert shown == pytest.approx(row["numbers"][4], abs=0.06 if row["unit"] == "degrees" else 6e-4)
    for loss in dial.answer["losses"]:
        assert float(view.text(f"[data-loss='{loss['name']}']")) == pytest.approx(loss["now"], abs=6e-5)
    assert "turned by 21" in view.root.inner_text()
    view.page.mouse.click(*view.on_chart(200, 240))
    view.settle()
    assert "turned by 21" not in view.root.inner_text()


@on("tiling")
def test_the_tiling_fits(view):
    view.drag(middle(view.boxes[0]), 30, 20)
    answer = AnchorTiling(view.boxes[0]).answer
    assert view.text("[data-value=total]") == str(answer["total"])
    for i, level in enumerate(answer["levels"]):
        assert view.text(f"[data-best='{i}']") == f"{level['best']:.3f}"


@on("coder")
def test_the_coder_says_the_deltas(view):
    view.drag(middle(view.boxes[1]), 20, 30)
    answer = BoxCoder(view.boxes).answer
    for k in range(5):
        assert float(view.text(f"[data-delta='{k}']")) == pytest.approx(answer["deltas"][k], abs=6e-5)
    assert view.text("[data-value=iou]") == f"{answer['iou']:.4f}"
    view.root.get_by_role("radio", name="distances").check()
    view.wait("root.querySelector('[data-name=dx] .label').innerText === 'error in left'")
    view.root.get_by_role("radio", name="le90").check()
    view.keys("p", *["Shift+Alt+ArrowLeft"] * 30)  # the anchor loses its area
    assert "has no area" in view.text(".status")
    view.keys(*["Control+z"] * 30)
    assert "Not possible" not in view.text(".status") and "Python says:" not in view.text(".status")


@on("seam")
def test_the_seam_tells_who_owns_the_object(view):
    view.drag(middle(view.boxes[0]), -40, 25)
    view.keys("]", "Alt+]")
    answer = TileSeam(view.boxes[0]).answer
    assert view.text("[data-value=kept]") == str(answer["kept"])
    assert view.text("[data-value=merged]") == str(len(answer["merged"]))
    for i, row in enumerate(answer["rows"]):
        assert view.text(f"[data-iof='{i}']") == f"{row['iof']:.3f}"
        assert view.text(f"[data-verdict='{i}']") == row["verdict"]
    view.root.get_by_role("radio", name="dota-devkit").check()
    verdicts = [r["verdict"] for r in TileSeam(view.boxes[0], style="dota-devkit").answer["rows"]]
    assert "dropped" not in verdicts
    found = "[...root.querySelectorAll('[data-verdict]')].map(n => n.innerText)"
    view.wait(f"JSON.stringify({found}) === {json.dumps(json.dumps(verdicts, separators=(',', ':')))}")


@on("transform")
def test_the_turned_box_has_the_turned_corners(view):
    view.drag(middle(view.boxes[0]), 20, 15)
    view.keys("Alt+]")
    for button, action in ((None, "rotate"), ("top-bottom", "top-bottom"), ("quarter turn", "quarter turn")):
        answer = TurnedImage(view.boxes[0], action=action).answer
        if button:
            view.root.get_by_role("radio", name=button, exact=True).check()
            expected = "root.querySelector('[data-after=\"4\"]')?.innerText"
            view.wait(f"Math.abs({expected} - {answer['after'][4]}) < 0.006")
        for k in range(5):
            shown = [float(view.text(f"[data-{when}='{k}']")) for when in ("before", "after")]
            assert shown == pytest.approx([answer["before"][k], answer["after"][k]], abs=6e-3)
        assert float(view.text("[data-value=gap]")) < 1e-6
    view.drag((float(view.boxes[0, 0]), float(view.boxes[0, 1])), 0, -float(view.boxes[0, 1]) - 20)
    assert "left the image" not in view.text(".panel")  # a flip or quarter turn drops nothing


@on("nms")
def test_suppression_explains_itself(view):
    view.drag(middle(view.boxes[5]), 60, -90)
    view.keys("+", "+")
    scores = torch.linspace(0.9, 0.4, 6)
    scores[5] += 0.02
    rows = Suppression(view.boxes, scores).answer["rows"]
    assert view.text("[data-value=kept]") == str(sum(r["kept"] for r in rows))
    for i, row in enumerate(rows):
        expected = "stays" if row["kept"] else f"goes: {row['by'] + 1} covers it"
        assert view.text(f"[data-verdict='{i}']") == expected


@on("curve")
def test_average_precision_follows_the_boxes(view):
    before, (x, y) = view.text("[data-value=ap]"), view.boxes[7, :2].tolist()
    view.drag((x, y + 15), 0, -20)  # where the object that it will find does not cover it
    assert view.boxes[7, 1].item() == pytest.approx(y - 20, abs=0.7)
    answer = PrecisionRecall(view.boxes[:3], view.boxes[3:]).answer
    assert view.text("[data-value=ap]") == f"{answer['ap']:.3f}" != before


@on("player")
def test_the_player_moves_in_time(view, run_folder):
    player = TrainingPlayer(run_folder)
    view.keys("End")
    assert view.text("[data-value=epoch]") == "3"
    view.page.mouse.move(*view.on_chart(-30, 80))
    view.page.mouse.down()
    view.page.mouse.move(*view.on_chart(42, 80), steps=5)
    view.page.mouse.up()
    view.settle()
    assert view.text("[data-value=epoch]") == "1"
    assert view.text("[data-value=positives]") == str(player.answer["counts"]["positives"])
    view.root.get_by_role("radio", name="the shipped weights").check()
    view.wait("root.querySelector('.big')?.innerText === 'shipped weights'")
    player.source = "the shipped weights"
    assert view.text("[data-value=hits]") == str(player.answer["counts"]["hits"]) != "0"


@pytest.mark.parametrize(
    "view, reason",
    [
        ("no picture", "nowhere.png: cannot be read"),
        ("no boxes", "object 1: expected 5 finite numbers"),
        ("no area", "object 1 has no area"),
        ("no run", "recorded no image"),
        ("not a number", "object 1: expected 5 finite numbers"),
    ],
    indirect=["view"],
)
def test_bad_state_shows_its_reason(view, reason):
    assert reason in view.text(".status")
    assert int(view.data("draws")) > 0


@pytest.mark.parametrize("view", [f"flat {name}" for name in MOVED], indirect=True)
def test_boxes_without_area_off_the_image_stay_in_reach(view):
    assert "object 1 has no area" in view.text(".status")
    assert "object 1 is off the image" in view.text(".status")
    answers = int(view.data("answers"))
    view.keys("ArrowRight", "Shift+Alt+ArrowRight", "Shift+Alt+ArrowDown", "]")
    assert view.boxes[0, 2:4].tolist() == [10, 10] and int(view.data("answers")) > answers
    assert "object 1 has no area" not in view.text(".status")


@pytest.mark.parametrize("view", [f"lost {name}" for name in MOVED], indirect=True)
def test_boxes_that_are_none_break_no_page(view):
    assert "object 1: expected 5 finite numbers" in view.text(".status")
    view.keys("ArrowRight", "]", "n", "?", "?", "Control+z")
    assert int(view.data("draws")) > 1


@on("crowd")
def test_the_numbers_of_many_objects_are_those_of_the_last_place(view):
    before = view.boxes
    moved = int(before[:, 0].argmax())
    for _ in range(2):  # also where its handles, larger than itself, are in the way
        view.drag(view.boxes[moved, :2].tolist(), -150, 100, steps=6)
    shift = torch.tensor([-300.0, 200, 0, 0, 0]).double()
    assert torch.allclose(view.boxes[moved], before[moved] + shift, atol=8)
    found = ATSS()(AnchorGrid()((3000, 4000)), hbb2obb(obb2hbb(view.boxes))).gt_index
    assert view.text("[data-value=positives]") == str(int((found >= 0).sum()))
    assert len(view.boxes) == 400


COUNT_ARCS = """() => {
    const {arc} = CanvasRenderingContext2D.prototype;
    window.arcs = 0;
    CanvasRenderingContext2D.prototype.arc = function (...given) { window.arcs += 1; return arc.apply(this, given); };
}"""


def arcs(view: View) -> int:
    "How many dots were drawn since the last look."
    return view.page.evaluate("() => { const n = window.arcs; window.arcs = 0; return n }")


@on("crowd")
def test_of_many_objects_only_what_changes_is_drawn_again(view):
    view.page.evaluate(COUNT_ARCS)
    view.keys("n")  # another selected
    frames = -int(view.data("draws"))
    arcs(view)
    view.keys(*["ArrowRight"] * 5)
    frames += int(view.data("draws"))
    few = arcs(view)
    view.keys("+", "0")  # all is drawn anew
    assert arcs(view) > 3000  # the anchors of 400 objects, twice
    assert few < 450 * frames  # candidates and strips of one object, anchors of its neighbors


@on("crowd")
def test_what_python_says_of_many_objects_comes_as_bytes(view):
    view.root.locator(".pane").nth(1).get_by_label("rule").select_option("centre sampling")
    with view.page.expect_response(lambda reply: reply.request.method == "POST") as reply:
        view.keys("ArrowRight")
    assert len(reply.value.body()) < 60_000
    view.wait("root.dataset.python === 'same'")


@on("own explorer")
def test_a_page_of_code_is_an_explorer(view):
    assert view.text(".panel") == "50.0 px"
    view.drag((130, 140), -30, 0)
    far = (view.boxes[0, :2] - view.boxes[1, :2]).norm().item()
    assert float(view.text(".panel").split()[0]) == pytest.approx(far, abs=0.06)
    view.keys("Control+z")


@on("no area")
def test_a_box_grows_back_from_nothing(view):
    view.keys("Shift+Alt+ArrowRight", "Shift+Alt+ArrowDown", "Alt+ArrowRight")
    assert view.boxes[0, 2:4].tolist() == [10, 10]
    assert "object 1" not in view.text(".status")
    view.keys(*["Control+z"] * 3)


def upload(view: View, path: Path) -> None:
    with view.page.expect_file_chooser() as chooser:
        view.root.get_by_role("button", name="Open image").click()
    chooser.value.set_files(path)


@on("no picture")
def test_an_image_of_ones_own_and_a_broken_one(view, tmp_path):
    assert "nowhere.png: cannot be read" in view.text(".status")
    Image.new("RGB", (300, 200)).save(tmp_path / "mine.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    upload(view, tmp_path / "mine.png")
    scene = "root.querySelector('canvas.scene')"
    view.wait(f"Math.abs({scene}.clientWidth / {scene}.clientHeight - 1.5) < 0.1")
    view.settle()
    view.keys("a")
    assert view.boxes[0, :2].tolist() == [150, 100]
    found = ATSS()(AnchorGrid()((200, 300)), view.boxes).gt_index
    assert view.text("[data-value=positives]") == str(int((found >= 0).sum()))
    view.wait("root.dataset.python === 'same'")
    upload(view, tmp_path / "broken.png")
    view.wait("root.querySelector('.status').innerText.includes('broken.png cannot be read')")
    view.keys("Delete")


@on("microscope")
def test_a_wrong_image_is_taken_back(view, tmp_path):
    before = view.boxes
    Image.new("RGB", (300, 200)).save(tmp_path / "mine.png")
    upload(view, tmp_path / "mine.png")
    view.wait("root.querySelector('canvas.scene').dataset.boxes === '[]'")
    view.keys("Control+z")
    scene = "root.querySelector('canvas.scene')"
    view.wait(f"Math.abs({scene}.clientWidth / {scene}.clientHeight - 1) < 0.1")  # sides are whole pixels
    assert torch.equal(view.boxes, before)
    view.wait("root.dataset.python === 'same'")


def scale_of(view: View, changed: float) -> float:
    "The scale, once it differs from this one."
    view.wait(f"+root.querySelector('canvas.scene').dataset.scale !== {changed!r}")
    return float(view.data("scale"))


@on("microscope")
def test_zoomed_at_the_pointer_and_panned(view):
    before, fitted = view.boxes, float(view.data("scale"))
    spot = view.place(330, 300)
    view.page.mouse.move(*spot)
    view.page.keyboard.down("Control")
    view.page.mouse.wheel(0, -700)
    view.page.keyboard.up("Control")
    assert scale_of(view, fitted) > 1.4 * fitted
    assert view.place(330, 300) == pytest.approx(spot, abs=1)  # what lies under the pointer stays there
    free = """() => { const d = document.querySelector('canvas.scene').dataset, boxes = JSON.parse(d.boxes);
        const near = (x, y) => Math.min(...boxes.map(([u, v, w, h]) => Math.hypot(u - x, v - y) - Math.max(w, h)));
        let best = [0, 0, -1e9];
        for (let x = 260; x < 400; x += 10) for (let y = 230; y < 370; y += 10) if (near(x, y) > best[2]) best = [x, y, near(x, y)];
        return best }"""
    x, y, _ = view.page.evaluate(free)
    start, (u, v) = view.place(x, y), view.place(300, 300)
    view.page.mouse.move(*start)
    view.page.mouse.down()
    view.page.mouse.move(start[0] - 30, start[1] + 20, steps=4)
    view.page.mouse.up()
    view.settle()
    assert view.place(300, 300) == pytest.approx((u - 30, v + 20), abs=1)
    assert torch.equal(view.boxes, before)  # the ground moves, and no object
    for button, factor in (("Fit", 1), ("+", 1.5), ("−", 1)):
        scale = float(view.data("scale"))
        view.root.get_by_role("button", name=button, exact=True).click()
        assert scale_of(view, scale) == pytest.approx(fitted * factor)


@on("microscope")
def test_two_fingers_zoom(view):
    fitted, session = float(view.data("scale")), view.page.context.new_cdp_session(view.page)
    x, y = view.place(256, 256)

    def fingers(kind: str, apart: float) -> None:
        points = [{"x": x + side * apart / 2, "y": y, "id": i} for i, side in enumerate((-1, 1))]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points if apart else []})

    fingers("touchStart", 80)
    for apart in (100, 140, 200):
        fingers("touchMove", apart)
    fingers("touchEnd", 0)
    assert scale_of(view, fitted) > 2 * fitted
    assert view.place(256, 256) == pytest.approx((x, y), abs=2)
    view.keys("0")
    assert float(view.data("scale")) == pytest.approx(fitted)


@on("microscope")
def test_sharp_and_dark(view):
    size = view.canvas.evaluate("c => [c.width, c.clientWidth, devicePixelRatio]")
    assert size[2] == 2 and abs(size[0] - 2 * size[1]) <= 2
    ground = view.root.evaluate("e => getComputedStyle(e).backgroundColor")
    assert max(map(int, ground.removeprefix("rgb(").removesuffix(")").split(","))) < 60


@on("microscope")
def test_answers_come_in_order_while_dragging(view):
    script = """async n => {
        const c = document.querySelectorAll('.atss-explorer canvas.scene')[n], r = c.getBoundingClientRect(), seen = [];
        new MutationObserver(() => seen.push(+c.dataset.answers)).observe(c, {attributeFilter: ['data-answers']});
        c.setPointerCapture = () => {};
        const box = JSON.parse(c.dataset.boxes)[3], s = +c.dataset.scale;
        const [x, y] = [+c.dataset.left + (box[0] + 35) * s, +c.dataset.top + (box[1] + 41) * s];
        const send = (type, dx) => c.dispatchEvent(new PointerEvent(type, {clientX: r.left + x + dx, clientY: r.top + y, bubbles: true, pointerId: 1}));
        send('pointerdown', 0);
        const frame = () => new Promise(requestAnimationFrame);
        for (let i = 0; i < 60 || (new Set(seen).size < 5 && i < 3600); i++) await frame(), send('pointermove', 5 + i % 60);
        send('pointerup', 60);
        while (c.dataset.busy) await frame();
        return seen }"""
    seen = view.page.evaluate(script, view.number)
    assert len(set(seen)) > 3 and seen == sorted(seen)
    view.keys("Control+z")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_atss_explore_opens_on_the_microscope_and_leaves_nothing(opened, tmp_path, stop):
    command = [sys.executable, "-m", "atss_nb.cli", "explore", "--no-browser"]
    process = subprocess.Popen(command, env=clean_environment(tmp_path), stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[-1]
        page, watch = opened
        page.goto(address)
        view = View(page, 0)
        view.settle()
        assert view.text("[data-value=positives]") == "41"
        view.wait("root.dataset.python === 'same'")
        assert watch.complaints == [] and watch.foreign == []
        page.goto("about:blank")
    finally:
        process.send_signal(stop)
        assert process.wait(120) == (130 if stop == signal.SIGINT else -signal.SIGTERM)
    with pytest.raises(OSError):
        urlopen(address, timeout=2)


def saved_notebook(path: Path, cell: str) -> None:
    "A notebook that was run, and saved with the state of its widgets."
    write_notebook(path, [cell])
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=300, startup_timeout=300).execute()
    nbformat.write(notebook, path)


def test_an_exported_page_is_live(opened, tmp_path):
    "A notebook that nbconvert made a page of, without a kernel, without stored state and without a network."
    saved_notebook(tmp_path / "kept.ipynb", KINDS["microscope"])
    notebook = nbformat.read(tmp_path / "kept.ipynb", 4)
    notebook.metadata.pop("widgets")
    text, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    (tmp_path / "kept.html").write_text(text, encoding="utf-8")
    page, watch = opened
    page.context.set_offline(True)
    page.goto((tmp_path / "kept.html").as_uri())
    view = View(page, 0)
    view.wait("root?.querySelector('canvas').dataset.busy === ''")
    view.keys("Alt+ArrowRight")
    found = ATSS()(AnchorGrid()((512, 512)), view.boxes).gt_index
    assert view.text("[data-value=positives]") == str(int((found >= 0).sum()))
    page.context.set_offline(False)
    page.goto("about:blank")
    watch.complaints.clear()  # nbconvert's own page looks for MathJax
    watch.foreign.clear()


def test_a_widget_in_jupyterlab(opened, tmp_path):
    "The same pages as widgets of a notebook: with a twin, answered by the kernel, and from a state that was saved."
    write_notebook(tmp_path / "all.ipynb", [KINDS["microscope"], KINDS["tiling"]])
    saved_notebook(tmp_path / "saved.ipynb", KINDS["walk"])
    page, watch = opened
    with lab(tmp_path) as url:
        open_notebook(page, url, "all.ipynb")
        page.wait_for_function("() => document.querySelectorAll('canvas[data-draws]').length === 2")
        microscope, tiling = View(page, 0), View(page, 1)
        microscope.wait("root.dataset.python === 'same'")
        microscope.keys("ArrowRight", "Alt+]")
        microscope.wait("root.dataset.python === 'same'")
        found = ATSS()(AnchorGrid()((512, 512)), microscope.boxes).gt_index
        assert microscope.text("[data-value=positives]") == str(int((found >= 0).sum()))
        tiling.keys("ArrowRight", "]")
        answer = AnchorTiling(tiling.boxes[0]).answer
        assert tiling.text("[data-best='2']") == f"{answer['levels'][2]['best']:.3f}"
        open_notebook(page, url, "saved.ipynb", run=False)
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:trust'); return 1 }")
        page.locator(".jp-Dialog .jp-mod-accept").click()
        walk = View(page, 0)
        walk.wait("root?.querySelector('canvas').dataset.draws > 0")
        walk.keys("Alt+ArrowRight")
        shown = box_iou_rotated(walk.boxes[:1], walk.boxes[1:]).item()
        assert float(walk.text("[data-value=iou]")) == pytest.approx(shown, abs=6e-5)
        assert (watch.complaints, watch.foreign) == ([], [])
        page.goto("about:blank")


def axe() -> str:
    "The script of axe-core; skips where it is not installed."
    package = pytest.importorskip(
        "axe_playwright_python", reason="no axe-core here: pip install axe-playwright-python"
    )
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(opened, run_folder, dark):
    script, (page, _) = axe(), opened
    page.emulate_media(color_scheme="dark" if dark else "light")
    for name, code in KINDS.items():
        with served(made(code.replace("'run'", repr(str(run_folder))))) as address:
            page.goto(address)
            View(page, 0).settle()
            page.evaluate(script)
            found = page.evaluate("async () => (await axe.run()).violations")
            named = [(v["id"], v["impact"], [n["html"][:120] for n in v["nodes"]]) for v in found]
            assert [n for n in named if n[1] in ("serious", "critical")] == [], name
            page.goto("about:blank")
    page.emulate_media(color_scheme="dark")


def test_no_keyboard_trap(opened):
    "Tab walks through everything and out at the end; a key that means nothing here stays the browser's."
    page, _ = opened
    with served(made(KINDS["microscope"])) as address:
        page.goto(address)
        view = View(page, 0)
        view.settle()
        view.canvas.focus()
        page.evaluate("document.body.append(Object.assign(document.createElement('button'), {id: 'end'}))")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "end":
                break
        assert page.evaluate("document.activeElement.id") == "end"
        prevented = page.evaluate("""() => {
            const row = document.querySelector('button.link'), keys = ['Tab', 'F5', ' ', 'PageDown', 'a'];
            return keys.filter(key => !row.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true})));
        }""")
        assert prevented == []
        view.root.locator("button.link").nth(2).click()
        view.settle()
        assert view.data("selected") == "2"
        assert (
            page.evaluate("document.activeElement.className") == "link"
        )  # the focus stays while the panel changes


@pytest.mark.parametrize("name", ["microscope", "walk", "dial"])
def test_a_page_from_disk_without_network(opened, tmp_path, name):
    path = tmp_path / "page.html"
    assert main(["explore", name, "--html", str(path)]) == 0
    assert path.stat().st_size < 500_000
    page, watch = opened
    page.goto("about:blank")
    watch.complaints.clear()  # of servers that ended before
    page.context.set_offline(True)
    page.goto(path.as_uri())
    view = View(page, 0)
    view.settle()
    before = view.boxes
    view.drag(middle(before[0]), 20, 10)
    assert torch.allclose(view.boxes[0, :2] - before[0, :2], torch.tensor([20.0, 10]).double(), atol=1)
    page.context.set_offline(False)
    assert watch.complaints == [] and all(url.startswith("file:") for url in watch.foreign)
    watch.foreign.clear()  # the file itself


def test_a_page_without_javascript_is_a_still_picture(opened, tmp_path):
    "A policy that forbids scripts stands for a browser without them."
    page, watch = opened
    policy = """<meta http-equiv="Content-Security-Policy" content="script-src 'none'"><title>"""
    text = explorer_page(Microscope()).replace("<title>", policy)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator(".atss-explorer").count() == 0
    drawn = "".join(path.get_attribute("d") for path in page.locator("figure svg path").all())
    assert drawn.count("h0") == 52
    assert "ATSS: 41 positives" in page.inner_text("figcaption")
    page.goto("about:blank")
    watch.complaints.clear()  # of the policy
    watch.foreign.clear()  # the file itself


def test_two_explorers_in_the_middle_of_a_page(opened, tmp_path):
    page, watch = opened
    page.goto("about:blank")
    watch.complaints.clear()  # of servers that ended before
    parts = [explorer_fragment(explorer) for explorer in (Microscope(), OverlapWalk())]
    text = f"<!doctype html><meta charset='utf-8'><h1>A page</h1>{parts[0]}<p>and</p>{parts[1]}<p>the end</p>"
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page.goto((tmp_path / "page.html").as_uri())
    microscope, walk = View(page, 0), View(page, 1)
    for view in (microscope, walk):
        view.settle()
        view.keys("Alt+ArrowRight")
    assert microscope.text("[data-value=positives]") != "0"
    shown = box_iou_rotated(walk.boxes[:1], walk.boxes[1:]).item()
    assert float(walk.text("[data-value=iou]")) == pytest.approx(shown, abs=6e-5)
    page.goto("about:blank")
    assert watch.complaints == []
    watch.foreign.clear()  # the file itself


@on("microscope")
def test_a_dot_of_the_strip_is_clicked(view):
    "It shows the square of its anchor and its numbers; the pointer over it shows them in passing."
    dot = """() => { const c = document.querySelector('canvas.chart'); return [c.clientWidth, c.clientHeight] }"""
    wide, high = view.page.evaluate(dot)
    best = ATSS().explain(AnchorGrid()((512, 512)), view.boxes)
    g = int(view.data("selected"))
    c = int(best.iou[g].argmax())
    top = math.ceil(max(0.2, float(best.iou[g].max()), float(best.threshold[g])) * 1.06 * 20) / 20
    x = 56 + float(best.iou[g, c]) / top * (wide - 74)
    y = 34 + (int(best.level[c]) + 0.5) / 5 * (high - 66)
    view.page.mouse.move(*view.on_chart(x, y))
    view.wait("root.querySelector('canvas.chart').style.cursor === 'pointer'")
    view.page.mouse.click(*view.on_chart(x, y))
    view.settle()
    assert view.text("[data-fact=IoU]") == f"{best.iou[g, c]:.3f}"
    view.keys("Escape")


@on("microscope")
def test_steps_are_played_and_things_are_tried(view):
    view.root.get_by_role("button", name="1 nearest").click()
    assert "nearest to the centre of the tennis-court: 45 candidates" in view.text(".saying")
    view.root.get_by_role("button", name="result").click()
    before = view.boxes
    view.page.emulate_media(reduced_motion="reduce")
    view.root.get_by_role("button", name="Shrink the smallest").click()
    view.settle()
    assert "learns nothing" in view.root.inner_text() and not torch.equal(view.boxes, before)
    view.keys("Control+z")
    assert torch.equal(view.boxes, before)
    view.page.emulate_media(reduced_motion="no-preference")


@on("tiling")
def test_no_number_of_another_setting(view):
    "A switch is turned while Python is busy: the old numbers go at once, and the page says that it waits."
    view.page.evaluate("() => { window.fetch = () => new Promise(() => {}) }")
    view.root.get_by_role("radio", name="128", exact=True).first.check()
    assert view.text(".panel") == "Computing …"
    view.wait("root.dataset.waiting === 'yes'")


@on("tiling")
def test_a_busy_mark_comes_before_a_late_answer(view):
    "No times: a busy machine makes both late, and the mark never later than the answer."
    view.page.evaluate("""() => {
        const {fetch} = window, root = document.querySelector('.atss-explorer');
        window.seen = [];
        window.fetch = async (...given) => { await new Promise(f => setTimeout(f, 900)); return fetch(...given); };
        new MutationObserver(() => window.seen.push(root.dataset.waiting ?? 'answered')).observe(root, {attributeFilter: ['data-waiting']});
    }""")
    view.keys("ArrowRight")
    view.wait("window.seen.length > 1")
    assert view.page.evaluate("window.seen") == ["yes", "answered"]


def test_nothing_is_cut_on_a_telephone(opened, run_folder):
    "360 pixels: no page that scrolls sideways, no column behind an edge."
    page, _ = opened
    page.set_viewport_size({"width": 360, "height": 780})
    for name, code in KINDS.items():
        with served(made(code.replace("'run'", repr(str(run_folder))))) as address:
            page.goto(address)
            View(page, 0).settle()
            wide = """() => [document.documentElement, ...document.querySelectorAll('.panel, .scroll, .pane, .controls')]
                .filter(n => n.scrollWidth > n.clientWidth + 1 || n.getBoundingClientRect().right > 361)
                .map(n => `${n.className || n.tagName} ${n.scrollWidth} > ${n.clientWidth}`)"""
            assert page.evaluate(wide) == [], name
            page.goto("about:blank")
    page.set_viewport_size({"width": 1360, "height": 1000})


def test_numbers_are_what_json_can_say():
    assert rounded({"a": [float("nan"), 1 / 3], "b": torch.tensor([2.0])}) == {
        "a": [None, 0.333333333],
        "b": [2.0],
    }
    assert Microscope().answer == json.loads(json.dumps(Microscope().answer))
