"The one container: what it accepts, gives back and refuses, and what other libraries make of it."

import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.data.columns import Detection
from atss_nb.data.detections import Detections
from atss_nb.data.exchange import COLUMNS
from atss_nb.geometry.boxes import obb2hbb, obb2poly, poly2obb
from atss_nb.geometry.overlap import box_iou_rotated

CLASSES = ("ship", "storage tank", "plane")
OUTLINE = [[60, 20], [176, 62], [164, 95], [48, 53]]


@st.composite
def predictions(draw, most=6) -> Detections:
    "Boxes of any angle, longer than wide, in an image of 300 x 400."
    rows = draw(st.integers(0, most))
    column = st.lists(st.floats(0, 1, width=32), min_size=rows, max_size=rows)
    unit = torch.tensor([draw(column) for _ in range(6)], dtype=torch.float32).view(6, rows)
    low, high = (
        torch.tensor([0, 0, 20, 5, -math.pi / 2]),
        torch.tensor([400, 300, 60, 18, math.pi / 2 - 0.01]),
    )
    labels = draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    boxes = low + unit[:5].T * (high - low)
    return Detections(boxes, labels, CLASSES, unit[5], "P0006", size=(300, 400))


def same(a: Detections, b: Detections, eps: float = 1e-3) -> None:
    "The same objects, whatever the boxes are called."
    assert a.names == b.names and a.image_id == b.image_id
    assert torch.allclose(a.boxes[:, :2].double(), b.boxes[:, :2].double(), atol=eps)
    iou = box_iou_rotated(a.boxes.double(), b.boxes.double(), aligned=True)
    assert len(a) == 0 or iou.min() > 1 - 10 * eps
    if a.scores is not None and len(a):
        assert torch.equal(a.scores.double(), b.scores.double())


@settings(max_examples=25, deadline=None)
@given(predictions())
def test_round_trips(found):
    import supervision
    import torchvision

    same(found, Detections.from_dict(found.to_dict(), CLASSES, image_id="P0006"), 0.0001)
    for format in ("CXCYWHR", "XYWHR", "XYXYXYXY"):
        theirs = found.to_tv_tensor(format)
        assert isinstance(theirs, torchvision.tv_tensors.BoundingBoxes) and theirs.format.name == format
        more = {"scores": found.scores, "image_id": found.image_id}
        same(found, Detections.from_tv_tensor(theirs, found.labels, CLASSES, **more))
    theirs = found.to_supervision()
    assert isinstance(theirs, supervision.Detections)
    same(found, Detections.from_supervision(theirs, CLASSES, image_id="P0006"))
    same(found, Detections.from_supervision(theirs, image_id="P0006"))
    again = Detections.from_frame(found.to_frame(), CLASSES, image_id="P0006")
    assert torch.equal(again.boxes.float(), found.boxes)
    same(found, again)
    same(found, Detections.from_geojson(json.loads(json.dumps(found.to_geojson())), classes=CLASSES))


@settings(max_examples=25, deadline=None)
@given(predictions(), st.data())
def test_rows_and_columns_agree(found, data):
    rows = list(found)
    assert len(rows) == len(found) and [one.name for one in rows] == found.names
    for i, one in enumerate(rows):
        assert list(one.box) == found.boxes[i].tolist() and one.score == found.scores[i].item()
        assert np.array_equal(one.polygon, found.polygons[i].numpy())
        assert found[i].box == one.box and found[i - len(found)].name == one.name
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))).bool()
    chosen = found[mask]
    assert chosen.names == [one.name for one, kept in zip(rows, mask, strict=True) if kept]
    for other in (found[mask.numpy()], found[mask.nonzero()[:, 0]], found[mask.nonzero()[:, 0].tolist()]):
        assert torch.equal(other.boxes, chosen.boxes) and other.names == chosen.names
    rebuilt = Detections.from_rows(rows, CLASSES)
    assert torch.equal(rebuilt.boxes.float(), found.boxes) and torch.equal(rebuilt.labels, found.labels)
    joined = Detections.concat([found[:2], found[2:]])
    assert torch.equal(joined.boxes, found.boxes) and joined.size == found.size


