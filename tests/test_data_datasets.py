"Data sets: every kind of image file, every kind of broken folder, and batches from several processes."

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader

from atss_nb.core.errors import LabelError
from atss_nb.data.datasets import DotaDataset, collate, open_dataset, read_image
from atss_nb.data.dota import read_dota
from atss_nb.data.folders import find_split
from atss_nb.data.transforms import Compose, RandomFlip, RandomQuarterTurn
from atss_nb.geometry.boxes import obb2poly
from atss_nb.scenes.scenes import write_scenes

ROOT = Path(__file__).parents[1]
REAL = Path(__file__).parents[2] / "shared/data"
SHIP = "10 5 30 5 30 15 10 15 ship 0\n"
PLANE = "5 5 9 5 9 9 5 9 plane 1\n"


@pytest.fixture
def folder(tmp_path):
    "Four images of 40 x 30 px; the third has no objects."
    (tmp_path / "images").mkdir()
    (tmp_path / "labelTxt").mkdir()
    for i, text in enumerate((SHIP, PLANE + SHIP, "", PLANE)):
        Image.new("RGB", (40, 30), (i, 0, 0)).save(tmp_path / f"images/{i}.png")
        (tmp_path / f"labelTxt/{i}.txt").write_text(text)
    return tmp_path


def problems(folder, **options) -> str:
    with pytest.raises(LabelError) as caught:
        DotaDataset(folder, **options)
    return str(caught.value)


