"Predictions keep modes, sizes, order and digits."

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from atss_nb.core.errors import LabelError
from atss_nb.data.detections import Detections
from atss_nb.evaluation.evaluate import evaluate
from atss_nb.evaluation.task1 import read_task1, write_task1
from atss_nb.geometry.boxes import obb2poly
from atss_nb.inference.detector import Detector
from atss_nb.inference.predict import predict, predict_each, two_at_a_time
from atss_nb.inference.views import ahead
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.model.detect import detect, predict_dataset, with_thresholds


class Echo(nn.Module):
    "Says how large each image is, and how bright: one box that fills it."

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.batches = []

    def forward(self, images):
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append(len(images))
        found = []
        for x in images:
            h, w = x.shape[-2:]
            box = torch.tensor([[w / 2, h / 2, w, h, 0.0]])
            found.append({"boxes": box * self.weight, "scores": x.mean()[None], "labels": torch.tensor([0])})
        return found


@pytest.fixture
def files(tmp_path):
    sizes = [(40, 30), (30, 40), (64, 64), (20, 10), (100, 50)]
    for i, size in enumerate(sizes):
        Image.new("RGB", size, (50 * i, 50 * i, 50 * i)).save(tmp_path / f"im{i}.png")
    return sorted(tmp_path.glob("*.png"))


@pytest.mark.parametrize("size", [0, 32, 200])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_boxes_fill_the_file_at_every_size(files, size, batch_size):
    found = predict(Echo(), files, ["all"], size, batch_size)
    for i, (file, p) in enumerate(zip(files, found, strict=True)):
        w, h = Image.open(file).size
        assert p.image_id == f"im{i}" and p.scores.item() == pytest.approx(50 * i / 255, abs=1e-5)
        assert torch.allclose(p.boxes[0, :4], torch.tensor([w / 2, h / 2, w, h]), rtol=0.06)


def test_batches_are_bounded_and_of_one_size(files):
    model = Echo()
    predict(model, [files[0]] * 3 + files, ["all"], batch_size=2)
    assert model.batches == [2, 2, 1, 1, 1, 1]


def test_tensors_of_bytes_and_of_floats_are_the_same_image():
    image = torch.randint(0, 256, (3, 8, 9), dtype=torch.uint8)
    first, second = predict(Echo(), [image, image.float() / 255], ["all"])
    assert first.scores.item() == second.scores.item() and (first.image_id, second.image_id) == ("0", "1")


def kinds_of(path) -> dict:
    "One image in every form in which people hold it."
    picture = Image.open(path)
    array = np.asarray(picture)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    floats = {str(d): tensor.to(d) / 255 for d in (torch.float16, torch.float32, torch.float64)}
    return {"path": path, "text": str(path), "picture": picture, "array": array, "tensor": tensor} | floats


def test_an_image_is_the_same_in_every_form(files):
    torch.manual_seed(0)
    model = build_model(ModelConfig(score_threshold=0.001), 2)
    expected = predict(model, [files[4]], ["a", "b"])[0]
    assert len(expected) > 0
    for name, image in kinds_of(files[4]).items():
        alone, (first, second) = predict(model, image, ["a", "b"]), predict(model, [image] * 2, ["a", "b"])
        for one in (alone, first, second):
            assert one.size == expected.size and len(one) == pytest.approx(len(expected), abs=1), name
            if name != "torch.float16":
                assert torch.allclose(one.boxes, expected.boxes, atol=1e-2), name


def test_folders_patterns_and_generators_are_many(files):
    folder = files[0].parent
    for images in (folder, str(folder / "*.png"), (file for file in files), [folder], files):
        assert [p.image_id for p in predict(Echo(), images, ["all"])] == [f"im{i}" for i in range(5)]


def test_a_generator_is_not_turned_into_a_list():
    taken = []

    def frames():
        for i in range(1000):
            taken.append(i)
            yield np.full((8, 9, 3), i % 256, np.uint8)

    answers = predict_each(Echo(), frames(), ["all"], batch_size=2)
    first = next(answers)
    assert (first.image_id, first.source, len(taken)) == ("0", None, 3)
    assert next(answers).image_id == "1" and len(taken) == 3
    assert next(answers).image_id == "2" and len(taken) == 5


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.full((3, 4, 4), 255.0), "got 255 to 255"),
        (torch.zeros(3, 4, 4, dtype=torch.int32), "got torch.int32"),
        (np.zeros((4, 4, 3), np.uint16), "got (4, 4, 3) of uint16"),
        (np.zeros((4, 4), np.uint8), "got (4, 4) of uint8"),
        (torch.zeros(1, 4, 4), "got shape (1, 4, 4)"),
        (Image.new("I;16", (4, 4)), "mode I;16"),
        (7, "got int"),
    ],
)
def test_what_is_no_image_is_named(image, message):
    model, good = Echo(), np.zeros((4, 4, 3), np.uint8)
    with pytest.raises((TypeError, ValueError)) as error:
        predict(model, [good, image], ["all"])
    assert "images[1]" in str(error.value) and message in str(error.value) and not model.batches
    with pytest.raises((TypeError, ValueError), match="^image: "):
        predict(model, image, ["all"])


