"Splitting a data set: complete, resumable after a kill, and one result whatever happens on the way."

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atss_nb.cli.main import main
from atss_nb.core.errors import LabelError
from atss_nb.core.files import draft_of
from atss_nb.core.images import SlidingBand, TiledImage, WholeImage, image_size, open_image
from atss_nb.data.convert import read_dataset, write_dataset
from atss_nb.data.detections import Detections
from atss_nb.data.dota import read_dota, write_dota
from atss_nb.scenes.scenes import write_scenes
from atss_nb.tiles.split import plan_split, split
from atss_nb.tiles.tiles import STYLES, Tiling
from atss_nb.tiles.windows import ScaledImage

REAL = Path(__file__).parents[2] / "shared/data"
TILING = Tiling(size=128, gap=32)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, 5, 420, seed=2)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("style", STYLES)
def test_tiles_hold_the_pixels_and_objects_of_their_place(scenes, tmp_path, style):
    tiling = Tiling(style, 128, 32, rates=(0.5, 1), min_image_rate=0.3)
    report = split(scenes, tmp_path / "out", tiling)
    places = json.loads((tmp_path / "out/split.json").read_text())["tiles"]
    assert report.tiles == len(places) == len(list((tmp_path / "out/images").iterdir()))
    for name, (image_id, x, y, size, scale) in places.items():
        image = open_image(scenes / f"images/{image_id}.png")
        image = image if scale == 1 else ScaledImage(image, scale)
        got = np.asarray(Image.open(tmp_path / f"out/images/{name}.png"))
        assert got.shape == (size, size, 3)
        h, w = min(size, image.size[0] - y), min(size, image.size[1] - x)
        assert (got[:h, :w] == image.read(x, y, x + w, y + h)).all()
        assert (got[h:] == STYLES[style].fill).all() and (got[:, w:] == STYLES[style].fill).all()
        whole = read_dota(scenes / f"labelTxt/{image_id}.txt")
        cut = read_dota(tmp_path / f"out/labelTxt/{name}.txt")
        for poly, kind in zip(cut.polygons.numpy(), cut.names, strict=True):
            if style != "dota-devkit":
                gaps = np.abs(whole.polygons.numpy() - (poly + (x, y))).max((1, 2))
                assert gaps.min() < 1e-3 and whole.names[gaps.argmin()] == kind


def test_workers_change_nothing(scenes, tmp_path):
    one, three = split(scenes, tmp_path / "a", TILING), split(scenes, tmp_path / "b", TILING, workers=3)
    assert one == three and contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal 9")
def test_killed_in_the_middle_and_run_again(scenes, tmp_path):
    "The process is killed with signal 9 as soon as some tiles are there; twice, then it may finish."
    split(scenes, tmp_path / "quiet", TILING)
    out, total = tmp_path / "out", len(list((tmp_path / "quiet/images").iterdir()))
    words = ["split", scenes, out, "--size", 128, "--gap", 32, "--workers", 1]
    command = [sys.executable, "-m", "atss_nb.cli", *map(str, words)]
    for share in (0.2, 0.6):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("images/[!.]*.png"))) < share * total:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was alive"
        assert 0 < len(list(out.glob("images/[!.]*.png"))) < total
        for path in out.glob("images/[!.]*.png"):
            assert path.read_bytes() == (tmp_path / "quiet/images" / path.name).read_bytes()
    draft = draft_of(out / "images/half.png").name.replace(f".{os.getpid()}.", f".{process.pid}.")
    (out / "images" / draft).write_bytes(b"a draft, in case the kill left none")
    subprocess.run(command, check=True, capture_output=True)
    assert contents(out) == contents(tmp_path / "quiet")


def test_a_plan_is_not_mixed_with_another(scenes, tmp_path):
    split(scenes, tmp_path, TILING)
    with pytest.raises(FileExistsError, match="other settings, tiles"):
        split(scenes, tmp_path, Tiling(size=128, gap=64))
    report = split(scenes, tmp_path, Tiling(size=128, gap=64), overwrite=True)
    assert len(list((tmp_path / "images").iterdir())) == report.tiles
    (tmp_path / "split.json").unlink()
    with pytest.raises(FileExistsError, match="is not empty, and there is no split.json"):
        split(scenes, tmp_path, TILING)


def test_all_problems_at_once(tmp_path):
    write_scenes(tmp_path, 3, 64, seed=0)
    images, labels = (sorted((tmp_path / name).iterdir()) for name in ("images", "labelTxt"))
    images[0].unlink()
    labels[1].write_text("1 2 3\n")
    labels[2].unlink()
    with pytest.raises(LabelError) as error:
        plan_split(tmp_path, TILING)
    text = str(error.value)
    assert "problems: 3" in text and f"{labels[1]}, line 1" in text
    assert f"{labels[0]}: no image" in text and f"{images[2]}: no label" in text
    labels[0].unlink()
    labels[1].write_text("")
    labels[2].write_text("")
    for path in images[1:]:
        path.write_bytes(b"no picture")
    with pytest.raises(LabelError) as error:
        plan_split(tmp_path, TILING)
    assert all(path.name in str(error.value) for path in images[1:])
    with pytest.raises(FileNotFoundError, match="none: there is no such data set"):
        plan_split(tmp_path / "none", TILING)


