"Images of any size, by function and by command: which are searched through windows, and what must not matter."

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from atss_nb.cli.main import main
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.inference import views
from atss_nb.inference.outputs import read_predictions_json
from atss_nb.inference.predict import predict
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.training.checkpoints import save_checkpoint
from atss_nb.training.settings import TrainConfig

WINDOWS = {"window": 128, "overlap": 48}


class Lamps(nn.Module):
    "A box around every bright pixel of a dark image; sure of it where it is very bright."

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.shapes = []

    def forward(self, images):
        self.shapes.append([tuple(x.shape[-2:]) for x in images])
        return [self.find(x) for x in images]

    def find(self, image):
        y, x = (image[0] > 0.3).nonzero().T
        sides = torch.stack([x + 0.5, y + 0.5, 0 * x + 12, 0 * x + 6, 0 * x + 0.3], 1)
        return {"boxes": sides * self.weight, "scores": image[0, y, x], "labels": (x * 0).long()}


@pytest.fixture(scope="module")
def night():
    "A dark image with 60 lamps far apart, and where they are."
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(np.arange(10), np.arange(6)), -1).reshape(-1, 2) * 50 + 25
    places = places + rng.integers(-12, 13, places.shape)
    image = torch.zeros(3, 300, 500, dtype=torch.uint8)
    image[:, places[:, 1], places[:, 0]] = torch.from_numpy(rng.integers(100, 256, 60, dtype=np.uint8))
    return image, torch.from_numpy(places)


def shuffled(monkeypatch, seed: int) -> None:
    "From now on windows come in another order."
    plan = views.plan_windows

    def other(*words):
        windows = plan(*words)
        return [windows[i] for i in np.random.default_rng(seed).permutation(len(windows))]

    monkeypatch.setattr(views, "plan_windows", other)


def same(a, b) -> bool:
    return all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("boxes", "scores", "labels"))


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_order_and_batch_change_no_bit_of_what_a_detector_said(night, batch_size, monkeypatch):
    image, places = night
    expected = predict(Lamps(), [image], ["lamp"], batch_size=2, **WINDOWS)[0]
    found = {tuple(xy) for xy in (expected.boxes[:, :2] - 0.5).round().long().tolist()}
    assert len(expected) == 60 and found == {tuple(xy) for xy in places.tolist()}
    shuffled(monkeypatch, batch_size)
    assert same(predict(Lamps(), [image], ["lamp"], batch_size=batch_size, **WINDOWS)[0], expected)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_model(ModelConfig.small(score_threshold=0.0115, strides=(8, 16, 32, 64)), 2).eval()


def test_order_changes_no_bit_of_what_a_network_says(network, monkeypatch):
    image = torch.rand(3, 200, 320, generator=torch.Generator().manual_seed(1))
    expected = predict(network, [image], ["a", "b"], batch_size=1, **WINDOWS)[0]
    assert len(expected) > 5
    shuffled(monkeypatch, 3)
    assert same(predict(network, [image], ["a", "b"], batch_size=1, **WINDOWS)[0], expected)


@pytest.mark.parametrize("batch_size", [2, 5, 8])
def test_a_batch_changes_a_network_by_no_more_than_rounding(network, batch_size):
    "Convolutions of other batches add in another order: 1e-3 px is a thousandth of what a box is good for."
    image = torch.rand(3, 200, 320, generator=torch.Generator().manual_seed(1))
    one, many = (predict(network, [image], ["a", "b"], batch_size=n, **WINDOWS)[0] for n in (1, batch_size))
    assert torch.equal(one.labels, many.labels)
    assert (one.boxes - many.boxes).abs().max() < 1e-3 and (one.scores - many.scores).abs().max() < 1e-6


def test_images_beside_it_change_nothing(network):
    images = [
        torch.rand(3, 96, 96 + 32 * i, generator=torch.Generator().manual_seed(i)) for i in (0, 0, 1, 2)
    ]
    alone = [predict(network, [image], ["a", "b"])[0] for image in images]
    for a, b in zip(alone, predict(network, images, ["a", "b"], batch_size=3), strict=True):
        assert len(a) == len(b) and (a.boxes - b.boxes).abs().max() < 1e-3


def test_only_huge_images_have_windows():
    long, model = torch.zeros(3, 100, 2100), Lamps()
    predict(model, [long, long[..., :2048]], ["lamp"])
    predict(model, [long], ["lamp"], size=525)
    assert model.shapes == [[(100, 1024)] * 3, [(100, 2048)], [(25, 525)]]


def test_what_nobody_wants_to_decode_whole_has_windows(monkeypatch):
    monkeypatch.setattr(views, "WHOLE", 100 * 2000)
    model, long = Lamps(), torch.zeros(3, 100, 2100)
    predict(model, [long, long[..., :2000]], ["lamp"], size=500)
    assert model.shapes == [[(100, 1024)] * 3, [(25, 500)]]


