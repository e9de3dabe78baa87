"The same training on a GPU: batches travel there by themselves, and the losses are those of the CPU."

from dataclasses import replace

import pytest
import torch

from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.model.config import ModelConfig
from atss_nb.scenes.scenes import write_scenes
from atss_nb.training.checkpoints import load_checkpoint, read_log
from atss_nb.training.loop import train
from atss_nb.training.settings import TrainConfig
from atss_nb.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", n=8, size=128, seed=0)
    write_scenes(folder / "val", n=2, size=128, seed=1)
    model = ModelConfig.small(strides=(8, 16, 32, 64), backbone_norm="gn")
    few = {"epochs": 3, "batch_size": 4, "validations": 1, "precision": "float32"}
    return TrainConfig(data=str(folder), classes=DOTA_V10_CLASSES, model=model, **few)


def losses(run) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl") if "loss" in row]


def test_the_losses_are_those_of_the_cpu(config, tmp_path, monkeypatch):
    monkeypatch.setattr("atss_nb.training.loop._LOG_EVERY", 1)
    cpu, gpu = (losses(train(config, tmp_path / d, d, progress=False)) for d in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, rel=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_learns(config, tmp_path, precision):
    found = losses(
        train(replace(config, precision=precision, epochs=10), tmp_path / "run", "cuda", progress=False)
    )
    assert found[-1] < found[0]


@pytest.mark.parametrize(
    "change", [{}, {"precision": "float16"}, {"optimizer": "sgd"}, {"ema": 0.9}], ids=str
)
def test_a_step_does_not_wait(config, change):
    run = Trainer(replace(config, epochs=20, **change), "cuda")
    steps = run.epoch()
    next(steps)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(6):  # the next check is after the tenth
            if run.done.step == run.batches.per_epoch * (run.done.epochs + 1):
                run.done.epochs, steps = run.done.epochs + 1, run.epoch()
            next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_broken_step_is_found_late(config):
    run = Trainer(replace(config, epochs=20), "cuda")
    torch.nn.init.constant_(run.model.head.class_conv.bias, float("nan"))
    next(run.epoch())
    with pytest.raises(FloatingPointError, match="class logits of image 0 in one of the last batches"):
        run.state()


def test_workers_pin_and_the_run_goes_on(config, tmp_path):
    run = train(replace(config, workers=2, ema=0.9), tmp_path / "run", "cuda", progress=False)
    assert load_checkpoint(run / "last.pt")["step"] == 6
    train(replace(config, workers=2, ema=0.9), run, "cuda", progress=False, resume=True)
