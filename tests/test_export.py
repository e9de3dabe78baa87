"An exported network says what PyTorch says, at any size, and so do the boxes made of it without PyTorch."

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from atss_nb.cli.main import main
from atss_nb.geometry.boxes import obb2poly
from atss_nb.inference.detector import load
from atss_nb.inference.export import RawNetwork, export_program, save_program
from atss_nb.inference.runtime import OnnxDetector, decode_image
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.model.targets import normalized_batch
from atss_nb.training.checkpoints import save_checkpoint
from atss_nb.training.settings import TrainConfig

CLASSES = ["plane", "ship", "vehicle"]
PARTS = ("onnx", "onnxscript", "onnxruntime")


def save(folder, config: ModelConfig):
    "An untrained detector as a run folder."
    torch.manual_seed(0)
    model = build_model(config, len(CLASSES)).eval()
    state = {
        "config": TrainConfig("nowhere", config).to_json(),
        "classes": CLASSES,
        "model": model.state_dict(),
    }
    save_checkpoint(folder / "last.pt", state)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "An untrained detector, and what `atss export` makes of its checkpoint."
    for name in PARTS:
        pytest.importorskip(name, reason=f"needs {name}: pip install 'atss_nb[onnx]'")
    folder = tmp_path_factory.mktemp("export")
    model = save(folder, ModelConfig.small(score_threshold=0.012))
    assert main(["export", str(folder), str(folder / "out/small.onnx")]) == 0
    return model, folder / "out/small.onnx"


@pytest.fixture(scope="module")
def program(exported):
    return export_program(exported[0])


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def by_pytorch(model, image: np.ndarray) -> dict:
    with torch.no_grad():
        return model([torch.from_numpy(image).movedim(-1, 0) / 255])[0]


def check(ours: dict, theirs: dict, tolerance: float) -> None:
    "The same rows; boxes as corners, since a square has four names, each within a tolerance [px]."
    assert len(ours["boxes"]) == len(theirs["boxes"]) > 0
    assert ours["labels"].tolist() == theirs["labels"].tolist()
    assert np.abs(ours["scores"] - theirs["scores"].numpy()).max() < 1e-4
    a, b = (obb2poly(torch.as_tensor(x).double()) for x in (ours["boxes"], theirs["boxes"]))
    apart = torch.stack([(a - b.roll(k, 1)).abs().amax((1, 2)) for k in range(4)]).amin(0)
    assert apart.max() < tolerance


@pytest.mark.parametrize("size", [(150, 210), (97, 64), (256, 256)])
def test_the_boxes_are_those_of_pytorch(exported, size):
    image = picture(*size)
    check(OnnxDetector(exported[1])(image), by_pytorch(exported[0], image), 1e-4)


