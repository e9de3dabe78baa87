"Every row of the result table, end to end on files like its data set's; overrides; the commands."

import json
import re
from dataclasses import replace

import pytest
import torch

from atss_nb.cli.main import main
from atss_nb.data.dota import read_dota
from atss_nb.data.transforms import Compose, RandomFlip, RandomRotate
from atss_nb.recipes.recipes import (
    find_recipe,
    override,
    recipe_names,
    run_recipe,
    score_recipe,
    small_version,
    tiling_of,
    train_config,
)
from atss_nb.recipes.smoke import smoke, write_mock
from atss_nb.recipes.table import RECIPES
from atss_nb.tiles.split import split
from atss_nb.training.checkpoints import load_checkpoint
from atss_nb.training.settings import TrainConfig, open_split, transforms_of


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_row_runs(name, tmp_path):
    run, score = smoke(RECIPES[name], tmp_path)
    assert {"config.json", "last.pt", "log.jsonl", "recipe.json"} <= {p.name for p in run.iterdir()}
    config, recipe = TrainConfig.from_json((run / "config.json").read_text()), RECIPES[name]
    assert (config.model.angle, config.model.box_loss) == (recipe.model.angle, recipe.model.box_loss)
    assert (config.model.second_stage is None) == (recipe.model.second_stage is None)
    assert (config.lr, config.rotate) == (recipe.optimizer.lr, recipe.transforms.rotate)
    assert load_checkpoint(run / "last.pt")["step"] == 2
    assert score.AP50 is None or 0 <= score.AP50 <= 1
    tiles = list((run / "tiles/train").rglob("*.png"))
    whole = recipe.optimizer.batch_size
    assert len(tiles) > whole if recipe.data.tiling else not tiles


def test_rows_train_in_float32_and_the_machine_may_say_otherwise(tmp_path):
    "As the source does, also where the hardware is faster in bfloat16."
    assert {train_config(r, "data").precision for r in RECIPES.values()} == {"float32"}
    row, changes = RECIPES["retina-r101-le135-3x-hrsc2016-rr"], ["--precision", "bfloat16", "--workers", 1]
    assert run("train", row.name, "--smoke", "--accumulate", 2, *changes, "--out", tmp_path / "run") == 0
    config = TrainConfig.from_json((tmp_path / "run/run/config.json").read_text())
    assert (config.precision, config.workers, config.accumulate) == ("bfloat16", 1, 2)
    saved = json.loads((tmp_path / "run/run/recipe.json").read_text())
    assert "machine.precision=bfloat16" in saved["overrides"]


def test_what_is_scored_is_not_learnt_from(tmp_path, capsys):
    words = ["train", "retina-r50-oc-1x-dota", "--data", tmp_path, "--out", tmp_path / "run"]
    assert run(*words, "--set", "data.test=val") == 1
    assert "data.test=val is learnt from, as data.train is trainval" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    row = RECIPES["faster-rcnn-r50-oc-1x-dota"]  # it learns from train alone
    assert override(row, ["data.test=val"]).data.test == "val"
    same = replace(row, data=replace(row.data, test="train"))
    with pytest.raises(ValueError, match="learnt from"):
        run_recipe(same, tmp_path, tmp_path / "run")


def count_boxes(config: TrainConfig, split: str) -> int:
    data = open_split(config, split)
    return sum(len(data.target(i)["boxes"]) for i in range(len(data)))


@pytest.mark.parametrize(
    ("name", "dropped"), [("faster-rcnn-r50-oc-1x-dota", True), ("retina-r101-le135-3x-hrsc2016-rr", False)]
)
def test_dota_rows_do_not_learn_the_hardest_objects(name, dropped, tmp_path):
    "As the source does, and only there; what is scored is whole."
    row = small_version(RECIPES[name])
    data = write_mock(row, tmp_path / "data")
    for path in [*data.rglob("*.txt"), *data.rglob("*.xml")]:
        text = re.sub(
            r" [01]$", " 2", path.read_text(), count=1, flags=re.M
        )  # the first object of each image
        path.write_text(re.sub(r"<difficult>\d", "<difficult>2", text, count=1))
    run = run_recipe(row, data, tmp_path / "run", progress=False, steps=1)
    config = TrainConfig.from_json((run / "config.json").read_text())
    learnt, there = (count_boxes(c, row.data.train) for c in (config, replace(config, max_difficulty=2)))
    assert 0 < learnt < there if dropped else 0 < learnt == there
    scored, there = (count_boxes(c, row.data.test) for c in (config, replace(config, max_difficulty=2)))
    assert 0 < scored == there


@pytest.mark.parametrize("name", ["retina-r50-le135-1x-dota-ms-rr", "retina-r101-le135-3x-hrsc2016-rr"])
def test_labels_as_published_are_cut_to_whole_pixels(name, tmp_path):
    "In tiles, in the files of HRSC2016, and after a turn: twice the center is a whole number. Exact labels are not cut."
    row = small_version(RECIPES[name])
    data, fractions = write_mock(row, tmp_path / "data", 3), {}
    for kind in ("exact", "as_published"):
        changed = override(row, [f"data.outlines={kind}", "transforms.rotate=(30.0,)"])
        if tiling := tiling_of(changed):
            split(data / "train", tmp_path / kind / "train", tiling)
        config = train_config(changed, tmp_path / kind if tiling else data)
        boxes = [t["boxes"] for _, t in turned_samples(replace(config, size=0), "train")]
        twice = 2 * torch.cat(boxes)[:, :2].double()
        fractions[kind] = (twice - twice.round()).abs().max().item()
    assert fractions["exact"] > 0.3 > 1e-3 > fractions["as_published"]


