"Procedural scenes: the same bytes for the same seed, exact labels, any size, every class, nothing hidden."

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
import shapely
from PIL import Image

from atss_nb.data.dota import DOTA_V10_CLASSES, read_dota
from atss_nb.scenes import craft, facilities
from atss_nb.scenes.canvas import ASPHALT, Canvas, Weather, paint
from atss_nb.scenes.layout import Difficulty, compose
from atss_nb.scenes.scenes import DIFFICULTIES, make_scene, write_scenes
from atss_nb.scenes.shapes import Frame
from atss_nb.scenes.world import FLOORS, INSIDE, SHOWN, TINY, World, difficult

COLOUR = np.array((90, 90, 90))
OBJECTS = {
    "small-vehicle": (craft.small_vehicle,),
    "large-vehicle": (craft.large_vehicle,),
    "ship": (craft.ship, 11),
    "freighter": (craft.ship, 100),
    "plane": (craft.plane, 40),
    "helicopter": (craft.helicopter, 12),
    "storage-tank": (facilities.storage_tank, 10, 0.7),
    "swimming-pool": (facilities.swimming_pool, 8),
    "tennis-court": (facilities.tennis_court, COLOUR),
    "basketball-court": (facilities.basketball_court, COLOUR),
    "soccer-ball-field": (facilities.soccer_field, 105, COLOUR),
    "ground-track-field": (facilities.running_track, 160, COLOUR, COLOUR),
    "baseball-diamond": (facilities.baseball_diamond, 50, COLOUR, COLOUR),
    "bridge": (facilities.bridge, 40, 8),
    "roundabout": (facilities.roundabout, 26, COLOUR, COLOUR),
    "harbor": (facilities.pier, 40, 4),
}


@pytest.fixture(scope="module")
def small():
    return [make_scene(256, (0, i)) for i in range(120)]


@pytest.fixture(scope="module")
def large():
    return [make_scene(1024, (0, i)) for i in range(4)] + [
        make_scene(1400, (1, i), gsd=0.33) for i in range(3)
    ]


def sides(polys):
    "Short and long sides (G, 2) [px]."
    return np.sort(np.linalg.norm(polys[:, 1:3] - polys[:, :2], axis=-1), axis=1)


# --- the same seed, the same bytes


def test_the_same_seed_gives_the_same_scene():
    a, b, other = (make_scene(96, s) for s in (3, 3, 4))
    assert (
        np.array_equal(a.image, b.image)
        and np.array_equal(a.polys, b.polys)
        and a.objects.names == b.objects.names
    )
    assert not np.array_equal(a.image, other.image)


def test_files_do_not_depend_on_how_many_are_written(tmp_path):
    def digests(n, seed):
        out = write_scenes(tmp_path / f"{n}_{seed}", n, 64, seed)
        return {
            f.name: hashlib.sha256(f.read_bytes()).hexdigest()
            for f in sorted(out.rglob("*.*"))
            if f.is_file()
        }

    few, many = digests(2, 5), digests(4, 5)
    assert len(many) == 8 and few.items() <= many.items()
    assert digests(2, 6)["0001.png"] != few["0001.png"]


def test_training_and_test_seeds_share_no_scene():
    pictures = [make_scene(48, (seed, i)).image.tobytes() for seed in range(4) for i in range(8)]
    assert len(set(pictures)) == len(pictures)


# --- the label is what is drawn


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("angle", [0.0, 0.5, 2.2])
def test_label_is_the_tight_box_of_what_is_drawn(name, angle):
    "Draw one object alone, white on black, and measure the mask along the label's axes."
    rng = np.random.default_rng(1)
    draw, *args = OBJECTS[name]
    parts = draw(rng, *args)
    extent = np.ptp(np.concatenate([p.points for p in parts]), axis=0).max()
    gsd = extent / 120
    world = World((220, 220), gsd, rng)
    world.canvas = Canvas((220, 220), gsd, (0, 0, 0), ASPHALT)
    world.shadow = np.zeros(2)
    white = [p._replace(colour=(255, 255, 255)) for p in parts]
    assert world.put("ship", Frame(110 * gsd, 110 * gsd, angle), lambda _: white)

    mask = np.asarray(paint(world.canvas.shapes, (0, 0, 220, 220))[0])[..., 0] > 127
    y, x = np.nonzero(mask)
    poly = np.array(world.polys[0].exterior.coords)[:4] / gsd
    for start, end in ((poly[3], poly[0]), (poly[0], poly[1])):  # along the head's direction, then across
        axis = (end - start) / np.linalg.norm(end - start)
        along = np.stack([x + 0.5, y + 0.5], 1) @ axis
        assert abs(along.min() - 0.5 - start @ axis) < 1.0
        assert abs(along.max() + 0.5 - end @ axis) < 1.0


