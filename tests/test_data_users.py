"Data sets as the people who have them wrote them: what is valid is read, and what is passed over is named."

import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image, ImageDraw, UnidentifiedImageError

from atss_nb.cli.main import atss
from atss_nb.core import errors
from atss_nb.core.errors import LabelError
from atss_nb.core.images import check_image, image_size, read_pixels
from atss_nb.data.convert import detect_format, read_dataset, write_dataset
from atss_nb.data.datasets import open_dataset
from atss_nb.data.dota import parse_task1, read_dota
from atss_nb.data.folders import NoSuchSplit
from atss_nb.evaluation.task1 import read_image_ids

W, H = 120, 90
TURNED = np.array(
    [[31.179, 23.938], [65.821, 43.938], [58.821, 56.062], [24.179, 36.062]]
)  # 40 x 14, 30 degrees
SHARES = " ".join(f"{x:.9f}" for x in (TURNED / (W, H)).ravel())
DOTA = " ".join(str(x) for x in TURNED.ravel())


@pytest.fixture(autouse=True)
def warned(caplog):
    "Warnings are given once a process; here once a test."
    errors.warn.cache_clear()
    caplog.set_level(logging.WARNING, "atss_nb")
    return caplog


def image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((W, H), 50).convert("RGB").save(path)
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def corners(polygon) -> list:
    return sorted(np.round(np.asarray(polygon), 1).tolist())


def assert_turned(polygon, atol: float = 0.05) -> None:
    np.testing.assert_allclose(corners(polygon), corners(TURNED), atol=atol)


def found(root: Path, format: str | None = None) -> dict[tuple[str, str], int]:
    "(split, image) -> objects; -1 without labels."
    data = read_dataset(format, root)
    return {(o.split, o.name): -1 if o.annotation is None else len(o.annotation) for o in data.images}


def yolo(root: Path, yaml: str = "train: images/train\nnames: [silo]\n", line: str = f"0 {SHARES}") -> Path:
    image(root / "images/train/a.png")
    text(root / "labels/train/a.txt", line + "\n")
    text(root / "data.yaml", yaml)
    return root


def test_yolo_path_key_beside_the_folder(tmp_path):
    "How dota8.yaml of Ultralytics is written."
    yolo(tmp_path / "tiny").joinpath("data.yaml").unlink()
    text(tmp_path / "tiny.yaml", "path: tiny # root\ntrain: images/train\nnames:\n  0: silo\n")
    assert found(tmp_path) == found(tmp_path / "tiny.yaml", "yolo-obb") == {("train", "a"): 1}


def test_yolo_parent_paths(tmp_path):
    "Roboflow writes ../train/images although the folder lies beside the file."
    image(tmp_path / "set/train/images/a.png")
    text(tmp_path / "set/train/labels/a.txt", f"0 {SHARES}\n")
    text(tmp_path / "set/data.yaml", "train: ../train/images\nnc: 1\nnames: ['silo']\n")
    assert found(tmp_path / "set") == {("train", "a"): 1}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[no, yes]", ("no", "yes")),
        ("\n  0: 737\n  1: ~", ("737", "~")),
        ("[A320, 1.0]", ("A320", "1.0")),
        ("{1: on, 0: off}", ("off", "on")),
    ],
)
def test_yaml_names_are_the_text_that_stands_there(tmp_path, names, expected):
    assert (
        read_dataset(None, yolo(tmp_path, f"train: images/train\nnc: 2\nnames: {names}\n")).classes
        == expected
    )


def test_yolo_background_needs_no_label_file(tmp_path, warned):
    image(yolo(tmp_path) / "images/train/sea.png")
    assert found(tmp_path) == {("train", "a"): 1, ("train", "sea"): 0}
    assert "1 images without a label file are taken as images without objects" in warned.text
    (tmp_path / "labels/train/a.txt").unlink()
    with pytest.raises(LabelError, match="no label file a.txt"):
        found(tmp_path)  # none has one: the folder is the wrong one


