"The yardstick of every transform: the box's corners are the transformed corners."

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.data.transforms import (
    Compose,
    Photometric,
    RandomFlip,
    RandomQuarterTurn,
    RandomRotate,
    RandomZoom,
    Resize,
    crop,
    fit_scale,
    flip,
    quarter_turn,
    resize,
    rotate,
)
from atss_nb.geometry.boxes import AngleDef, obb2poly, regularize

sides = st.floats(1, 600)
places = st.floats(-100, 1500)
box = st.tuples(places, places, sides, sides, st.floats(-7, 7))
boxes = st.lists(box, max_size=5).map(lambda rows: torch.tensor(rows).reshape(-1, 5))
sizes = st.tuples(st.integers(1, 1500), st.integers(1, 1500))
definitions = st.sampled_from(AngleDef)


def gap(found: torch.Tensor, points: torch.Tensor) -> float:
    "The largest distance between the corners of the boxes and the points, both as sets."
    distance = torch.cdist(obb2poly(found), points)
    return max(distance.amin(d).max().item() for d in (1, 2)) if len(found) else 0.0


def obeys(boxes: torch.Tensor, angle: AngleDef) -> bool:
    "Whether the boxes are under the definition, up to a rounding of the angle at the ends of its range."
    start, period = {"oc": (0, 0.5), "le90": (-0.5, 1), "le135": (-0.25, 1)}[angle.value]
    inside = (boxes[:, 4] - (start + period / 2) * math.pi).abs() <= period / 2 * math.pi + 1e-6
    return bool(inside.all()) and (angle is AngleDef.OC or bool((boxes[:, 2] >= boxes[:, 3]).all()))


def empty(size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(1, 1, 1).expand(1, *size)


def points(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, y], -1)


@settings(max_examples=60, deadline=None)
@given(boxes, sizes, definitions, st.sampled_from(["horizontal", "vertical", "diagonal"]))
def test_flip(boxes, size, angle, direction):
    x, y = obb2poly(boxes).unbind(-1)
    x = size[1] - x if direction != "vertical" else x
    y = size[0] - y if direction != "horizontal" else y
    _, target = flip(empty(size), {"boxes": boxes}, direction, angle)
    assert gap(target["boxes"], points(x, y)) < 1e-3
    assert obeys(target["boxes"], angle)


@settings(max_examples=60, deadline=None)
@given(boxes, sizes, definitions, st.integers(0, 3))
def test_quarter_turn(boxes, size, angle, turns):
    boxes = regularize(boxes, angle)
    x, y = obb2poly(boxes).unbind(-1)
    h, w = size
    for _ in range(turns):
        x, y, h, w = h - y, x, w, h
    image, target = quarter_turn(empty(size), {"boxes": boxes}, turns, angle)
    assert image.shape[1:] == (h, w)
    assert gap(target["boxes"], points(x, y)) < 1e-3
    assert obeys(target["boxes"], angle)


@settings(max_examples=60, deadline=None)
@given(boxes, st.tuples(st.integers(1, 200), st.integers(1, 200)), definitions, st.floats(-7, 7))
def test_rotate(boxes, size, angle, turn):
    h, w = size
    x, y = obb2poly(boxes).unbind(-1)
    x, y = x - w / 2, y - h / 2
    x, y = (
        x * math.cos(turn) - y * math.sin(turn) + w / 2,
        x * math.sin(turn) + y * math.cos(turn) + h / 2,
    )
    corners, rows = points(x, y), torch.arange(len(boxes))
    image, target = rotate(torch.zeros(1, *size), {"boxes": boxes, "labels": rows}, turn, angle)
    centres, kept = corners.mean(1), target["labels"]
    depth = torch.minimum(centres, torch.tensor([w, h]) - centres).amin(1)  # inside the image [px]
    assert image.shape == (1, h, w)
    assert (depth[kept] > -1e-2).all() and (depth > 1e-2).sum() <= len(kept)
    assert gap(target["boxes"], corners[kept]) < 1e-2
    assert obeys(target["boxes"], angle)


def test_rotation_moves_the_pixels_as_it_moves_the_boxes():
    "A bright disc stays at the centre of its box."
    y, x = torch.meshgrid(torch.arange(91) + 0.5, torch.arange(121) + 0.5, indexing="ij")
    disc = ((x - 75).hypot(y - 40) < 9).float()[None]
    for degrees in (-170, -45, 30, 90, 180, 200):
        image, target = rotate(
            disc, {"boxes": torch.tensor([[75.0, 40, 18, 18, 0]])}, math.radians(degrees), "le90"
        )
        centre = torch.stack([(image[0] * grid).sum() / image.sum() for grid in (x, y)])
        assert (centre - target["boxes"][0, :2]).abs().max() < 0.05


def test_upright_classes_turn_by_quarters_only():
    "Exactly as `quarter_turn` does, with every object kept; other images turn by any angle."
    image, box = torch.rand(3, 40, 60), torch.tensor([[3.0, 2, 4, 2, 0]])
    spin = RandomRotate("le90", degrees=180.0, p=1, upright=(2, 7))
    quarters = [quarter_turn(image, {"boxes": box}, turns, "le90") for turns in (1, 2, 3)]
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        pixels, moved = spin(image, {"boxes": box, "labels": torch.tensor([7])})
        same = [torch.equal(pixels, p) and torch.equal(moved["boxes"], t["boxes"]) for p, t in quarters]
        assert sum(same) == 1
        seen.add(same.index(True))
    assert seen == {0, 1, 2}
    middle = torch.tensor([[30.0, 20, 8, 4, 0]])
    turned = spin(image, {"boxes": middle, "labels": torch.tensor([1])})[1]["boxes"]
    assert turned[0, 4].abs() > 1e-3 and turned.shape == (1, 5)