def test_torchvision_turns_the_other_way():
    "A box whose heading points right and down on the screen has a negative angle there."
    found = Detections(torch.tensor([[50.0, 40, 60, 10, math.radians(30)]]), [0], CLASSES, size=(80, 100))
    assert found.to_tv_tensor()[0, 4].item() == pytest.approx(-30, abs=1e-4)
    upright = Detections.from_tv_tensor(found.to_tv_tensor("XYXY"), found.labels, CLASSES)
    assert torch.allclose(upright.xyxy, found.xyxy, atol=1e-4) and upright.boxes[0, 4] == 0
    with pytest.raises(ValueError, match="format: expected CXCYWHR"):
        found.to_tv_tensor("CXCYWH")


def test_torchvisions_transforms_take_them():
    from torchvision.transforms.v2 import functional

    found = Detections(torch.tensor([[50.0, 40, 60, 10, 0.5]]), [0], CLASSES, size=(80, 100))
    here = Detections.from_tv_tensor(functional.vertical_flip(found.to_tv_tensor()), found.labels, CLASSES)
    assert here.size == (80, 100)
    assert torch.allclose(here.boxes, torch.tensor([[50.0, 40, 60, 10, -0.5]]), atol=1e-3)


def test_supervision_draws_them():
    import supervision

    found = Detections(torch.tensor([[50.0, 40, 60, 10, 0.5]]), [1], CLASSES, torch.tensor([0.5]))
    picture = supervision.OrientedBoxAnnotator(thickness=1).annotate(
        np.zeros((80, 100, 3), np.uint8), found.to_supervision()
    )
    ys, xs = picture.any(-1).nonzero()
    inner = obb2hbb(found.boxes)[0].tolist()
    assert np.allclose([xs.min(), ys.min(), xs.max(), ys.max()], inner, atol=2)
    upright = supervision.Detections(xyxy=np.array([[10.0, 20, 50, 40]]), class_id=np.array([2]))
    assert Detections.from_supervision(upright, CLASSES).boxes.tolist() == [[30, 30, 40, 20, 0]]
    with pytest.raises(ValueError, match="class names"):
        Detections.from_supervision(upright)


def test_frames():
    found = Detections(
        torch.tensor([[50.0, 40, 60, 10, 0.5]] * 2), [1, 0], CLASSES, torch.tensor([0.5, 0.25]), "a"
    )
    frame = found.to_frame()
    assert tuple(frame.columns) == COLUMNS and frame["score"].tolist() == [0.5, 0.25]
    assert Detections.from_frame(frame[frame["score"] > 0.3]).names == ["storage tank"]
    labels = Detections.from_polygons([OUTLINE], ["ship"])
    assert Detections.from_frame(labels.to_frame()).scores is None
    assert len(Detections.from_frame(frame[:0])) == 0


def test_geojson_on_a_map():
    from rasterio.transform import from_origin

    found = Detections.from_polygons([OUTLINE], ["ship"], image_id="P1")
    place = from_origin(500_000, 5_300_000, 0.5, 0.5)
    content = found.to_geojson(place, "EPSG:32632")
    ring = content["features"][0]["geometry"]["coordinates"][0]
    assert ring[0] == ring[-1] == [500_030, 5_299_990]
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
    back = Detections.from_geojson(content, place)
    assert np.allclose(back.polygons, found.polygons) and back.scores is None
    content["features"][0]["geometry"]["coordinates"] = [ring[:3]]
    with pytest.raises(ValueError, match="feature 0: expected a polygon of four corners"):
        Detections.from_geojson(content)


def test_outlines_stay_as_labelled():
    skewed = [[0, 0], [100, 0], [110, 40], [0, 30]]
    labels = Detections.from_polygons([skewed, OUTLINE], ["plane", "ship"], CLASSES)
    assert labels.polygons[0].tolist() == skewed and labels.labels.tolist() == [2, 0]
    assert torch.equal(labels.boxes, poly2obb(labels.polygons, "le90"))
    assert (
        torch.equal(labels.to_dict()["polys"], labels.corners)
        and labels.to_dict()["difficult"].dtype == torch.bool
    )
    assert labels[1:].boxes.tolist() == labels.boxes[1:].tolist()
    moved = labels.replace(boxes=labels.boxes)
    assert moved.corners is None and torch.equal(moved.polygons, obb2poly(labels.boxes))
    shifted = labels.replace(corners=labels.corners + 10)
    assert torch.allclose(shifted.boxes[:, :2], labels.boxes[:, :2] + 10)
    assert labels.replace(image_id="a").corners is labels.corners


