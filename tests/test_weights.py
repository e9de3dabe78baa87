"Weights of other systems: recorded heads under their own names, whole detectors written by name."

import math
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_model_golden import RECORDS, Peer, assert_same_detections

from atss_nb.cli.main import main
from atss_nb.geometry.boxes import obb2poly
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.model.conversion import (
    from_zero,
    load_peer,
    match_weights,
    mirrored,
    peer_name,
    quarter_turned,
    read_peer,
)
from atss_nb.model.heads import HeadOutput
from atss_nb.recipes.recipes import find_recipe, override
from atss_nb.samples.anchors import AnchorGrid
from atss_nb.samples.coders import DeltaXYWHA
from atss_nb.training.loop import load_model

GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    "retina": ModelConfig.resnet(50, weights=None, channels=16, head_convs=2),
    "nine": ModelConfig.resnet(18, weights=None, channels=16, scales_per_octave=3, ratios=(0.5, 1, 2)),
    "paper": ModelConfig.paper(18, weights=None, channels=16),
    "faster": ModelConfig.faster_rcnn(18, weights=None, channels=16),
}
KINDS["faster as published"] = replace(
    KINDS["faster"], second_stage=replace(KINDS["faster"].second_stage, as_published=True)
)


def as_peer(model, head: int = 1) -> dict[str, torch.Tensor]:
    "A state dict in the other family's names and layout: factors per level one by one, counters and all."
    names = {n: peer_name(n, len(model.backbone.fpn.lateral)).replace("\\", "") for n in model.state_dict()}
    pick = rf"\{head}"  # of the names of RetinaNet's and ATSS' heads
    found = {re.sub(r"\((\w+)\|(\w+)\)", pick, names[n]): v.clone() for n, v in model.state_dict().items()}
    for i, scale in enumerate(found.pop("head.scales", ())):
        found[f"bbox_head.scales.{i}.scale"] = scale.clone()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_detector_comes_over(kind, tmp_path):
    ours, other = (build_model(KINDS[kind], 3) for _ in range(2))
    torch.save({"state_dict": as_peer(other), "meta": {"epoch": 12}}, tmp_path / "epoch_12.pth")
    found = match_weights(ours, read_peer(tmp_path / "epoch_12.pth"))
    assert found.complete and not any(name.startswith("head.") for name in as_peer(other))
    assert found.state.keys() == other.state_dict().keys()
    for name, value in other.state_dict().items():
        assert torch.equal(found.state[name], value), name


@pytest.mark.parametrize("name", ["retina_le90", "retina_oc_hbb", "atss0x_le90", "atss0x_le135"])
def test_recorded_heads_match_by_name(name):
    golden = np.load(GOLDEN / f"07_head_{name}.npz")
    theirs = {f"bbox_head.{k[6:]}": torch.from_numpy(golden[k]) for k in golden if k.startswith("param|")}
    nine = name.startswith("retina") and {"scales_per_octave": 3, "ratios": (1.0, 0.5, 2.0)} or {}
    model = build_model(ModelConfig(head_convs=1, head_norm=None, level_scale=False, **nine), 2)
    found = match_weights(model, theirs)
    assert not found.unused and not any(n.startswith("head.") for n in found.missing)


def test_the_recorded_head_of_1x_brings_its_norms_and_scales():
    golden = np.load(GOLDEN / "07_head_atss1x_le90.npz")
    theirs = {f"bbox_head.{k[6:]}": torch.from_numpy(golden[k]) for k in golden if k.startswith("param|")}
    config = ModelConfig(strides=(8, 16, 32), head_convs=1, centerness=True)
    found = match_weights(build_model(config, 2), theirs)
    assert not found.unused and not any(n.startswith("head.") for n in found.missing)
    assert found.names["head.center_conv.weight"] == "bbox_head.atss_centerness.weight"


def test_a_partial_match_loads_nothing():
    ours, other = (build_model(KINDS["retina"], 3) for _ in range(2))
    before, theirs = ours.head.class_conv.weight.clone(), as_peer(other)
    del theirs["bbox_head.retina_reg.bias"]
    with pytest.raises(ValueError, match=r"nothing was loaded(.|\n)*missing: 1\n  head.box_conv.bias"):
        load_peer(ours, theirs)
    with pytest.raises(ValueError, match=r"head.class_conv.weight \(5"):
        load_peer(build_model(KINDS["retina"], 5), as_peer(other))
    assert torch.equal(ours.head.class_conv.weight, before)


