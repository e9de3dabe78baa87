"What was found, in files that others read, and read back."

import csv
import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.cli.images import OUTPUT_FORMATS, write_outputs
from atss_nb.data.detections import Detections
from atss_nb.data.dota import read_dota
from atss_nb.data.exchange import COLUMNS
from atss_nb.evaluation.task1 import read_task1
from atss_nb.geometry.boxes import obb2poly
from atss_nb.inference.outputs import (
    image_place,
    read_predictions_json,
    write_geojson,
    write_predictions_csv,
    write_predictions_json,
)

number = st.floats(-5000, 5000, width=32)
side = st.floats(1, 500, width=32)
row = st.tuples(
    st.tuples(number, number, side, side, st.floats(-1.5, 1.5, width=32)),
    st.floats(0, 1, width=32),
    st.integers(0, 1),
)


def prediction(name: str, rows, source=None) -> Detections:
    boxes = torch.tensor([r[0] for r in rows]).view(-1, 5)
    scores, labels = torch.tensor([r[1] for r in rows]), torch.tensor([r[2] for r in rows]).long()
    return Detections(boxes, labels, ("ship", "storage-tank"), scores, name, source)


ROWS = [((60.0, 40.0, 50.0, 20.0, 0.5), 0.9, 0), ((140.3, 60.0, 30.0, 20.0, 0.1), 0.1, 1)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(row, max_size=4), min_size=1, max_size=3))
def test_json_and_csv_keep_every_digit(tmp_path_factory, images):
    folder = tmp_path_factory.mktemp("outputs")
    wrote = [prediction(f"P{i}", rows) for i, rows in enumerate(images)]
    write_predictions_json(folder / "a.json", wrote)
    for a, b in zip(wrote, read_predictions_json(folder / "a.json"), strict=True):
        assert a.image_id == b.image_id and a.classes == b.classes
        assert all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("boxes", "scores", "labels"))
    write_predictions_csv(folder / "a.csv", wrote)
    with (folder / "a.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(x["score"]) for x in lines] == [s for p in wrote for s in p.scores.tolist()]
    boxes = torch.tensor([[float(x[key]) for key in COLUMNS[3:8]] for x in lines]).view(-1, 5)
    assert torch.equal(boxes, torch.cat([p.boxes for p in wrote]))


def geotiff(path, crs="EPSG:32632"):
    rasterio = pytest.importorskip("rasterio", reason="needs rasterio: pip install 'atss_nb[geo]'")
    place = rasterio.transform.from_origin(500_000, 5_300_000, 0.5, 0.5)
    shape = {"width": 200, "height": 100, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=place, **shape) as image:
        image.write(np.zeros((3, 100, 200), np.uint8))
    return path


def test_every_format_in_one_call(tmp_path):
    found = prediction("map", ROWS, geotiff(tmp_path / "map.tif"))
    write_outputs(tmp_path, [found], list(OUTPUT_FORMATS), 0.5)
    assert len(read_task1(tmp_path, found.classes, ["map"])[0]) == len(
        read_predictions_json(tmp_path / "predictions.json")[0]
    )
    labels = read_dota(tmp_path / "labelTxt/map.txt")
    assert labels.names == ["ship"]  # the other scores less than 0.5
    np.testing.assert_allclose(labels.polygons[0], obb2poly(found.boxes.double())[0].numpy(), atol=1e-9)


def test_corners_lie_where_the_image_does(tmp_path):
    found = prediction("map", ROWS, geotiff(tmp_path / "map.tif"))
    write_geojson(tmp_path / "map.geojson", found)
    written = json.loads((tmp_path / "map.geojson").read_text())
    assert written["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
    polys = obb2poly(found.boxes.double()).numpy()
    for feature, poly in zip(written["features"], polys, strict=True):
        ring = np.array(feature["geometry"]["coordinates"][0])
        assert ring[0].tolist() == ring[4].tolist()
        np.testing.assert_allclose(ring[:4], poly * [0.5, -0.5] + [500_000, 5_300_000], atol=1e-6)
    assert [feature["properties"]["class"] for feature in written["features"]] == ["ship", "storage-tank"]


def test_an_image_without_a_place_is_named(tmp_path):
    with pytest.raises(ValueError, match="plain.tif: expected a GeoTIFF"):
        image_place(geotiff(tmp_path / "plain.tif", crs=None))


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(ImportError, match=r"pip install 'atss_nb\[geo\]'"):
        image_place(tmp_path / "map.tif")


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"classes": [], "images": [{}]}'])
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(ValueError, match="other.json"):
        read_predictions_json(tmp_path / "other.json")


def test_one_name_for_two_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 times"):
        write_predictions_json(tmp_path / "a.json", [prediction("a", ROWS)] * 2)
    assert list(tmp_path.iterdir()) == []
