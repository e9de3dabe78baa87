"Windows and labels of tiles, against what mmrotate and the DOTA development kit make."

import json
import re
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.data.detections import Detections
from atss_nb.data.dota import read_dota
from atss_nb.tiles.tiles import STYLES, Tile, Tiling, make_tiles, tile_objects, window_starts

GOLDEN = Path(__file__).parent / "golden/10_split"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
CASES = [(style, key) for style in EXPECTED for key in EXPECTED[style]]


def image_and_tiling(style: str, key: str):
    "What a key such as I512x512|size=1024|gap=200|rate=1.0 says."
    name, size, gap, rate = re.fullmatch(r"(\w+)\|size=(\d+)\|gap=(\d+)\|rate=([\d.]+)", key).groups()
    width, height = map(int, name[1:].split("x"))
    return name, (height, width), Tiling(style.replace("_", "-"), int(size), int(gap), (float(rate),))


@pytest.mark.parametrize("style, key", CASES)
def test_golden_windows_and_labels(style, key):
    name, size, tiling = image_and_tiling(style, key)
    tiles, golden = make_tiles(name, size, tiling), EXPECTED[style][key]
    assert [tile.name for tile in tiles] == [one["id"] for one in golden]
    label = read_dota(GOLDEN / f"labelTxt/{name}.txt")
    for tile, one in zip(tiles, golden, strict=True):
        assert tile.window[:2].tolist() == one.get("window", [one.get("left"), one.get("up")])[:2]
        assert "window" not in one or tile.window.tolist() == one["window"]
        found, _ = tile_objects(label, tile, size, tiling)
        fields = [line.split() for line in one["lines"]]
        assert found.names == [row[8] for row in fields]
        assert found.difficult.tolist() == [int(row[9]) for row in fields]
        corners = np.array([row[:8] for row in fields], float).reshape(-1, 4, 2)
        assert np.abs(found.polygons.numpy() - corners).max(initial=0) < 1e-3


@given(st.integers(1, 9000), st.integers(1, 2000), st.floats(0, 0.99))
def test_windows_cover_everything_with_the_overlap_asked_for(length, size, share):
    gap = int(size * share)
    starts = np.array(window_starts(length, size, size - gap))
    assert starts[0] == 0 and starts[-1] == max(length - size, 0)
    assert (np.diff(starts) > 0).all() and (np.diff(starts) <= size - gap).all()


corner = st.tuples(st.integers(-40, 340), st.integers(-40, 340))
quads = st.lists(st.lists(corner, min_size=4, max_size=4), max_size=6)


def whole_label(polys) -> Detections:
    return Detections.from_polygons(np.array(polys, float).reshape(-1, 4, 2), ["ship"] * len(polys))


@given(quads, st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=150)
def test_exact_keeps_what_shapely_keeps(polys, x, y):
    "Any four points, crossing ones too, one polygon at a time."
    tile, label = Tile("t", "i", x, y, 100), whole_label(polys)
    found, rows = tile_objects(label, tile, (300, 300), Tiling(min_iof=0.5))
    expected, window = [], shapely.box(x, y, x + 100, y + 100)
    for i, poly in enumerate(label.polygons.numpy()):
        shape = shapely.make_valid(shapely.Polygon(poly))
        share = shape.intersection(window).area / shape.area if shape.area else 0
        if abs(share - 0.5) < 1e-9:
            return  # on the edge of the rule, rounding decides
        if share > 0.5:
            expected.append(i)
    assert rows.tolist() == expected
    assert (found.polygons.numpy() == label.polygons.numpy()[rows] - (x, y)).all()
    inside = [window.covers(shapely.MultiPoint(label.polygons[i].numpy())) for i in expected]
    assert found.difficult.tolist() == [0 if whole else 2 for whole in inside]


@given(quads)
@settings(max_examples=100)
def test_devkit_pieces_lie_in_their_tile(polys):
    label, tiling = whole_label(polys), Tiling("dota-devkit", 100, 20)
    for tile in make_tiles("i", (300, 300), tiling):
        found, rows = tile_objects(label, tile, (300, 300), tiling)
        assert len(found) == len(rows) and found.polygons.isfinite().all()
        assert found.polygons.numpy().min(initial=0) >= 0 and found.polygons.numpy().max(initial=0) <= 100


def test_difficulty_can_be_kept():
    label = Detections.from_polygons(
        np.array([[[-4, 4], [8, 4], [8, 8], [-4, 8]]], float), ["ship"], difficult=[1]
    )
    tile = Tile("t", "i", 0, 0, 100)
    for style, marked in (("exact", 2), ("mmrotate", 2), ("dota-devkit", 2)):
        for value, expected in ((2, marked), (None, 1), (0, 0)):
            tiling = Tiling(style, min_iof=0.6667 if style == "dota-devkit" else 0.5, cut_difficulty=value)
            assert tile_objects(label, tile, (90, 90), tiling)[0].difficult.tolist() == [expected]


def test_rates():
    "mmrotate looks at larger and smaller windows, the kit at smaller and larger images."
    tiles = make_tiles("P0", (3000, 4000), Tiling("mmrotate", gap=500, rates=(0.5, 1, 1.5)))
    assert {(t.size, t.scale) for t in tiles} == {(2048, 1), (1024, 1), (682, 1)}
    tiles = make_tiles("P0", (3000, 4000), Tiling("dota-devkit", gap=500, rates=(0.5, 1, 1.5)))
    assert {(t.size, t.scale) for t in tiles} == {(1024, 0.5), (1024, 1), (1024, 1.5)}
    assert {t.name.split("__")[1] for t in tiles} == {"0.5", "1", "1.5"}
    with pytest.raises(ValueError, match="same tile names twice"):
        make_tiles("P0", (3000, 4000), Tiling(rates=(1, 1)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"style": "paddle"}, "style='paddle': expected one of 'exact', 'mmrotate', 'dota-devkit'"),
        ({"gap": -1}, "0 <= gap < size, got gap -1"),
        ({"rates": ()}, "positive numbers, at least one"),
        ({"rates": (0,)}, "positive numbers"),
        ({"min_iof": 1.5}, "min_iof: expected 0 to 1, got 1.5"),
    ],
)
def test_impossible_tilings(changes, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**changes)


def test_no_objects_no_error():
    for style in STYLES:
        for tile in make_tiles("P0", (1, 1), Tiling(style)):
            assert len(tile_objects(whole_label([]), tile, (1, 1), Tiling(style))[0]) == 0
