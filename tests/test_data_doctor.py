"The doctor finds each kind of trouble and no other, and the commands around it tell programs what they need."

import json
import shutil
import warnings

import numpy as np
import pytest
from PIL import Image

from atss_nb.cli.data import FORMAT_NAMES
from atss_nb.cli.main import main
from atss_nb.data.detections import Detections
from atss_nb.data.doctor import check_objects, examine, look
from atss_nb.data.dota import read_dota
from atss_nb.data.folders import LabelledImage
from atss_nb.data.formats import FORMATS
from atss_nb.scenes.scenes import write_scenes

BOAT = np.array([[20, 20], [60, 30], [57, 42], [17, 32]], float)


def findings(polys, names=None, size=(100, 100), **more) -> list[str]:
    names = names or ["ship"] * len(polys)
    one = LabelledImage("a", annotation=Detections.from_polygons(polys, names, **more), image=None)
    return sorted(kind for _, kind, _ in check_objects(one, size))


@pytest.mark.parametrize(
    ("polys", "expected"),
    [
        ([], []),
        ([BOAT], []),
        ([BOAT[::-1]], []),
        ([BOAT[[0, 1, 3, 2]]], ["outline crosses itself"]),
        ([BOAT[[0, 2, 1, 3]]], ["outline crosses itself"]),
        ([BOAT[[0, 0, 1, 1]]], ["no area"]),
        ([BOAT[[0, 0, 0, 0]]], ["no area"]),
        ([[[0, 0], [50, 0], [50, 0.5], [0, 0.5]]], ["side under a pixel"]),
        ([BOAT + [0, 90]], ["outside the image"]),
        ([BOAT - [61, 0]], ["outside the image"]),
        ([BOAT - [19, 0]], ["reaches over the border"]),
        ([BOAT - [18, 0]], []),
        ([BOAT, BOAT], ["same object twice"]),
        ([BOAT, BOAT[::-1] + 0.1, BOAT[[2, 3, 0, 1]]], ["same object twice"] * 2),
        ([BOAT, BOAT + 5], []),
        ([[[0, 0], [99, 0], [99, 99], [20, 10]]], []),  # a bent outline is no crossing
        ([[[0, 0], [40, 0], [40, 40], [30, 10]]], []),  # nor is a dented one
    ],
)
def test_each_kind_of_trouble(polys, expected):
    assert findings(polys) == expected


def test_twins_of_different_classes_are_two_objects():
    assert findings([BOAT, BOAT], ["ship", "barge"]) == []


def test_unknown_image_size_is_no_trouble():
    assert findings([BOAT + 500], size=None) == []


