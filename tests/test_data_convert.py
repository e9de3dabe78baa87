"Every format gives back what it can hold, says what it cannot, and names file and place of what it cannot read."

import json
import os
import shutil
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atss_nb.core.errors import LabelError
from atss_nb.data.coco import read_coco
from atss_nb.data.columns import Detection
from atss_nb.data.convert import LabelledSet, detect_format, fit_to, read_dataset, rename, write_dataset
from atss_nb.data.detections import Detections
from atss_nb.data.dota import read_dota
from atss_nb.data.folders import LabelledImage
from atss_nb.data.formats import FORMATS
from atss_nb.data.json import read_labelme
from atss_nb.data.xml import (
    DIOR_CLASSES,
    HRSC_31_CLASSES,
    read_dior,
    read_hrsc,
    read_rolabelimg,
    write_hrsc,
)

SHARED = Path(__file__).parents[2] / "shared/data"
WRITTEN = {name: form for name, form in FORMATS.items() if form.save}
W, H = 97, 61  # px; sides that no coordinate divides evenly

coordinate = st.integers(-(10**9), 10**9).map(lambda n: n / 10**6)  # six decimals, up to 1000 px
text = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=8)
word = st.text(string.ascii_letters, min_size=1, max_size=8)


@st.composite
def rectangles(draw):
    "Corners of a turned rectangle, from numbers of six decimals."
    cx, cy = draw(st.integers(0, 100_000_000)) / 1e6, draw(st.integers(0, 100_000_000)) / 1e6
    w, h = draw(st.integers(1_000_000, 90_000_000)) / 1e6, draw(st.integers(1_000_000, 90_000_000)) / 1e6
    t = draw(st.integers(-1_570_000, 1_570_000)) / 1e6
    along = np.array([np.cos(t), np.sin(t)]) * w / 2
    across = np.array([-np.sin(t), np.cos(t)]) * h / 2
    return np.array([cx, cy]) + [-along - across, along - across, along + across, across - along]


@st.composite
def upright(draw):
    x1, x2 = sorted(draw(st.tuples(st.integers(0, 999), st.integers(0, 999))))
    y1, y2 = sorted(draw(st.tuples(st.integers(0, 999), st.integers(0, 999))))
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], float)


quads = st.lists(coordinate, min_size=8, max_size=8).map(lambda c: np.array(c).reshape(4, 2))
inside = st.lists(st.integers(0, 60_000_000).map(lambda n: n / 1e6), min_size=8, max_size=8)
SHAPES = {"quad": quads, "rectangle": rectangles(), "upright": upright()}


# what formats call their own keys, and what stands beside them
OWN = [
    "name",
    "difficult",
    "robndbox",
    "robndbox/cx",
    "robndbox/x_left_top",
    "bndbox",
    "type",
    "object",
    "object/name",
    "size",
    "size/width",
    "size/width/x",
    "Class_ID",
    "mbox_cx",
    "mbox_ang",
    "header_x",
    "HRSC_Objects",
    "Img_SizeWidth",
    "label",
    "points",
    "shape_type",
    "flags",
    "flags/difficult",
    "flags/sail",
    "shapes",
    "imageData",
    "imageHeight",
    "group_id",
    "mask",
    "id",
    "file_name",
    "height",
    "rotation",
    "vertices",
    "bbox",
    "segmentation",
    "score",
    "head",
    "a",
    "a/b",
    "a/b/c",
    "own.name",
    "own.own.name",
    "own.label",
    "own.id",
    "own.rotation",
    "own.flags/difficult",
    "own.own.object/x",
    "imagesource",
    "gsd",
]


def remarks(fits):
    "Entries that a format has a place for; some have the names of its own keys."
    held = st.tuples(
        st.one_of(word, st.sampled_from(OWN)), st.one_of(text, st.sampled_from(["true", "007", "-1", "²"]))
    )
    entries = held.filter(lambda entry: fits(*entry))
    return st.lists(entries, max_size=3).map(dict)


