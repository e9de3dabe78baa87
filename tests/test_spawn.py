"Where processes begin empty, as on Windows, on macOS and from Python 3.14 on: scripts, notebooks, and what is said of them."

import io
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from atss_nb.core import devices
from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.model.config import ModelConfig
from atss_nb.scenes.scenes import write_scenes
from atss_nb.tiles.split import split
from atss_nb.training import trainer
from atss_nb.training.checkpoints import Log, read_log
from atss_nb.training.loop import train
from atss_nb.training.settings import TrainConfig

SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from atss_nb import TrainConfig, train
{guard}
    multiprocessing.set_start_method("spawn")
    home = Path(sys.argv[1])
    config = TrainConfig.from_json((home / "config.json").read_text())
    train(config, home / "spawned", progress=False, steps=1)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("spawn")
    write_scenes(folder / "train", n=4, size=96, seed=0)
    model = ModelConfig.small(strides=(8, 16, 32, 64), channels=16)
    few = {"epochs": 1, "batch_size": 4, "precision": "float32", "validations": 0, "workers": 1}
    return TrainConfig(data=str(folder), classes=DOTA_V10_CLASSES, model=model, **few)


def run_script(guard: str, config: TrainConfig, home) -> subprocess.CompletedProcess:
    (home / "config.json").write_text(config.to_json())
    (home / "mine.py").write_text(SCRIPT.format(guard=guard))
    command = [sys.executable, home / "mine.py", home]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)


def test_a_script_with_a_guard_trains_with_workers_and_sees_the_same_images(config, tmp_path):
    done = run_script('if __name__ == "__main__":', config, tmp_path)
    assert done.returncode == 0, done.stderr
    train(replace(config, workers=0), tmp_path / "alone", progress=False, steps=1)
    (spawned,), (alone,) = (read_log(tmp_path / name / "log.jsonl") for name in ("spawned", "alone"))
    assert spawned["loss"] == pytest.approx(alone["loss"], rel=1e-6)


def test_a_script_without_a_guard_is_told_what_is_missing(config, tmp_path):
    done = run_script("if True:", config, tmp_path)
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("RuntimeError: workers=1: each process would run mine.py again: ")
    assert 'if __name__ == "__main__":' in last and "workers=0" in last
    assert done.stderr.count("Traceback") == 1, "no worker was started"


class OfACell:
    "A data set whose class is in no file: pickle finds it in `__main__` alone."


@pytest.fixture
def in_a_cell(monkeypatch):
    "As in a notebook, on a machine where processes begin empty."
    monkeypatch.setattr(devices, "start_method", lambda: "spawn")
    monkeypatch.setattr(sys.modules["__main__"], "OfACell", OfACell, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(OfACell, "__module__", "__main__")


def test_a_data_set_of_a_cell_is_loaded_by_this_process(in_a_cell, caplog):
    assert trainer._workers([1, 2], None, gpu=True) > 0, "what can be imported may go"
    assert trainer._workers(OfACell(), None, gpu=True) == 0
    assert "move it into a file" in caplog.text
    with pytest.raises(RuntimeError, match="workers=3: other processes cannot see .* workers=0"):
        trainer._workers(OfACell(), 3, gpu=False)
    assert trainer._workers(OfACell(), 0, gpu=True) == 0


def test_copies_may_hold_anything(in_a_cell, monkeypatch):
    monkeypatch.setattr(devices, "start_method", lambda: "fork")
    assert trainer._workers(OfACell(), 2, gpu=False) == 2


def test_a_split_without_a_guard_is_told_before_anything_is_written(tmp_path, monkeypatch):
    (tmp_path / "cut.py").write_text("split(...)")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "cut.py"), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(RuntimeError, match="workers=2: each process would run cut.py again"):
        split(tmp_path, tmp_path / "tiles", workers=2)
    assert not (tmp_path / "tiles").exists()


# What other systems have, or have not


def test_compiling_without_a_compiler_is_refused_at_once(config, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match="compile: PyTorch needs a C.. compiler"):
        train(replace(config, compile=True, workers=0), tmp_path / "run", progress=False)


def test_a_terminal_of_few_letters_shows_the_others_as_numbers():
    code = (
        "from atss_nb.cli import main as module\n"
        "module._COMMANDS['lab'] = (lambda args: print('\\u8239'), {})\n"
        "raise SystemExit(module.main(['lab']))"
    )
    environment = os.environ | {"PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "\\u8239\n"), done.stderr


def test_the_log_for_tensorboard_is_on_the_disk_after_each_row_and_closed_at_the_end(tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install 'atss_nb[tensorboard]'")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    log = Log(tmp_path / "log.jsonl", tensorboard=True)
    log.write(step=0, epoch=0, loss=2.5)
    (file,) = (tmp_path / "tensorboard").iterdir()
    tags = [value.tag for event in EventFileLoader(str(file)).Load() for value in event.summary.value]
    assert "loss" in tags
    log.close()
    assert log.board.file_writer is None, "its file is no longer open"


def test_a_run_closes_its_log(config, tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(Log, "close", lambda log: closed.append(log.path.name))
    train(replace(config, workers=0), tmp_path / "run", progress=False, steps=1)
    assert closed == ["log.jsonl"]


def test_printing_in_a_notebook_is_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # has no encoding that could be changed
    from atss_nb.cli.main import main

    with pytest.raises(SystemExit):
        main(["--version"])
    assert sys.stdout.getvalue().startswith("atss_nb ")
