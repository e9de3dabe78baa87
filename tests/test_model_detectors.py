"A whole detector: it learns by heart, survives odd batches, and says what is wrong."

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from atss_nb.core.records import ConfigError
from atss_nb.evaluation.evaluate import evaluate
from atss_nb.geometry.boxes import AngleDef, inside_margin, obb2hbb, regularize
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig, SecondStage
from atss_nb.model.retinanet import BOX_LOSSES
from atss_nb.model.roi_heads import multiscale_roi_align

CLASSES = ["ship", "shed"]
COARSE = ModelConfig.small(strides=(8, 16, 32, 64))


def scene(seed: int, size: int = 128) -> tuple[torch.Tensor, dict]:
    "Four boxes on plain ground: slim orange ones of class 0, stout blue ones of class 1."
    rng = torch.Generator().manual_seed(seed)
    centre = torch.tensor([[32.0, 32], [96, 36], [36, 96], [94, 94]]) + torch.rand(4, 2, generator=rng) * 14
    labels = torch.randint(0, 2, (4,), generator=rng)
    sides = torch.tensor([[44.0, 14], [30, 22]])[labels]
    turn = torch.rand(4, 1, generator=rng) * math.pi - math.pi / 2
    boxes = regularize(torch.cat([centre - 7, sides, turn], 1), "le90")
    points = torch.cartesian_prod(*[torch.arange(size) + 0.5] * 2).flip(1)
    inside = (inside_margin(points, boxes) > 0).float()
    paint = torch.tensor([[0.9, 0.5, 0.2], [0.3, 0.5, 0.9]])[labels]
    image = 0.3 * (1 - inside.amax(1, keepdim=True)) + inside @ paint
    return image.T.reshape(3, size, size), {"boxes": boxes, "labels": labels}


def batch(*seeds: int) -> tuple[list, list]:
    images, targets = zip(*[scene(seed) for seed in seeds], strict=True)
    return list(images), list(targets)


def no_objects() -> dict:
    return {"boxes": torch.zeros(0, 5), "labels": torch.zeros(0, dtype=torch.long)}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(COARSE, num_classes=2)


STAGE = {"rpn_samples": 64, "proposals": 100, "samples": 64, "width": 128}
PAPER = {"centerness": True, "box_loss": "giou"}
TABLE = {"box_loss": "log", "box_weight": 1.0, "head_norm": None, "level_scale": False}
DETECTORS = {
    "atss": {},
    "the table's": TABLE | {"angle": "oc"},
    "Rotated RetinaNet": TABLE | {"assigner": "max_iou", "scales_per_octave": 3, "ratios": (0.5, 1, 2)},
    "paper head": PAPER,
    "paper head, horizontal": PAPER,
    "points": {"regression": "point", "centerness": True},
    "points, FCOS": {"regression": "point", "centerness": True, "assigner": "center"},
    "IoU rule": {"assigner": "max_iou"},
    "two stages": {"second_stage": SecondStage(**STAGE, upright_branch=True), "atss_preset": "mmdet"},
    "two stages, as published": {
        "second_stage": SecondStage(**STAGE, upright_branch=True, as_published=True),
        "atss_preset": "mmdet",
        "angle": "oc",
    },
    "two stages, turned": {"second_stage": SecondStage(**STAGE, oriented=True)},
}
by_detector = pytest.mark.parametrize("name", DETECTORS)


def detector(name: str, **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model(replace(COARSE, **DETECTORS[name] | changes), num_classes=2)


@by_detector
def test_learns_four_images_by_heart(name):
    model, (images, targets) = detector(name), batch(0, 1, 2, 3)
    for target in targets if name.endswith("horizontal") else ():
        target["boxes"][:, 4] = 0  # the image still shows them turned: by heart, that is no matter
    steps = 60 if name in ("atss", "paper head", "points") else 80
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.15)
    totals = []
    for _ in range(steps):
        losses = model(images, targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        schedule.step()
        totals.append(sum(v.item() for k, v in losses.items() if k != "centerness"))  # which is never zero
    found = model.eval()(images)
    assert totals[-1] < 0.15 * totals[0]
    assert evaluate(found, targets, CLASSES).AP50 == 1
    if name.endswith("horizontal"):  # the same functions, and an angle that stays zero
        assert all(f["boxes"][f["scores"] > 0.5, 4].abs().max() < 0.15 for f in found)


@by_detector
def test_odd_batches(name):
    "Images of other sizes, one without objects; half precision; the same answer twice."
    model, (images, targets) = detector(name, score_threshold=0.01), batch(0, 1)
    images[1], targets[1] = images[1][:, :77, :101], no_objects()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        first, second = model.eval()(images), model(images)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("boxes", "scores", "labels"))
        torch.testing.assert_close(regularize(a["boxes"], model.config.angle), a["boxes"])
    with torch.no_grad():
        sums = sum(model.train()(images, [no_objects()] * 2).values())
    assert sums.isfinite()