@pytest.mark.parametrize("training", [True, False])
def test_mode_comes_back_even_after_an_error(training):
    model = Echo().train(training)
    detect(model, [torch.zeros(3, 4, 4)])
    assert model.training is training
    with pytest.raises(AttributeError):
        detect(model, ["no image"])
    assert model.training is training


def test_unreadable_image_is_named(tmp_path):
    (tmp_path / "half.png").write_bytes(b"\x89PNG")
    with pytest.raises(OSError, match="half.png"):
        predict(Echo(), [tmp_path / "half.png"], ["all"])


def test_a_real_detector_end_to_end(files):
    torch.manual_seed(0)
    model = build_model(ModelConfig(score_threshold=0.001), 2)
    found = predict(model, files, ["a", "b"], size=64, batch_size=3)
    assert [p.image_id for p in found] == [f.stem for f in files] and model.training
    assert all(p.boxes.shape == (len(p), 5) and p.scores.shape == p.labels.shape == (len(p),) for p in found)
    again = predict(model, files, ["a", "b"], size=64, batch_size=3)
    assert all(torch.equal(p.boxes, q.boxes) for p, q in zip(found, again, strict=True))


def test_data_set_keeps_order_and_targets():
    pairs = [
        (
            torch.full((3, 8, 8 + i), i / 10),
            {"boxes": torch.tensor([[(8 + i) / 2, 4, 8 + i, 8, 0]]), "labels": torch.tensor([0])},
        )
        for i in range(7)
    ]
    predictions, targets = predict_dataset(Echo(), pairs, batch_size=3)
    assert [t is pair[1] for t, pair in zip(targets, pairs, strict=True)] == [True] * 7
    assert evaluate(predictions, targets, ["all"]).mAP == 1.0


score = st.floats(0, 1, width=32)
box = st.tuples(
    st.floats(-50, 5000), st.floats(-50, 5000), st.floats(8, 300), st.floats(1, 7), st.floats(-1.5, 1.5)
)
found = st.lists(st.tuples(box, score, st.integers(0, 2)), max_size=5)


@settings(max_examples=40, deadline=None)
@given(st.lists(found, min_size=1, max_size=4))
def test_task1_round_trip(tmp_path_factory, images):
    classes, folder = ("ship", "plane", "storage-tank"), tmp_path_factory.mktemp("task1")
    wrote = []
    for i, rows in enumerate(images):
        rows = sorted(rows, key=lambda row: row[2])  # the files are by class
        boxes = torch.tensor([row[0] for row in rows], dtype=torch.float64).view(-1, 5)
        scores, labels = torch.tensor([row[1] for row in rows]), torch.tensor([row[2] for row in rows]).long()
        wrote.append(Detections(boxes, labels, classes, scores, f"P{i}"))
    write_task1(folder, wrote)
    read = read_task1(folder, classes, [p.image_id for p in wrote])
    for a, b in zip(wrote, read, strict=True):
        assert b.scores.float().tolist() == a.scores.tolist() and b.labels.tolist() == a.labels.tolist()
        corners = [np.sort(obb2poly(p.boxes).numpy(), axis=1) for p in (a, b)]
        np.testing.assert_allclose(*corners, atol=2e-3)


def test_images_without_detections_are_there(tmp_path):
    (tmp_path / "Task1_ship.txt").write_text("b 0.5 0 0 8 0 8 4 0 4\n")
    found = read_task1(tmp_path, ["ship"], ["a", "b", "c"])
    assert [(p.image_id, len(p)) for p in found] == [("a", 0), ("b", 1), ("c", 0)]
    assert read_task1(tmp_path / ".", ["ship"], ["b"])[0].boxes[0].tolist() == pytest.approx([4, 2, 8, 4, 0])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a 0.5 0 0 8 0 8 4 0", "score and 8 coordinates"),
        ("a 0.5 0 0 8 0 8 4 0 4 9", "score and 8 coordinates"),
        ("a nan 0 0 8 0 8 4 0 4", "score and 8 coordinates"),
        ("a 0.5 0 0 8 0 8 4 0 x", "score and 8 coordinates"),
        ("z 0.5 0 0 8 0 8 4 0 4", "image 'z'; expected one of 1 known"),
    ],
)
def test_damaged_lines_are_named(tmp_path, line, message):
    path = tmp_path / "Task1_ship.txt"
    path.write_text(f"a 0.5 0 0 8 0 8 4 0 4\n{line}\n")
    with pytest.raises(LabelError, match=f"Task1_ship.txt, line 2: .*{message}"):
        read_task1(tmp_path, ["ship"], ["a"])


