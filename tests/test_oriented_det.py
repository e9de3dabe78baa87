"""Checkpoints of oriented-det (Apache-2.0) compute in our networks what they compute in its own.

Its names, shapes and numbers were recorded with the version that the golden names; where that version is installed, it
is asked itself. `python tests/test_oriented_det.py` there records them anew.
"""

import importlib.metadata
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.cli.main import atss
from atss_nb.geometry.overlap import box_iou_rotated
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.model.conversion import load_peer, read_peer
from atss_nb.model.targets import normalized_batch
from atss_nb.training.loop import load_model

GOLDEN = Path(__file__).parent / "golden/12_oriented_det"
SIZE, CLASSES = (128, 256), 3
COMMON = {"weights": None, "center_offset": 0.5, "angle": "le90", "extra_levels": "input-relu"}
NINE = {"scales_per_octave": 3, "ratios": (0.5, 1.0, 2.0)}  # as it is configured for DOTA
KINDS = {
    "retinanet": ModelConfig.resnet(18, **COMMON, **NINE),
    "one anchor": ModelConfig.resnet(
        18, **COMMON | {"extra_levels": "pool"}, strides=(8, 16, 32, 64), anchor_scale=8.0, head_convs=1
    ),
    "fcos": ModelConfig.resnet(
        18, **COMMON, regression="point", centerness=True, head_norm="gn", level_scale=True
    ),
}
EVERY = {"retinanet": 23, "one anchor": 3, "fcos": 3}  # anchor that is recorded


def image() -> torch.Tensor:  # (3, H, W) in [0, 1]
    return torch.from_numpy(np.random.default_rng(7).random((3, *SIZE), dtype=np.float32))


