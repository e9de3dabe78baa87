"An exported network says what PyTorch says, at any size, and so do the boxes made of it."

import pytest
import torch

from atss_nb.model.detectors import ModelConfig, build_model
from atss_nb.run.checkpoints import save_checkpoint
from atss_nb.run.cli import main
from atss_nb.run.training import TrainConfig

pytest.importorskip("onnx", reason="needs onnx: pip install 'atss_nb[onnx]'")
pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'atss_nb[onnx]'")
pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'atss_nb[onnx]'")

from atss_nb.run.export import OnnxDetector, RawNetwork

CLASSES = ["plane", "ship", "vehicle"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    "An untrained detector, its checkpoint, and what `atss export` makes of it."
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    config = TrainConfig(data="nowhere", model=ModelConfig.small(score_threshold=0.012))
    model = build_model(config.model, len(CLASSES)).eval()
    state = {"config": config.to_json(), "classes": CLASSES, "model": model.state_dict()}
    save_checkpoint(folder / "last.pt", state)
    assert main(["export", str(folder), str(folder / "out/small.onnx")]) == 0
    return model, OnnxDetector(folder / "out/small.onnx")


@pytest.mark.parametrize("size", [(2, 3), (5, 4)])
def test_the_numbers_are_those_of_pytorch(exported, size):
    model, detector = exported
    images = torch.rand(1, 3, *(n * model.backbone.multiple for n in size))
    with torch.no_grad():
        wanted = RawNetwork(model)(images)
    for ours, theirs in zip(wanted, detector.raw(images.numpy()), strict=True):
        assert ours.shape == theirs.shape
        assert (ours - torch.from_numpy(theirs)).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(150, 210), (97, 64)])
def test_the_boxes_are_those_of_pytorch(exported, size):
    model, detector = exported
    image = torch.rand(3, *size)
    with torch.no_grad():
        ours, theirs = model([image])[0], detector(image)
    assert len(ours["boxes"]) == len(theirs["boxes"]) > 0
    assert torch.equal(ours["labels"], theirs["labels"])
    assert (ours["boxes"] - theirs["boxes"]).abs().max() < 1e-2
    assert (ours["scores"] - theirs["scores"]).abs().max() < 1e-4


def test_the_file_knows_its_classes(exported):
    assert exported[1].classes == tuple(CLASSES)