@st.composite
def held(draw, name):
    "An annotation that a format can hold."
    form = FORMATS[name]
    kinds = st.sampled_from(form.names) if isinstance(form.names, tuple) else word
    kinds = text if form.names is None else kinds
    shape = inside.map(lambda c: np.array(c).reshape(4, 2)) if name == "yolo-obb" else SHAPES[form.shape]
    objects = []
    for _ in range(draw(st.integers(1 if name == "task1" else 0, 4))):
        one = Detection(draw(kinds), draw(shape), difficult=draw(st.integers(0, form.difficult)))
        if name == "task1" or (form.scores and draw(st.booleans())):
            one = one._replace(score=draw(st.floats(0, 1)))
        if form.heads and draw(st.booleans()):
            one = one._replace(head=(draw(coordinate), draw(coordinate)))
        if form.attributes is not None:
            one = one._replace(attributes=draw(remarks(form.attributes)))
        objects.append(one)
    meta = draw(remarks(form.meta)) if form.meta else {}
    return Detections.from_rows(objects, size=(H, W), meta=meta)


def corner_set(poly) -> list:
    "The corners, whichever comes first."
    return sorted(np.round(poly, 5).tolist())


def same(name: str, a: Detections, b: Detections) -> None:
    "Equal in everything that the format holds."
    form, lists = FORMATS[name], [list(a), list(b)]
    assert len(a) == len(b)
    if name == "task1":
        lists = [sorted(rows, key=lambda one: one.name) for rows in lists]  # by class, then in order
    for one, other in zip(*lists, strict=True):
        if form.shape == "rectangle":
            np.testing.assert_allclose(corner_set(one.polygon), corner_set(other.polygon), atol=2e-5)
        else:
            assert one.polygon.tolist() == other.polygon.tolist()
        assert (one.name, one.difficult, one.score, one.head) == (
            other.name, other.difficult, other.score, other.head,
        )  # fmt: skip
        assert one.attributes.items() <= other.attributes.items()
    assert a.meta.items() <= b.meta.items()


def one_image(folder: Path, annotation: Detections, split="train", name="P0001") -> LabelledImage:
    path = folder / f"source/{split}/{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        Image.new("RGB", (W, H)).save(path)
    return LabelledImage(name, split, path, annotation=annotation)


@pytest.mark.parametrize("name", [n for n, form in WRITTEN.items() if form.attributes])
def test_a_remark_may_be_called_like_a_key_of_the_format(tmp_path, name):
    form = FORMATS[name]
    kind = form.names[0] if isinstance(form.names, tuple) else "ship"
    keys = [key for key in OWN if form.attributes(key, "x7")]
    boxes = np.array([[10, 5], [30, 5], [30, 15], [10, 15]]) + np.arange(len(keys))[:, None, None]
    known = {"attributes": [{key: "x7"} for key in keys], "meta": dict.fromkeys(keys, "x8"), "size": (H, W)}
    ships = Detections.from_polygons(boxes, [kind] * len(keys), **known)
    data = LabelledSet("", [one_image(tmp_path, ships)], (kind,))
    assert write_dataset(name, data, tmp_path / "out", images="link") == [] and len(keys) > 30
    same(name, ships, read_dataset(name, tmp_path / "out").images[0].annotation)


@pytest.mark.parametrize("name", WRITTEN)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_what_a_format_can_hold_comes_back(tmp_path_factory, name, data):
    annotation = data.draw(held(name))
    folder = tmp_path_factory.mktemp("trip")
    classes = tuple(dict.fromkeys(annotation.names)) or ("ship",)
    if name == "coco-boxes":
        annotation = annotation.replace(corners=annotation.polygons.round())
    held_set = LabelledSet("", [one_image(folder, annotation)], classes)
    assert write_dataset(name, held_set, folder / "out", images="none") == [], "nothing is lost"
    if name != "task1":
        source = folder / "source/train/P0001.png"
        target = folder / "out" / FORMATS[name].place(LabelledImage("P0001", "train"), "image")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target.with_suffix(".png"))
    again = read_dataset(name, folder / "out")
    assert [one.name for one in again.images] == ["P0001"]
    same(name, annotation, again.images[0].annotation)
    shutil.rmtree(folder)


