"What users ran into, each with one clear sentence or the right answer: names, sizes, types and flags."

import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atss_nb.cli.main import atss
from atss_nb.core.errors import LabelError
from atss_nb.data.detections import Detections
from atss_nb.data.doctor import check_objects, examine
from atss_nb.data.folders import LabelledImage
from atss_nb.data.transforms import Resize
from atss_nb.evaluation.submission import check_submission
from atss_nb.inference.predict import predict
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.model.detect import detect
from atss_nb.recipes.recipes import read_data_home
from atss_nb.tiles.split import plan_split
from atss_nb.tiles.tiles import Tiling
from atss_nb.training.settings import TrainConfig
from atss_nb.training.step import make_optimizer, train_step

SHIP = "4 4 20 4 20 12 4 12 {} 0\n"
TINY = ModelConfig.small(channels=8, head_convs=1)


def data_set(root, names=("ship",), size=(32, 24)):
    for folder in ("images", "labelTxt"):
        (root / folder).mkdir(parents=True)
    for i, name in enumerate(names):
        Image.new("RGB", size, (i * 9, 50, 90)).save(root / f"images/{i}.png")
        (root / f"labelTxt/{i}.txt").write_text(SHIP.format(name))
    return root


def test_forty_thousand_objects_in_one_image_are_no_square():
    "The doctor compared each with each: 11.9 GiB."
    corners = np.random.default_rng(0).uniform(0, 1200, (40_000, 1, 2))
    polys = corners + np.array([[0, 0], [3, 0], [3, 2], [0, 2]])
    polys[39_999] = polys[7] + 0.01
    one = LabelledImage("a", annotation=Detections.from_polygons(polys, ["ship"] * 40_000))
    kinds = [where for _, kind, where in check_objects(one, (1300, 1300)) if kind == "same object twice"]
    assert any("object 40000:" in where for where in kinds)


def test_a_plan_of_many_images_counts_names_once(tmp_path, monkeypatch):
    "Names were counted once for each image: two minutes for 100,000."
    data_set(tmp_path)
    for i in range(20_000):
        (tmp_path / f"images/x{i}.png").symlink_to(tmp_path / "images/0.png")
    started = time.process_time()
    with pytest.raises(ValueError, match="20000"):  # none of them has a label
        plan_split(tmp_path, Tiling(size=32, gap=0))
    assert time.process_time() - started < 5


def test_names_of_tiles_are_noticed_before_they_are_submitted(tmp_path):
    (tmp_path / "Task1_ship.txt").write_text("P0007__1024__824___0 0.5 1 1 9 1 9 9 1 9\n")
    assert any("P0007__1024__824___0: atss merge first" in note for note in check_submission(tmp_path).notes)
    (tmp_path / "Task1_ship.txt").write_text("P0007 0.5 1 1 9 1 9 9 1 9\n")
    assert not any("merge" in note for note in check_submission(tmp_path).notes)


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    "`atss stats` died in matplotlib after its work."
    data_set(tmp_path / "data", ["a$b", r"c$\frac"])
    code, text = atss("stats", tmp_path / "data", "--out", tmp_path / "out", "--strides", 8, 16)
    assert code == 0, text


def test_a_run_with_a_dollar_in_a_name_is_scored(tmp_path):
    "`atss test` and `eval --report` died in matplotlib, too."
    for split in ("train", "test"):
        data_set(tmp_path / "data" / split, ["a$b", r"c$\\frac"])
    words = ["--epochs", 1, "--batch-size", 2, "--size", 0, "--device", "cpu"]
    assert atss("train", "--data", tmp_path / "data", "--out", tmp_path / "run", *words)[0] == 0
    code, text = atss("test", tmp_path / "run", "--device", "cpu")
    assert code == 0 and (tmp_path / "run/report.html").exists(), text


def header(width: int, height: int) -> bytes:
    "A small PNG file that claims to be of this size."
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": b"", b"IEND": b""}
    rows = (
        struct.pack(">I", len(x)) + k + x + struct.pack(">I", zlib.crc32(k + x)) for k, x in parts.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(rows)


@pytest.mark.parametrize("words", [["doctor"], ["doctor", "--quick"], ["train", "--device", "cpu", "--data"]])
@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("labelTxt/1.txt", b"9" * 5000 + b" 4 20 4 20 12 4 12 ship 0\n", "1.txt, line 1: '99999"),
        ("labelTxt/1.txt", b"4 4 20 4 20 12 4 12 ship " + b"9" * 5000, "1.txt, line 1: '99999"),
        ("images/1.png", header(2 * 10**9, 2 * 10**9), "1.png: cannot be read (its header says 2000000000 x"),
    ],
    ids=["corner", "difficulty", "header"],
)
def test_numbers_beyond_belief_are_named_by_doctor_and_train(tmp_path, words, file, content, expected):
    data_set(tmp_path / "data/train", ["ship", "ship"])
    (tmp_path / "data/train" / file).write_bytes(content)
    more = ["--out", tmp_path / "run"] if words[0] == "train" else []
    code, text = atss(*words, tmp_path / "data", *more)
    assert code == 1 and expected in text and "Traceback" not in text and len(text) < 2000
    assert not (tmp_path / "run").exists()


