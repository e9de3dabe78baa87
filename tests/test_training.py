"Runs that are stopped, killed, refused and averaged end as an undisturbed run does."

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from atss_nb.cli.main import atss, main
from atss_nb.data.dota import DOTA_V10_CLASSES
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig, SecondStage
from atss_nb.model.targets import RunHooks
from atss_nb.scenes.scenes import write_scenes
from atss_nb.training.checkpoints import load_checkpoint, read_log
from atss_nb.training.loop import load_model, train
from atss_nb.training.settings import TrainConfig
from atss_nb.training.trainer import Trainer, count_samples, make_loader
from atss_nb.training.weights import StoredDetector, take_over


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> TrainConfig:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "train", n=12, size=96, seed=0)
    write_scenes(folder / "val", n=3, size=96, seed=1)
    model = ModelConfig.small(strides=(8, 16, 32, 64), channels=16)
    few = {"epochs": 3, "batch_size": 2, "validations": 1, "precision": "float32"}
    return TrainConfig(data=str(folder), classes=DOTA_V10_CLASSES, model=model, **few)


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return train(config, tmp_path_factory.mktemp("run") / "whole", progress=False)


def losses(run) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl") if "loss" in row]


def weights(run) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "last.pt")["model"]


def same(run, other) -> bool:
    a, b = weights(run), weights(other)
    return losses(run) == losses(other) and all(torch.equal(a[k], b[k]) for k in a)


STEP_BY_STEP = """
import sys
from atss_nb.training import loop as training
from atss_nb.training.settings import TrainConfig
training._LOG_EVERY = 1
print("ready", flush=True)
training.train(TrainConfig.from_json(open(sys.argv[1]).read()), sys.argv[2], progress=False, resume=True)
"""


