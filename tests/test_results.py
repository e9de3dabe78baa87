"Result files against label files: what is read, what is refused, and the command."

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from atss_nb.cli.main import main
from atss_nb.cli.results import PROTOCOL_NAMES
from atss_nb.core.errors import LabelError
from atss_nb.data.detections import Detections
from atss_nb.evaluation.evaluate import PROTOCOLS
from atss_nb.evaluation.task1 import check_image_ids, read_results, write_task1

GOLDEN = Path(__file__).parent / "golden"
SET = GOLDEN / "09_eval_ties"
SQUARE, OTHER = "0 0 20 0 20 10 0 10", "40 40 60 40 60 50 40 50"


def make(folder: Path, labels: dict[str, str], results: dict[str, str]) -> tuple[Path, Path]:
    for name, files, suffix in (("labelTxt", labels, "{}.txt"), ("Task1", results, "Task1_{}.txt")):
        (folder / name).mkdir(exist_ok=True)
        for key, text in files.items():
            (folder / name / suffix.format(key)).write_text(text)
    return folder / "Task1", folder / "labelTxt"


def run(*words) -> int:
    return main([str(word) for word in words])


def test_the_command_gives_the_kits_numbers(tmp_path, capsys):
    out = tmp_path / "deeper" / "out.json"
    words = [
        "--protocol",
        "dota-devkit",
        "--metric",
        "voc07",
        "--json",
        out,
        "--imageset",
        SET / "imageset.txt",
    ]
    assert run("eval", SET / "Task1", SET / "labelTxt", *words) == 0
    got, expected = (
        json.loads(out.read_text()),
        json.loads((SET / "expected_devkit.json").read_text())["stable"],
    )
    assert (got["protocol"], got["metric"], got["images"]) == ("dota-devkit", "voc07", 40)
    for name, ap in got["per_class"].items():
        assert list(ap) == [f"0.{n}" for n in range(50, 100, 5)]
        for threshold, value in ap.items():
            theirs = expected[f"{threshold}|voc07|{name}"]
            assert value == pytest.approx(0.0 if isinstance(theirs, str) else theirs, abs=1e-6)
    assert got["counts"]["ship"].keys() == {"gts", "difficult", "detections"}
    assert "mean" in capsys.readouterr().out


def test_the_command_knows_all_protocols(tmp_path):
    assert tuple(PROTOCOLS) == PROTOCOL_NAMES
    paths = make(tmp_path, {"a": SQUARE + " ship\n"}, {"ship": f"a 0.9 {SQUARE}\n"})
    for name in PROTOCOLS:
        if name == "coco":
            pytest.importorskip("faster_coco_eval")
        assert run("eval", *paths, "--protocol", name, "--json", tmp_path / "x.json") == 0
        assert json.loads((tmp_path / "x.json").read_text())["AP50"] == pytest.approx(1.0)


def test_null_where_a_protocol_gives_no_number(tmp_path):
    paths = make(tmp_path, {"a": SQUARE + " ship\n"}, {"ship": f"a 0.9 {SQUARE}\n", "plane": ""})
    assert run("eval", *paths, "--json", tmp_path / "x.json") == 0
    got = json.loads((tmp_path / "x.json").read_text())
    assert got["per_class"]["plane"]["0.50"] is None and got["AP50"] == 1.0


def test_the_image_set_limits_both_sides(tmp_path):
    labels = {"a": SQUARE + " ship\n", "b": OTHER + " ship 1\n"}
    paths = make(tmp_path, labels, {"ship": f"b 0.9 {OTHER}\na 0.8 {SQUARE}\n"})
    (tmp_path / "set.txt").write_text("\ufeffa\r\n\r\n", encoding="utf-8")
    files = read_results(*paths, imageset=tmp_path / "set.txt")
    assert files.image_ids == ("a",) and len(files.dets.label) == len(files.gts.label) == 1
    assert files.notes == (f"1 detections in images outside {tmp_path / 'set.txt'}",)


def test_classes_are_those_of_either_side_in_dotas_order(tmp_path):
    labels = {"a": f"{SQUARE} zeppelin\n{OTHER} ship 2\n"}
    paths = make(tmp_path, labels, {"plane": "", "ship": f"a 0.5 {OTHER}\n"})
    files = read_results(*paths)
    assert files.classes == ("plane", "ship", "zeppelin") and "zeppelin" in files.notes[0]
    assert files.gts.extra.sum() == 1  # difficulty 2 is difficult, too
    only = read_results(*paths, classes=["ship"])
    assert len(only.gts.label) == 1 and only.notes == ("not among the classes asked for: plane, zeppelin",)


