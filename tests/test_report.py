"The report is one file that needs nothing, in any theme and on paper."

import os
import re
import shutil
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")

from atss_nb.evaluation.evaluate import evaluate  # noqa: E402
from atss_nb.plots.curves import plot_ap_curve, plot_loss_curve  # noqa: E402
from atss_nb.plots.images import class_style, detection_sheet, draw_boxes, show_image  # noqa: E402
from atss_nb.plots.report import write_report  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    "Tags in balance, addresses and headings of a page."

    def __init__(self, text: str):
        super().__init__()
        self.stack, self.addresses, self.headings = [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            value for key, value in attrs if key in ("src", "href", "xlink:href", "action", "data")
        ]
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.fixture(scope="module")
def parts():
    "Fifteen classes, twenty images; class 14 has no objects."
    rng, predictions, targets = np.random.default_rng(0), [], []
    for _ in range(20):
        boxes = torch.tensor(
            rng.uniform([10, 10, 8, 4, -1.5], [110, 90, 30, 12, 1.5], (12, 5)), dtype=torch.float32
        )
        labels = torch.tensor(rng.integers(14, size=12))
        targets.append({"boxes": boxes, "labels": labels, "difficult": torch.tensor(rng.random(12) < 0.1)})
        noise = torch.tensor(rng.normal(0, 1, (12, 5)), dtype=torch.float32) * torch.tensor(
            [2, 2, 1, 0.5, 0.1]
        )
        moved = (boxes + noise).clamp(min=-2)
        predictions.append({"boxes": moved, "labels": labels, "scores": torch.tensor(rng.random(12))})
    images = [rng.integers(0, 255, (100, 120, 3), dtype=np.uint8) for _ in range(5)]
    classes = [f"class {k}" for k in range(13)] + ["<b>&", "empty"]
    history = [
        {"step": n, "epoch": n // 100, "lr": 0.1, "images_per_s": 9.0, "loss": 1 / (n + 1), "box": 0.1}
        for n in range(300)
    ]
    history += [{"step": n, "epoch": n // 100, "AP50": 0.5, "AP75": None, "mAP": 0.3} for n in (99, 199, 299)]
    return evaluate(predictions, targets, classes), history, (images, predictions[:5], targets[:5])


@pytest.fixture(scope="module")
def report(parts, tmp_path_factory):
    evaluation, history, sheet = parts
    path = tmp_path_factory.mktemp("report") / "deeper" / "report.html"
    config = {
        "lr": 0.1,
        "model": {"assigner": "atss", "strides": (8, 16)},
        "odd": "<script>alert(1)</script>",
    }
    figures = {"Found & missed": detection_sheet(*sheet)}
    return write_report(path, "A <title>", history, evaluation, figures, config, {"device": "cpu"})


def test_sound_and_self_contained(report):
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"<script|@import|url\((?!#)|https?://(?!www\.w3\.org/)", text)
    assert page.headings == [
        "Found & missed",
        "Average precision by class",
        "Precision and recall",
        "Training",
        "Configuration",
    ]
    assert not re.search(r"\b(nan|None)\b", re.sub(r"base64,[^\"]+", "", text))
    assert os.listdir(report.parent) == ["report.html"]
    assert len(text) < 3_000_000


def test_same_run_same_page(parts, report, tmp_path):
    evaluation, history, _ = parts
    pages = [
        write_report(tmp_path / f"{n}.html", "x", history, evaluation, {}, {}).read_bytes() for n in range(2)
    ]
    assert pages[0] == pages[1]


def test_every_class_has_its_row_and_number(parts, report):
    evaluation, text = parts[0], report.read_text(encoding="utf-8")
    table = text[text.index("<tbody>") : text.index("</tfoot>")]
    assert table.count("<tr>") == len(evaluation.per_class) + 1
    assert "&lt;b&gt;&amp;" in table and f"<span>{evaluation.AP50:.3f}</span>" in table
    ap = [row["0.50"] for row in evaluation.per_class.values() if row["0.50"] is not None]
    shown = [float(x) for x in re.findall(r"<span>([\d.]+)</span>", table)][:-1]
    assert shown == pytest.approx(sorted(ap, reverse=True), abs=0.00051)


def test_pictures_leave_figures_as_they_were():
    ax = show_image(np.zeros((10, 20, 3), np.uint8))
    face = ax.figure.get_facecolor()
    draw_boxes(ax, torch.zeros(0, 5))
    draw_boxes(ax, torch.tensor([[5.0, 5, 4, 2, 0.1]]), [0], [0.5], ["ship"])
    assert [t.get_text() for t in ax.texts] == ["ship 0.50"] and ax.figure.get_facecolor() == face


def test_curves_take_any_log():
    for history in ([], [{"epoch": 0}], [{"step": 0, "loss": 1.0}], [{"step": 1, "AP50": None}]):
        assert plot_loss_curve(history).get_xlabel() == plot_ap_curve(history).get_xlabel() == "step"
    matplotlib.pyplot.close("all")


def test_styles_of_classes_repeat_no_look():
    assert len({tuple(class_style(k).values()) for k in range(24)}) == 24
    assert class_style(3)["color"] != class_style(3, paper=True)["color"]


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
def test_in_a_browser(report):
    "Fits a telephone and a screen, follows the theme, turns white on paper, asks for nothing."
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        asked, grounds = [], {}
        for theme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=theme)
            page.on("request", lambda request: asked.append(request.url))
            page.on("pageerror", lambda error: pytest.fail(str(error)))
            page.goto(report.as_uri())
            ground = "getComputedStyle(document.body).backgroundColor"
            grounds[theme] = page.evaluate(ground)
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
            page.emulate_media(media="print", color_scheme=theme)
            assert page.evaluate(ground) == "rgb(255, 255, 255)"
        browser.close()
    assert grounds["light"] != grounds["dark"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