@pytest.mark.parametrize("number", ["0", "0.000000", "0e0"])
def test_yolo_class_written_as_a_float(tmp_path, number):
    assert found(yolo(tmp_path, line=f"{number} {SHARES}")) == {("train", "a"): 1}


@pytest.mark.parametrize("number", ["0.5", "nan", "1", "-0.1", "zero"])
def test_yolo_class_that_is_no_number_of_the_list(tmp_path, number):
    with pytest.raises(LabelError, match="a class number of data.yaml: 0"):
        found(yolo(tmp_path, line=f"{number} {SHARES}"))


@pytest.mark.parametrize("points", [3, 5, 6, 40])
def test_yolo_outlines_become_the_smallest_box(tmp_path, points):
    angle = np.linspace(0, 2 * np.pi, points, endpoint=False)
    ring = np.stack([60 + 40 * np.cos(angle), 45 + 10 * np.sin(angle)], 1) / (W, H)
    line = "0 " + " ".join(map(str, ring.ravel()))
    one = next(iter(read_dataset(None, yolo(tmp_path, line=line)).images[0].annotation))
    assert one.attributes == {"vertices": str(points)} and one.box[2] > 2 * one.box[3] or points == 3


def test_yolo_two_folders_a_split_with_the_same_stems(tmp_path):
    for flight in ("north", "south"):
        image(tmp_path / flight / "images/001.png")
        text(tmp_path / flight / "labels/001.txt", f"0 {SHARES}\n")
    text(tmp_path / "data.yaml", "train: [north/images, south/images]\nnames: [silo]\n")
    assert sorted(found(tmp_path).values()) == [1, 1]


def test_yolo_lists_of_images_may_share_a_folder(tmp_path):
    yolo(tmp_path, "train: train.txt\nval: val.txt\nnames: [silo]\n")
    image(tmp_path / "images/train/b.png")
    text(tmp_path / "labels/train/b.txt", f"0 {SHARES}\n")
    text(tmp_path / "train.txt", "./images/train/a.png\n")
    text(tmp_path / "val.txt", "images/train/b.png\n\n")
    assert found(tmp_path) == {("train", "a"): 1, ("val", "b"): 1}


def test_label_studio_and_xanylabeling_export_yolo_with_classes_txt(tmp_path):
    image(tmp_path / "images/5f-quay.png")
    text(tmp_path / "labels/5f-quay.txt", f"1 {SHARES}\n")
    text(tmp_path / "classes.txt", "barge\nbuoy\n")
    text(tmp_path / "notes.json", '{"categories": []}')
    data = read_dataset(None, tmp_path)
    assert (data.format, data.classes, data.images[0].annotation.names) == (
        "yolo-obb",
        ("barge", "buoy"),
        ["buoy"],
    )
    assert_turned(data.images[0].annotation.polygons[0])


def test_mmrotate_folders(tmp_path):
    for split, label in (("trainval", f"{DOTA} van 0\n"), ("test", "")):
        image(tmp_path / split / "images/P3.png")
        text(tmp_path / split / "annfiles/P3.txt", label)
    assert detect_format(tmp_path) == "dota"
    assert found(tmp_path) == {("train", "P3"): 1, ("test", "P3"): 0}


def test_folders_that_are_no_split_are_named(tmp_path, warned):
    for split in ("train", "minival"):
        image(tmp_path / split / "images/a.png")
        text(tmp_path / split / "labelTxt/a.txt", f"{DOTA} van 0\n")
    (tmp_path / "notes").mkdir()
    assert found(tmp_path) == {("train", "a"): 1}
    assert "not read, no split is called minival; expected train, trainval, val, valid, test" in warned.text