def test_upright_object_fills_its_box_to_half_a_pixel():
    canvas = Canvas((80, 80), 0.5, (0, 0, 0), ASPHALT)
    canvas.fill(Frame(20, 20)(facilities.pier(np.random.default_rng(0), 20, 8)[0].points), (255, 255, 255))
    mask = np.asarray(paint(canvas.shapes, (0, 0, 80, 80))[0])[..., 0] / 255
    assert abs(mask.max(0).sum() - 40) < 0.5 and abs(mask.max(1).sum() - 16) < 0.5
    assert abs((mask.sum(0) * (np.arange(80) + 0.5)).sum() / mask.sum() - 40) < 0.25


def test_corners_run_clockwise_from_the_left_of_the_head():
    world = World((100, 100), 0.2, np.random.default_rng(0))
    world.put("ship", Frame(10, 10, -math.pi / 2), craft.ship, 12)  # the bow points up
    corners = np.array(world.polys[0].exterior.coords)[:4]
    assert np.argmin(corners.sum(1)) == 0  # so the first corner is at the top left
    assert corners[1, 0] > corners[0, 0] and corners[2, 1] > corners[1, 1]


def test_all_boxes_are_rectangles_clockwise(small, large):
    polys = np.concatenate([s.polys for s in small + large])
    edges = np.roll(polys, -1, axis=1) - polys
    turn = np.roll(edges, -1, axis=1)
    lengths = np.linalg.norm(edges, axis=-1)
    assert np.allclose(lengths[:, :2], lengths[:, 2:], atol=1e-6)
    assert np.abs((edges * turn).sum(-1)).max() < 1e-5 * lengths.max() ** 2
    assert (edges[..., 0] * turn[..., 1] - edges[..., 1] * turn[..., 0] > 0).all()


# --- the rules


def test_every_label_is_mostly_inside_and_the_cut_ones_are_difficult(small):
    picture = shapely.box(0, 0, 256, 256)
    for scene in small:
        boxes = shapely.polygons(scene.polys)
        share = shapely.area(shapely.intersection(boxes, picture)) / shapely.area(boxes)
        assert (share >= INSIDE - 1e-9).all()
        assert (scene.objects.difficult[share < SHOWN - 1e-9] == 1).all()
        assert (scene.objects.difficult[sides(scene.polys)[:, 0] < TINY] == 1).all()


def test_difficult_says_covered_cut_or_tiny():
    def hard(x, side, crown=None):
        world = World((100, 100), 0.2, np.random.default_rng(0))
        world.put("plane", Frame(x, 10), lambda _: [craft.Part(facilities.box(side, side), COLOUR)])
        return difficult(world, [shapely.Point(*crown).buffer(1.5)] if crown else []).tolist()

    assert hard(10, 4) == [0]
    assert hard(18.2, 4) == [0] and hard(18.7, 4) == [1]  # 95 % and 82 % inside
    assert hard(19.3, 4) == []  # 67 % inside: not drawn
    assert hard(10, 4, crown=(10, 10)) == [1] and hard(10, 4, crown=(15, 15)) == [0]
    assert hard(10, 0.9) == [0] and hard(10, 0.7) == [1]  # 4.5 px and 3.5 px


def test_no_two_objects_share_ground_except_on_floors(small, large):
    for scene in small + large:
        boxes = shapely.polygons(scene.polys)
        for i, j in shapely.STRtree(boxes).query(boxes, "intersects").T:
            names = {scene.objects.names[i], scene.objects.names[j]}
            if i < j and not names & set(FLOORS):
                shared = shapely.intersection(boxes[i], boxes[j]).area
                assert shared < 0.1 * min(boxes[i].area, boxes[j].area), names


class Spy(World):
    "Remembers which shapes each object painted."

    def put(self, *args):
        before = len(self.canvas.shapes)
        done = super().put(*args)
        self.spans = (
            [*getattr(self, "spans", []), len(self.canvas.shapes)] if done else getattr(self, "spans", [])
        )
        assert done or len(self.canvas.shapes) == before, "a refused object left paint behind"
        return done