def test_rotation_leaves_an_image_that_would_lose_all_its_objects():
    image, target = torch.rand(3, 40, 60), {"boxes": torch.tensor([[2.0, 20, 4, 2, 0]])}
    pixels, moved = RandomRotate("le90", degrees=(90,), p=1)(image, target)
    assert pixels is image and moved is target
    empty = {"boxes": torch.zeros(0, 5)}
    assert not torch.equal(RandomRotate("le90", degrees=(90,), p=1)(image, empty)[0], image)


@settings(max_examples=40, deadline=None)
@given(boxes, st.tuples(st.integers(40, 200), st.integers(40, 200)), definitions, st.floats(0.1, 2))
def test_resize(boxes, size, angle, scale):
    boxes = regularize(boxes, angle)
    image, target = resize(torch.zeros(1, *size), {"boxes": boxes}, scale)
    assert gap(target["boxes"], obb2poly(boxes) * scale) < 1e-3
    assert obeys(target["boxes"], angle)
    assert image.shape[1:] == tuple(math.floor(side * scale) for side in size)


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(1, 2000))
def test_the_long_side_is_as_asked(size, limit):
    scale = fit_scale(size, limit)
    assert math.floor(max(size) * scale) == limit
    assert fit_scale(size, (limit, limit)) == scale


def test_one_factor_moves_the_pixels_as_it_moves_the_boxes():
    "A bright disc stays at the centre of its box."
    y, x = torch.meshgrid(torch.arange(91) + 0.5, torch.arange(157) + 0.5, indexing="ij")
    disc = ((x - 100).hypot(y - 40) < 9).float()[None]
    for scale in (0.37, 0.7, 1.3, 2.9):
        image, target = resize(disc, {"boxes": torch.tensor([[100.0, 40, 18, 18, 0]])}, scale)
        x, y = (
            (image[0].sum(d) * (torch.arange(image.shape[2 - d]) + 0.5)).sum() / image.sum() for d in (0, 1)
        )
        assert (torch.stack([x, y]) - target["boxes"][0, :2]).abs().max() < 0.02


TRANSFORMS = [
    RandomFlip("le90", p=1),
    RandomQuarterTurn(AngleDef.OC),
    Resize(50),
    Resize((40, 60)),
    RandomZoom(2.0, p=1),
    RandomRotate("le90", p=1),
    RandomRotate("le135", degrees=45.0, upright=(3,)),
    Photometric(),
    Compose([RandomRotate(AngleDef.LE90), RandomZoom(1.5), RandomFlip("le90")]),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_contract_of_every_transform(transform):
    image, boxes = torch.rand(3, 40, 60), torch.tensor([[20.0, 15, 12, 6, 0.4]])
    target = {"boxes": boxes, "labels": torch.tensor([3]), "image_id": "a", "size": (40, 60)}
    kept = image.clone(), boxes.clone()
    for seed in range(8):
        torch.manual_seed(seed)
        pixels, moved = transform(image, target)
        torch.manual_seed(seed)
        assert torch.equal(pickle.loads(pickle.dumps(transform))(image, target)[0], pixels)
        assert torch.equal(image, kept[0]) and torch.equal(target["boxes"], kept[1]), (
            "the input is left alone"
        )
        assert moved.keys() == target.keys() and moved["size"] == (40, 60)
        assert pixels.dtype == image.dtype and pixels.min() >= 0 and pixels.max() <= 1
    assert transform(image, {"boxes": torch.zeros(0, 5)})[1]["boxes"].shape == (0, 5)
    assert transform(image, {"boxes": boxes.double()})[1]["boxes"].dtype == torch.float64
    assert transform(image, {"image_id": "a"})[1] == {"image_id": "a"}


def test_zooming_in_and_out_is_as_likely_and_never_costs_more():
    torch.manual_seed(0)
    zoom, square = RandomZoom(2.0, p=1), {"boxes": torch.tensor([[30.0, 30, 20, 20, 0]])}
    drawn = [zoom(torch.zeros(1, 60, 60), square) for _ in range(400)]
    factors = torch.stack([target["boxes"][0, 2] / 20 for _, target in drawn])
    assert 0.5 <= factors.min() < 0.55 and 1.9 < factors.max() <= 2
    assert 150 < (factors > 1).sum() < 250
    assert all(max(image.shape) <= 60 for image, _ in drawn)


def test_a_window_keeps_whole_boxes_whose_center_it_shows():
    target = {
        "boxes": torch.tensor([[10.0, 10, 30, 8, 0.3], [50.0, 10, 30, 8, 0.3]]),
        "labels": torch.tensor([3, 4]),
    }
    pixels, moved = crop(torch.zeros(3, 20, 60), target, (5, 2), (30, 40))
    assert pixels.shape == (3, 18, 40)
    assert torch.equal(moved["boxes"], torch.tensor([[5.0, 8, 30, 8, 0.3]])) and moved["labels"].tolist() == [
        3
    ]


def test_choices_are_even():
    torch.manual_seed(0)
    image = torch.arange(6.0).reshape(1, 2, 3)
    both = Compose([RandomFlip("le90", directions=("horizontal",)), RandomQuarterTurn("le90")])
    views = []
    for _ in range(1600):
        view = both(image, {})[0]
        views.append((view.shape, tuple(view.flatten().tolist())))
    counts = [views.count(view) for view in set(views)]
    assert len(counts) == 8 and all(140 < count < 260 for count in counts)


def test_flip_says_which_directions_there_are():
    with pytest.raises(ValueError, match="'horizontal', 'vertical' or 'diagonal', got 'left'"):
        flip(torch.zeros(3, 4, 4), {"boxes": torch.zeros(1, 5)}, "left", "le90")