# images


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.JPEG", "a.bmp", "a.tif", "A.TIFF"])
def test_every_kind_of_file(tmp_path, name):
    Image.new("RGB", (40, 30), (10, 200, 30)).save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.shape == (3, 30, 40) and image.dtype == torch.uint8
    assert (image[:, 5, 5].int() - torch.tensor([10, 200, 30])).abs().max() <= 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_kind_of_pixel(tmp_path, mode, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("L", (40, 30), 255).convert(mode).save(path)
    assert (read_image(path) == 255).all() and read_image(path).shape == (3, 30, 40)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_of_grey_are_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.full((30, 40), 40000, np.uint16)).save(path)  # grey
    with pytest.raises(OSError, match="expected an image of 8 bits per channel"):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_images_stand_upright(tmp_path, suffix, orientation):
    path, exif = tmp_path / f"a{suffix}", Image.Exif()
    exif[0x0112] = orientation
    pixels = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, 16, 0), 16, 1)
    Image.fromarray(pixels).save(path, exif=exif)
    upright = np.array(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(read_image(path).numpy().astype(int) - upright).max() <= 2


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
@pytest.mark.parametrize("content", [b"", b"no image at all", "half"])
def test_broken_images_are_named(tmp_path, name, content):
    path = tmp_path / name
    if content == "half":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(OSError, match=name):
        read_image(path)


def test_missing_image_is_named(tmp_path):
    for name in ("gone.png", "gone.bmp"):
        with pytest.raises(OSError, match=name):
            read_image(tmp_path / name)


# folders


def test_samples(folder):
    dataset = DotaDataset(folder)
    assert len(dataset) == 4 and dataset.classes == ("plane", "ship")
    image, target = dataset[1]
    assert image.shape == (3, 30, 40) and image.dtype == torch.float32 and image.max() == 1 / 255
    assert target["labels"].tolist() == [0, 1] and target["difficult"].tolist() == [True, False]
    assert target["image_id"] == "1" and target["size"] == (30, 40)
    assert obb2poly(target["boxes"]).amin(1).tolist() == pytest.approx(np.array([[5, 5], [10, 5]]), abs=1e-4)
    kinds = {key: (value.shape, value.dtype) for key, value in dataset.target(2).items() if key != "image_id"}
    assert kinds == {
        "boxes": ((0, 5), torch.float32),
        "labels": ((0,), torch.int64),
        "difficult": ((0,), torch.bool),
    }


def test_changing_a_sample_does_not_change_the_data_set(folder):
    dataset = DotaDataset(folder)
    dataset[0][1]["boxes"].zero_()
    assert dataset[0][1]["boxes"].abs().sum() > 0


def test_all_problems_in_one_message(folder):
    (folder / "labelTxt/0.txt").unlink()
    (folder / "labelTxt/1.txt").write_text(SHIP + "1 2 3 ship\n")
    (folder / "labelTxt/3.txt").write_text(PLANE.replace("plane", "plain"))
    (folder / "labelTxt/lonely.txt").touch()
    shutil.copy(folder / "images/2.png", folder / "images/2.bmp")
    (folder / "images/notes.md").touch()
    message = problems(folder, classes=["ship", "plane"])
    assert "problems: 6" in message
    for part in (
        "0.png: no label file",
        "1.txt, line 2: '1 2 3 ship'",
        "3.txt, line 1: 'plain'; expected one of the classes ship, plane",
        "lonely.txt: no image",
        "2.png: expected one file of this name, there is also 2.bmp",
        "notes.md: expected a name that ends with .png",
    ):
        assert part in message


def test_many_problems_are_counted(folder):
    for i in range(25):
        (folder / f"labelTxt/x{i}.txt").touch()
    message = problems(folder)
    assert "problems: 25" in message and "... and 15 more" in message and message.count("\n") == 11


def test_hidden_files_do_not_count(folder):
    (folder / "images/.DS_Store").touch()
    (folder / "labelTxt/._0.txt").write_bytes(b"\xff")
    assert len(DotaDataset(folder)) == 4


def test_empty_folder(tmp_path):
    for name in ("images", "labelTxt"):
        (tmp_path / name).mkdir()
    assert "no images" in problems(tmp_path)


def test_missing_folders_say_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        DotaDataset(tmp_path / "gone")
    (tmp_path / "JPEGImages").mkdir()
    with pytest.raises(FileNotFoundError, match="expected the folders images and labelTxt; found JPEGImages"):
        DotaDataset(tmp_path)


def test_only_backgrounds(folder):
    for path in (folder / "labelTxt").iterdir():
        path.write_text("")
    dataset = DotaDataset(folder, classes=["ship"])
    assert [len(dataset.target(i)["boxes"]) for i in range(4)] == [0] * 4


def test_unlabelled_images(folder):
    (folder / "labelTxt/1.txt").unlink()
    with pytest.raises(LabelError, match="1.png: no label file 1.txt; --labels optional takes"):
        DotaDataset(folder)
    dataset = DotaDataset(folder, labels="optional", transforms=RandomFlip("le90", p=1))
    assert [len(dataset[i][1]["boxes"]) for i in (1, 2, 3)] == [0, 0, 1]
    for path in (folder / "labelTxt").iterdir():
        path.unlink()
    with pytest.raises(LabelError, match="no label file 1.txt(?!;)"):
        DotaDataset(folder)
    dataset = DotaDataset(folder, labels="optional", transforms=RandomFlip("le90", p=1))
    assert dataset[1][1].keys() == {"image_id", "size"}, "where none has a label nothing is known"
    with pytest.raises(ValueError, match="'none'"):
        DotaDataset(folder, labels="none")


def test_thin_objects_are_left_out_and_named(folder, caplog):
    thin = "10 5 30 5 30 5.9 10 5.9 ship 0\n"
    (folder / "labelTxt/0.txt").write_text(thin + SHIP + "7 7 7 7 7 7 7 7 plane 0\n")
    dataset = DotaDataset(folder)
    assert [f"{folder}, objects left out: 2" in record.message for record in caplog.records] == [True]
    assert dataset.target(0)["labels"].tolist() == [1]
    assert dataset.dropped == ["0: ship of 20.0 x 0.9 px at (20, 5)", "0: plane of 0.0 x 0.0 px at (7, 7)"]
    assert len(DotaDataset(folder, min_side=0).target(0)["boxes"]) == 3
    assert len(DotaDataset(folder).dropped) == 2 and len(caplog.records) == 1, "said once"


def test_find_split(tmp_path):
    for name in ("train", "valid"):
        (tmp_path / name).mkdir()
    assert find_split(tmp_path, "val") == tmp_path / "valid"
    with pytest.raises(FileNotFoundError, match="no folder test; found train, valid"):
        find_split(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_split(tmp_path / "gone", "train")
    with pytest.raises(ValueError, match="did you mean train"):
        find_split(tmp_path, "trian")
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="both val and valid"):
        find_split(tmp_path, "val")


# batches


def batches(folder, workers, seed=0):
    turn = Compose([RandomFlip("le90"), RandomQuarterTurn("le90")])
    dataset = DotaDataset(folder, transforms=turn)
    chance = torch.Generator().manual_seed(seed)
    loader = DataLoader(dataset, 2, shuffle=True, num_workers=workers, collate_fn=collate, generator=chance)
    return [batch for _ in range(4) for batch in loader]


def view(batch) -> list:
    "What tells the eight views of an image apart."
    return [(t["image_id"], tuple(image.shape), t["boxes"].tolist()) for image, t in zip(*batch, strict=True)]


def test_workers_are_reproducible_and_draw_their_own_numbers(folder):
    for i in range(4):  # one object that looks different in each of the views
        (folder / f"labelTxt/{i}.txt").write_text(SHIP)
    first, again, other = (batches(folder, 2, seed=seed) for seed in (0, 0, 1))
    assert [view(b) for b in first] == [view(b) for b in again]
    assert [view(b) for b in first] != [view(b) for b in other]
    seen = [tuple(map(str, v[1:])) for b in first for v in view(b)]
    halves = (
        [seen[i] for i in range(len(seen)) if i % 4 < 2],
        [seen[i] for i in range(len(seen)) if i % 4 >= 2],
    )
    assert halves[0] != halves[1], "two workers with the same numbers would give the same views"


def test_data_set_can_travel_to_a_worker(folder):
    "Where workers do not start as copies of this process, the data set is pickled."
    dataset = DotaDataset(folder, transforms=RandomQuarterTurn("le90"))
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.classes == dataset.classes and copy.target(1)["boxes"].equal(dataset.target(1)["boxes"])
    assert len(copy[3][1]["boxes"]) == 1


def test_a_broken_image_stops_a_worker_with_its_name(folder):
    (folder / "images/2.png").write_bytes(b"")
    with pytest.raises(OSError, match=r"2\.png"):
        batches(folder, 1)


# data


def test_the_sample_in_this_repository():
    dataset = DotaDataset(ROOT / "data/sample")
    assert len(dataset) == 4 and all(len(dataset.target(i)["boxes"]) > 3 for i in range(4))
    assert all("gsd" in read_dota(path).meta for path in (ROOT / "data/sample/labelTxt").iterdir())


def test_the_sample_is_what_its_command_draws_today(tmp_path):
    write_scenes(tmp_path, 4, 192, 4)
    for path in (ROOT / "data/sample/labelTxt").iterdir():
        assert path.read_text() == (tmp_path / "labelTxt" / path.name).read_text()


KNOWN = {
    "hit_uav/train": (2029, 17518, 4),
    "hit_uav/val": (290, 2453, 4),
    "boxes_obb/train": (194, 359, 1),
    "boxes_obb/valid": (56, 116, 1),
    "boxes_obb/test": (27, 59, 1),
    "aerial_airport/train": (118, 1740, 1),
    "aerial_airport/valid": (68, 1018, 1),
    "aerial_airport/test": (34, 497, 1),
    "dota/tiles/train": (4, 125, 6),
    "dota/tiles/val": (4, 8, 3),
}


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real images in {REAL}")
@pytest.mark.parametrize("part", KNOWN)
def test_published_data(part):
    root, name = part.rsplit("/", 1)
    dataset = DotaDataset(find_split(REAL / root, name.replace("valid", "val")))
    objects = sum(len(dataset.target(i)["boxes"]) for i in range(len(dataset)))
    assert (len(dataset), objects, len(dataset.classes)) == KNOWN[part] and not dataset.dropped
    image, target = dataset[0]
    assert image.shape[1:] == target["size"] and 0 <= image.min() < image.max() <= 1


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real images in {REAL}")
def test_published_data_with_a_catch(caplog):
    with pytest.raises(FileNotFoundError, match="expected the folders images and labelTxt; found images"):
        DotaDataset(REAL / "hit_uav/test")
    assert len(DotaDataset(REAL / "hit_uav/test", labels="optional")) == 579
    assert len(DotaDataset(REAL / "dota").dropped) == 2
    assert "P1478__1__853___962: small-vehicle of 32.0 x 0.0 px" in caplog.text


def test_a_split_knows_its_own_folder(tmp_path):
    "Where the record of its tiles lies."
    write_scenes(tmp_path / "train", 1, 64, seed=0)
    assert open_dataset(tmp_path, "train").folder == tmp_path / "train"