@pytest.mark.parametrize(
    "size, gsd, level", [(256, 0.17, "normal"), (800, 0.4, "normal"), (400, 0.3, "hard")]
)
def test_nothing_is_painted_over_an_object_but_trees_and_what_stands_on_it(size, gsd, level):
    for seed in range(25 if size < 300 else 4):
        world = Spy((size, size), gsd, np.random.default_rng((7, seed)))
        compose(world, DIFFICULTIES[level])
        later = [shapely.Polygon(s.points * gsd).buffer(0) for s in world.canvas.shapes]
        tree = shapely.STRtree(later)
        for box, name, end in zip(world.polys, world.classes, getattr(world, "spans", []), strict=True):
            for j in tree.query(box, "intersects") if name not in FLOORS else ():
                opaque = len(world.canvas.shapes[j].colour) == 3
                assert j < end or not opaque or later[j].intersection(box).area < 0.1 * box.area, (seed, name)


# --- how hard they are

# pixels, corners, names and difficulties of normal scenes, before there was any other difficulty
KEPT = {(64, 0): "634746d16ef45ed3", (256, (0, 1)): "85e63255f167e5ed", ((300, 560), 8): "4a13a601b17fee4b"}


def digest(scene):
    parts = scene.image.tobytes(), scene.polys.round(6).tobytes(), "|".join(scene.objects.names).encode()
    return hashlib.sha256(b"".join(parts) + scene.objects.difficult.numpy().tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("size, seed", KEPT)
def test_normal_scenes_are_what_they_always_were(size, seed):
    assert digest(make_scene(size, seed)) == KEPT[size, seed]
    assert digest(make_scene(size, seed, difficulty="normal")) == KEPT[size, seed]


def test_harder_scenes_hold_more_objects_on_more_ground_and_hide_more_of_them():
    sets = {d: [make_scene(448, (3, i), difficulty=d) for i in range(12)] for d in DIFFICULTIES}
    objects = {d: sum(len(s.objects) for s in found) for d, found in sets.items()}
    covered = {
        d: sum(int(s.objects.difficult.sum()) for s in found) / objects[d] for d, found in sets.items()
    }
    ground = {d: np.mean([s.gsd for s in found]) for d, found in sets.items()}
    assert objects["easy"] < objects["normal"] < objects["hard"]
    assert ground["easy"] < ground["normal"] < ground["hard"]
    assert covered["hard"] > 1.2 * covered["normal"]


def test_each_side_of_the_knob_does_what_it_says():
    plain = make_scene(160, 1)
    dull = make_scene(160, 1, difficulty=Difficulty(contrast=0.2))
    assert np.array_equal(plain.polys, dull.polys) and not np.array_equal(plain.image, dull.image)
    dense = [make_scene(160, i, difficulty=Difficulty(density=4.0)) for i in range(6)]
    assert np.allclose([s.gsd for s in dense], [2 * make_scene(160, i).gsd for i in range(6)])
    full = [make_scene(160, i, difficulty=Difficulty(clutter=2.0)) for i in range(6)]
    assert any(not np.array_equal(s.image, make_scene(160, i).image) for i, s in enumerate(full))
    assert make_scene(160, 1, gsd=0.3, difficulty="hard").gsd == 0.3  # who says so, gets it


def test_a_clear_day_changes_nothing_and_weather_takes_what_it_says():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    assert np.array_equal(Weather().through(picture), picture)
    half = np.asarray(Weather(keep=0.5, level=100).through(picture), float)
    assert np.abs(half - (np.asarray(picture, float) + 100) / 2).max() <= 1
    grey = np.asarray(Weather(grey=True).through(picture))
    assert (np.ptp(grey, axis=2) == 0).all()


@pytest.mark.parametrize(
    "wrong", ["brutal", None, 2, Difficulty(0), Difficulty(1, -1), Difficulty(1, 0, 1.5)]
)
def test_a_wrong_difficulty_is_named(wrong):
    with pytest.raises(ValueError, match="ifficulty.*expected"):
        make_scene(64, difficulty=wrong)


# --- what is in them


def test_classes_of_small_scenes(small):
    "Enough of each for a small detector: nine classes, each in at least a tenth of the scenes."
    share = Counter(name for s in small for name in set(s.objects.names))
    assert set(share) <= set(DOTA_V10_CLASSES)
    assert len(share) == 9 and min(share.values()) >= 0.1 * len(small), share
    count = [len(s.objects) for s in small]
    assert 5 <= np.mean(count) <= 20
    assert 0 < count.count(0) < 0.15 * len(small), "some scenes are empty, most are not"
    size = np.sqrt(np.concatenate([sides(s.polys) for s in small]).prod(1))
    assert 20 <= np.median(size) <= 45


def test_classes_and_sizes_of_large_scenes(large):
    names = {name for s in large for name in s.objects.names}
    assert names <= set(DOTA_V10_CLASSES) and len(names) >= 10
    extent = np.concatenate([sides(s.polys) for s in large])
    assert 8 <= extent[:, 1].min() < 16 and extent[:, 1].max() > 150
    ratio = extent[:, 1] / extent[:, 0]
    assert ratio.min() < 1.01 and 4 < ratio.max() < 10.5
    assert {0, 1} == {int(d) for s in large for d in s.objects.difficult}


def test_rows_are_dense(large):
    "Somewhere a neighbour is less than a fifth of a width away."
    gaps = []
    for scene in large:
        boxes = [
            b
            for b, c in zip(shapely.polygons(scene.polys), scene.objects.names, strict=True)
            if c in ("ship", "large-vehicle")
        ]
        tree = shapely.STRtree(boxes)
        for box, width in zip(boxes, sides(scene.polys)[:, 0], strict=False):
            near = [
                box.distance(boxes[j]) for j in tree.query(box.buffer(0.2 * width)) if boxes[j] is not box
            ]
            gaps += [min(near)] if near else []
    assert len(gaps) > 20 and min(gaps) < 1.0


# --- any size, and files


@pytest.mark.parametrize("size", [1, 16, 64, (40, 300), (333, 65)])
def test_any_size(size):
    scene = make_scene(size, 2)
    h, w = (size, size) if isinstance(size, int) else size
    assert scene.image.shape == (h, w, 3) and scene.image.dtype == np.uint8
    assert len(scene.polys) == len(scene.objects) == len(scene.objects.difficult)
    assert scene.polys.shape[1:] == (4, 2) and scene.polys.dtype == np.float64


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"size": (64, -1)}, {"size": (1, 2, 3)}, {"size": 64, "gsd": 0}]
)
def test_wrong_sizes_are_named(wrong):
    with pytest.raises(ValueError, match="size .* gsd .* expected"):
        make_scene(**wrong)