def test_boxes_of_outlines_are_found_when_asked_for():
    labels = Detections.from_polygons([OUTLINE], ["ship"])
    assert "boxes" not in vars(labels) and "boxes" not in vars(labels[:1])
    assert len(labels.boxes) == 1 and "boxes" in vars(labels)


def test_fields_of_label_files():
    rows = [
        Detection("ship", OUTLINE, 0.5, 1, (170, 78), {"truncated": "1"}),
        Detection("plane", OUTLINE, None, 2),
    ]
    labels = Detections.from_rows(rows, image_id="P1", size=(100, 200), meta={"gsd": "0.15"})
    first, second = labels
    assert (first.score, first.difficult, list(first.head), first.attributes) == (
        0.5,
        1,
        [170, 78],
        {"truncated": "1"},
    )
    assert (second.score, second.difficult, second.head, second.attributes) == (None, 2, None, {})
    assert labels[[1]].scores.isnan().all() and labels[[1]].attributes == [{}]
    assert (labels[:1].meta, labels[:1].size, labels[:1].image_id) == ({"gsd": "0.15"}, (100, 200), "P1")
    again = pickle.loads(pickle.dumps(labels))
    assert again.attributes == labels.attributes and torch.equal(again.corners, labels.corners)


def test_relabel_and_concat():
    a = Detections.from_polygons([OUTLINE], ["plane"])
    b = Detections(torch.tensor([[50.0, 40, 60, 10, 0.5]]), [0], ("ship",), torch.tensor([0.5]))
    assert a.relabel(CLASSES).labels.tolist() == [2] and a.relabel(CLASSES).names == ["plane"]
    with pytest.raises(ValueError, match="'plane'; expected one of the classes ship"):
        a.relabel(("ship",))
    both = Detections.concat([a, b])
    assert both.names == ["plane", "ship"] and both.scores.isnan().tolist() == [True, False]
    assert torch.allclose(both.polygons[1], b.polygons[0]) and len(both.boxes) == 2
    assert Detections.concat([a]).names == ["plane"]


def test_above_and_to():
    found = Detections(
        torch.tensor([[50.0, 40, 60, 10, 0.5]] * 2), [0, 1], CLASSES, torch.tensor([0.5, 0.25])
    )
    assert found.above(0.5).names == ["ship"] and len(found.above(0.6)) == 0
    with pytest.raises(ValueError, match="no scores"):
        Detections.from_polygons([OUTLINE], ["ship"]).above(0.5)
    assert found.to("meta").boxes.device.type == found.to("meta").labels.device.type == "meta"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"boxes": torch.zeros(2, 5)}, r"P1: boxes has shape \(2, 5\); expected \(1, 5\)"),
        ({"boxes": torch.zeros(1, 4)}, r"boxes has shape \(1, 4\)"),
        (
            {"boxes": torch.tensor([[0, 0, -1.0, 1, 0]])},
            "P1: boxes, row 0: expected finite numbers and sides",
        ),
        ({"boxes": None}, "neither boxes nor corners"),
        ({"boxes": None, "corners": np.full((1, 4, 2), np.nan)}, "P1: corners, row 0: expected finite"),
        ({"scores": torch.zeros(3)}, r"scores has shape \(3,\)"),
        ({"labels": [3]}, "P1: labels, row 0: expected 0 to 2, an index into classes, got 3"),
        ({"labels": [-1]}, "got -1"),
        ({"labels": [[0]]}, "labels has shape"),
        ({"classes": ("a", "a")}, "each name once"),
        ({"heads": [[1, 2], [3, 4]]}, r"heads has shape \(2, 2\)"),
        ({"attributes": [{}, {}]}, "attributes has 2 rows; expected 1"),
    ],
)
def test_what_is_refused(fields, text):
    right = {"boxes": torch.ones(1, 5), "labels": [0], "classes": CLASSES, "image_id": "P1"}
    Detections(**right)
    with pytest.raises(ValueError, match=text):
        Detections(**(right | fields))


