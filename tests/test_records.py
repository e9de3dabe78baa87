"Configurations: every field has a range or choices, and an error says which field, which value, what was expected."

import json
import subprocess
import sys
from dataclasses import asdict, fields, replace
from typing import get_args

import pytest

from atss_nb.core.errors import AtssError
from atss_nb.core.records import ConfigError
from atss_nb.model.build import build_model
from atss_nb.model.config import AtssPreset, BoxLoss, ModelConfig, SecondStage
from atss_nb.model.retinanet import BOX_LOSSES
from atss_nb.recipes.table import RECIPES, Optimizer, Published, Schedule, Transforms
from atss_nb.samples.assign import ATSS
from atss_nb.training.settings import TrainConfig

MODELS = [ModelConfig.small(), ModelConfig.resnet(101), ModelConfig.paper(), ModelConfig.faster_rcnn()]


@pytest.mark.parametrize("kind", [TrainConfig, ModelConfig, SecondStage, Transforms, Optimizer, Schedule])
def test_every_field_refuses_what_it_cannot_be(kind):
    "A thing of no kind at all; text for a number; True for 1."
    start = {"data": "x"} if kind is TrainConfig else {}
    for field in fields(kind):
        with pytest.raises(ConfigError, match=rf"{field.name} is .*, expected "):
            kind(**start | {field.name: object()})
        plain = getattr(kind(**start), field.name)
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            for wrong in ("1", True, float("nan"), -7):
                with pytest.raises(ConfigError, match=f"{field.name} is "):
                    kind(**start | {field.name: wrong})
        if isinstance(plain, bool):
            with pytest.raises(ConfigError, match="expected True or False"):
                kind(**start | {field.name: 1})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"max_difficulty": -5}, "max_difficulty is -5, expected a whole number of at least 0"),
        ({"warmup": 7}, r"warmup is 7, expected a number in \[0, 1\)"),
        ({"weight_decay": "a"}, "weight_decay is 'a', expected a number of at least 0"),
        ({"lr": 0}, "lr is 0, expected a number above 0"),
        ({"optimizer": "adamm"}, "optimizer is 'adamm', expected one of 'adamw', 'sgd' .did you mean adamw"),
        ({"format": "dotta"}, "did you mean dota"),
        ({"size": (800,)}, r"size is \(800,\), expected a whole number of at least 0 or a tuple of 2"),
        ({"model": {"k": -3}}, "model: k is -3, expected a whole number of at least 1"),
        ({"model": {"second_stage": {"iou": 2}}}, "model: second_stage: iou is 2, expected a number in"),
        ({"learning_rate": 1}, "learning_rate: there is no such field"),
        ({"epoch": 1}, "did you mean epochs"),
    ],
    ids=str,
)
def test_a_sentence_for_each_mistake(wrong, message):
    with pytest.raises(ConfigError, match=message) as caught:
        TrainConfig(data="x", **wrong)
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, AtssError)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_all_mistakes_at_once():
    with pytest.raises(ConfigError) as caught:
        ModelConfig(k=-3, nms_threshold=9, assigner="ats")
    named = [part.split()[0] for part in str(caught.value).split("; ")]
    assert named == ["assigner", "k", "nms_threshold"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": "imagenet"},
        {"strides": (8, 12)},
        {"strides": ()},
        {"max_iou": (0.3, 0.5, 0.0)},
        {"backbone": "resnet18", "weights": "imagenet", "backbone_norm": "gn"},
    ],
    ids=str,
)
def test_what_two_fields_say_of_one_another(wrong):
    with pytest.raises(ConfigError, match="expected"):
        ModelConfig(**wrong)


@pytest.mark.parametrize("model", MODELS, ids=["small", "resnet", "paper", "faster"])
def test_a_trip_through_json_changes_no_byte(model):
    config = TrainConfig("x", model, size=(800, 1333), rotate=(30.0, 60.0), classes=("ship",))
    text = config.to_json()
    again = TrainConfig.from_json(text)
    assert (again, hash(again), again.to_json()) == (config, hash(config), text)
    assert list(json.loads(text)) == [f.name for f in fields(TrainConfig)]
    assert ModelConfig(**json.loads(json.dumps(asdict(model)))) == model


def test_replace_checks_and_records_stay_frozen():
    config = TrainConfig("x")
    assert replace(config, epochs=3).epochs == 3
    with pytest.raises(ConfigError, match="epochs is 0"):
        replace(config, epochs=0)
    with pytest.raises(AttributeError):
        config.epochs = 3


def test_names_are_those_that_exist():
    assert set(get_args(BoxLoss)) == set(BOX_LOSSES)
    assert set(get_args(AtssPreset)) == set(ATSS.presets)


@pytest.mark.parametrize("field", ["regression", "assigner", "extra_levels", "angle"])
def test_every_choice_can_be_built(field):
    choices = get_args({f.name: f.type for f in fields(ModelConfig)}[field])
    for name in choices:
        build_model(ModelConfig.small(strides=(8, 16, 32, 64), channels=8, **{field: name}), 2)


def test_rows_of_the_table_are_hashable_and_checked():
    assert len(set(RECIPES.values())) == len(RECIPES)
    with pytest.raises(ConfigError, match="AP50 is 101"):
        Published(101.0)


def test_a_configuration_needs_no_torch():
    code = "import sys, atss_nb.model.config; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