def test_a_file_that_runs_code_is_refused(tmp_path):
    torch.save({"state_dict": {"a": Path("x")}}, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        read_peer(tmp_path / "odd.pth")


# how mmrotate 1.x stands its anchors up, as recorded; ours stand at 0
@pytest.mark.parametrize("angle", ["oc", "le90", "le135"])
@pytest.mark.parametrize(
    ("kind", "grid", "sure"),
    [
        ("atss_spo1_r1", AnchorGrid(), slice(None)),
        # the squares between octaves are turned or not by rounding
        ("retina_spo3_r3", AnchorGrid(scales_per_octave=3, ratios=(1.0, 0.5, 2.0)), [0, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_turned_anchors_say_the_same_boxes(angle, kind, grid, sure):
    golden = np.load(GOLDEN / "05_anchors.npz")
    theirs = torch.from_numpy(golden[f"512x384|{kind}|v1_{angle}"])
    per, coder = len(grid.sizes(1)), DeltaXYWHA.preset(angle)
    deltas = torch.randn(len(theirs), 5, generator=torch.Generator().manual_seed(0)) / 2
    mine = [quarter_turned(one.flatten(), angle, grid.sizes(1)) for one in deltas.split(per)]
    got = coder.decode(grid((384, 512)).boxes, torch.cat(mine).view(-1, 5))
    expected = coder.decode(theirs, deltas)
    got, expected = (boxes.view(-1, per, 5)[:, sure].reshape(-1, 5) for boxes in (got, expected))
    assert torch.allclose(got[:, :2], expected[:, :2], atol=1e-2)
    assert box_iou_rotated(got, expected, aligned=True).min() > 0.999


def test_squares_between_octaves_cannot_be_brought_over():
    "1.x turns some of them, and others not: as recorded, so refused."
    golden = np.load(GOLDEN / "05_anchors.npz")["512x384|retina_spo3_r3|v1_le90"].reshape(-1, 9, 5)
    assert 0 < (golden[:, 1, 4] == 0).mean() < 1
    model = build_model(KINDS["nine"], 3)
    with pytest.raises(ValueError, match="by rounding"):
        load_peer(model, as_peer(model), "mmrotate-1.x")


def corners(boxes: torch.Tensor) -> torch.Tensor:  # (N, 5) -> (N, 4, 2) in an order of their own
    found = obb2poly(boxes.double()).view(-1, 4, 2)
    order = (found[..., 0] + 1e-3 * found[..., 1]).argsort(1)
    return found.gather(1, order[..., None].expand(-1, -1, 2))


def test_the_tables_project_turns_le90_the_other_way():
    "Its decoder gives angles that its pictures draw counter-clockwise."
    deltas = torch.randn(50, 5, generator=torch.Generator().manual_seed(1)) / 2
    anchors = torch.tensor([[40.0, 60.0, 32.0, 32.0, 0.0]]).expand(50, 5)
    coder = DeltaXYWHA.preset("le90")
    theirs = coder.decode(anchors, deltas)
    x, y, w, h, t = theirs.double().unbind(1)
    ends = [(i * w / 2, j * h / 2) for i in (-1, 1) for j in (-1, 1)]
    drawn = [torch.stack([x + a * t.cos() + b * t.sin(), y - a * t.sin() + b * t.cos()], 1) for a, b in ends]
    found = corners(coder.decode(anchors, mirrored(deltas.flatten()).view(50, 5)))
    distance = torch.cdist(found, torch.stack(drawn, 1))
    assert distance.amin(2).max() < 1e-3 and distance.amin(1).max() < 1e-3


def test_the_tables_second_stage_counts_from_minus_a_quarter_turn():
    deltas = torch.rand(20, 5, generator=torch.Generator().manual_seed(2)) * torch.tensor([1, 1, 1, 1, 7.8])
    proposals = torch.tensor([[40.0, 60.0, 52.0, 24.0, 0.0]]).expand(20, 5)
    dx, dy, dw, dh, da = (deltas * torch.tensor([0.1, 0.1, 0.2, 0.2, 0.2])).unbind(1)
    theirs = torch.stack([40 + 52 * dx, 60 + 24 * dy, 52 * dw.exp(), 24 * dh.exp(), da - math.pi / 2], 1)
    coder = DeltaXYWHA.preset("oc", stds=(0.1, 0.1, 0.2, 0.2, 0.2))
    found = coder.decode(proposals, from_zero(deltas.flatten(), 0.2).view(20, 5))
    assert torch.allclose(corners(found), corners(theirs), atol=1e-3)


@pytest.mark.parametrize("peer", RECORDS, ids=str)
def test_a_recorded_head_detects_the_same_after_the_file(peer: Peer, tmp_path):
    "From a .pth through names and meaning to the detections that its system gave, with our own anchors at angle 0."
    grid, config = AnchorGrid((8, 16, 32), **peer.grid), replace(peer.config, channels=8, strides=(8, 16, 32))
    other, model = (build_model(config, 2) for _ in range(2))
    for one in (other, model):
        one.head, one.anchor_grid = replace(peer).loaded(), grid
    head = {f"bbox_head.{k[6:]}": peer.read(k) for k in peer.golden if k.startswith("param|")}
    rest = {k: v for k, v in as_peer(other).items() if not k.startswith("bbox_head.")}
    torch.save({"state_dict": rest | head, "meta": {}}, tmp_path / "head.pth")
    for parameter in model.head.parameters():
        parameter.data.zero_()
    load_peer(model, read_peer(tmp_path / "head.pth"), "mmrotate-1.x" if peer.paper else "mmrotate-0.x")
    predicted = model.head([peer.read(f"feat{i}") for i in range(3)])
    for image in (0, 1):
        one = HeadOutput(*(None if x is None else x[image].detach() for x in predicted))
        assert_same_detections(peer, one, image, grid((128, 192)))


SMALL = ["model.backbone=resnet18", "model.channels=16", "model.head_convs=1"]
MMROTATE_1X = [
    "model.head_norm=gn",
    "model.level_scale=True",
    "model.centerness=True",
    "model.box_loss=linear",
]
DOTA = find_recipe("retina-r50-oc-1x-dota").data.classes
META_0X = {"epoch": 12, "iter": 9, "mmdet_version": "2.28.2", "CLASSES": DOTA, "config": "model = dict()"}
META_1X = {
    "epoch": 12,
    "cfg": "model = dict()",
    "dataset_meta": {"classes": DOTA, "palette": [(165, 42, 42)]},
}
FILES = {  # layout, recipe -> more changes, what else is in such a file, prefix of its names
    ("mmrotate-0.x", "retina-r50-le135-1x-dota"): ([], {"meta": META_0X, "optimizer": {"state": {}}}, ""),
    ("mmrotate-1.x", "retina-r50-le90-1x-dota"): (MMROTATE_1X, {"meta": META_1X, "message_hub": {}}, ""),
    ("mmrotate-1.x", "retina-r50-oc-1x-dota"): (["model.ratios=(1.0, 0.5, 2.0)"], {"meta": META_1X}, ""),
    ("ratss", "retina-r50-oc-1x-dota"): ([], {"meta": META_0X | {"PALETTE": None}}, "module."),
    ("ratss", "retina-r50-le90-1x-dota"): ([], {"meta": META_0X}, "module."),
    ("ratss", "faster-rcnn-r50-oc-1x-dota"): (["model.second_stage.width=32"], {"meta": META_0X}, ""),
}


def in_their_terms(theirs: dict, layout: str, model) -> dict[str, torch.Tensor]:
    "The numbers that their network would have to say for the boxes that ours says: the way back, by hand."
    for name in [n for n in theirs if re.search(r"(retina|atss)_reg|fc_reg\.bias", n)]:
        dx, dy, dw, dh, da = theirs[name].unflatten(0, (-1, 5)).unbind(1)
        if model.config.second_stage:
            da = da + math.pi / 2 / 0.2
        elif layout == "ratss" and model.config.angle == "le90":
            da = -da
        elif layout == "mmrotate-1.x" and model.config.angle == "le90":
            dx, dy, dw, dh = -dy, dx, dh, dw
        elif layout == "mmrotate-1.x":  # oc, ratios 1, 0.5 and 2
            tall = torch.tensor([1.0, 0.5, 2.0]).view(-1, *[1] * (dx.ndim - 1))
            dx, dy, dw, dh = dx / tall, dy * tall, dh, dw
        theirs[name] = torch.stack([dx, dy, dw, dh, da], 1).flatten(0, 1)
    return theirs


def talkative(config: ModelConfig, classes: int):
    "A detector that sees turned boxes of every class everywhere."
    torch.manual_seed(0)
    model = build_model(config, classes, pretrained=False).eval()
    for name, value in model.head.named_parameters():
        if name.startswith(("class_conv", "class_fc", "box_conv", "box_fc", "upright_fc")):
            torch.nn.init.normal_(value, std=0.3)
    return model


@pytest.mark.parametrize(("layout", "name"), FILES)
def test_the_command_brings_a_checkpoint_over(layout, name, tmp_path, capsys):
    changes, more, prefix = FILES[layout, name]
    recipe = override(find_recipe(name), SMALL + changes)
    source = talkative(recipe.model, len(recipe.data.classes))
    theirs = in_their_terms(as_peer(source, 1 + source.config.centerness), layout, source)
    state = OrderedDict((prefix + key, value) for key, value in theirs.items())
    torch.save({"state_dict": state} | more, tmp_path / "epoch_12.pth")
    words = ["--recipe", name, "--layout", layout, *(w for c in SMALL + changes for w in ("--set", c))]
    out = tmp_path / "out/ours.safetensors"
    assert main(["convert-weights", str(tmp_path / "epoch_12.pth"), str(out), *words]) == 0
    text = capsys.readouterr().out
    assert f"{len(source.state_dict())} tensors matched" in text and "missing" not in text
    model, config, classes = load_model(out)
    assert (classes, model.config) == (list(recipe.data.classes), recipe.model)
    assert config.size == recipe.transforms.size
    image = [torch.rand(3, 96, 128, generator=torch.Generator().manual_seed(0))]
    (expected,), (found,) = source(image), model(image)
    assert len(expected["boxes"]) > 20 and torch.equal(found["labels"], expected["labels"])
    torch.testing.assert_close(found["scores"], expected["scores"])
    assert box_iou_rotated(found["boxes"], expected["boxes"], aligned=True).min() > 0.99


def test_the_command_claims_the_name_that_it_writes(tmp_path, capsys):
    "Of `ours.pth` it makes `ours.safetensors`, which may be somebody's."
    name = "retina-r50-le135-1x-dota"
    recipe = override(find_recipe(name), SMALL)
    theirs = as_peer(build_model(recipe.model, len(recipe.data.classes), pretrained=False))
    torch.save({"state_dict": theirs, "meta": META_0X}, tmp_path / "epoch_12.pth")
    (tmp_path / "ours.safetensors").write_text("mine")
    words = ["--recipe", name, "--layout", "ratss", *(w for c in SMALL for w in ("--set", c))]
    assert main(["convert-weights", str(tmp_path / "epoch_12.pth"), str(tmp_path / "ours.pth"), *words]) == 1
    assert "ours.safetensors: exists, and atss convert-weights did not make it" in capsys.readouterr().err
    assert (tmp_path / "ours.safetensors").read_text() == "mine"
    assert not (tmp_path / "ours.json").exists()


WRONG = {  # recipe: what is said of a checkpoint of retina-r50-le135-1x-dota
    "retina-r101-le135-1x-dior-r-rr": "shapes: 2 head.class_conv.weight (20, 16, 3, 3), bbox_head.retina_cls",
    "faster-rcnn-r50-oc-1x-dota": "nothing was loaded 130 tensors matched missing: 18 ",
    "retina-r50-le90-1x-dotta": "did you mean retina-r50-le90-1x-dota",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_checkpoint_of_another_recipe_is_refused(name, tmp_path, capsys):
    recipe = override(find_recipe("retina-r50-le135-1x-dota"), SMALL)
    theirs = as_peer(build_model(recipe.model, len(recipe.data.classes), pretrained=False))
    torch.save({"state_dict": theirs, "meta": META_0X}, tmp_path / "epoch_12.pth")
    words = ["--recipe", name, "--layout", "ratss", *(w for c in SMALL for w in ("--set", c))]
    assert (
        main(["convert-weights", str(tmp_path / "epoch_12.pth"), str(tmp_path / "o.safetensors"), *words])
        == 1
    )
    error = capsys.readouterr().err
    assert WRONG[name] in error and "Traceback" not in error
    assert not list(tmp_path.glob("o.*"))


def test_nothing_of_the_tables_two_stages_is_left_over():
    "Not one tensor of the source's names is spare, and no number changes: its angles count as ours do then."
    ours, other = (build_model(KINDS["faster as published"], 3) for _ in range(2))
    theirs = as_peer(other)
    assert {"roi_head.bbox_head.fc_cls_h.weight", "roi_head.bbox_head.fc_cls_h.bias"} <= theirs.keys()
    found = load_peer(ours, theirs, "ratss")
    assert found.complete and set(found.names.values()) == set(theirs)
    for name, value in other.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_both_second_stages_read_the_same_boxes_from_a_checkpoint():
    "Under limits that none of them reaches."
    plain, published = (build_model(KINDS[kind], 3).coder for kind in ("faster", "faster as published"))
    proposals, bias = torch.tensor([[40.0, 60, 52, 24, 0]]).expand(20, 5), from_zero(torch.zeros(5), 0.2)
    deltas = torch.rand(20, 5, generator=torch.Generator().manual_seed(3)) * torch.tensor([1, 1, 1, 1, 7.8])
    one, two = plain.decode(proposals, deltas + bias), published.decode(proposals, deltas, (200, 200))
    assert torch.allclose(corners(one), corners(two), atol=1e-3)


def test_two_stages_of_another_project_are_refused():
    model = build_model(KINDS["faster"], 3)
    with pytest.raises(ValueError, match="ratss under oc only"):
        load_peer(model, as_peer(model), "mmrotate-0.x")