@pytest.mark.parametrize("images", [1, 2, 5])
@pytest.mark.parametrize("cells", [(1, 1), (1, 3), (3, 1), (2, 3), (4, 4)])
def test_any_number_of_images_of_any_size(exported, program, images, cells):
    model, path = exported
    size = [n * model.backbone.multiple for n in cells]
    batch = torch.rand(images, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = RawNetwork(model)(batch)
        by_program = program.module()(batch)
    for a, b, c in zip(expected, by_program, OnnxDetector(path).raw(batch.numpy()), strict=True):
        assert len(a) == images and torch.allclose(a, b, atol=1e-5)
        assert np.abs(a.numpy() - c).max() < 1e-4


@pytest.mark.parametrize("regression", ["box", "point"])
@pytest.mark.parametrize("angle", ["oc", "le90", "le135"])
@pytest.mark.parametrize("many", [False, True])
def test_every_kind_of_head_is_decoded_as_pytorch_does(angle, regression, many):
    "From PyTorch's raw numbers, so what is compared is the decoding; nine anchors a place, centerness, low limits."
    kinds = {"scales_per_octave": 3, "ratios": (0.5, 1.0, 2.0), "center_offset": 0.5, "centerness": True}
    limits = {"pre_nms": 60, "max_detections": 40, "nms_threshold": 0.3, "score_threshold": 0.0101}
    torch.manual_seed(1)
    config = ModelConfig.small(angle=angle, regression=regression, **limits, **(kinds if many else {}))
    model, image = build_model(config, 3).eval(), picture(150, 210)
    for part in model.head.modules():  # louder than a new network, so that boxes turn and stretch
        if isinstance(part, torch.nn.Conv2d):
            part.weight.data *= 2
    batch = normalized_batch([torch.from_numpy(image).movedim(-1, 0) / 255], model.backbone.multiple)
    with torch.no_grad():
        raw = [x[0].numpy() for x in model.head(model.backbone(batch)) if x is not None]
    ours = decode_image(raw, (150, 210), tuple(batch.shape[-2:]), vars(config))
    check(ours, by_pytorch(model, image), 1e-4 * 210)  # relative to the image: sides grow with exp


def test_the_file_runs_where_pytorch_cannot_be_imported(exported, tmp_path):
    np.save(tmp_path / "image.npy", picture(97, 64))
    program = """import sys
sys.modules["torch"] = None
import numpy as np
from atss_nb.inference.runtime import OnnxDetector
detector = OnnxDetector(sys.argv[1])
print(*detector.classes, len(detector(np.load(sys.argv[2]))["boxes"]))"""
    words = [sys.executable, "-c", program, str(exported[1]), str(tmp_path / "image.npy")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*CLASSES, str(len(by_pytorch(exported[0], picture(97, 64))["boxes"]))]


def test_two_stages_are_refused_in_one_line(tmp_path, capsys):
    for name in PARTS:
        pytest.importorskip(name, reason=f"needs {name}: pip install 'atss_nb[onnx]'")
    save(tmp_path, ModelConfig.faster_rcnn(18, weights=None, channels=16))
    assert main(["export", str(tmp_path), str(tmp_path / "no.onnx")]) == 1
    error = capsys.readouterr().err
    assert "expected a RetinaNet, got FasterRCNN" in error and error.count("\n") == 1
    assert not (tmp_path / "no.onnx").exists()


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8)), np.zeros((8, 8, 3)), np.zeros((3, 8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8)],
)
def test_what_is_no_image_is_named(exported, image):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        OnnxDetector(exported[1])(image)


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ("{", "line 1"),
        ("[]", "expected classes, multiple and config"),
        ({"classes": None}, "classes: None; expected a list of names"),
        ({"classes": [1]}, "expected a list of names"),
        ({"multiple": 0}, "multiple: 0; expected a whole number from 1"),
        ({"config": 3}, "expected classes, multiple and config"),
        ({"config": {"strides": "x"}}, "strides"),
    ],
)
def test_broken_notes_are_named(exported, tmp_path, notes, expected):
    onnx = pytest.importorskip("onnx")
    proto, path = onnx.load(exported[1]), tmp_path / "broken.onnx"
    text = notes
    if isinstance(notes, dict):
        text = json.dumps(json.loads(proto.metadata_props[0].value) | notes)
    onnx.helper.set_model_props(proto, {"atss": text})
    onnx.save(proto, path)
    with pytest.raises(ValueError, match="broken.onnx") as caught:
        OnnxDetector(path)
    assert expected in str(caught.value)


def test_what_is_no_network_is_named(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="broken.onnx: .*; expected an .onnx file"):
        OnnxDetector(tmp_path / "broken.onnx")


def test_a_detector_of_an_exported_file_answers_like_the_original(exported, tmp_path):
    "Of ONNX and of a program, at sizes that are no multiple of anything."
    original = load(exported[1].parents[1], "cpu")
    save_program(original.model, tmp_path / "small.pt2", original.classes, original.size)
    for path in (exported[1], tmp_path / "small.pt2"):
        detector = load(path)
        assert (detector.classes, detector.size) == (original.classes, original.size)
        for size in ((64, 64), (50, 171)):
            answer, expected = detector(picture(*size)), original(picture(*size))
            assert len(expected) > 0 and answer.labels.tolist() == expected.labels.tolist()
            assert torch.allclose(answer.boxes, expected.boxes, atol=1e-4)
            assert torch.allclose(answer.scores, expected.scores, atol=1e-4)