def test_another_size_in_the_label(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    one = LabelledImage(
        "a", "", tmp_path / "a.png", tmp_path / "a.xml", Detections.from_polygons([], [], size=(40, 30))
    )
    assert [kind for _, kind, _ in check_objects(one, (30, 40))] == ["label of another image size"]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_unreadable_images(tmp_path, content):
    path = tmp_path / "a.png"
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(path)
        content = path.read_bytes()[:900]
    path.write_bytes(content)
    seen = look(path)
    assert seen.size is None and "a.png: cannot be read" in seen.error


def test_a_giant_is_looked_at_from_outside(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("1", (20_000, 10_000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert look(path).size == (10_000, 20_000)


@pytest.fixture
def healthy(tmp_path):
    for split, seed in (("train", 10), ("val", 7)):
        write_scenes(tmp_path / "data" / split, 3, size=96, seed=seed)
    return tmp_path / "data"


def test_a_healthy_set(healthy, capsys):
    assert main(["doctor", str(healthy)]) == 0
    text = capsys.readouterr().out
    assert "0 errors" in text and "train" in text
    assert main(["doctor", str(healthy), "--json", "--quick"]) == 0
    report = json.loads(capsys.readouterr().out)
    objects = sum(len(read_dota(p)) for p in healthy.rglob("labelTxt/*.txt"))
    assert report["ok"] and sum(row["objects"] for row in report["splits"].values()) == objects
    assert sum(row["objects"] for row in report["classes"].values()) == objects
    assert report["image_size"] == {"smallest": [96, 96], "median": [96, 96], "largest": [96, 96]}


def test_everything_at_once(healthy, capsys):
    label = healthy / "train/labelTxt/0000.txt"
    label.write_text("x\ny\n" + label.read_text())
    (healthy / "train/labelTxt/0001.txt").unlink()
    (healthy / "val/images/0000.png").write_bytes(b"")
    shutil.copy(healthy / "train/images/0002.png", healthy / "val/images/0002.png")
    assert main(["doctor", str(healthy), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"] and len(report["errors"]["labels and pairs"]) == 3
    assert len(report["errors"]["cannot be read"]) == len(report["errors"]["same image in two splits"]) == 1
    assert main(["doctor", str(healthy), "--classes", "ship"]) == 1
    assert "expected one of the classes ship" in capsys.readouterr().out


def test_doctor_of_every_format(healthy, tmp_path):
    for name in ("coco", "labelme", "yolo-obb", "rolabelimg"):
        words = ["convert", str(healthy), str(tmp_path / name), "--to", name, "--images", "link"]
        assert main(words) == 0
        report = examine(tmp_path / name)
        assert report.format == name and not report.errors
        assert report.splits == examine(healthy).splits


def test_upright_sets_and_spellings_are_noticed(tmp_path):
    write_scenes(tmp_path / "train", 2, size=64, seed=1)
    for path in (tmp_path / "train/labelTxt").iterdir():
        path.write_text("1 1 9 1 9 9 1 9 ship\n20 1 29 1 29 9 20 9 Ship\n")
    found = examine(tmp_path).warnings
    assert found.keys() == {"two spellings", "hardly anything is turned"}


# the commands


def test_convert_says_what_is_lost(healthy, tmp_path, capsys):
    assert main(["convert", str(healthy), str(tmp_path / "yolo"), "--from", "dota", "--to", "yolo-obb"]) == 0
    text = capsys.readouterr().out
    assert "6 images" in text and "dota -> yolo-obb" in text
    assert "note: header entry 'gsd': 6 lost, yolo-obb has no place for it" in text
    assert main(["convert", str(tmp_path / "yolo"), str(tmp_path / "back"), "--to", "dota"]) == 0
    assert "nothing was lost" in capsys.readouterr().out
    for path in healthy.rglob("labelTxt/*.txt"):
        again = read_dota(tmp_path / "back" / path.relative_to(healthy))
        inside = read_dota(path).polygons.clamp(0, 96)  # corners over the border move to it
        assert again.polygons.tolist() == inside.tolist()


def test_convert_refuses(healthy, tmp_path, capsys):
    assert main(["convert", str(healthy), str(healthy), "--to", "coco"]) == 1
    assert "this is what is read; nothing is written over it" in capsys.readouterr().err
    assert main(["convert", str(healthy), str(tmp_path / "x"), "--to", "voc"]) == 1
    assert "expected one of 'dota'" in capsys.readouterr().err
    assert main(["convert", str(healthy), str(tmp_path / "x"), "--to", "hrsc2016"]) == 1
    assert "hrsc2016 cannot hold the classes" in capsys.readouterr().err
    with pytest.raises(SystemExit) as leave:
        main(["convert", str(healthy), str(tmp_path / "x"), "--to", "coco", "--rename", "ship"])
    assert leave.value.code == 2 and "expected OLD=NEW" in capsys.readouterr().err


def test_convert_renames(healthy, tmp_path, capsys):
    names = sorted({n for p in healthy.rglob("labelTxt/*.txt") for n in read_dota(p).names})
    words = [
        "convert",
        str(healthy),
        str(tmp_path / "h"),
        "--to",
        "hrsc2016",
        "--rename",
        *(f"{n}=ship" for n in names),
    ]
    assert main(words) == 1  # two images of one name, in train and in val
    assert "differ between splits" in capsys.readouterr().err
    shutil.rmtree(healthy / "val")
    shutil.rmtree(tmp_path / "h", ignore_errors=True)
    names = sorted({n for p in healthy.rglob("labelTxt/*.txt") for n in read_dota(p).names})
    assert main([*words[:6], *(f"{n}=ship" for n in names)]) == 0
    assert examine(tmp_path / "h").classes.keys() == {"ship"}


def test_the_help_names_every_format():
    assert FORMAT_NAMES.split(", ") == list(FORMATS)


@pytest.mark.parametrize("name", ["coco", "dior-r", "hrsc2016"])
def test_train_on_another_format(tmp_path, capsys, name):
    write_scenes(tmp_path / "data/train", 4, size=128, seed=0)
    found = sorted({n for p in tmp_path.rglob("labelTxt/*.txt") for n in read_dota(p).names})
    target = {"coco": "boat", "dior-r": "ship", "hrsc2016": "ship"}[name]
    words = ["--to", name, "--rename", *(f"{n}={target}" for n in found)]
    assert main(["convert", str(tmp_path / "data"), str(tmp_path / name), *words]) == 0
    words = ["--data", tmp_path / name, "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 2]
    words += ["--skip-empty", "--balance", 0.5]
    assert main(["train", *map(str, words)]) == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["classes"], config["balance"], config["keep_empty"]) == ([target], 0.5, False)
