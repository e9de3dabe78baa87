"Label files that the page reads by itself, against Python's readers: the same boxes, or an error that names the place."

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUM, browser
from PIL import Image

from atss_nb.cli.main import main
from atss_nb.data.convert import LabelledSet, write_dataset
from atss_nb.data.detections import Detections
from atss_nb.data.folders import LabelledImage
from atss_nb.explore.microscope import Microscope
from atss_nb.explore.page import labelled_image
from atss_nb.explore.standalone import save_page
from atss_nb.geometry.boxes import obb2poly
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import ATSS

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
H, W = 211, 307
LABEL = {  # where each format keeps the labels of image "a"
    "dota": "labelTxt/a.txt",
    "yolo-obb": "labels/train/a.txt",
    "coco": "*.json",
    "labelme": "a.json",
    "rolabelimg": "a.xml",
    "dior-r": "Annotations/Oriented Bounding Boxes/a.xml",
    "hrsc2016": "FullDataSet/Annotations/a.xml",
}


def random_boxes(count: int = 40) -> torch.Tensor:
    rng = torch.Generator().manual_seed(3)
    low, high = torch.tensor([60.0, 60, 4, 4, -1.5]), torch.tensor([W - 60.0, H - 60, 90, 60, 1.5])
    return (low + (high - low) * torch.rand(count, 5, generator=rng)).double()


def write(folder: Path, form: str) -> list[str]:
    "One image with labels, as a data set of a format; the names of its objects."
    boxes = random_boxes()
    kinds = {"dior-r": ["ship", "vehicle"], "hrsc2016": ["ship"]}.get(form, ["ship", "plane"])
    names = [kinds[i % len(kinds)] for i in range(len(boxes))]
    Image.fromarray(np.full((H, W, 3), 90, np.uint8)).save(folder / "a.png")
    known = {"size": (H, W), "image_id": "a"}
    found = Detections.from_polygons(obb2poly(boxes).reshape(-1, 8).tolist(), names, kinds, **known)
    split = "train" if form in ("yolo-obb", "coco") else ""
    one = LabelledImage("a", split, folder / "a.png", annotation=found)
    write_dataset(form, LabelledSet("dota", [one], tuple(kinds)), folder / form)
    return names


@pytest.fixture(scope="module")
def opened():
    with browser() as (page, watch):
        yield page
        assert watch.complaints == []


READ = """([script, given]) => {
    try { return new Function('given', script + '; return readLabels(given)')(given); } catch (error) { return error.message; }
}"""


def read_in_page(page, path: Path, **known) -> list | str:  # the objects, or the error
    given = {"file": path.name, "text": path.read_text(encoding="utf-8"), "size": [H, W]} | known
    return page.evaluate(READ, [Microscope.script, given])


@pytest.mark.parametrize("form", LABEL)
def test_the_page_reads_what_python_reads(opened, tmp_path, form):
    names = write(tmp_path, form)
    path = next((tmp_path / form).rglob(LABEL[form]))
    known = {"names": ["ship", "plane"], "image": "a.png"} if form in ("yolo-obb", "coco") else {}
    objects = read_in_page(opened, path, **known)
    image, boxes, classes = labelled_image(tmp_path / form, "a.png")
    assert image.name == "a.png" and len(objects) == len(boxes) == 40
    assert [one["name"] for one in objects] == classes == names
    read = torch.tensor([one["box"] for one in objects], dtype=torch.float64)
    assert torch.allclose(read, boxes.double(), atol=1e-5)