def test_tiles_leave_no_seam():
    "A picture that is rendered in small tiles has the same averages as one rendered at once."
    world = World((120, 160), 0.2, np.random.default_rng(5))
    compose(world)
    whole, tiled = (world.canvas.render(np.random.default_rng(0), tile) for tile in (1000, 33))
    means = [i[:120].reshape(12, 10, 16, 10, 3).mean((1, 3)) for i in (whole, tiled)]
    assert np.abs(means[0] - means[1]).max() < 5


def test_files_read_back_as_made(tmp_path):
    done = []
    out = write_scenes(tmp_path / "new/folder", 3, (80, 120), 9, lambda i, n: done.append((i, n)))
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert sorted(p.name for p in out.rglob("*.*")) == [
        f"000{i}.{e}" for i in range(3) for e in ("png", "txt")
    ]
    for i in range(3):
        scene, label = make_scene((80, 120), (9, i)), read_dota(out / f"labelTxt/000{i}.txt")
        assert np.array_equal(np.asarray(Image.open(out / f"images/000{i}.png")), scene.image)
        assert (
            label.names == scene.objects.names
            and label.difficult.tolist() == scene.objects.difficult.tolist()
        )
        assert np.allclose(label.polygons, scene.polys, atol=0.006)
        assert label.meta["imagesource"] == "procedural" and abs(float(label.meta["gsd"]) - scene.gsd) < 1e-4
    lines = (out / "labelTxt/0000.txt").read_text().splitlines()
    assert lines[0].startswith("imagesource:") and lines[1].startswith("gsd:")
    assert all(len(line.split()) == 10 for line in lines[2:])


def test_pictures_look_like_photographs(small):
    "Not too dark, not too bright, with texture everywhere and colours of the ground."
    for scene in small[:40]:
        image = scene.image.astype(float)
        assert 45 < image.mean() < 190
        grain = np.abs(np.diff(image, axis=1)).mean((0, 2))
        assert grain.min() > 0.5, "a column without any texture"
        assert (np.ptp(image, axis=2)).mean() < 80, "colours of a cartoon"