def test_evaluation_takes_them():
    "As dicts of tensors, whatever order each has its classes in."
    from atss_nb.evaluation.evaluate import evaluate

    truth = Detections.from_polygons([OUTLINE, [[0, 0], [9, 0], [9, 9], [0, 9]]], ["plane", "ship"])
    found = Detections(truth.boxes, [0, 1], ("plane", "ship"), torch.tensor([0.9, 0.8]))
    assert evaluate([found], [truth], CLASSES).AP50 == 1
    assert evaluate([found], [truth], CLASSES).counts["storage tank"]["gts"] == 0
    dicts = [[d.relabel(CLASSES).to_dict() for d in side] for side in ([found], [truth])]
    assert (
        evaluate(*dicts, CLASSES, protocol="mmrotate").mAP
        == evaluate([found], [truth], CLASSES, protocol="mmrotate").mAP
    )
    with pytest.raises(ValueError, match="'plane'; expected one of the classes ship"):
        evaluate([found], [truth], ["ship"])


def test_tiles_are_merged_in_memory(tmp_path):
    "The same from boxes, from corners and through files."
    from atss_nb.data.dota import parse_task1
    from atss_nb.evaluation.task1 import write_task1
    from atss_nb.tiles.merge import merge_results, merge_tiles

    rng = torch.Generator().manual_seed(0)
    places = [("P1__256__0___0", 0, 0), ("P1__256__128___0", 128, 0), ("P2__256__0___128", 0, 128)]
    tiles = []
    for name, x, y in places:
        boxes = torch.rand(12, 5, generator=rng, dtype=torch.float64) * torch.tensor([60, 60, 40, 30, 1.5])
        boxes[:, :2] += 128 - torch.tensor([x, y])
        scores = torch.rand(12, generator=rng, dtype=torch.float64)
        tiles.append(Detections(boxes, torch.arange(12) % 2, ("ship", "plane"), scores, name))
    whole = merge_tiles(tiles)
    assert [d.image_id for d in whole] == ["P1", "P2"] and sum(map(len, whole)) < 36
    outlines = merge_tiles([d.replace(corners=d.polygons) for d in tiles])
    for a, b in zip(whole, outlines, strict=True):
        assert torch.allclose(a.polygons, b.polygons) and torch.equal(a.scores, b.scores)
    write_task1(tmp_path / "tiles", tiles)
    merge_results(tmp_path / "tiles", tmp_path / "whole")
    for name in ("ship", "plane"):
        lines = [(d.image_id, one.score, one.polygon.ravel()) for d in whole for one in d if one.name == name]
        read = [row[1:] for row in parse_task1(tmp_path / f"whole/Task1_{name}.txt")]
        assert [row[:2] for row in read] == [row[:2] for row in lines]
        assert np.allclose([row[2] for row in read], [row[2] for row in lines], atol=2e-6)
    with pytest.raises(ValueError, match="'P9'; expected one of the 0 tiles"):
        merge_tiles([tiles[0].replace(image_id="P9")], {})


def test_drawn_and_saved_by_name(tmp_path):
    import matplotlib

    matplotlib.use("agg")
    found = Detections(torch.tensor([[50.0, 40, 60, 10, 0.5]]), [0], CLASSES, torch.tensor([0.5]), "a")
    assert [t.get_text() for t in found.replace(source=torch.zeros(3, 80, 100)).plot().texts] == ["ship 0.50"]
    for suffix in ("json", "csv", "txt", "geojson"):
        found.save(tmp_path / f"a.{suffix}")
        assert "ship" in (tmp_path / f"a.{suffix}").read_text()
    with pytest.raises(ValueError, match="did you mean"):
        found.save(tmp_path / "a.jso")


def test_text_for_people():
    found = Detections(torch.tensor([[50.0, 40, 60, 10, 0.5]] * 7), [0] * 7, CLASSES, torch.ones(7), "P1")
    assert repr(found).startswith("Detections in P1: 7 ship") and "... and 2 more" in repr(found)
    assert "nothing" in repr(found[:0])


def test_only_what_is_asked_for_must_be_installed():
    "Neither supervision nor pandas is loaded on the way, and their absence is said."
    code = (
        "import sys; sys.modules['supervision'] = sys.modules['pandas'] = None\n"
        "from atss_nb.data.detections import Detections\n"
        "found = Detections.from_polygons([], [], ['ship'])\n"
        "for name in ('to_supervision', 'to_frame'):\n"
        "    try: getattr(found, name)()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "supervision is missing: pip install supervision",
        "pandas is missing: pip install pandas",
    ]