@pytest.mark.parametrize("loss", BOX_LOSSES)
@pytest.mark.parametrize("regression", ["box", "point"])
@pytest.mark.parametrize("assigner", ["max_iou", "atss", "center"])
def test_every_box_loss_with_every_rule(loss, regression, assigner):
    model = detector("atss", box_loss=loss, regression=regression, assigner=assigner, centerness=True)
    losses = model(*batch(0))
    sum(losses.values()).backward()
    assert losses["box"].item() > 0 and all(value.isfinite() for value in losses.values())
    assert model.head.box_conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("rpn.object_conv", "objectness of image 0"),
        ("rpn.box_conv", "proposal deltas of image 0"),
        ("head.class_fc", "class logits of the proposals"),
        ("head.box_fc", "box loss of object . of image 0"),
    ],
)
def test_nan_in_two_stages_is_named(part, message):
    model = detector("two stages")
    model.get_submodule(part).bias.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=message):
        model(*batch(0, 1))


def test_ignored_objects_in_two_stages():
    "What is ignored is neither learnt nor background: its class changes nothing."
    model, (images, targets) = detector("two stages"), batch(0)
    model.eval().training = True
    hard = targets[0] | {"ignore": torch.tensor([True, False, False, False])}
    other = hard | {"labels": hard["labels"] ^ torch.tensor([1, 0, 0, 0])}
    sums = []
    for target in (hard, other, targets[0]):
        torch.manual_seed(0)
        sums.append(sum(model(images, [target]).values()).item())
    assert sums[0] == sums[1] != sums[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("assigner", ["atss", "max_iou"])
@pytest.mark.parametrize("box_loss", ["linear", "square", "log"])
def test_losses_are_finite(dtype, assigner, box_loss):
    config = ModelConfig.small(strides=(8, 16, 32, 64), assigner=assigner, box_loss=box_loss)
    model = build_model(config, num_classes=2)
    images, targets = batch(0, 1)
    targets[0] = {"boxes": torch.tensor([[61.0, 61, 1, 1, 0.2]]), "labels": torch.tensor([1])}
    images[1] = images[1][:, :77, :101]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        losses = model(images, targets)
    sum(losses.values()).backward()
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_images_without_objects(model):
    images, targets = batch(0, 1)
    losses = model(images, [no_objects(), no_objects()])
    sum(losses.values()).backward()
    assert losses["box"].item() == 0
    assert losses["classification"].item() > 0
    mixed = model(images, [targets[0], no_objects()])
    assert mixed["box"].item() > 0


def test_every_anchor_counts_once_per_positive(model):
    images, targets = batch(0, 1)
    model.eval().training = True  # losses with stored statistics: an image does not see its neighbours
    both = model(images, targets)
    single = [model(images[i : i + 1], targets[i : i + 1]) for i in (0, 1)]
    anchors = model.anchor_grid((128, 128))
    counts = [int((model.assigner(anchors, t["boxes"]).gt_index >= 0).sum()) for t in targets]
    for term in both:
        expected = sum(s[term] * n for s, n in zip(single, counts, strict=True)) / sum(counts)
        torch.testing.assert_close(both[term], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train_difficult", [True, False])
def test_difficult_objects(train_difficult):
    config = ModelConfig.small(strides=(8, 16, 32, 64), train_difficult=train_difficult)
    torch.manual_seed(0)
    model = build_model(config, num_classes=2)
    model.eval().training = True
    images, targets = batch(0)
    hard = targets[0] | {"difficult": torch.tensor([True, False, False, False])}
    other = hard | {"labels": hard["labels"] ^ torch.tensor([1, 0, 0, 0])}
    plain, marked, changed = (sum(model(images, [t]).values()).item() for t in (targets[0], hard, other))
    assert (plain == marked) == train_difficult
    assert (marked == changed) == (not train_difficult)


def test_evaluation_is_deterministic(model):
    images, _ = batch(0, 1)
    model.head.class_conv.bias.data.fill_(0.0)  # many equal candidates
    first, second = model.eval()(images), model(images)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in ("boxes", "scores", "labels"))
        assert (a["scores"].diff() <= 0).all()
        assert len(a["boxes"]) > 0


@pytest.mark.parametrize("angle", [a.value for a in AngleDef])
def test_predictions_follow_the_angle_definition(angle):
    torch.manual_seed(0)
    model = build_model(ModelConfig.small(strides=(8, 16, 32, 64), angle=angle), 2).eval()
    model.head.class_conv.bias.data.fill_(0.0)
    boxes = model([torch.rand(3, 90, 120)])[0]["boxes"]
    assert len(boxes) > 0
    torch.testing.assert_close(regularize(boxes, angle), boxes)
    assert ((boxes[:, :2] >= 0) & (boxes[:, :2] <= torch.tensor([119.0, 89]))).all()


@pytest.mark.parametrize(("part", "name"), [("class_conv", "class logits"), ("box_conv", "box deltas")])
def test_nan_is_named(model, part, name):
    images, targets = batch(0, 1)
    getattr(model.head, part).bias.data[0] = float("nan")
    with pytest.raises(FloatingPointError, match=f"{name} of image 0 in the batch"):
        model(images, targets)
    with pytest.raises(FloatingPointError, match=name):
        model.eval()(images)


def test_runaway_boxes_are_named(model):
    images, targets = batch(0, 1)
    model.head.box_conv.bias.data[:2] = 3e38
    with pytest.raises(FloatingPointError, match="predicted box of object . of image 0"):
        model(images, targets)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.update(labels=t["labels"] + 5), r"targets\[1\]\['labels'\]: expected 0 to 1, got"),
        (lambda t: t.update(boxes=t["boxes"][:, :4]), r"targets\[1\]\['boxes'\]"),
        (lambda t: t.update(boxes=t["boxes"] * float("nan")), r"targets\[1\]\['boxes'\].*row 0"),
        (lambda t: t.update(labels=t["labels"][:2]), r"targets\[1\]: expected boxes \(G, 5\) and labels"),
    ],
)
def test_bad_targets_are_named(model, spoil, message):
    images, targets = batch(0, 1)
    spoil(targets[1])
    with pytest.raises(ValueError, match=message):
        model(images, targets)


