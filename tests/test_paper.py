"What the paper's tables need: its IoU rule, its size rule, boxes of four numbers, its pyramid, its frozen norms."

from dataclasses import asdict

import pytest
import torch
from torch import nn

from atss_nb.cli.main import main
from atss_nb.geometry.boxes import hbb2obb, inside_margin, obb2hbb
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.recipes.paper import PAPER_RECIPES, paper_model
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.assign import MaxIoU
from atss_nb.samples.explanation import Reason
from atss_nb.training.settings import TrainConfig


def boxes_of(seed: int, count: int = 30) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    scale = torch.tensor([250, 250, 90, 50, 3.1])
    return torch.rand(count, 5, generator=draw) * scale + torch.tensor([3, 3, 8, 6, -1.55])


def test_the_strict_iou_rule_ignores_positives_whose_center_is_outside():
    anchors, gts = AnchorGrid((8, 16, 32), ratios=(0.5, 1.0, 2.0))((256, 256)), boxes_of(0)
    plain, strict = MaxIoU()(anchors, gts).gt_index, MaxIoU(inside=True)(anchors, gts).gt_index
    inside = inside_margin(anchors.boxes[:, :2].double(), gts.double()) > 0.01
    rows = torch.arange(len(plain))
    outside = (plain >= 0) & ~inside[rows, plain.clamp(min=0)]
    assert 5 < int(outside.sum()) < int((plain >= 0).sum())
    assert torch.equal(strict, torch.where(outside, -2, plain))
    batch = MaxIoU(inside=True)(anchors, [gts, gts[:3]]).gt_index
    assert torch.equal(batch[0], strict)
    reasons = MaxIoU(inside=True).explain(anchors, gts).reason
    owner, anchor = plain[outside], rows[outside]
    over = MaxIoU().explain(anchors, gts).iou[owner, anchor] >= 0.5
    assert set(reasons[owner[over], anchor[over]].tolist()) <= {int(Reason.CENTER_OUTSIDE)}


def test_both_rules_of_the_first_tables_are_named_by_the_configuration():
    def rule(**changes):
        return build_model(ModelConfig(**changes), 1).assigner

    assert rule(assigner="max_iou", iou_inside=True).inside
    assert rule(assigner="center", center_radius=None).radius is None
    assert rule(assigner="center").radius == 1.5


@pytest.mark.parametrize("regression", ["box", "point"])
def test_upright_boxes_have_four_numbers_and_no_angle(regression):
    torch.manual_seed(0)
    config = ModelConfig.small(upright=True, regression=regression, centerness=True, box_loss="giou")
    model = build_model(config, 2).train()
    assert model.head.box_conv.out_channels == 4
    images, target = [torch.rand(3, 96, 96)], {"boxes": torch.tensor([[50.0, 44, 50, 20, 0.5]])}
    target["labels"] = torch.tensor([1])
    matched = model.assign(model.anchor_grid((96, 96)), [target])
    hull = hbb2obb(obb2hbb(target["boxes"]))
    assert len(matched.boxes) and torch.allclose(matched.boxes, hull.expand_as(matched.boxes))
    optimizer, losses = torch.optim.AdamW(model.parameters(), 2e-3), []
    for _ in range(6):
        loss = sum(model(images, [target]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    found = torch.cat([one["boxes"] for one in build_model(config, 2).eval()(images)])
    quarter = found[:, 4] / (torch.pi / 2)
    assert torch.allclose(quarter, quarter.round(), atol=1e-5)


def test_the_detector_of_the_paper_has_its_weights():
    "Counted by hand for a ResNet-50 and 80 classes: 32,297,370, of which batch norm's do not learn."
    model = build_model(ModelConfig.paper(weights=None, upright=True), 80, pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == 32_297_370
    norms = [m for m in model.backbone.body.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(p.requires_grad for m in norms for p in m.parameters())
    assert any(p.requires_grad for p in model.backbone.body.stages[1].parameters())
    assert model.coder.stds[:4] == (0.1, 0.1, 0.2, 0.2)


def test_the_seventh_level_looks_at_the_rectified_sixth():
    torch.manual_seed(0)
    pyramid = build_model(
        ModelConfig.small(extra_levels="output-relu", strides=(8, 16, 32, 64, 128)), 1
    ).backbone
    *_, p6, p7 = pyramid(torch.rand(1, 3, 256, 256))
    assert (p6 < 0).any()
    assert torch.allclose(p7, pyramid.fpn.extra[-1](p6.relu()), atol=1e-6)


@pytest.mark.parametrize("name", ["paper-retinanet", "paper-fcos-sampling", "paper-retinanet-9-atss"])
def test_rows_of_the_paper_run_by_name(name, tmp_path, capsys):
    assert main(["train", name, "--smoke", "--out", str(tmp_path / "run")]) == 0
    config = TrainConfig.from_json((tmp_path / "run/run/config.json").read_text())
    assert (config.model.upright, config.format) == (True, "coco-boxes")
    assert main(["recipes", name]) == 0
    text = capsys.readouterr().out
    assert "model.upright = True" in text and "published.mAP = " in text and "differs: schedule.drops" in text


def test_every_row_of_the_paper_is_another_detector_of_any_base():
    base = ModelConfig.small(angle="le135")
    made = {name: paper_model(name, base) for name in PAPER_RECIPES}
    assert len({str(config) for config in made.values()}) == len(made)
    assert {config.angle for config in made.values()} == {"le135"} and not any(
        c.upright for c in made.values()
    )
    assert paper_model("paper-k-5").k == 5 and paper_model("paper-scale-6").anchor_scale == 6
    steps = ["", "-gn", "-giou", "-inside", "-centerness", "-imprs"]
    rows = [asdict(made[f"paper-retinanet{end}"]) for end in steps]
    changes = [sum(one[k] != two[k] for k in one) for one, two in zip(rows, rows[1:], strict=False)]
    assert changes == [1, 2, 1, 1, 1]  # the loss comes with its weight
