"Pictures of huge images are drawn from a small preview, with the boxes where the objects are."

import numpy as np
import pytest
import torch
from PIL import Image

import atss_nb.core.images as windows
from atss_nb.cli.images import draw_prediction
from atss_nb.data.detections import Detections
from atss_nb.tiles.windows import preview


@pytest.fixture
def scene(tmp_path):
    "A white field on black, in an image that counts as huge."
    pixels = np.zeros((900, 1500, 3), np.uint8)
    pixels[300:600, 600:1200] = 255
    Image.fromarray(pixels).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def test_no_more_than_a_strip_is_read_at_a_time(scene, monkeypatch):
    monkeypatch.setattr(windows.open_image, "__defaults__", (1000,))  # larger ones are not decoded whole
    rows, slide = [], windows.SlidingBand._slide
    monkeypatch.setattr(
        windows.SlidingBand, "_slide", lambda self, y0, y1: (rows.append(y1 - y0), slide(self, y0, y1))
    )
    small, scale = preview(scene, 750)
    assert small.shape == (450, 750, 3) and scale == 0.5
    assert len(rows) >= 7 and max(rows) < 160  # 64 rows of the preview and a margin


def test_strips_fit_together(scene):
    small, scale = preview(scene, 300)
    whole = Image.open(scene).resize((300, 180), Image.Resampling.BICUBIC)
    assert scale == 0.2 and np.abs(small.astype(int) - np.asarray(whole)).max() <= 1


def test_small_images_are_drawn_as_they_are(scene):
    small, scale = preview(scene)
    assert scale == 1 and np.array_equal(small, np.asarray(Image.open(scene)))


def test_boxes_shrink_with_the_picture(tmp_path):
    pixels = np.zeros((100, 4096, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    box = torch.tensor([[3000.0, 50.0, 400.0, 60.0, 0.0]])
    found = Detections(box, torch.tensor([0]), ("field",), torch.tensor([0.9]), "wide")
    draw_prediction(tmp_path / "drawn.png", tmp_path / "wide.png", found)
    drawn = np.asarray(Image.open(tmp_path / "drawn.png").convert("RGB")).astype(int)
    assert drawn.shape == (50, 2048, 3)
    columns = np.flatnonzero(drawn[25].max(1) > 60)  # the middle row crosses the sides of the box
    assert abs(columns.min() - 1400) < 4 and abs(columns.max() - 1600) < 8
    assert found.boxes[0, 0] == 3000  # what was found stays in pixels of the image


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "half.png").write_bytes(b"\x89PNG")
    with pytest.raises(OSError, match="half.png"):
        preview(tmp_path / "half.png")