def tensors(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    "A state dict whose numbers follow from the names, so that nobody has to keep them."
    found = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if len(shape) == 4:
            gain = 0.3 if name.startswith("head.conv_") else 1.0
            value = rng.standard_normal(shape, np.float32) * gain / np.sqrt(np.prod(shape[1:]))
        elif name.endswith(("bias", "mean")):  # four numbers of a box are distances: of a stride or so
            value = 0.1 * rng.standard_normal(shape, np.float32) + (
                name == "head.conv_bbox.bias" and shape == [4]
            )
        else:  # factors and variances
            value = rng.uniform(0.6, 1.2, shape)
        found[name] = torch.from_numpy(np.asarray(value, np.float32))
    return found


def ours(kind: str) -> dict[str, torch.Tensor]:
    "What our network says of the image, anchor by anchor, with the recorded names' numbers."
    theirs = tensors(json.loads(GOLDEN.with_suffix(".json").read_text())["shapes"][kind])
    model = build_model(KINDS[kind], CLASSES).eval()
    assert load_peer(model, theirs, "oriented-det").complete
    return outputs(model)


@torch.no_grad()
def outputs(model) -> dict[str, torch.Tensor]:
    batch = normalized_batch([image()], model.backbone.multiple)
    found, anchors = model.head(model.backbone(batch)), model.anchor_grid(SIZE).boxes
    central = {} if found.centerness is None else {"centerness": found.centerness[0]}
    return {"logits": found.logits[0], "boxes": model.coder.decode(anchors, found.deltas[0])} | central


def assert_same(kind: str, found: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    "Boxes are the same when they cover the same ground: the angle of a square is anybody's guess."
    order = slots(kind)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        mine, theirs = found[name][order][:: EVERY[kind]], torch.from_numpy(np.asarray(value))
        if name != "boxes":
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)
            continue
        torch.testing.assert_close(mine[:, :2], theirs[:, :2], rtol=1e-4, atol=0.05)
        assert box_iou_rotated(mine, theirs, aligned=True).min() > 0.999


def slots(kind: str) -> torch.Tensor:
    "Our rows in the order of its anchors: in each cell size by size, and in each the ratios w / h."
    grid = build_model(KINDS[kind], CLASSES).anchor_grid
    per, count = len(grid.sizes(1)), len(grid(SIZE))
    order = torch.arange(per).view(len(grid.ratios), -1).flip(0).T.flatten()  # ours lists h / w
    return (torch.arange(0, count, per)[:, None] + order).flatten()


# The real package, where it is installed


def peer(kind: str):
    "oriented-det's network of a kind, with random weights."
    from oriented_det.models import RotatedFCOS, RotatedRetinaNet

    plain = {"backbone_name": "resnet18", "pretrained_backbone": False, "returned_layers": [2, 3, 4]}
    if kind == "fcos":
        return RotatedFCOS(CLASSES, **plain).eval()
    if kind == "one anchor":
        return RotatedRetinaNet(CLASSES, **plain, anchor_ratios=[1.0], stacked_convs=1).eval()
    grown = {"fpn_extra_level": True, "octave_base_scale": 4, "scales_per_octave": 3, "stacked_convs": 4}
    return RotatedRetinaNet(CLASSES, **plain, **grown).eval()


def shapes_of(model) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def flat(maps: list[torch.Tensor], per: int) -> torch.Tensor:  # (N, per) of the first image
    return torch.cat([x[0].permute(1, 2, 0).reshape(-1, per) for x in maps])


@torch.no_grad()
def theirs(kind: str) -> tuple[dict, dict[str, np.ndarray]]:
    "Names and shapes, and what oriented-det itself makes of the image."
    from oriented_det.models import utils
    from oriented_det.models.oriented_rpn import decode_oriented_boxes, generate_oriented_anchors
    from oriented_det.models.rotated_fcos import generate_fpn_points

    model = peer(kind)
    model.load_state_dict(tensors(shapes_of(model)))
    batch = normalized_batch([image()], 32)  # it leaves this to its loader
    grown = model.fpn_extra_level
    maps = utils.extract_backbone_features(model.backbone, list(batch), include_pool_level=not grown)
    sizes = [tuple(x.shape[-2:]) for x in maps]
    strides = [8 * 2**i for i in range(len(maps))]
    if kind == "fcos":
        logits, sides, angles, central = model.head(maps, strides=strides)
        points = torch.cat(generate_fpn_points(sizes, strides, torch.float32, batch.device))
        boxes = model.bbox_coder.decode(points, torch.cat([flat(sides, 4), flat(angles, 1)], 1))
        found = {"logits": flat(logits, CLASSES), "boxes": boxes, "centerness": flat(central, 1)[:, 0]}
    else:
        logits, deltas = model.head(maps)
        shapes = model.anchor_scales, model.anchor_ratios, model.anchor_angles, strides
        octaves = {n: getattr(model, n) for n in ("octave_base_scale", "scales_per_octave")}
        anchors = torch.cat(generate_oriented_anchors(SIZE, sizes, *shapes, **octaves))
        how = {"edge_swap": model.edge_swap, "proj_xy": model.proj_xy, "norm_factor": model.norm_factor}
        boxes = decode_oriented_boxes(anchors, flat(deltas, 5), **how)
        found = {"logits": flat(logits, CLASSES), "boxes": boxes}
    return shapes_of(model), {name: value.numpy()[:: EVERY[kind]] for name, value in found.items()}


def record() -> None:
    "Write the golden."
    found = {kind: theirs(kind) for kind in KINDS}
    facts = {"oriented-det": importlib.metadata.version("oriented-det"), "licence": "Apache-2.0"}
    facts["shapes"] = {kind: shapes for kind, (shapes, _) in found.items()}
    GOLDEN.with_suffix(".json").write_text(json.dumps(facts, indent=0) + "\n")
    arrays = {f"{kind}|{name}": value for kind, (_, one) in found.items() for name, value in one.items()}
    np.savez_compressed(GOLDEN.with_suffix(".npz"), **arrays)


# What is tested everywhere


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_oriented_det_gives_its_outputs(kind):
    golden = np.load(GOLDEN.with_suffix(".npz"))
    expected = {name.split("|")[1]: golden[name] for name in golden if name.startswith(f"{kind}|")}
    assert_same(kind, ours(kind), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_oriented_det_itself_says_what_was_recorded(kind):
    pytest.importorskip("oriented_det", reason="oriented-det is not installed: pip install oriented-det")
    shapes, found = theirs(kind)
    facts = json.loads(GOLDEN.with_suffix(".json").read_text())
    assert shapes == facts["shapes"][kind]
    assert_same(kind, ours(kind), found)


def test_the_command_converts_one(tmp_path):
    "With the settings of DOTA; weights of fifteen classes, and the key under which oriented-det keeps them."
    shapes = json.loads(GOLDEN.with_suffix(".json").read_text())["shapes"]["retinanet"]
    shapes |= {
        f"head.conv_cls.{kind}": [9 * 15, *shape] for kind, shape in (("weight", [256, 3, 3]), ("bias", []))
    }
    torch.save({"model_state_dict": tensors(shapes), "epoch": 12}, tmp_path / "best.pth")
    words = ["convert-weights", tmp_path / "best.pth", tmp_path / "ours", "--layout", "oriented-det"]
    words += ["--recipe", "retina-r50-le90-1x-dota"]
    code, text = atss(*words)
    assert (
        code == 1
        and "center_offset is 0.0, expected 0.5" in text
        and not list(tmp_path.glob("*.safetensors"))
    )
    changes = COMMON | NINE | {"backbone": "resnet18"}
    words += [part for name, value in changes.items() for part in ("--set", f"model.{name}={value}")]
    code, text = atss(*words)
    assert code == 0, text
    model, config, classes = load_model(tmp_path / "ours.safetensors")
    assert len(classes) == 15 and config.model.ratios == (0.5, 1.0, 2.0)
    again = build_model(config.model, 15, pretrained=False).eval()
    load_peer(again, read_peer(tmp_path / "best.pth"), "oriented-det")
    torch.testing.assert_close(outputs(model)["boxes"], outputs(again)["boxes"])


def test_what_cannot_be_the_same_is_refused_by_name():
    names = tensors(json.loads(GOLDEN.with_suffix(".json").read_text())["shapes"]["fcos"])
    model, two = build_model(KINDS["retinanet"], CLASSES), ("roi_head.fc_cls.bias", "rpn_head.conv.bias")
    with pytest.raises(ValueError, match="regression is 'box', expected 'point'"):
        load_peer(model, names, "oriented-det")
    with pytest.raises(ValueError, match="roi_head and rpn_head: only Rotated RetinaNet and Rotated FCOS"):
        load_peer(model, dict.fromkeys(two, torch.zeros(4)), "oriented-det")


if __name__ == "__main__":
    record()