def test_the_plan_reads_headers_only_and_a_broken_image_stops_the_cut_by_name(scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / "in")
    first = min((tmp_path / "in/images").iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    assert image_size(first) == (420, 420)
    assert plan_split(tmp_path / "in", TILING)["images"][first.stem]["size"] == [420, 420]
    with pytest.raises(OSError, match=f"{first.name}: cannot be read"):
        split(tmp_path / "in", tmp_path / "out", TILING)


def test_without_labels(tmp_path):
    write_scenes(tmp_path / "in", 1, 200, seed=0)
    for path in (tmp_path / "in/labelTxt").iterdir():
        path.unlink()
    (tmp_path / "in/labelTxt").rmdir()
    report = split(tmp_path / "in", tmp_path / "out", TILING)
    assert report.objects == 0 and report.tiles > 1 and not (tmp_path / "out/labelTxt").exists()


def test_objects_in_no_tile_are_reported(tmp_path):
    (tmp_path / "in/images").mkdir(parents=True)
    (tmp_path / "in/labelTxt").mkdir()
    Image.new("RGB", (300, 300)).save(tmp_path / "in/images/a.png")
    polys = [
        [[0, 0], [300, 0], [300, 20], [0, 20]],
        [[0, 0], [9, 0], [9, 9], [0, 9]],
        [[5, 5], [9, 5], [9, 5], [5, 5]],
    ]
    write_dota(
        tmp_path / "in/labelTxt/a.txt", Detections.from_polygons(np.array(polys), ["bridge", "ship", "ship"])
    )
    assert split(tmp_path / "in", tmp_path / "out", TILING).lost == {"a": [0, 2]}


@pytest.mark.parametrize("kind, save", [
    (SlidingBand, {"suffix": ".png"}),
    (SlidingBand, {"suffix": ".tif"}),
    (TiledImage, {"suffix": ".tif", "tile": True, "tile_width": 64, "tile_height": 64, "compression": "deflate"}),
    (SlidingBand, {"suffix": ".jpg", "Q": 90}),
])  # fmt: skip
def test_windows_of_large_images(scenes, tmp_path, kind, save):
    "Windows in row order, then anywhere, against the whole image decoded by Pillow."
    import pyvips

    file = tmp_path / f"large{save.pop('suffix')}"
    pyvips.Image.new_from_file(str(sorted((scenes / "images").iterdir())[0])).write_to_file(str(file), **save)
    large, whole = open_image(file, limit=1000), open_image(file)
    assert isinstance(large, kind) and isinstance(whole, WholeImage) and large.size == whole.size
    rng = np.random.default_rng(0)
    corners = [(x, y) for y in range(0, 300, 90) for x in range(0, 300, 90)] + rng.integers(
        0, 300, (20, 2)
    ).tolist()
    for x, y in corners:
        assert (large.read(x, y, x + 100, y + 120) == whole.read(x, y, x + 100, y + 120)).all()


def test_upright_as_the_exif_note_says(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    note = Image.Exif()
    note[274] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=note)
    assert open_image(tmp_path / "a.png").size == (60, 40)
    assert (open_image(tmp_path / "a.png").read(0, 0, 40, 60) == np.rot90(pixels, -1)).all()
    with pytest.raises(OSError, match="save it upright"):
        open_image(tmp_path / "a.png", limit=10)


@pytest.mark.skipif(not REAL.exists(), reason="needs the real images in ../shared/data")
def test_real_images(tmp_path):
    report = split(REAL / "dota", tmp_path, Tiling("mmrotate"))
    assert (report.images, report.objects) == (6, 1187)
    assert report.tiles == len(list((tmp_path / "images").iterdir()))


@pytest.mark.parametrize("form", ["coco", "yolo-obb"])
def test_a_data_set_of_any_format_gives_the_tiles_of_its_labels(scenes, tmp_path, form, capsys):
    data = tmp_path / "data"
    shutil.copytree(scenes, data / "train")
    write_dataset(form, read_dataset("dota", data), tmp_path / form, report=False)
    for source in (data, tmp_path / form):
        assert (
            main(
                ["split", str(source), str(tmp_path / f"{source.name} tiles"), "--size", "128", "--gap", "32"]
            )
            == 0
        )
    assert "5 images" in capsys.readouterr().out
    whole = contents(tmp_path / "data tiles")
    same = contents(tmp_path / f"{form} tiles")
    assert whole.keys() == same.keys() and len(whole) > 30
    for name in whole:
        if name.startswith("images"):
            assert whole[name] == same[name]
    if form == "coco":  # YOLO knows no object that crosses the border, so its tiles may hold fewer
        assert [len(read_dota(tmp_path / "data tiles" / n)) for n in sorted(whole) if "labelTxt" in n] == [
            len(read_dota(tmp_path / "coco tiles" / n)) for n in sorted(same) if "labelTxt" in n
        ]


def test_an_image_without_a_label_file_may_be_one_without_objects(scenes, tmp_path):
    shutil.copytree(scenes, tmp_path / "in")
    min((tmp_path / "in/labelTxt").iterdir()).unlink()
    command = ["split", str(tmp_path / "in"), str(tmp_path / "out"), "--size", "128", "--gap", "32"]
    assert main(command) == 1
    assert main([*command, "--labels", "optional"]) == 0


def test_labels_alone_cannot_be_cut(tmp_path):
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/Task1_ship.txt").write_text("0000 0.9 10 10 40 10 40 20 10 20\n")
    with pytest.raises(LabelError, match="0000: no image, only labels"):
        split(tmp_path / "lines", tmp_path / "out", TILING)
