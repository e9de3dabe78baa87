"Weights of other systems: recorded heads under their own names, whole detectors written by name."

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.model.config import ModelConfig
from atss_nb.model.detectors import build_model
from atss_nb.model.weights import load_peer, match_weights, peer_name, quarter_turned, read_peer
from atss_nb.samples.coders import DeltaXYWHA

GOLDEN = Path(__file__).parent / "golden"
KINDS = {
    "retina": ModelConfig.resnet(50, weights=None, channels=16, head_convs=2),
    "nine": ModelConfig.resnet(18, weights=None, channels=16, scales_per_octave=3, ratios=(0.5, 1, 2)),
    "paper": ModelConfig.paper(18, weights=None, channels=16),
    "faster": ModelConfig.faster_rcnn(18, weights=None, channels=16),
}


def as_peer(model) -> dict[str, torch.Tensor]:
    "A state dict in the other family's names and layout: factors per level one by one, counters and all."
    names = {n: peer_name(n, len(model.backbone.fpn.lateral)).replace("\\", "") for n in model.state_dict()}
    found = {re.sub(r"\((\w+)\|\w+\)", r"\1", names[n]): v.clone() for n, v in model.state_dict().items()}
    for i, scale in enumerate(found.pop("head.scales", ())):
        found[f"bbox_head.scales.{i}.scale"] = scale.clone()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_detector_comes_over(kind, tmp_path):
    ours, other = (build_model(KINDS[kind], 3) for _ in range(2))
    torch.save({"state_dict": as_peer(other), "meta": {"epoch": 12}}, tmp_path / "epoch_12.pth")
    found = load_peer(ours, read_peer(tmp_path / "epoch_12.pth"))
    assert found.complete and not any(name.startswith("head.") for name in as_peer(other))
    for name, value in other.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


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


def test_squares_at_minus_a_quarter_turn_say_the_same_boxes():
    coder, deltas = (
        DeltaXYWHA.preset("le90"),
        torch.randn(50, 5, generator=torch.Generator().manual_seed(0)) / 2,
    )
    at_zero = torch.tensor([[40.0, 60.0, 32.0, 32.0, 0.0]]).expand(50, 5)
    turned = at_zero - torch.tensor([0, 0, 0, 0, torch.pi / 2])
    mine = torch.stack([quarter_turned(one) for one in deltas])
    got, wanted = coder.decode(at_zero, mine), coder.decode(turned, deltas)
    assert torch.allclose(got[:, :4], wanted[:, :4], atol=1e-4)
    assert torch.allclose((2 * got[:, 4]).cos(), (2 * wanted[:, 4]).cos(), atol=1e-4)
    assert torch.allclose((2 * got[:, 4]).sin(), (2 * wanted[:, 4]).sin(), atol=1e-4)