FULL = Detections.from_polygons(
    [[[10, 5], [30, 5], [33, 15], [10, 15]], [[40, 5], [50, 5], [50, 9], [40, 9]]],
    ["ship", "ship"],
    difficult=[1, 2],
    meta={"acquisition dates": "2014", "gsd": "0.1"},
    scores=[0.5, np.nan],
    heads=[[30, 10], [np.nan, np.nan]],
    attributes=[{"truncated": "0"}, {"odd key!": "x"}],
)
EVERYTHING = {
    "difficulty": 2, "score": 1, "foremost point": 1, "header entry 'gsd'": 1, "header entry 'acquisition dates'": 1,
    "attribute 'truncated'": 1, "attribute 'odd key!'": 1,
}  # fmt: skip
TURNED, NO_RECTANGLE = (
    "turned outline (upright box around it)",
    "outline that is no rectangle (smallest box around it)",
)


def without(*kept, **more) -> dict:
    return {key: n for key, n in EVERYTHING.items() if not any(k in key for k in kept)} | more


LOST = {
    "dota": without("difficulty", "header"),
    "hrsc2016": without("difficulty", "gsd", "truncated", "foremost") | {NO_RECTANGLE: 1},
    "hrsc2016-31": without("difficulty", "gsd", "truncated", "foremost") | {NO_RECTANGLE: 1},
    "dior-r": without("difficulty", "gsd", "truncated"),
    "coco": {},
    "coco-boxes": {TURNED: 1},
    "yolo-obb": without("score"),
    "rolabelimg": without("difficulty", "gsd", "truncated") | {NO_RECTANGLE: 1},
    "labelme": without("difficulty", "header", "attribute") | {"difficulty above 1": 1},
    "task1": without("score"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_a_format_cannot_hold_is_counted(name):
    fitted, lost = fit_to(FULL, FORMATS[name])
    assert dict(lost) == LOST[name]
    assert not [key for key in fit_to(fitted, FORMATS[name])[1] if "outline" not in key]


def test_losses_are_warned_of_and_returned(tmp_path, caplog):
    data = LabelledSet("", [one_image(tmp_path, FULL)], ("ship",))
    lines = write_dataset("yolo-obb", data, tmp_path / "out")
    assert "not everything could be kept: 6" in caplog.text
    caplog.clear()
    assert write_dataset("yolo-obb", data, tmp_path / "quiet", report=False) == lines and not caplog.records
    assert "difficulty: 2 lost, yolo-obb has no place for it" in lines and len(lines) == 6


@pytest.mark.parametrize("name", [n for n in WRITTEN if n != "task1"])
def test_splits_and_unlabelled_images_survive(tmp_path, name):
    ship = Detections.from_polygons([[[10, 5], [30, 5], [30, 15], [10, 15]]], ["ship"])
    sea = Detections.from_polygons([], [])
    images = [one_image(tmp_path, ship, "train", "a"), one_image(tmp_path, sea, "val", "b")]
    images.append(one_image(tmp_path, None, "test", "c"))
    data, one_file = LabelledSet("", images, ("ship",)), name.startswith("coco")
    lost = write_dataset(name, data, tmp_path / "out", images="link")
    assert ["image without labels: 1 lost" in line for line in lost] == [True] * one_file
    again = {one.name: one for one in read_dataset(name, tmp_path / "out").images}
    assert all(one.image.is_file() for one in again.values())
    found = {n: (one.split, len(one.annotation)) for n, one in again.items() if one.annotation is not None}
    assert found == {"a": ("train", 1), "b": ("val", 0)}
    assert again.keys() == {"a", "b"} if one_file else again["c"].split == "test"


def test_class_lists_keep_their_order(tmp_path):
    data = LabelledSet(
        "", [one_image(tmp_path, Detections.from_polygons([], []))], ("ship", "barge", "airplane")
    )
    for name in ("yolo-obb", "coco"):
        write_dataset(name, data, tmp_path / name)
        assert read_dataset(name, tmp_path / name).classes == data.classes


def test_two_images_of_one_name_are_refused(tmp_path):
    images = [
        one_image(tmp_path, Detections.from_polygons([], []), "train"),
        one_image(tmp_path, Detections.from_polygons([], []), "val"),
    ]
    with pytest.raises(ValueError, match="expected names that differ between splits"):
        write_dataset("dior-r", LabelledSet("", images, ()), tmp_path / "out")


def test_unknown_format_and_folder(tmp_path):
    with pytest.raises(ValueError, match="format='voc': expected one of 'dota', 'hrsc2016'"):
        read_dataset("voc", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        detect_format(tmp_path / "gone")
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "Task1_ship.txt").touch()
    with pytest.raises(ValueError, match="it looks like dota and task1"):
        detect_format(tmp_path)


def test_renaming_can_merge_classes_and_refuses_strangers(tmp_path):
    data = LabelledSet("", [one_image(tmp_path, FULL)], ("ship", "boat"))
    assert rename(data, {"boat": "ship"}).classes == ("ship",)
    with pytest.raises(ValueError, match="class='car': expected one of 'ship', 'boat'"):
        rename(data, {"car": "auto"})


# XML

DIOR = """<annotation><size><width>97</width><height>61</height></size>
<object><name>{name}</name><difficult>0</difficult><robndbox>
<x_left_top>1</x_left_top><y_left_top>2</y_left_top><x_right_top>9</x_right_top><y_right_top>2</y_right_top>
<x_right_bottom>9</x_right_bottom><y_right_bottom>7</y_right_bottom>
<x_left_bottom>1</x_left_bottom><y_left_bottom>7</y_left_bottom></robndbox></object></annotation>"""


@pytest.mark.parametrize("name", DIOR_CLASSES)
@pytest.mark.parametrize("change", [str.lower, str.upper, str.title, str])
def test_dior_names_in_any_case(tmp_path, name, change):
    (tmp_path / "a.xml").write_text(DIOR.format(name=change(name)))
    assert read_dior(tmp_path / "a.xml").names == [name]


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(lambda s: s.encode("utf-8", "replace"))))
@pytest.mark.parametrize("read", [read_dior, read_hrsc, read_rolabelimg, read_labelme, read_coco])
def test_rubbish_gives_a_label_error(tmp_path_factory, read, content):
    path = tmp_path_factory.getbasetemp() / "rubbish"
    path.write_bytes(content)
    with pytest.raises(LabelError, match=r"rubbish, .*; expected "):
        read(path)