def test_the_doctor_says_what_train_needs_of_an_undivided_set(tmp_path):
    data_set(tmp_path / "data")
    code, text = atss("doctor", tmp_path / "data")
    assert code == 0 and "atss train needs images in a split train: move them" in text
    for folder in ("images", "labelTxt"):  # what it advises
        (tmp_path / "divided/train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / folder).rename(tmp_path / "divided/train" / folder)
    assert "needs images in a split" not in atss("doctor", tmp_path / "divided")[1]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"data_set": 3}', '{"data_set": "a\\u0000b"}'])
def test_a_broken_record_of_a_recipe_is_named(tmp_path, text):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(LabelError, match="recipe.json, "):
        read_data_home(tmp_path)


def test_what_only_the_validation_holds_is_told_before_the_training(tmp_path):
    data_set(tmp_path / "train", ["van"])
    data_set(tmp_path / "val", ["crane"])
    report = examine(tmp_path)
    assert report.errors["class never trained"] == ["crane, in val: name it with --classes"]


@pytest.mark.parametrize("size", [(6, 4000), (4000, 6), (1, 1)])
def test_a_thin_image_keeps_a_pixel(size):
    target = {"boxes": torch.tensor([[3.0, 3, 2, 2, 0]]), "labels": torch.tensor([0])}
    image, _ = Resize(128)(torch.rand(3, *size), target)
    assert min(image.shape[1:]) >= 1 and max(image.shape[1:]) == 128


def test_images_of_any_precision_give_the_same_detections():
    torch.manual_seed(0)
    model, image = build_model(TINY, 1).eval(), torch.randint(0, 255, (3, 64, 64)) / 256
    scores = [
        detect(model, [image.to(kind)])[0]["scores"] for kind in (torch.float32, torch.float64, torch.float16)
    ]
    assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.full((3, 32, 32), 200.0), "expected values in \\[0, 1\\], got 200 to 200"),
        (
            torch.full((3, 32, 32), 40_000, dtype=torch.int32),
            "expected a tensor of uint8, or of floats .*got torch.int32",
        ),
        (torch.rand(32, 32), "expected a tensor \\(3, H, W\\), got shape \\(32, 32\\)"),
    ],
)
def test_pixels_on_another_scale_are_refused(image, expected):
    "They gave other detections without a word (ultralytics#6811)."
    model = build_model(TINY, 1)
    with pytest.raises(ValueError, match=expected):
        predict(model, [image], ["ship"])
    target = {"boxes": torch.tensor([[9.0, 9, 8, 6, 0]]), "labels": torch.tensor([0])}
    with pytest.raises(ValueError, match="images\\[0\\]"):
        model.train()([image], [target])


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"labels": torch.tensor([0])}, "boxes.*expected a tensor, got none"),
        ({"boxes": np.ones((1, 5)), "labels": torch.tensor([0])}, "boxes.*expected a tensor, got ndarray"),
        ({"boxes": torch.ones(1, 5), "labels": [0]}, "labels.*expected a tensor, got list"),
    ],
)
def test_targets_of_another_kind_are_named(target, expected):
    with pytest.raises(ValueError, match=rf"targets\[0\].*{expected}"):
        build_model(TINY, 1).train()([torch.rand(3, 64, 64)], [target])


def test_one_number_a_channel_says_what_helps():
    config = TrainConfig("", TINY, classes=("ship",), precision="float32")
    model = build_model(TINY, 1).train()
    batch = (
        [torch.rand(3, 32, 32)],
        [{"boxes": torch.tensor([[9.0, 9, 8, 6, 0]]), "labels": torch.tensor([0])}],
    )
    with pytest.raises(
        ValueError, match="1 images of 32 x 32 px at a time leave one number.*backbone_norm='gn'"
    ):
        train_step(model, *batch, make_optimizer(model, config), config)


def test_a_wrong_flag_and_a_folder_for_a_recipe_are_guessed(tmp_path):
    code, text = atss("train", "--data", tmp_path, "--out", tmp_path / "run", "--batchsize", 4)
    assert code == 2 and "--batchsize" in text and "did you mean" in text and "--batch-size" in text
    code, text = atss("train", tmp_path, "--out", tmp_path / "run")
    assert code == 1 and f"{tmp_path}: say which format it is" in text  # it is taken as --data


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("test", "runs/dmeo"), "runs/dmeo: there is no such run folder; did you mean demo?"),
        (
            ("predict", "rusn/demo", "images"),
            "rusn/demo: there is no such run or checkpoint; did you mean runs?",
        ),
        (
            ("export", "runs/demo/best.p", "a.onnx"),
            "no such run or checkpoint; did you mean best.pt or last.pt?",
        ),
        (("doctor", "image"), "image: there is no such data set; did you mean images?"),
        (("train", "--data", "imges", "--out", "out"), "did you mean images?"),
    ],
)
def test_a_missing_run_or_data_set_is_guessed(tmp_path, monkeypatch, words, expected):
    monkeypatch.chdir(tmp_path)
    Path("runs/demo").mkdir(parents=True)
    Path("images").mkdir()
    Image.new("RGB", (32, 24)).save("images/a.png")
    for name in ("best.pt", "last.pt"):
        Path("runs/demo", name).touch()
    code, text = atss(*words)
    assert code == 1 and expected in text, text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "runs"]