@pytest.mark.parametrize(
    "stray", ["images/Thumbs.db", "images/desktop.ini", "images/a.png.aux.xml", "images/a.png.ovr", "images/a.tfw",
              "labelTxt/classes.txt", "labelTxt/labels.cache"]
)  # fmt: skip
def test_by_products_are_passed_over(tmp_path, stray):
    image(tmp_path / "images/a.png")
    text(tmp_path / "labelTxt/a.txt", f"{DOTA} van 0\n")
    text(tmp_path / stray, "rubbish")
    assert found(tmp_path, "dota") == {("", "a"): 1}


@pytest.mark.parametrize("stray", ["images/a.doc", "labelTxt/lost.txt", "labelTxt/a.csv"])
def test_strangers_are_not(tmp_path, stray):
    test_by_products_are_passed_over(tmp_path, "images/Thumbs.db")
    text(tmp_path / stray, "")
    with pytest.raises(LabelError, match=Path(stray).name):
        found(tmp_path, "dota")


def test_dota_lines_with_commas(tmp_path):
    path = text(
        tmp_path / "a.txt", DOTA.replace(" ", ",") + ",tank,0\n" + DOTA.replace(" ", ", ") + ", ship, 1\n"
    )
    read = read_dota(path)
    assert (read.names, read.difficult.tolist()) == (["tank", "ship"], [0, 1])
    assert read.polygons[1].tolist() == TURNED.tolist()


@pytest.mark.parametrize("content", ["{}\n\n\n", "\ufeff{}", "\n{}\n \n", "{}  \r\n"])
def test_blank_lines_in_task1_mean_nothing(tmp_path, content):
    path = tmp_path / "Task1_ship.txt"
    path.write_bytes(content.replace("{}", f"P1 5e-1 {DOTA}").encode())
    assert [row[1:3] for row in parse_task1(path)] == [("P1", 0.5)]
    path.write_bytes("\ufeff".encode())
    assert parse_task1(path) == []