@settings(max_examples=60, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "images",
                        "annotations",
                        "categories",
                        "shapes",
                        "label",
                        "points",
                        "id",
                        "name",
                        "file_name",
                        "bbox",
                        "flags",
                        "segmentation",
                        "image_id",
                        "category_id",
                        "height",
                        "width",
                        "imageHeight",
                        "shape_type",
                    ]
                ),
                inner,
                max_size=6,
            )
        ),
        max_leaves=20,
    )
)
@pytest.mark.parametrize("read", [read_labelme, read_coco])
def test_any_json_gives_a_label_error_or_labels(tmp_path_factory, read, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    try:
        read(path)
    except LabelError as error:
        assert str(error).startswith(f"{path}, ") and "; expected " in str(error)


@pytest.mark.parametrize(
    "content",
    [
        b'<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>',
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>',
        b'<!DOCTYPE a SYSTEM "http://127.0.0.1/a.dtd"><annotation>&x;</annotation>',
        b'<?xml version="1.0" encoding="gbk"?>\n<annotation><name>\xb4\xac</name></annotation>',
        b"<annotation>\n<name>\xff</name></annotation>",
        b"<annotation>\n<object>",
    ],
)
def test_hostile_and_damaged_xml(tmp_path, content):
    (tmp_path / "a.xml").write_bytes(content)
    with pytest.raises(LabelError, match=r"a\.xml, line \d"):
        read_rolabelimg(tmp_path / "a.xml")


def test_hrsc_levels(tmp_path):
    coarse = Detections.from_polygons([[[10, 5], [30, 5], [30, 15], [10, 15]]], ["ship"], size=(H, W))
    coarse.attributes[0]["Class_ID"] = "100000031"
    write_hrsc(tmp_path / "a.xml", coarse)
    assert read_hrsc(tmp_path / "a.xml", fine=True).names == ["Ford-class"]
    assert read_hrsc(tmp_path / "a.xml").attributes[0]["Class_ID"] == "100000031"
    for name in HRSC_31_CLASSES:
        write_hrsc(tmp_path / "a.xml", Detections.from_polygons(coarse.polygons, [name], size=(H, W)))
        assert read_hrsc(tmp_path / "a.xml", fine=True).names == [name]
    with pytest.raises(LabelError, match="expected one of the classes Nimitz"):
        read_hrsc(tmp_path / "a.xml", ["Nimitz"], fine=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no published files in {SHARED}")
def test_published_hrsc(tmp_path):
    path = SHARED / "fixtures/hrsc2016/100000006.xml"
    ship = read_hrsc(path, fine=True)
    assert (ship.names, ship.size, ship.difficult.tolist()) == (["Kuznetsov"], (816, 1172), [0])
    assert ship.heads.tolist() == [[143, 776]] and ship.meta["Img_Location"] == "69.040297,33.070036"
    write_hrsc(tmp_path / "a.xml", ship)
    old, new = (Counter(p.read_text().replace("\n", " ").split()) for p in (path, tmp_path / "a.xml"))
    gone = {
        word for word in old - new if not word.endswith("/>") and "Img_" not in word and "seg_" not in word
    }
    assert not gone, "every number of the published file is written as it was"


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no published files in {SHARED}")
def test_published_dior():
    data = read_dataset(None, SHARED / "fixtures/dior_r")
    assert (data.format, len(data.images), data.classes) == ("dior-r", 1, ("golffield",))
    a = data.images[0].annotation
    assert a.polygons[0].tolist() == [[133, 237], [684, 237], [684, 672], [133, 672]] and a.size == (800, 800)
    assert a.attributes[0] == {"pose": "Unspecified", "truncated": "0", "angle": "0"}


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no published files in {SHARED}")
@pytest.mark.parametrize("name", ["coco", "yolo-obb", "labelme", "dior-r"])
def test_published_dota_goes_there_and_back(tmp_path, name):
    "Published corners come back bit by bit, but for those over the border, which YOLO cannot hold."
    data = read_dataset("dota", SHARED / "dota/tiles")
    if name == "dior-r":
        data = rename(data, dict(zip(data.classes, DIOR_CLASSES, strict=False)))
    write_dataset(name, data, tmp_path / "out", images="link" if os.name == "posix" else "copy")
    again = {one.name: one.annotation for one in read_dataset(name, tmp_path / "out").images}
    assert sum(map(len, again.values())) == 133
    for one in data.images:
        corners = one.annotation.polygons
        if name == "yolo-obb":
            with Image.open(one.image) as image:
                corners = corners.numpy().clip(0, image.size)
        assert again[one.name].polygons.tolist() == corners.tolist()
        assert again[one.name].names == one.annotation.names


# problems


def test_all_problems_of_a_set_in_one_error(tmp_path):
    for split in ("train", "val"):
        for part in ("images", "labelTxt"):
            (tmp_path / split / part).mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (W, H)).save(tmp_path / split / f"images/{i}.png")
            (tmp_path / split / f"labelTxt/{i}.txt").write_text("1 2 3 4 5 6 7 8 ship\nx\ny\n")
    (tmp_path / "val/labelTxt/1.txt").unlink()
    with pytest.raises(LabelError, match="problems: 7") as caught:
        read_dataset("dota", tmp_path)
    assert "1.txt, line 3: 'y'" in str(caught.value) and "1.png: no label file 1.txt" in str(caught.value)


def test_a_missing_label_is_no_background(tmp_path):
    for name, label in (("labelme", "json"), ("rolabelimg", "xml")):
        folder = tmp_path / name / "train"
        folder.mkdir(parents=True)
        Image.new("RGB", (W, H)).save(folder / "a.png")
        with pytest.raises(LabelError, match=f"a.png: no label file a.{label}"):
            read_dataset(name, tmp_path / name)


def test_coco_with_lost_images_and_lost_entries(tmp_path):
    one = one_image(tmp_path, Detections.from_polygons([], []))
    write_dataset("coco", LabelledSet("", [one], ("ship",)), tmp_path / "out")
    shutil.copy(one.image, tmp_path / "out/images/train/P0002.png")
    with pytest.raises(LabelError, match="P0002.png: no label, instances_train.json does not name it"):
        read_dataset("coco", tmp_path / "out")
    (tmp_path / "out/images/train/P0002.png").unlink()
    (tmp_path / "out/images/train/P0001.png").unlink()
    with pytest.raises(LabelError, match="no image P0001.png"):
        read_dataset("coco", tmp_path / "out")


def test_wrong_encoding_names_the_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"gsd:1\n0 0 9 0 9 9 0 9 gr\xf6\xdfe 0\n")
    with pytest.raises(LabelError, match=r"a\.txt, line 2: .*; expected text in UTF-8"):
        read_dota(tmp_path / "a.txt")
    problems = []
    with pytest.raises(LabelError):
        read_dota(tmp_path / "a.txt", problems=problems)