def test_a_missing_class_file_is_no_empty_answer(tmp_path):
    with pytest.raises(FileNotFoundError, match="Task1_ship.txt"):
        read_task1(tmp_path, ["ship"], ["a"])


def test_task1_refuses_ids_that_break_the_format(tmp_path):
    one = Detections(torch.zeros(0, 5), torch.zeros(0).long(), ("ship",), torch.zeros(0), "a")
    for ids in (("a", "a"), ("a b",), ("",)):
        predictions = [Detections(one.boxes, one.labels, one.classes, one.scores, i) for i in ids]
        with pytest.raises(ValueError, match="image"):
            write_task1(tmp_path, predictions)
    assert list(tmp_path.iterdir()) == []


# views that are made while others are answered


def test_ahead_keeps_the_order_and_the_place_of_an_error():
    def items():
        yield from (1, 2, 3)
        raise OSError("the fourth is broken")

    seen = []
    with pytest.raises(OSError, match="the fourth"):
        for item in ahead(items(), 2):
            seen.append(item)
    assert seen == [1, 2, 3]
    assert list(ahead(iter([]), 4)) == []


def test_ahead_makes_no_more_when_nobody_listens():
    made, before = [], threading.active_count()
    listening = ahead((made.append(i) or i for i in range(100)), 3)
    assert next(listening) == 0
    listening.close()
    assert len(made) <= 5 and threading.active_count() == before


# two batches at the same time


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_two_threads_give_the_answers_of_one_in_order(four_threads):
    model = build_model(ModelConfig.small(score_threshold=0.001), 2, pretrained=False).eval()
    draw = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 64 + 32 * (i % 3), 96, generator=draw) for i in range(7)]
    seen = []
    model.backbone.register_forward_hook(
        lambda *_: seen.append((threading.get_ident(), torch.get_num_threads()))
    )
    found = predict(model, images, ["a", "b"], batch_size=2)
    assert {threads for _, threads in seen} == {2} and len({thread for thread, _ in seen}) == 2
    for one, image in zip(found, images, strict=True):
        alone = predict(model, image, ["a", "b"]).boxes
        assert len(one) and torch.allclose(one.boxes, alone, atol=1e-3)
    assert torch.get_num_threads() == 4
    assert {threads for _, threads in seen[-7:]} == {4}  # a picture alone has all of them


def test_a_model_in_training_and_a_stream_are_answered_one_by_one(four_threads):
    model, seen = build_model(ModelConfig.small(), 2, pretrained=False), []
    model.backbone.register_forward_hook(lambda *_: seen.append(threading.get_ident()))
    images = list(torch.rand(4, 3, 64, 64))
    predict(model, images, ["a", "b"], batch_size=1)
    assert model.training
    list(predict_each(model.eval(), iter(images), ["a", "b"], batch_size=1))
    assert set(seen) == {threading.get_ident()} and len(seen) == 8


def test_views_are_merged_by_the_threshold_of_the_model():
    torch.manual_seed(0)
    model, image = build_model(ModelConfig.small(), 2, pretrained=False), torch.rand(3, 64, 64)
    lenient = Detector(with_thresholds(model, score_threshold=0.0, nms_threshold=0.8), ["a", "b"])
    options = {"views": "flips", "max_detections": 50}
    own, strict = lenient(image, **options), lenient(image, nms=0.1, **options)
    assert len(own) > len(strict) > 0
    assert torch.equal(own.boxes, lenient(image, nms=0.8, **options).boxes)


@pytest.mark.parametrize("place", [0, 1, 5])
def test_what_came_before_an_error_is_answered(place, four_threads):
    def items():
        yield from range(place)
        raise OSError("broken")

    def halved(x):
        return x if x != 3 else 1 // 0

    seen = []
    with pytest.raises(OSError if place < 3 else ZeroDivisionError):
        for x in two_at_a_time(halved, items()):
            seen.append(x)
    assert seen == list(range(min(place, 3))) and torch.get_num_threads() == 4


def test_two_threads_stop_when_nobody_listens(four_threads):
    done, before = [], threading.active_count()
    listening = two_at_a_time(lambda x: done.append(x) or x, iter(range(100)))
    assert next(listening) == 0
    listening.close()
    assert len(done) <= 4 and threading.active_count() == before and torch.get_num_threads() == 4