def start(config: TrainConfig, tmp_path) -> subprocess.Popen:
    "The run in a process of its own, which goes on with what is there."
    (tmp_path / "config.json").write_text(config.to_json())
    words = [sys.executable, "-c", STEP_BY_STEP, tmp_path / "config.json", tmp_path / "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([str(w) for w in words], env=environment, stdout=subprocess.PIPE, text=True)


def wait_for_rows(run, count: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not (run / "log.jsonl").exists() or len(read_log(run / "log.jsonl")) < count:
        assert time.monotonic() < end, "the run does not come forward"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    "The same run in a process of its own, every step in its log."
    home = tmp_path_factory.mktemp("undisturbed")
    assert start(replace(config, save_every=2), home).wait(180) == 0
    return home / "run"


@pytest.mark.parametrize("rows", [1, 8])
def test_killed_at_any_moment_it_goes_on_to_the_same_end(config, undisturbed, tmp_path, rows):
    work = start(replace(config, save_every=2), tmp_path)
    wait_for_rows(tmp_path / "run", rows)
    work.kill()
    assert work.wait(30) == -signal.SIGKILL
    last = tmp_path / "run/last.pt"
    assert not last.exists() or load_checkpoint(last)["step"] > 0  # whole, or not there yet
    assert start(replace(config, save_every=2), tmp_path).wait(180) == 0
    assert same(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_exits_with_0(config, undisturbed, tmp_path, number):
    work = start(replace(config, save_every=2), tmp_path)
    wait_for_rows(tmp_path / "run", 4)
    work.send_signal(number)
    assert work.wait(60) == 0
    done = load_checkpoint(tmp_path / "run/last.pt")["step"]
    assert 4 <= done < 18 and len(losses(tmp_path / "run")) == done
    assert start(replace(config, save_every=2), tmp_path).wait(180) == 0
    assert same(tmp_path / "run", undisturbed)


def test_workers_change_nothing(config, whole, tmp_path):
    assert same(train(replace(config, workers=2), tmp_path / "run", progress=False), whole)


def stop_after_the_first(model, epoch: int) -> None:
    if epoch == 0:
        os.kill(os.getpid(), signal.SIGTERM)


def test_balanced_epochs_go_on_too(config, tmp_path):
    config = replace(config, balance=0.5, epochs=2)
    run = train(config, tmp_path / "whole", progress=False)
    cut = train(config, tmp_path / "cut", progress=False, watch=stop_after_the_first)
    train(config, cut, progress=False, resume=True)
    assert same(cut, run)


def test_two_stages_go_on_too(config, tmp_path):
    "The second stage draws its samples while it learns: the generator must go on as well."
    model = ModelConfig.faster_rcnn(18, weights=None, channels=16, pre_nms=50, max_detections=20)
    model = replace(model, second_stage=replace(model.second_stage, width=16, proposals=30, samples=16))
    config = replace(config, model=model, epochs=2, validations=0, batch_size=6)
    run = train(config, tmp_path / "whole", progress=False)
    cut = train(config, tmp_path / "cut", progress=False, watch=stop_after_the_first)
    assert load_checkpoint(cut / "last.pt")["step"] == 3
    train(config, cut, progress=False, resume=True)
    assert same(cut, run)


def test_a_finished_run_has_nothing_left(config, whole):
    before = {p.name: p.read_bytes() for p in whole.iterdir() if p.name != "last.pt"}
    train(config, whole, progress=False, resume=True)
    assert before == {p.name: p.read_bytes() for p in whole.iterdir() if p.name != "last.pt"}


def test_other_settings_are_refused(config, whole):
    with pytest.raises(ValueError, match="lr 0.002 -> 0.01"):
        train(replace(config, lr=0.01), whole, resume=True)


def test_float16_scales_the_loss_and_learns(config, tmp_path):
    run = train(replace(config, precision="float16", epochs=4), tmp_path / "run", progress=False)
    state, found = load_checkpoint(run / "last.pt"), losses(run)
    assert state["scaler"]["scale"] > 1 and found[-1] < found[0]


def test_averaged_weights_are_scored_and_kept(config, tmp_path):
    run = train(replace(config, ema=0.9), tmp_path / "run", progress=False)
    state, (model, _, _) = load_checkpoint(run / "last.pt"), load_model(run / "last.pt")
    mine = model.state_dict()
    assert all(torch.equal(mine[k], state["average"][k]) for k in mine)
    assert any(not torch.equal(mine[k], state["model"][k]) for k in mine)


def test_a_gpu_is_fed_by_others(config):
    run = Trainer(config)
    workers = [
        make_loader(run.data, run.batches, replace(config, workers=n), gpu).num_workers
        for n in (None, 0, 1)
        for gpu in (False, True)
    ]
    assert workers == [0, min(4, os.cpu_count()), 0, 0, 1, 1]


def test_the_average_is_a_moving_one(config):
    run = Trainer(replace(config, ema=0.75, epochs=1))
    expected = {k: v.clone() for k, v in run.model.state_dict().items()}
    for step, _ in enumerate(run.epoch(), start=1):
        now, kept = run.model.state_dict(), min(0.75, (1 + step) / (10 + step))  # less of the beginning
        expected = {k: kept * expected[k] + (1 - kept) * now[k] for k in now}
    average = run.average.state_dict()
    for name, value in average.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def two_stages(**changes) -> ModelConfig:
    "A small Faster R-CNN."
    stage = SecondStage(**{"width": 16, "proposals": 30, "samples": 16} | changes)
    model = ModelConfig.small(strides=(8, 16, 32, 64), channels=16, backbone_norm="gn", pre_nms=50)
    return replace(model, max_detections=20, ratios=(0.5, 1.0, 2.0), second_stage=stage)


@pytest.mark.parametrize(
    ("stages", "what"),
    [(1, "class logits of image 0"), (2, "class logits of the proposals of image 0")],
    ids=["RetinaNet", "Faster R-CNN"],
)
def test_notes_of_a_broken_step_are_read_before_anything_is_saved(config, stages, what):
    "As on a GPU, where the detector only takes notes, and no kernel refuses a box."
    model = replace(config.model, box_loss="gwd") if stages == 1 else two_stages()
    run = Trainer(replace(config, model=model, batch_size=1, epochs=2))
    run.model.run_hooks = replace(run.model.run_hooks, check=run.late_check)
    classes = run.model.head.class_conv if stages == 1 else run.model.head.class_fc
    steps = run.epoch()
    next(steps)
    state = deepcopy(run.state())
    torch.nn.init.constant_(classes.bias, float("nan"))
    next(steps)  # says nothing yet
    with pytest.raises(FloatingPointError, match=f"{what} in one of the last batches"):
        run.state()
    run.restore(state)
    steps = run.epoch()
    next(steps)
    torch.nn.init.constant_(classes.bias, float("nan"))
    with pytest.raises(FloatingPointError, match=what):
        list(steps)
    assert run.done.step == 10 or stages == 2  # suppression refuses its boxes before


@pytest.mark.parametrize(
    "model", [ModelConfig.small(strides=(8, 16, 32, 64)), two_stages()], ids=["one", "two"]
)
def test_a_run_says_what_losses_are_divided_by(config, model):
    "With a divisor ten times as large every loss is a tenth, of both detectors."
    run = Trainer(replace(config, model=model))
    images, targets = next(run.stream)
    sums, divisor = [], run.model.run_hooks.divisor
    for times in (1, 10):
        run.model.run_hooks = RunHooks(divisor=lambda count, times=times: times * divisor(count))
        torch.manual_seed(0)
        losses = run.model.train()(images, targets)
        sums.append(torch.stack([losses[name].detach() for name in sorted(losses)]))
    torch.testing.assert_close(sums[0], 10 * sums[1])


def test_patience_ends_a_run_that_does_not_get_better(config, tmp_path):
    config = replace(config, lr=1e-9, epochs=8, validations=8, patience=2)
    run = train(config, tmp_path / "run", progress=False)
    assert sum("AP50" in row for row in read_log(run / "log.jsonl")) == 3


def test_a_compiled_network_keeps_the_names_of_its_weights(config, tmp_path):
    "Compiling for the CPU takes minutes: here the calls go through the compiler's door, but are not compiled."
    with torch.compiler.set_stance("force_eager"):
        run = train(replace(config, compile=True, epochs=1), tmp_path / "run", progress=False, steps=1)
    assert weights(run).keys() == load_model(run / "last.pt")[0].state_dict().keys()


def test_the_log_reaches_tensorboard_and_a_table(config, tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = train(config, tmp_path / "run", progress=False, tensorboard=True)
    board = events.EventAccumulator(str(run / "tensorboard")).Reload()
    assert [e.step for e in board.Scalars("loss")] == [
        r["step"] for r in read_log(run / "log.jsonl") if "loss" in r
    ]
    assert {"AP50", "positives", "orphans", "lr", "grad_norm", "images_per_s"} <= set(board.Tags()["scalars"])
    header = (run / "log.csv").read_text().splitlines()[0].split(",")
    assert {"step", "epoch", "loss", "AP50"} <= set(header)


def test_counted_samples_are_those_of_the_assigner(config):
    from atss_nb.data.datasets import collate
    from atss_nb.model.build import build_model
    from atss_nb.training.settings import open_split

    data, model = open_split(config, "train"), build_model(config.model, 15)
    images, targets = collate([data[i] for i in range(4)])
    found = count_samples(model, images, targets)
    anchors = model.anchor_grid((128, 128))  # 96 px, padded to the coarsest stride
    assigned = [model.assigner(anchors, t["boxes"]).gt_index for t in targets]
    expected = [
        int((t == g).sum())
        for t, target in zip(assigned, targets, strict=True)
        for g in range(len(target["boxes"]))
    ]
    assert found["positives"] == pytest.approx(sum(expected) / len(expected))
    assert found["orphans"] == pytest.approx(sum(n == 0 for n in expected) / len(expected))


def test_config_of_an_older_checkpoint_is_read():
    text = json.loads(TrainConfig(data="x").to_json())
    for name in ("ema", "accumulate", "patience", "compile", "save_every"):
        del text[name]
    assert TrainConfig.from_json(json.dumps(text)) == TrainConfig(data="x")


def test_the_command_does_the_run_that_python_suggests(tmp_path):
    write_scenes(tmp_path / "data/train", n=4, size=64, seed=0)
    config = TrainConfig.suggest(tmp_path / "data", epochs=1, batch_size=2)
    train(config, tmp_path / "python", progress=False)
    words = ["--data", tmp_path / "data", "--out", tmp_path / "command", "--epochs", 1, "--batch-size", 2]
    assert atss("train", *words, "--device", "cpu")[0] == 0
    of_python, of_command = (tmp_path / name for name in ("python", "command"))
    assert (of_python / "config.json").read_text() == (of_command / "config.json").read_text()
    ours, theirs = (load_checkpoint(run / "last.pt")["model"] for run in (of_python, of_command))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


_STEPS = [(5, 45, 0.1), (5, 38, 0.2), (5, 29, 0.3), (5, 22, 0.4), (5, 10, 0.5), (4, 38, 0.1)]


@pytest.mark.parametrize(("crowded", "step", "expected"), _STEPS)
def test_suppression_keeps_what_the_labels_hold(tmp_path, crowded, step, expected):
    """Three ships of 50 px, one every `step` px: IoU (50 - step) / (50 + step) with the next, so that the second goes.
    Of 400 objects four may go. A plane on top of a ship covers nothing of its class."""
    write_scenes(tmp_path / "train", n=100, size=64, seed=0)
    for i, file in enumerate(sorted((tmp_path / "train/labelTxt").iterdir())):
        starts = [step * k for k in range(3)] if i < crowded else [0, 100, 200]
        rows = [f"{x} 10 {x + 50} 10 {x + 50} 40 {x} 40 ship 0" for x in starts]
        file.write_text("\n".join([*rows, "0 10 50 10 50 40 0 40 plane 0"]) + "\n")
    assert TrainConfig.suggest(tmp_path).model.nms_threshold == expected


def test_weights_keep_their_levels_and_the_data_say_what_is_a_duplicate(whole, tmp_path):
    write_scenes(tmp_path / "train", n=2, size=64, seed=0)
    for file in (tmp_path / "train/labelTxt").iterdir():
        file.write_text("10 10 60 10 60 40 10 40 ship 0\n30 10 80 10 80 40 30 40 ship 0\n")
    theirs = load_model(whole)[0].config
    model = TrainConfig.suggest(tmp_path, weights=str(whole)).model
    assert model == replace(theirs, nms_threshold=0.5) != theirs
    assert TrainConfig.suggest(tmp_path, weights=str(whole), model=theirs).model == theirs


def test_a_run_begins_with_the_weights_of_another(whole, config):
    "Other classes, a frozen stem and first stage, a tenth of the rate for what was taken over."
    classes = (*DOTA_V10_CLASSES, "tower")
    run = Trainer(replace(config, classes=classes, weights=str(whole), freeze=1, old_lr=0.1, epochs=1))
    theirs = load_model(whole)[0].state_dict()
    ours = {name: value.clone() for name, value in run.model.state_dict().items()}
    assert torch.equal(ours["head.box_conv.weight"], theirs["head.box_conv.weight"])
    assert torch.equal(ours["head.class_conv.bias"][:15], theirs["head.class_conv.bias"])
    assert run.transfer.classes == tuple(sorted(DOTA_V10_CLASSES)) and len(run.transfer.kept) == 2
    for _ in run.epoch():
        pass
    moved = {name for name, value in run.model.state_dict().items() if not torch.equal(value, ours[name])}
    still = ("backbone.body.stem", "backbone.body.stages.0")
    assert (
        not [name for name in moved if name.startswith(still)]
        and "backbone.body.stages.1.conv1.0.weight" in moved
    )
    rates = {group["factor"]: group["lr"] for group in run.optimizer.param_groups}
    assert rates[0.1] == pytest.approx(0.1 * rates[1.0])
    assert run.transfer.taken and "tensors taken over" in str(run.transfer)


def test_a_finished_run_may_go_on_for_longer(whole, config, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(whole, longer)
    train(replace(config, epochs=4), longer, progress=False, resume=True)
    assert load_checkpoint(longer / "last.pt")["epochs"] == 4
    assert losses(longer)[: len(losses(whole))] == losses(whole)
    with pytest.raises(ValueError, match="epochs 4 -> 2"):
        train(replace(config, epochs=2), longer, progress=False, resume=True)


def test_the_command_fine_tunes(whole, config, tmp_path):
    words = ["train", "--data", config.data, "--epochs", 1, "--batch-size", 4, "--device", "cpu"]
    words += ["--classes", *DOTA_V10_CLASSES]
    code, text = atss(*words, "--weights", whole, "--freeze", 2, "--out", tmp_path / "tuned")
    assert code == 0 and "tensors taken over from" in text, text
    tuned = load_model(tmp_path / "tuned")
    assert tuned[1].model == config.model and tuned[1].freeze == 2
    code, text = atss(*words, "--weights", tmp_path / "tunned", "--out", tmp_path / "other")
    assert code == 1 and "tuned" in text and not (tmp_path / "other/last.pt").exists()
    code, text = atss("train", "--resume", "--epochs", 2, "--out", tmp_path / "tuned", "--device", "cpu")
    assert code == 0 and load_checkpoint(tmp_path / "tuned/last.pt")["epochs"] == 2, text


def test_what_belongs_to_classes_goes_to_the_same_classes_only():
    "All of it where the names are the same; rows of shared names; nothing of a head with other channels."

    def stored(config: ModelConfig, classes: list[str]) -> StoredDetector:
        return StoredDetector(
            Path("theirs.pt"), "{}", classes, build_model(config, len(classes)).state_dict()
        )

    small, two_stages = ModelConfig.small(channels=8), ModelConfig.faster_rcnn(18, channels=8, weights=None)
    names = ["ship", "plane"]
    same = take_over(build_model(small, 2), names, stored(small, names))
    assert same.kept == same.classes == () and "0 begin anew" in str(same)
    wider = take_over(build_model(small, 2), names, stored(ModelConfig.small(channels=16), names))
    assert wider.classes == () and any(line.startswith("head.class_conv.weight") for line in wider.kept)
    ours, theirs = build_model(two_stages, 2), stored(two_stages, ["plane", "ship"])
    before = ours.state_dict()["head.class_fc.weight"].clone()
    report = take_over(ours, names, theirs)
    assert torch.equal(ours.state_dict()["head.class_fc.weight"], before)
    assert any(line.startswith("head.box_fc.weight") for line in report.kept)
    assert "rpn.conv.weight" in report.taken


def test_a_run_that_began_with_weights_goes_on_without_their_file(whole, config, tmp_path):
    weights = shutil.copy(whole / "best.pt", tmp_path / "weights.pt")
    tuned = replace(config, weights=str(weights), old_lr=0.5, epochs=2)
    run = train(tuned, tmp_path / "whole", progress=False)
    cut = train(tuned, tmp_path / "cut", progress=False, watch=stop_after_the_first)
    Path(weights).unlink()
    with pytest.raises(FileNotFoundError):
        train(tuned, tmp_path / "anew", progress=False)
    words = ["--data", config.data, "--weights", weights, "--out", cut, "--resume", "--device", "cpu"]
    code, text = atss("train", *words)
    assert code == 0 and "taken over" not in text, text
    assert same(cut, run)


def test_the_run_says_what_it_reaches_and_what_comes_next(config, tmp_path, capsys):
    "A line a validation, the time left, the score with the weights and the next command; one line after Ctrl-C."
    words = ["train", "--data", config.data, "--batch-size", 1, "--size", 64, "--device", "cpu"]
    words += ["--classes", *DOTA_V10_CLASSES]
    assert main([str(w) for w in [*words, "--epochs", 2, "--out", tmp_path / "run"]]) == 0
    printed = capsys.readouterr().out.splitlines()
    steps, scored = (next(line for line in printed if part in line) for part in ("steps to go", "epoch 1/2"))
    assert re.fullmatch(r"\d+ steps to go, about \d+ s", steps)
    assert re.fullmatch(r"epoch 1/2: AP50 .*, mAP \d\.\d+, the best so far; about \d+ s left", scored)
    kept = max((row for row in read_log(tmp_path / "run/log.jsonl") if "mAP" in row), key=lambda r: r["mAP"])
    assert f"AP50 {kept['AP50']:.3f}" in printed[-3] and f"epoch {kept['epoch'] + 1} of 2" in printed[-3]
    assert printed[-2:] == [
        f"weights: {tmp_path / 'run/best.pt'}",
        f"next: atss test {tmp_path / 'run'} --split val",
    ]


def test_a_stop_is_said_once_with_the_words_that_go_on(config, tmp_path):
    words = [sys.executable, "-m", "atss_nb.cli", "train", config.data, "--out", tmp_path / "run"]
    words += ["--epochs", "99", "--size", "64", "--batch-size", "2", "--classes", *DOTA_V10_CLASSES]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    work = subprocess.Popen([str(w) for w in words], **pipes)
    wait_for_rows(tmp_path / "run", 1)
    work.send_signal(signal.SIGINT)
    said = [line for line in work.communicate(timeout=60)[0].splitlines() if not line.startswith("images as")]
    step = load_checkpoint(tmp_path / "run/last.pt")["step"]
    ends = [line for line in said if "steps to go" not in line and "epoch" not in line]
    assert len(ends) == 1 and ends[0].startswith(f"stopped after step {step} of ")
    assert ends[0].endswith(f"; to go on: atss train --out {tmp_path / 'run'} --resume")


def test_settings_that_differ_are_listed_leaf_by_leaf(whole, config):
    words = ["train", "--data", config.data, "--out", whole, "--resume", "--lr", 0.1, "--model", "resnet18"]
    code, text = atss(*words)
    listed = [line.strip() for line in text.splitlines() if " -> " in line]
    assert code == 1 and "lr 0.002 -> 0.1" in listed and "model.backbone 'small' -> 'resnet18'" in listed
    assert all("{" not in line for line in listed) and "--overwrite" in text
