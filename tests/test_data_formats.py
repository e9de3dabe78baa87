"Label files: nothing is lost on the way to the disk and back, and nothing but a LabelError comes out of rubbish."

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atss_nb.core.errors import LabelError
from atss_nb.data.detections import Detections
from atss_nb.data.dota import DOTA_V20_CLASSES, read_dota, write_dota

REAL = Path(__file__).parents[2] / "shared/data"
OBJECT = "60 20 176 62 164 95 48 53 ship 0\n"

number = st.floats(-3.4e38, 3.4e38)  # more is refused: boxes have 32 bits
poly = st.lists(number, min_size=8, max_size=8)
name = st.text(min_size=1, max_size=12).filter(lambda s: len(s.split()) == 1 and s == s.strip())
line = st.text(max_size=30).filter(lambda s: s == s.strip() and "\n" not in s and "\r" not in s)
key = st.from_regex(r"[A-Za-z]+( [A-Za-z]+)*", fullmatch=True)
encodable = st.characters(codec="utf-8")


@st.composite
def annotations(draw):
    objects = draw(st.lists(st.tuples(poly, name, st.integers(0, 2)), max_size=6))
    polys, classes, difficult = zip(*objects, strict=True) if objects else ((), (), ())
    return Detections.from_polygons(
        polys, list(classes), difficult=difficult, meta=draw(st.dictionaries(key, line, max_size=3))
    )


def writable(a: Detections) -> bool:
    "UTF-8 has no place for half a surrogate pair."
    try:
        "".join([*a.names, *a.meta.values()]).encode()
    except UnicodeEncodeError:
        return False
    return True


@settings(max_examples=100, deadline=None)
@given(annotations().filter(writable))
def test_round_trip_keeps_every_bit(tmp_path_factory, annotation):
    path = tmp_path_factory.getbasetemp() / "round.txt"
    write_dota(path, annotation)
    again = read_dota(path)
    assert again.polygons.numpy().tobytes() == annotation.polygons.numpy().tobytes()
    assert again.names == annotation.names
    assert (again.difficult == annotation.difficult).all()
    assert again.meta == annotation.meta


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(encodable, max_size=200).map(str.encode)))
def test_rubbish_gives_a_label_error_or_an_annotation(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "rubbish.txt"
    path.write_bytes(content)
    try:
        assert isinstance(read_dota(path), Detections)
    except LabelError as error:
        assert f"{path}, line " in str(error) and "; expected " in str(error)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["1", "-2.5", "nan", "inf", "1e400", "ship", "0", "7", "x:y"]), max_size=12))
def test_only_well_formed_lines_become_objects(tmp_path_factory, fields):
    path = tmp_path_factory.getbasetemp() / "fields.txt"
    path.write_text(" ".join(fields))
    try:
        found = read_dota(path, ["ship"])
    except LabelError:
        return
    assert len(found) == 0 or (
        len(fields) in (9, 10) and fields[8] == "ship" and found.polygons.isfinite().all()
    )


def test_the_old_file_survives_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text(OBJECT)

    def full(self, *args, **kwargs):
        self.touch()
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_dota(path, Detections.from_polygons([], []))
    monkeypatch.undo()
    assert path.read_text() == OBJECT and os.listdir(tmp_path) == ["a.txt"]


BROKEN = Detections.from_polygons(np.zeros((1, 4, 2)), ["ship"])
BROKEN.corners[:] = np.inf  # what was right when it was made


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Detections.from_polygons(np.zeros((1, 4, 2)), ["cargo ship"]), "without spaces"),
        (Detections.from_polygons(np.zeros((1, 4, 2)), [""]), "without spaces"),
        (BROKEN, "finite"),
        (Detections.from_polygons(np.zeros((1, 4, 2)), ["ship"], difficult=[3]), "0, 1 or 2"),
        (Detections.from_polygons([], [], meta={"gsd": "0.1\n0.2"}), "one line"),
        (Detections.from_polygons([], [], meta={"gsd": " 0.1"}), "one line"),
        (Detections.from_polygons([], [], meta={"12": "x"}), "letters"),
        (Detections.from_polygons([], [], meta={"a:b": "x"}), "letters"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, annotation, expected):
    with pytest.raises(ValueError, match=expected):
        write_dota(tmp_path / "a.txt", annotation)
    assert not list(tmp_path.iterdir())


def test_headers_keep_their_words_and_colons(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("acquisition dates:2014-01-01 10:30\nimagesource:GF-2\ngsd:null\n" + OBJECT)
    assert read_dota(path).meta == {
        "acquisition dates": "2014-01-01 10:30",
        "imagesource": "GF-2",
        "gsd": "null",
    }


@pytest.mark.parametrize("classes", ["ship", ["ship", "ship"]])
def test_classes_are_a_list_of_different_names(tmp_path, classes):
    (tmp_path / "a.txt").write_text(OBJECT)
    with pytest.raises(ValueError, match="classes: expected"):
        read_dota(tmp_path / "a.txt", classes)


def test_dota_class_lists_extend_each_other():
    assert DOTA_V20_CLASSES[:3] == ("plane", "baseball-diamond", "bridge")
    assert len(set(DOTA_V20_CLASSES)) == 18 and DOTA_V20_CLASSES[15:] == (
        "container-crane",
        "airport",
        "helipad",
    )


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real label files in {REAL}")
def test_published_label_files():
    files = sorted([*REAL.rglob("labelTxt/*.txt"), *REAL.rglob("labels_without_image/*.txt")])
    found = [read_dota(path) for path in files]
    assert (len(found), sum(map(len, found))) == (2843, 26397)
    headed = [a for a in found if a.meta]
    assert headed and all({"imagesource", "gsd"} <= a.meta.keys() for a in headed)