def turned_samples(config: TrainConfig, split: str) -> list:
    data, samples = open_split(config, split), []
    torch.manual_seed(0)
    steps = [step for step in transforms_of(config, augment=True) if not isinstance(step, RandomFlip)]
    data.transforms = Compose([replace(s, p=1.0) if isinstance(s, RandomRotate) else s for s in steps])
    for i in range(len(data)):
        samples.append(data[i])
    return samples


def row_scored(name: str, folder):
    "The scores of a row after a rehearsal, and its run folder."
    small, data = small_version(RECIPES[name]), write_mock(RECIPES[name], folder / "data", 2)
    run = run_recipe(small, data, folder / "run", progress=False, steps=1)
    return score_recipe(small, run), run, data


@pytest.mark.parametrize("name", ["retina-r50-le135-1x-dota-ms", "faster-rcnn-r50-oc-1x-dota"])
def test_dota_is_scored_by_whole_images(name, tmp_path):
    scores, run, data = row_scored(name, tmp_path)
    assert list(scores) == ["dota-devkit"] and scores["dota-devkit"].metric == "voc07"
    tiles = len(list((run / "tiles/test/images").iterdir()))
    assert scores["dota-devkit"].images == len(list((data / "test/images").iterdir())) < tiles
    objects = sum(len(read_dota(path)) for path in (data / "test/labelTxt").iterdir())
    assert sum(one["gts"] for one in scores["dota-devkit"].counts.values()) == objects


def test_hrsc_is_scored_under_both_of_its_metrics(tmp_path):
    scores, *_ = row_scored("retina-r101-le135-3x-hrsc2016-rr", tmp_path)
    assert {name: score.metric for name, score in scores.items()} == {
        "hrsc-voc07": "voc07",
        "hrsc-voc12": "area",
    }


def test_configurations_survive_json():
    for name in recipe_names():
        config = train_config(find_recipe(name), "data")
        assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "change, message",
    [
        ("optimiser.lr=1", "did you mean optimizer"),
        ("optimizer.learning=1", "expected one of"),
        ("optimizer.lr=fast", "expected"),
        ("optimizer.lr=True", "expected"),
        ("schedule.epochs=1.5", "expected"),
        ("model.k", "expected NAME=VALUE"),
        ("published.AP50=99", "not one of"),
        ("model=3", "model.backbone"),
        ("model.k.x=3", "has no parts"),
    ],
)
def test_wrong_overrides_say_what_was_expected(change, message):
    with pytest.raises(ValueError, match=message):
        override(find_recipe("retina-r50-oc-1x-dota"), [change])


def run(*words) -> int:
    return main([str(word) for word in words])


def test_the_list_and_a_row_are_printed(capsys):
    assert run("recipes") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in recipe_names())
    assert run("recipes", "faster-rcnn-r50-oc-1x-dota", "--set", "optimizer.lr=0.5") == 0
    text = capsys.readouterr().out
    assert "optimizer.lr = 0.5" in text and "published.AP50 = 69.72" in text and "confound: " in text


def test_a_rehearsal_writes_down_what_was_changed(tmp_path, capsys):
    words = ["retina-r101-le135-3x-hrsc2016-rr", "--smoke", "--set", "model.k=7", "--out", tmp_path / "run"]
    assert run("train", *words) == 0
    saved = json.loads((tmp_path / "run/run/recipe.json").read_text())
    assert (saved["model"]["k"], saved["overrides"]) == (7, ["model.k=7"])
    config = TrainConfig.from_json((tmp_path / "run/run/config.json").read_text())
    assert config.model.k == 7
    assert "two steps" in capsys.readouterr().out


def test_a_row_trains_on_a_given_data_set(tmp_path):
    row = RECIPES["retina-r101-le135-3x-hrsc2016-rr"]
    data = write_mock(row, tmp_path / "data")
    small = ["model.backbone=resnet18", "model.weights=None", "model.channels=16", "transforms.size=(64, 64)"]
    changes = [word for change in (*small, "schedule.epochs=1") for word in ("--set", change)]
    assert run("train", row.name, "--data", data, "--out", tmp_path / "run", *changes) == 0
    assert load_checkpoint(tmp_path / "run/last.pt")["classes"] == ["ship"]


@pytest.mark.parametrize(
    "words, near",
    [
        (["recipes", "retina-r50-oc-1x-dotta"], "did you mean retina-r50-oc-1x-dota"),
        (["train", "retina-r50-oc-1x-dota", "--smoke", "--set", "optimizer.l=1"], "did you mean"),
        (
            ["recipes", "retina-r50-oc-1x-dota", "--set", "data.max_dificulty=2"],
            "did you mean max_difficulty",
        ),
        (["convert-weights", "a.pth", "b.safetensors", "--recipe", "faster-rcnn"], "faster-rcnn-r50"),
    ],
)
def test_a_wrong_name_is_answered_with_near_ones(words, near, tmp_path, capsys):
    words += ["--out", tmp_path / "run"] if words[0] == "train" else []
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert near in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "data set is missing: atss train DIR"),
        (["retina-r50-oc-1x-dota"], "atss train retina-r50-oc-1x-dota --data DIR"),
        (["--data", "d", "--set", "model.k=7"], "are for a recipe"),
        (["--data", "d", "--smoke"], "are for a recipe"),
        (["retina-r50-oc-1x-dotta", "--smoke"], "did you mean retina-r50-oc-1x-dota"),
        (["retina-r50-oc-1x-dota", "--data", "d", "--lr", 0.1], "--lr is the recipe's"),
    ],
)
def test_wrong_words_leave_with_2(words, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as leave:
        run("train", *words, "--out", tmp_path / "run")
    assert leave.value.code == 2 and message in capsys.readouterr().err
