"What the table's project does, held against what our code does: no difference without a reason, no reason without one."

import pytest

from atss_nb.cli.main import main
from atss_nb.recipes.ledger import PAPER_REASONS, REASONS, differences, ledger, resolved, source_values
from atss_nb.recipes.paper import PAPER_RECIPES
from atss_nb.recipes.recipes import override
from atss_nb.recipes.table import RECIPES


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_difference_has_a_reason_and_stands_in_the_ledger(name):
    found = differences(RECIPES[name])
    assert found and set(found) <= set(REASONS)
    part = ledger().split(f"**{name}**")[1].split("\n**")[0]
    assert all(f"- {setting}: {REASONS[setting]}" in part for setting in found)
    assert all(f"- {doubt}" in part for doubt in RECIPES[name].confounds)


def test_no_reason_is_left_over():
    assert set(REASONS) == {setting for r in RECIPES.values() for setting in differences(r)}
    assert set(PAPER_REASONS) == {setting for r in PAPER_RECIPES.values() for setting in differences(r)}


@pytest.mark.parametrize("name", list(PAPER_RECIPES))
def test_a_row_of_the_paper_is_what_the_paper_says(name):
    "Its rule, its anchors and its losses without a difference; what our trainer does otherwise has a reason."
    theirs = source_values(name)
    assert len(theirs) > 45 and set(differences(PAPER_RECIPES[name])) <= set(PAPER_REASONS)
    assert not [setting for setting in PAPER_REASONS if setting.startswith("model.")]


def test_a_changed_value_is_a_difference_whatever_it_is():
    row = RECIPES["retina-r50-le90-1x-dota"]
    for change in (
        "optimizer.lr=0.01",
        "machine.precision=bfloat16",
        "model.frozen_stages=0",
        "schedule.epochs=13",
    ):
        setting = change.partition("=")[0]
        assert setting in set(differences(override(row, [change]))) - set(differences(row))


def test_as_published_outlines_leave_what_is_decided_otherwise():
    row = override(RECIPES["retina-r50-le135-1x-dota-ms-rr"], ["data.outlines=as_published"])
    assert set(differences(row)) == {"test.center_clamp", "transforms.nothing_left"}


def test_the_values_of_the_source_are_its_own():
    "Written down, not read from our records: a changed default of ours does not change them."
    theirs = source_values("retina-r50-oc-3x-dota")
    assert (theirs["optimizer.momentum"], theirs["schedule.drops"], theirs["model.k"]) == (0.9, (24, 33), 9)
    assert theirs["data.tiling.rates"] == (1.0,) and theirs["losses.focal"] == (0.25, 2.0)
    assert len(theirs) > 55


def test_a_row_is_printed_with_all_that_decides_it(capsys):
    assert main(["recipes", "retina-r50-le90-1x-dota"]) == 0
    text = capsys.readouterr().out
    for line in ("machine.precision = 'float32'", "optimizer.momentum = 0.9", "schedule.drops = (8, 11)",
                 "losses.focal = (0.25, 2.0)", "transforms.flip = ('horizontal', 0.5)", "merge.nms = 0.1",
                 "pixels.std = (58.395, 57.12, 57.375)", "data.min_side = 1.0", "at c33f1f5"):  # fmt: skip
        assert line in text
    assert "differs: boxes.mirrored = False, in the source True: " in text and "confound: " in text
    assert resolved(RECIPES["retina-r50-le90-1x-dota"])["model.frozen_stages"] == 1
    assert "model.frozen_stages = None, which is 1 here" in text