GOOD = "10 10 50 10 50 30 10 30 ship 0\n"
BAD = {  # file, its text, what the page says of it
    "a number": ("a.txt", f"{GOOD}10 10 fifty 10 50 30 10 30 ship 0", "a.txt, line 2: \"fifty\"; expected a finite number for x2"),
    "fields": ("a.txt", f"imagesource:x\ngsd:1\n{GOOD}10 10 50 10", "a.txt, line 4: \"10 10 50 10\"; expected 8 numbers, a class"),
    "difficulty": ("a.txt", "10 10 50 10 50 30 10 30 ship 7", "a.txt, line 1: \"7\"; expected a difficulty"),
    "pixels": ("a.txt", "0 10 10 50 10 50 30 10 30", "a.txt, line 1: \"0 10 10 50 10 50 30 10 30\"; expected coordinates as shares"),
    "empty": ("a.txt", "", "a.txt: there are no objects in it"),
    "json": ("a.json", '{"images": [],\n "annotations": [}', "a.json, line 2: "),
    "other json": ("a.json", '{"features": []}', "a.json, line 1: [\"features\"]; expected annotations"),
    "other image": ("a.json", '{"images": [{"id": 1, "file_name": "b.png"}], "annotations": []}', "a.json, images: [\"b.png\"]; expected the image a.png"),
    "category": ("a.json", '{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "category_id": 3}]}', "a.json, annotations[0].category_id: 3; expected one of the 0 categories"),
    "bbox": ("a.json", '{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 3, "name": "ship"}], "annotations": [{"image_id": 1, "category_id": 3, "bbox": [1, 2]}]}', "a.json, annotations[0].bbox: [1,2]; expected x, y, width, height"),
    "mask": ("a.json", '{"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 3, "name": "ship"}], "annotations": [{"image_id": 1, "category_id": 3, "segmentation": {"counts": []}}]}', "a.json, annotations[0].segmentation: \"a mask\"; expected a polygon"),
    "xml": ("a.xml", "<annotation>\n<object>\n</annotation>", "a.xml, line 3: "),
    "entity": ("a.xml", "<!DOCTYPE x>\n<annotation/>", "a.xml, line 1: \"a definition\"; expected XML that defines nothing"),
    "other xml": ("a.xml", "<svg/>", "a.xml, line 1: \"svg\"; expected <annotation>"),
    "no box": ("a.xml", "<annotation>\n<object><name>ship</name></object>\n</annotation>", "a.xml, line 2: null; expected a finite number for <xmin>"),
    "angle": ("a.xml", "<annotation>\n\n<object><name>ship</name><robndbox><cx>1</cx><cy>1</cy><w>1</w><h>1</h><angle>up</angle></robndbox></object></annotation>", "a.xml, line 3: \"up\"; expected a finite number for <angle>"),
    "no labels": ("a.csv", "1,2", "a.csv: expected a label file: .txt"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_read_is_named(opened, what):
    file, text, reason = BAD[what]
    given = {"file": file, "text": text, "size": [H, W], "image": "a.png"}
    assert reason in opened.evaluate(READ, [Microscope.script, given])


@pytest.mark.parametrize("form", ["dota", "yolo-obb", "coco", "rolabelimg"])
def test_the_command_shows_an_image_of_a_data_set(opened, tmp_path, form):
    names = write(tmp_path, form)
    page = tmp_path / "page.html"
    assert (
        main(
            ["explore", "microscope", "--data", str(tmp_path / form), "--image", "a.png", "--html", str(page)]
        )
        == 0
    )
    opened.goto(page.as_uri())
    opened.wait_for_function("() => document.querySelector('canvas.scene')?.dataset.busy === ''")
    rows = opened.locator("tr.pick button").all_inner_texts()
    assert rows == [f"{i} {name}" for i, name in enumerate(names, start=1)]
    size = opened.evaluate(
        "() => { const c = document.querySelector('canvas.scene').dataset; return JSON.parse(c.boxes).length }"
    )
    assert size == 40


def test_the_command_names_what_is_not_there(tmp_path, capsys):
    write(tmp_path, "dota")
    assert main(["explore", "microscope", "--data", str(tmp_path / "dota"), "--image", "b.png"]) != 0
    assert "'a'" in capsys.readouterr().err


DROP = """([image, labels]) => {
    const bytes = Uint8Array.from(atob(image), c => c.charCodeAt(0)), data = new DataTransfer();
    if (image) data.items.add(new File([bytes], 'a.png', {type: 'image/png'}));
    for (const [name, text] of labels) data.items.add(new File([text], name));
    document.querySelector('.atss-explorer').dispatchEvent(new DragEvent('drop', {bubbles: true, cancelable: true, dataTransfer: data}));
}"""


def test_an_image_and_its_labels_are_dropped_onto_the_page(opened, tmp_path):
    "Onto a page from disk; a file that is wrong changes nothing, and undo takes back what was dropped."
    names, boxes = write(tmp_path, "dota"), random_boxes()
    save_page(Microscope(), tmp_path / "page.html")
    opened.goto((tmp_path / "page.html").as_uri())
    count = "() => JSON.parse(document.querySelector('canvas.scene').dataset.boxes).length"
    status = "() => document.querySelector('.status').textContent"
    opened.wait_for_function(f"() => ({count})() === 5")
    image = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    text = (tmp_path / "dota/labelTxt/a.txt").read_text()
    opened.evaluate(DROP, [image, [["a.txt", text.replace(" ship", " a ship", 1)]]])
    opened.wait_for_function(f"() => ({status})().startsWith('a.txt, line 1: ')")
    assert opened.evaluate(count) == 5
    opened.evaluate(DROP, [image, [["a.txt", text]]])
    opened.wait_for_function(f"() => ({count})() === 40")
    found = ATSS()(AnchorGrid()((H, W)), boxes).gt_index
    assert opened.locator("[data-value=positives]").inner_text() == str(int((found >= 0).sum()))
    assert opened.locator("tr.pick button").nth(1).inner_text() == f"2 {names[1]}"
    opened.evaluate(DROP, ["", [["a.txt", text.split("\n")[0]]]])  # other labels for the same image
    opened.wait_for_function(f"() => ({count})() === 1")
    opened.locator("canvas.scene").first.press("Control+z")
    opened.locator("canvas.scene").first.press("Control+z")
    opened.wait_for_function(f"() => ({count})() === 5")
