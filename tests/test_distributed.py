"Several processes, started by the usual launcher, take the steps of one; and none waits for a dead one."

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.model.config import ModelConfig, SecondStage
from atss_nb.scenes.scenes import write_scenes
from atss_nb.training.checkpoints import load_checkpoint, read_log
from atss_nb.training.loop import train
from atss_nb.training.settings import TrainConfig

pytest.importorskip("accelerate")

WORK = """
import os, sys
from atss_nb.training import loop as training
from atss_nb.training.settings import TrainConfig
training._LOG_EVERY = 1
rank, dies = int(os.environ["RANK"]), len(sys.argv) > 3

def watch(model, epoch):
    print("epoch", epoch, flush=True)

class Dying(training.Stop):
    asked = property(lambda self: os._exit(9) if dies and rank == 1 else self.wish, lambda self, value: setattr(self, "wish", value))
    wish = False

training.Stop = Dying
training.train(TrainConfig.from_json(open(sys.argv[1]).read()), sys.argv[2], progress=False, resume=True, watch=watch)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    "Scenes of which every third is empty, and a network that looks at each image alone."
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", n=12, size=96, seed=0)
    write_scenes(folder / "val", n=3, size=96, seed=1)
    for label in sorted((folder / "train/labelTxt").iterdir())[::3]:
        label.write_text("")
    model = ModelConfig.small(strides=(8, 16, 32, 64), channels=16, backbone_norm="gn")
    few = {"epochs": 2, "validations": 1, "precision": "float32", "optimizer": "sgd", "lr": 0.01}
    return TrainConfig(data=str(folder), classes=DOTA_V10_CLASSES, model=model, **few)


def launch(config: TrainConfig, home, processes: int, *more: str) -> subprocess.Popen:
    (home / "config.json").write_text(config.to_json())
    (home / "work.py").write_text(WORK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    words = [*launcher, home / "work.py", home / "config.json", home / "run", *more]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([str(w) for w in words], env=environment)


def losses(run) -> torch.Tensor:
    names = ("loss", "classification", "box", "grad_norm")
    return torch.tensor([[row[n] for n in names] for row in read_log(run / "log.jsonl") if "loss" in row])


@pytest.mark.parametrize(
    ("batch_size", "accumulate"), [(4, 1), (3, 1), (8, 2)], ids=["even", "uneven shares", "in parts"]
)
def test_two_processes_follow_one(config, tmp_path, monkeypatch, batch_size, accumulate):
    "Batches of three give one process two images and the other one; an empty image gives a process no positives."
    config = replace(config, batch_size=batch_size)
    monkeypatch.setattr("atss_nb.training.loop._LOG_EVERY", 1)
    alone = train(config, tmp_path / "alone", progress=False)
    assert launch(replace(config, accumulate=accumulate), tmp_path, 2).wait(240) == 0
    one, two = losses(alone), losses(tmp_path / "run")
    assert one.shape == two.shape
    if accumulate == 1:  # parts are divided by their own positives: the same idea, other numbers
        torch.testing.assert_close(two[:, 3], one[:, 3], rtol=2e-3, atol=1e-4)
        a, b = (load_checkpoint(r / "last.pt")["model"] for r in (alone, tmp_path / "run"))
        assert all(torch.allclose(a[k], b[k], rtol=1e-3, atol=1e-5) for k in a)
    scores = [
        row["AP50"] for r in (alone, tmp_path / "run") for row in read_log(r / "log.jsonl") if "AP50" in row
    ]
    assert len(scores) == 2


def test_two_stages_follow_one_process_too(config, tmp_path, monkeypatch):
    "All anchors and all proposals are learnt from, so that no random choice differs."
    everything = SecondStage(width=16, proposals=50, rpn_samples=10**6, samples=10**6, proposal_nms=1.0)
    config = replace(config, model=replace(config.model, second_stage=everything), batch_size=3, epochs=1)
    monkeypatch.setattr("atss_nb.training.loop._LOG_EVERY", 1)
    alone = train(config, tmp_path / "alone", progress=False)
    assert launch(config, tmp_path, 2).wait(240) == 0
    one, two = ([r for r in read_log(p / "log.jsonl") if "loss" in r] for p in (alone, tmp_path / "run"))
    assert [r["grad_norm"] for r in two] == pytest.approx([r["grad_norm"] for r in one], rel=2e-2)
    a, b = (load_checkpoint(r / "last.pt")["model"] for r in (alone, tmp_path / "run"))
    assert all(torch.allclose(a[k], b[k], rtol=1e-2, atol=1e-3) for k in a)


def test_a_process_that_dies_ends_the_run_with_an_error(config, tmp_path):
    started = time.monotonic()
    assert launch(replace(config, batch_size=4, epochs=50), tmp_path, 2, "die").wait(240) != 0
    assert time.monotonic() - started < 200


def test_all_processes_stop_after_the_same_step(config, tmp_path):
    work = launch(replace(config, batch_size=2, epochs=50), tmp_path, 2)
    log, end = tmp_path / "run/log.jsonl", time.monotonic() + 200
    while not log.exists() or len(read_log(log)) < 3:
        assert time.monotonic() < end and work.poll() is None
        time.sleep(0.05)
    work.send_signal(signal.SIGTERM)
    work.wait(100)
    done = load_checkpoint(tmp_path / "run/last.pt")
    assert 3 <= done["step"] < 300 and json.loads(done["config"])["epochs"] == 50