def test_bad_images_are_named(model):
    images, targets = batch(0, 1)
    with pytest.raises(ValueError, match=r"images\[1\]: expected a float tensor"):
        model([images[0], (images[1] * 255).byte()], targets)
    with pytest.raises(ValueError, match="targets: expected one per image, 2, got None"):
        model(images)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("backbone", "resnet5", "did you mean resnet50"),
        ("weights", "imagnet", "did you mean imagenet"),
        ("backbone_norm", "batch", "expected one of 'bn', 'gn'"),
        ("assigner", "maxiou", "did you mean max_iou"),
        ("box_loss", "logarithm", "did you mean log"),
        ("regression", "points", "did you mean point"),
        ("extra_levels", "inputs", "did you mean input"),
        ("atss_preset", "papers", "did you mean paper"),
        ("angle", "le_90", "did you mean le90"),
        ("strides", (4, 8, 32), "expected doubling strides"),
        ("frozen_stages", 1, "frozen_stages is 1, expected None"),
        ("norm_eval", True, "norm_eval is True, expected None"),
        ("weights", "imagenet", "weights is 'imagenet', expected None"),
    ],
)
def test_unknown_names(field, value, message):
    backbone = {"backbone": "resnet18"} if value == "imagnet" else {}
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig.small(**(backbone | {field: value})), 2)


def test_a_checkpoint_rebuilds_the_model(model):
    model.eval()
    config = ModelConfig(**json.loads(json.dumps(asdict(model.config))))
    again = build_model(config, 2, pretrained=False).eval()
    again.load_state_dict(model.state_dict())
    images, _ = batch(0)
    model.head.class_conv.bias.data.fill_(0.0)
    again.head.class_conv.bias.data.fill_(0.0)
    assert torch.equal(model(images)[0]["boxes"], again(images)[0]["boxes"])


