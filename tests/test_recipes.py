"Every row of the result table, end to end on files like its data set's; overrides; the commands."

import json

import pytest

from atss_nb.run.cli import main
from atss_nb.run.recipe_table import RECIPES
from atss_nb.run.recipes import find_recipe, override, recipes, train_config
from atss_nb.run.smoke import smoke
from atss_nb.run.training import TrainConfig


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_row_runs(name, tmp_path):
    run, score = smoke(RECIPES[name], tmp_path)
    assert {"config.json", "last.pt", "log.jsonl", "recipe.json"} <= {p.name for p in run.iterdir()}
    config, recipe = TrainConfig.from_json((run / "config.json").read_text()), RECIPES[name]
    assert (config.model.angle, config.model.box_loss) == (recipe.model.angle, recipe.model.box_loss)
    assert (config.model.second_stage is None) == (recipe.model.second_stage is None)
    assert (config.lr, config.rotate) == (recipe.optimizer.lr, recipe.transforms.rotate)
    assert score.AP50 is None or 0 <= score.AP50 <= 1


def test_configurations_survive_json():
    for name in recipes():
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


def test_the_command_lists_prints_and_rehearses(tmp_path, capsys):
    assert main(["recipes"]) == 0
    assert all(name in capsys.readouterr().out for name in [recipes()[0], recipes()[-1]])
    words = [
        "train",
        "retina-r50-oc-1x-dota",
        "--smoke",
        "--set",
        "model.k=7",
        "--out",
        str(tmp_path / "run"),
    ]
    assert main(words) == 0
    saved = json.loads((tmp_path / "run/run/recipe.json").read_text())
    assert saved["model"]["k"] == 7
    assert main(["recipes", "retina-r50-oc-1x-dotta"]) == 1
    assert "did you mean" in capsys.readouterr().err