@pytest.mark.parametrize("size", [0, 250, (150, 1000)])
def test_views_and_scales_of_whole_images_find_the_same(size):
    image = torch.zeros(3, 400, 600)
    image[:, 80:320, 90:330] = 1.0

    class Square(Lamps):
        def find(self, image):
            y, x = (image[0] > 0.5).nonzero().T
            side, middle = len(x) ** 0.5, torch.stack([x, y]).float().mean(1) + 0.5
            box = torch.stack([*middle, middle.new_tensor(side), middle.new_tensor(side), middle[0] * 0])
            return {"boxes": box[None], "scores": torch.ones(1), "labels": torch.zeros(1).long()}

    model = Square()
    found = predict(model, [image], ["square"], size, scales=(1.0, 0.5), views="all")[0]
    assert len(found) == 1 and sum(map(len, model.shapes)) == 16
    assert box_iou_rotated(found.boxes, torch.tensor([[210.0, 200, 240, 240, 0]])).item() > 0.95


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, network):
    "Run folders of the network, by the size they say it was trained with."
    folder = tmp_path_factory.mktemp("runs")
    for name, size in (("whole", 0), ("both", (96, 160))):
        config = TrainConfig(data="nowhere", size=size, model=network.config)
        state = {"config": config.to_json(), "classes": ["a", "b"], "model": network.state_dict()}
        (folder / name).mkdir()
        save_checkpoint(folder / name / "last.pt", state)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, size in (
        ("east/wide.tif", (120, 2100)),
        ("east/small.png", (90, 60)),
        ("west/old.bmp", (64, 64)),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    (folder / "east/notes.txt").write_text("no image")
    return folder


def found_in(folder) -> dict:
    return {p.image_id: p for p in read_predictions_json(folder / "predictions.json")}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("east/*", {"wide", "small"}),
        ("**/*", {"wide", "small", "old"}),
        ("*/*.[pb][nm][gp]", {"small", "old"}),
        ("e*", None),
        ("east", {"wide", "small"}),
    ],
)
def test_patterns_find_images(trained, pictures, tmp_path, capsys, pattern, names):
    code = run("predict", trained / "whole", pictures / pattern, "--out", tmp_path, "--format", "json")
    if names is None:  # a folder's name is no image's
        assert code == 1 and "a pattern that finds" in capsys.readouterr().err
    else:
        assert code == 0 and set(found_in(tmp_path)) == names == {p.stem for p in tmp_path.glob("*.png")}


def test_two_images_of_one_name_keep_results_of_their_own(trained, pictures, tmp_path):
    for folder in ("east", "west"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "in" / folder / "old.png")
    words = [tmp_path / "in/east", tmp_path / "in/west", "--out", tmp_path / "out", "--format", "json"]
    assert run("predict", trained / "whole", *words) == 0
    assert found_in(tmp_path / "out").keys() == {"east/old", "west/old"}
    drawn = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")}
    assert len(drawn) == 2


def test_a_run_of_two_limits_sees_images_as_in_training(trained, pictures, network, tmp_path):
    words = ["--out", tmp_path, "--format", "json", "--precision", "float32"]
    assert run("predict", trained / "both", pictures / "east", *words) == 0
    found, files = found_in(tmp_path), [pictures / "east/small.png", pictures / "east/wide.tif"]
    for file, expected in zip(files, predict(network, files, ["a", "b"], (96, 160)), strict=True):
        assert len(found[file.stem]) == len(expected)
        assert (found[file.stem].boxes - expected.boxes).abs().max() < 1e-2 if len(expected) else True
    whole = predict(network, files[:1], ["a", "b"])[0]
    assert not torch.equal(found["small"].boxes[:1], whole.boxes[:1])


@pytest.mark.parametrize("views", ["flips", "turns", "all"])
def test_every_view_of_a_huge_image_at_two_scales(trained, pictures, network, tmp_path, views):
    words = [
        "--scales",
        0.5,
        1,
        "--views",
        views,
        "--batch-size",
        3,
        "--precision",
        "float32",
        "--format",
        "json",
    ]
    assert run("predict", trained / "whole", pictures / "east/wide.tif", "--out", tmp_path, *words) == 0
    found, kept = found_in(tmp_path)["wide"], {"scales": (0.5, 1.0), "views": views}
    expected = predict(network, [pictures / "east/wide.tif"], ["a", "b"], batch_size=1, **kept)[0]
    assert len(found) == len(expected) > 0
    assert (found.boxes - expected.boxes).abs().max() < 1e-2
    assert (found.boxes[:, 0] > 1200).any() and (found.boxes[:, 0] < 900).any()
    for k in (0, 1):  # every object once
        mine = found.boxes[found.labels == k]
        assert (box_iou_rotated(mine, mine) - torch.eye(len(mine))).max() <= 0.1 + 1e-4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window", 100, "--overlap", 100], "0 <= overlap < window"),
        (["--scales", 0], "scales: expected positive numbers"),
        (["--scales", "nan"], "scales: expected positive numbers"),
    ],
)
def test_wrong_numbers_are_said_before_the_search(trained, pictures, tmp_path, capsys, words, message):
    assert run("predict", trained / "whole", pictures / "east", "--out", tmp_path / "out", *words) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_help_states_what_is_read_in_windows(capsys):
    with pytest.raises(SystemExit):
        run("predict", "--help")
    text = " ".join(capsys.readouterr().out.split())
    assert "TIFF, PNG and JPEG are read in windows" in text and "over 64 megapixels" in text


def test_the_json_is_plain(trained, pictures, tmp_path):
    assert run("predict", trained / "whole", pictures / "west", "--out", tmp_path, "--format", "json") == 0
    written = json.loads((tmp_path / "predictions.json").read_text())
    assert written["images"][0]["image_id"] == "old" and written["classes"] == ["a", "b"]