def test_borrowed_weights_freeze_the_early_layers():
    model = build_model(ModelConfig.resnet(18, channels=32, head_convs=1), 2, pretrained=False).train()
    images, targets = batch(0)
    sum(model(images, targets).values()).backward()
    body = model.backbone.body
    assert all(p.grad is None for part in (body.stem, body.stages[0]) for p in part.parameters())
    assert body.stages[1][0].conv1.weight.grad.abs().sum() > 0
    assert not any(m.training for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("frozen", [0, 2])
@pytest.mark.parametrize("norm_eval", [False, True])
def test_a_configuration_chooses_what_is_kept(frozen, norm_eval):
    changes = {"frozen_stages": frozen, "norm_eval": norm_eval, "channels": 32}
    body = build_model(ModelConfig.resnet(18, **changes), 2, pretrained=False).train().backbone.body
    learns = [next(part.parameters()).requires_grad for part in (body.stem, *body.stages)]
    assert learns == [frozen == 0, frozen == 0, frozen == 0, True, True]
    assert any(m.training for m in body.modules() if isinstance(m, torch.nn.BatchNorm2d)) != norm_eval


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("assigner", ["max_iou", "atss"])
def test_every_kind_of_two_stages(oriented, class_agnostic, assigner):
    "Proposals by either rule, upright or turned; a box for all classes, or one for each."
    stage = SecondStage(**STAGE, oriented=oriented, class_agnostic=class_agnostic)
    changes = {"assigner": assigner, "max_iou": (0.7, 0.3, 0.3), "score_threshold": 0.01}
    model, (images, targets) = detector("two stages", second_stage=stage, **changes), batch(0)
    losses = model(images, targets)
    assert set(losses) == {"objectness", "proposal", "classification", "box"}
    assert all(value.isfinite() and value > 0 for value in losses.values())
    assert model.head.box_fc.out_features == (1 if class_agnostic else 2) * 5
    proposals = model.first_stage(images).proposals[0]
    assert (proposals[:, 4] % (math.pi / 2) == 0).all() != oriented
    assert len(model.eval()(images)[0]["boxes"]) > 0


def test_the_published_second_stage_is_the_sources():
    "Its weights are counted in the source's network; proposals end at the image's border, angles lie from -90 to 0."
    config = ModelConfig.faster_rcnn(50, weights=None)
    config = replace(config, second_stage=replace(config.second_stage, as_published=True))
    model = build_model(config, 15, pretrained=False)
    assert sum(p.numel() for p in model.parameters()) == 41_513_206
    assert model.head.layers[1].weight.abs().max() > (0.98 * 6 / (12544 + 1024)) ** 0.5  # Xavier's bound
    model, (images, targets) = detector("two stages, as published"), batch(0)
    losses = model(images, targets)
    assert set(losses) == {
        "objectness", "proposal", "classification", "box", "upright", "upright_classification"
    }  # fmt: skip
    losses["upright_classification"].backward()
    assert model.head.upright_class_fc.weight.grad.abs().sum() > 0
    height, width = images[0].shape[-2:]
    corners = obb2hbb(model.eval().first_stage(images).proposals[0])
    assert corners.min() > -1e-4 and (corners[:, 2].max(), corners[:, 3].max()) <= (
        width + 1e-4,
        height + 1e-4,
    )
    with pytest.raises(ConfigError, match="as_published"):
        replace(config, angle="le90")


@pytest.mark.parametrize("oriented", [False, True])
def test_a_proposal_is_cut_from_the_level_of_its_size(oriented):
    "FPN (Lin et al., CVPR 2017): the finest level below 28 strides (112 px), one more for each doubling."
    strides, sides = (4, 8, 16, 32), [20.0, 111, 113, 223, 225, 440, 450, 500]
    features = [torch.full((1, 1, 512 // s, 512 // s), float(n)) for n, s in enumerate(strides)]
    slim = torch.tensor([[256, 256, s, s, 0] for s in sides] + [[256, 256, 450, 450 / 15, 0]])
    pooled = multiscale_roi_align(features, strides, [slim], size=2, oriented=oriented)
    assert pooled.flatten(1).mean(1).round(decimals=3).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 1]