@pytest.mark.parametrize(
    ("labels", "results", "imageset", "error", "message"),
    [
        ({"a": ""}, {}, None, FileNotFoundError, "Task1_<class>.txt"),
        ({}, {"ship": ""}, None, FileNotFoundError, "label files"),
        ({"a": ""}, {"ship": f"b 0.5 {SQUARE}\n"}, None, LabelError, "line 1: image 'b'"),
        ({"a": ""}, {"ship": f"a nan {SQUARE}\n"}, None, LabelError, "line 1: .*score"),
        ({"a": ""}, {"ship": f"a 0.5 {SQUARE}\na 0.5 1 2\n"}, None, LabelError, "line 2: .*8 coordinates"),
        ({"a": SQUARE}, {"ship": ""}, None, LabelError, "a.txt, line 1"),
        ({"a": ""}, {"ship": ""}, "a\na\n", LabelError, "line 2: 'a'"),
        ({"a": ""}, {"ship": ""}, "a\nb\n", FileNotFoundError, "b.txt"),
        ({"a": ""}, {"ship": ""}, "\n", FileNotFoundError, "expected images"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, labels, results, imageset, error, message):
    paths = make(tmp_path, labels, results)
    if imageset is not None:
        (tmp_path / "set.txt").write_text(imageset)
    with pytest.raises(error, match=message):
        read_results(*paths, imageset=imageset and tmp_path / "set.txt")
    words = ["--imageset", tmp_path / "set.txt"] if imageset is not None else []
    assert run("eval", *paths, *words) == 1


def test_empty_sides_are_answers(tmp_path):
    nothing = read_results(*make(tmp_path, {"a": ""}, {"ship": ""})).evaluate()
    assert nothing.AP50 is None and nothing.counts["ship"] == {"gts": 0, "difficult": 0, "detections": 0}
    missed = read_results(*make(tmp_path, {"a": SQUARE + " ship"}, {"ship": ""}))
    assert missed.evaluate("voc07").AP50 == missed.evaluate(protocol="mmrotate").AP50 == 0.0


@pytest.mark.parametrize("protocol", PROTOCOL_NAMES)
@pytest.mark.parametrize(
    ("labels", "results", "ap"),
    [
        ({"a": "", "b": ""}, {"ship": ""}, None),  # nothing there, nothing found
        ({"a": SQUARE + " ship\n", "b": ""}, {"ship": ""}, 0.0),  # nothing found
        ({"a": "", "b": ""}, {"ship": f"a 0.5 {SQUARE}\n"}, None),  # nothing there
    ],
)
def test_the_command_answers_empty_sides(tmp_path, protocol, labels, results, ap):
    if protocol == "coco":
        pytest.importorskip("faster_coco_eval")
    paths, files = (
        make(tmp_path, labels, results),
        {"--json": tmp_path / "o.json", "--report": tmp_path / "o.html"},
    )
    words = [word for pair in files.items() for word in pair]
    assert run("eval", *paths, "--protocol", protocol, "--compare", *words) == 0
    written, page = json.loads(files["--json"].read_text()), files["--report"].read_text(encoding="utf-8")
    assert written["AP50"] == ap and written["images"] == 2
    assert not re.search(r"\b(nan|NaN|None)\b", page)


def test_classes_that_are_nowhere_are_said(tmp_path, capsys):
    paths = make(tmp_path, {"a": SQUARE + " ship\n"}, {"ship": f"a 0.9 {SQUARE}\n"})
    assert run("eval", *paths, "--classes", "shp", "--json", tmp_path / "o.json") == 0
    message, written = capsys.readouterr().out, json.loads((tmp_path / "o.json").read_text())
    assert "neither in the results nor in the labels: shp" in message and "asked for: ship" in message
    assert written["AP50"] is None and set(written["per_class"]["shp"].values()) == {None}


def test_the_command_names_nan_and_double_images_in_one_line(tmp_path, capsys):
    (tmp_path / "set.txt").write_text("a\nb\na\n")
    for score, words, message in (
        (0.5, ["--imageset", tmp_path / "set.txt"], "line 3: 'a'"),
        ("nan", [], "line 1"),
    ):
        paths = make(tmp_path, {"a": SQUARE + " ship\n", "b": ""}, {"ship": f"a {score} {SQUARE}\n"})
        assert run("eval", *paths, *words) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_only_task1_files_need_names_without_spaces(tmp_path):
    box = torch.tensor([[10.0, 8, 8, 4, 0.3]])
    one = Detections(box, torch.tensor([0]), ("ship",), torch.tensor([0.9]), "pier 4")
    check_image_ids([one.image_id])
    with pytest.raises(ValueError, match="'pier 4': a Task1 file separates by spaces"):
        write_task1(tmp_path, [one])


def test_strange_corners_have_a_result(tmp_path):
    dent, tie, flat = "0 0 20 0 6 6 0 20", "0 0 20 10 20 0 0 10", "0 0 5 0 10 0 15 0"
    labels = {"a": "".join(f"{q} ship\n" for q in (dent, tie, flat))}
    results = {"ship": f"a 0.9 {dent}\na 0.8 {tie}\na 0.7 {flat}\n"}
    for protocol in ("dota-devkit", "mmrotate"):
        value = read_results(*make(tmp_path, labels, results)).evaluate(protocol=protocol).AP50
        assert 0 <= value <= 1 and np.isfinite(value)


def test_a_prediction_draws_itself_where_its_image_is_known():
    import matplotlib

    matplotlib.use("agg")
    boxes = torch.tensor([[10.0, 8, 8, 4, 0.3], [20, 8, 8, 4, 0.3]])
    p = Detections(
        boxes, torch.tensor([0, 0]), ("ship",), torch.tensor([0.9, 0.1]), "x", torch.zeros(3, 16, 30)
    )
    assert [t.get_text() for t in p.above(0.3).plot().texts] == ["ship 0.90"]
    with pytest.raises(ValueError, match="not known"):
        Detections(boxes, p.labels, ("ship",), p.scores, "x").plot()


def test_files_written_by_us_score_like_the_tensors(tmp_path):
    shutil.copytree(SET / "labelTxt", tmp_path / "labelTxt")
    files = read_results(SET / "Task1", SET / "labelTxt")
    predictions = []
    for i, name in enumerate(files.image_ids):
        rows = files.dets.take(files.dets.image == i)
        parts = map(torch.from_numpy, (rows.boxes, rows.extra, rows.label))
        boxes, scores, labels = parts
        predictions.append(Detections(boxes, labels, files.classes, scores, name))
    write_task1(tmp_path / "Task1", predictions)
    again = read_results(tmp_path / "Task1", tmp_path / "labelTxt")
    assert sorted(again.dets.extra) == sorted(files.dets.extra)
    assert again.evaluate(protocol="mmrotate").mAP == pytest.approx(
        files.evaluate(protocol="mmrotate").mAP, abs=5e-3
    )