def coco(root: Path, split: str = "train", name: str = "a.png", kinds=None, **one) -> Path:
    "A COCO file with one object, and its image in the folder for all."
    image(root / "images" / name)
    page = {"images": [{"id": 1, "file_name": name, "height": H, "width": W}]}
    page |= {"categories": kinds or [{"id": 1, "name": "barge"}]}
    page |= {"annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0} | one]}
    return text(root / f"annotations/instances_{split}.json", json.dumps(page))


FRAME = {"bbox": [25.0, 33.0, 40.0, 14.0], "segmentation": []}


def only(root: Path):
    return next(iter(read_dataset(None, root).images[0].annotation))


@pytest.mark.parametrize(
    "shape",
    [
        FRAME | {"attributes": {"occluded": False, "rotation": 30.0}},  # CVAT
        {"bbox": [45, 40, 40, 14, -30.0]},  # detectron2: against the clock
        FRAME | {"segmentation": [TURNED.ravel().tolist()]},
    ],
)
def test_coco_turned_boxes(tmp_path, shape):
    coco(tmp_path, **shape)
    assert_turned(only(tmp_path).polygon)
    assert "rotation" not in only(tmp_path).attributes


def pixels() -> np.ndarray:  # (H, W) bool
    picture = Image.new("1", (W, H))
    ImageDraw.Draw(picture).polygon([tuple(p) for p in TURNED], fill=1)
    return np.asarray(picture)


def test_coco_masks_in_run_lengths(tmp_path):
    mask = np.concatenate([[False], pixels().T.ravel()])  # column by column, starting outside
    ends = np.flatnonzero(np.diff(mask)) if mask.any() else []
    counts = np.diff([0, *ends, H * W]).tolist()
    coco(tmp_path, bbox=[24, 23, 42, 34], segmentation={"size": [H, W], "counts": counts})
    assert_turned(only(tmp_path).polygon, atol=2)


def test_coco_splits_may_share_a_folder(tmp_path):
    coco(tmp_path, "train", "a.png", **FRAME)
    coco(tmp_path, "val", "b.png", **FRAME)
    assert found(tmp_path) == {("train", "a"): 1, ("val", "b"): 1}
    image(tmp_path / "images/c.png")
    with pytest.raises(LabelError, match="problems: 1\n.*c.png: no label"):
        found(tmp_path)


@pytest.mark.parametrize("project", ["boats", "skiff"])
def test_coco_heading_of_roboflow_is_no_class(tmp_path, project):
    kinds = [
        {"id": 0, "name": project, "supercategory": "none"},
        {"id": 1, "name": "skiff", "supercategory": project},
    ]
    coco(tmp_path, kinds=kinds, **FRAME)
    assert read_dataset(None, tmp_path).classes == ("skiff",)


def test_coco_without_splits_says_so(tmp_path):
    coco(tmp_path, "default", **FRAME)
    with pytest.raises(NoSuchSplit, match="found 1 images in no split: divide the set into train and val"):
        open_dataset(tmp_path, "train")


def test_xanylabeling_mixed_shapes(tmp_path, warned):
    shapes = [
        {
            "label": "barge",
            "points": TURNED.tolist(),
            "shape_type": "rotation",
            "direction": 0.52,
            "attributes": {},
        },
        {"label": "barge", "points": [[80, 50], [100, 50], [100, 60], [80, 60]], "shape_type": "rectangle"},
        {"label": "corner", "points": [[5, 5]], "shape_type": "point"},
    ]
    image(tmp_path / "dock.png"), image(tmp_path / "empty sea.png")
    text(tmp_path / "dock.json", json.dumps({"shapes": shapes, "imageHeight": H, "imageWidth": W}))
    assert found(tmp_path) == {("", "dock"): 2, ("", "empty sea"): 0}
    assert (
        "shapes[2]: left out, a point has no box" in warned.text and "1 images without a label" in warned.text
    )


def test_yolo_gets_shares_from_0_to_1(tmp_path):
    "Ultralytics drops a whole image for one value outside."
    lines = ["-6 40 34 30 38 44 -2 54 ship 0", f"{DOTA} ship 0", "-9 -9 -2 -9 -2 -2 -9 -2 ship 0"]
    image(tmp_path / "in/images/pier.png")
    text(tmp_path / "in/labelTxt/pier.txt", "\n".join(lines))
    lost = write_dataset("yolo-obb", read_dataset(None, tmp_path / "in"), tmp_path / "out", report=False)
    assert [line.split(", ")[0] for line in lost] == [
        "corners over the border (moved to it): 1 lost",
        "object outside the image: 1 lost",
    ]
    written = (tmp_path / "out/labels/pier.txt").read_text().split("\n")[:-1]
    values = [float(x) for line in written for x in line.split()[1:]]
    assert len(written) == 2 and min(values) == 0 and max(values) <= 1
    assert_turned(read_dataset(None, tmp_path / "out").images[0].annotation.polygons[1])


def test_all_names_that_a_format_cannot_hold_in_one_message(tmp_path):
    image(tmp_path / "images/a.png")
    text(tmp_path / "labels/a.txt", f"0 {SHARES}\n1 {SHARES}\n2 {SHARES}\n")
    text(tmp_path / "data.yaml", "train: images\nnames: [storage tank, ship, ground track field]\n")
    with pytest.raises(
        ValueError, match="'ground track field' .*, 'storage tank' .*; expected names without"
    ) as caught:
        write_dataset("dota", read_dataset(None, tmp_path), tmp_path / "out")
    assert "--rename 'ground track field=ground-track-field' 'storage tank=storage-tank'" in str(caught.value)
    assert not (tmp_path / "out").exists()


CVAT = """<annotations><version>1.1</version><meta><task><labels><label><name>buoy</name></label>
<label><name>barge</name></label></labels></task></meta>
<image id="0" name="north/quay.png" subset="Train" width="120" height="90">
<box label="barge" occluded="1" xtl="25" ytl="33" xbr="65" ybr="47" rotation="30.0"><attribute name="kind">coal</attribute></box>
<polygon label="buoy" points="1,2;9,2;9,7;1,7"/><points label="buoy" points="5,5"/></image>
<image id="1" name="quay.png" subset="Validation" width="120" height="90"/></annotations>"""


def test_cvat_for_images(tmp_path, warned):
    image(tmp_path / "images/north/quay.png"), image(tmp_path / "images/quay.png")
    path = text(tmp_path / "annotations.xml", CVAT)
    data = read_dataset(None, tmp_path)
    assert (data.format, data.classes) == ("cvat", ("buoy", "barge"))
    barge, buoy = data.images[0].annotation
    assert_turned(barge.polygon)
    assert (dict(barge.attributes), buoy.name) == ({"kind": "coal", "occluded": "1"}, "buoy")
    assert sorted((one.split, one.image.parent.name) for one in data.images) == [
        ("train", "north"),
        ("val", "images"),
    ]
    assert "line 5: left out, <points> has no box" in warned.text
    image(tmp_path / "images/lost.png")
    with pytest.raises(LabelError, match="lost.png: no label, annotations.xml does not name it"):
        found(tmp_path)
    path.write_text("<annotations><track/></annotations>")
    with pytest.raises(LabelError, match="expected images: export as 'CVAT for images 1.1'"):
        found(tmp_path)
    with pytest.raises(ValueError, match="cvat: it is read and not written"):
        write_dataset("cvat", data, tmp_path / "out")


@pytest.mark.parametrize(
    ("old", "new"), [('xtl="25"', 'xtl="a"'), ('"30.0"', '"nan"'), ("9,2;9,7;1,7", "9"), ('"north/', '"../')]
)
def test_cvat_with_mistakes(tmp_path, old, new):
    text(tmp_path / "annotations.xml", CVAT.replace(old, new))
    with pytest.raises(LabelError, match=r"annotations.xml, line \d: .*; expected "):
        found(tmp_path)


def studio(root: Path, place: str = "/data/upload/4/77ab-quay.png", **change) -> Path:
    "A task of Label Studio; its box turns about the corner at the top left."
    (x, y), value = TURNED[0], {"rotation": 30, "rectanglelabels": ["barge"]}
    value |= {"x": x / W * 100, "y": y / H * 100, "width": 40 / W * 100, "height": 14 / H * 100}
    region = {
        "original_width": W,
        "original_height": H,
        "image_rotation": 0,
        "type": "rectanglelabels",
        "value": value,
    }
    point = {"type": "keypointlabels", "value": {"x": 1, "y": 2}}
    task = {"id": 5, "data": {"image": place}, "annotations": [{"id": 2, "result": [region | change, point]}]}
    todo = {"id": 6, "data": {"image": "later.png"}, "annotations": []}
    image(root / "77ab-quay.png")
    return text(root / "project-4.json", json.dumps([task, todo]))


@pytest.mark.parametrize(
    "place",
    [
        "/data/upload/4/77ab-quay.png",
        "/data/local-files/?d=set%2F77ab-quay.png",
        "https://x.org/77ab-quay.png?key=1",
    ],
)
def test_label_studio_json(tmp_path, warned, place):
    studio(tmp_path, place)
    assert read_dataset(None, tmp_path).format == "label-studio"
    assert found(tmp_path) == {("", "77ab-quay"): 1}
    assert_turned(only(tmp_path).polygon)
    assert (
        "[1]: left out, nobody has finished it" in warned.text
        and "result[1]: left out, it has no box" in warned.text
    )


@pytest.mark.parametrize(
    "change",
    [
        {"original_width": None},
        {"value": {}},
        {"image_rotation": 90},
        {"value": {"rectanglelabels": ["a"], "x": "a"}},
    ],
)
def test_label_studio_with_mistakes(tmp_path, change):
    studio(tmp_path, **change)
    with pytest.raises(LabelError, match=r"project-4.json, \[0\].*; expected "):
        found(tmp_path)


@pytest.mark.parametrize("line", ["P1", "P1.png", "/data/dota/val/images/P1.png", "images\\P1.TIF"])
def test_lists_of_images_as_other_tools_write_them(tmp_path, line):
    assert read_image_ids(text(tmp_path / "set.txt", f"{line}\n\n")) == ["P1"]


def test_tiff_with_bands_that_pillow_does_not_know(tmp_path, monkeypatch):
    "Four bands of a satellite, as GDAL writes them: the first three are read."
    bands, path = np.random.default_rng(0).integers(0, 256, (H, W, 4), np.uint8), tmp_path / "scene.tif"
    picture = pyvips.Image.new_from_memory(bands.tobytes(), W, H, 4, "uchar")
    picture.copy(interpretation="b-w").tiffsave(str(path))
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    assert image_size(path) == check_image(path, decode=True) == (H, W)
    assert (read_pixels(path) == bands[..., :3]).all()
    monkeypatch.setitem(sys.modules, "pyvips", None)
    with pytest.raises(
        OSError, match="scene.tif: cannot be read .Pillow does not know its bands, and pyvips"
    ):
        check_image(path)


HRSC = f"""<HRSC_Image><Img_SizeWidth>{W}</Img_SizeWidth><Img_SizeHeight>{H}</Img_SizeHeight>
<Img_SizeDepth>3</Img_SizeDepth><HRSC_Objects></HRSC_Objects></HRSC_Image>"""


def test_images_that_no_list_names_are_counted(tmp_path, warned):
    for name in ("a", "b", "c"):
        image(tmp_path / f"AllImages/{name}.png")
        text(tmp_path / f"Annotations/{name}.xml", HRSC)
    text(tmp_path / "ImageSets/train.txt", "a\n")
    assert found(tmp_path, "hrsc2016") == {("train", "a"): 0}
    assert "not read, 2 images stand in no list, such as b, c" in warned.text


def test_folders_of_images_that_the_yaml_does_not_name_are_named(tmp_path, warned):
    for split in ("train", "minival"):
        image(tmp_path / f"images/{split}/{split}.png")
        text(tmp_path / f"labels/{split}/{split}.txt", f"0 {SHARES}\n")
    text(tmp_path / "data.yaml", "train: images/train\nnames: [van]\n")
    assert found(tmp_path) == {("train", "train"): 1}
    assert f"does not name {tmp_path / 'images/minival'}" in warned.text
    warned.clear()
    text(tmp_path / "data.yaml", "train: images/train\nval: images/minival\nnames: [van]\n")
    assert len(found(tmp_path)) == 2 and "not read" not in warned.text


def test_deep_images_are_stretched_when_that_is_asked_for(tmp_path):
    "Thermal images of 16 bits: refused by the doctor, who says what helps, and read after it."
    deep = (30000 + 300 * np.random.default_rng(0).random((H, W))).astype(np.uint16)
    (tmp_path / "in/train/images").mkdir(parents=True)
    Image.fromarray(deep).save(tmp_path / "in/train/images/a.png")
    image(tmp_path / "in/train/images/b.png")
    for name in "ab":
        text(tmp_path / f"in/train/labelTxt/{name}.txt", f"{DOTA} van 0\n")
    code, printed = atss("doctor", tmp_path / "in")
    assert code == 1 and "a.png" in printed and "atss convert --images 8bit" in printed
    code, printed = atss("convert", tmp_path / "in", tmp_path / "out", "--to", "dota", "--images", "8bit")
    assert code == 0, printed
    assert atss("doctor", tmp_path / "out")[0] == 0
    flat = read_pixels(tmp_path / "out/train/images/a.png")
    assert (flat.min(), flat.max()) == (0, 255)
    same = (tmp_path / "in/train/images/b.png").read_bytes()
    assert (tmp_path / "out/train/images/b.png").read_bytes() == same
