"Submissions: what is refused before anything is written, and what comes back."

import warnings
import zipfile
from pathlib import Path

import pytest

from atss_nb.cli.main import main
from atss_nb.core.errors import LabelError
from atss_nb.evaluation.submission import check_submission, dota_classes, read_submission, write_submission
from atss_nb.training.checkpoints import load_checkpoint

GOLDEN = Path(__file__).parent / "golden/09_eval_noties"
GOOD = "a 0.123456789012345 0 0 20 0 20 10 0 10\n"


def results(folder: Path, **files: str) -> Path:
    (folder / "Task1").mkdir()
    for name, text in files.items():
        (folder / "Task1" / f"Task1_{name}.txt").write_text(text)
    return folder / "Task1"


def test_real_files_come_back_as_they_were(tmp_path):
    checked = check_submission(GOLDEN / "Task1", GOLDEN / "imageset.txt")
    write_submission(tmp_path / "deep/out.zip", checked)
    assert read_submission(tmp_path / "deep/out.zip").lines == checked.lines and len(checked) == 1106
    assert len(zipfile.ZipFile(tmp_path / "deep/out.zip").namelist()) == 15
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out.zip"]


def test_no_digit_is_lost(tmp_path):
    write_submission(tmp_path / "x.zip", check_submission(results(tmp_path, ship=GOOD)))
    assert read_submission(tmp_path / "x.zip").lines["ship"][0][1] == 0.123456789012345


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b 0.5 0 0 20 0 20 10 0 10", "image|'b'"),
        ("a 0 0 0 20 0 20 10 0 10", "score 0.0"),
        ("a 1.5 0 0 20 0 20 10 0 10", "score 1.5"),
        ("a nan 0 0 20 0 20 10 0 10", "score"),
        ("a 0.5 0 0 20 10 20 0 0 10", "four corners"),
        ("a 0.5 1 1 1 1 1 1 1 1", "four corners"),
        ("a 0.5 0 0 20 0 20 10", "8 coordinates"),
        ("a 0.7 0 0 20 0 20 10 0 10", "as in line 1"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_written(tmp_path, line, message):
    folder = results(tmp_path, ship=GOOD + line + "\n")
    (tmp_path / "set.txt").write_text("a\n")
    with pytest.raises(LabelError, match=f"line 2: .*({message})"):
        check_submission(folder, tmp_path / "set.txt")
    words = ["submit", str(folder), str(tmp_path / "x.zip"), "--imageset", str(tmp_path / "set.txt")]
    assert main(words) == 1 and not (tmp_path / "x.zip").exists()


def test_classes_are_those_of_a_release(tmp_path):
    assert len(dota_classes(["ship"])) == 15
    assert len(dota_classes(["container-crane"])) == 16 and len(dota_classes(["helipad"])) == 18
    with pytest.raises(ValueError, match="classes boat"):
        dota_classes(["boat"])
    own = check_submission(results(tmp_path, boat=GOOD), classes=["boat", "car"])
    assert list(own.lines) == ["boat", "car"] and "car" in own.notes[0]


def row(image: str, scores) -> str:
    "A detection for each score, side by side."
    return "".join(
        f"{image} {s} {30 * i} 0 {30 * i + 20} 0 {30 * i + 20} 10 {30 * i} 10\n" for i, s in enumerate(scores)
    )


def test_what_is_allowed_but_costs_points_is_noted(tmp_path):
    "More than twenty scores, all of two decimals; tiles of either style; images of the set without a detection."
    (tmp_path / "set.txt").write_text("a\nb\nc\n")
    folder = results(tmp_path, **dict.fromkeys(dota_classes(["ship"]), ""))
    for text, expected in (
        (row("a", [0.25] * 20), []),
        (row("a", [0.25] * 20 + [0.255]), []),
        (row("a", [0.25] * 21), ["two decimals at most"]),
        (row("P1__1024__0___824", [0.255]), ["1 image names look like tiles, such as P1__1024__0___824"]),
        (row("P1__0.5__0___824", [0.255]) + row("P1__1__0___0", [0.255]), ["2 image names look like tiles"]),
    ):
        (folder / "Task1_ship.txt").write_text(text)
        notes = check_submission(folder).notes
        assert len(notes) == len(expected) and all(s in n for s, n in zip(expected, notes, strict=True)), (
            notes
        )
    (folder / "Task1_ship.txt").write_text(row("a", [0.255, 0.5]))
    assert check_submission(folder, tmp_path / "set.txt").notes == ("2 of 3 images have no detection",)
    (folder / "Task1_ship.txt").write_text("".join(row(name, [0.255]) for name in "abc"))
    assert check_submission(folder, tmp_path / "set.txt").notes == ()


def test_an_outline_may_have_one_dent(tmp_path):
    "Either way round; what crosses itself has no inside."
    dented, crossed = "0 0 40 0 12 8 0 20", "0 0 40 20 40 0 0 20"
    turned = " ".join(dented.split()[i] for i in (6, 7, 4, 5, 2, 3, 0, 1))
    good = results(tmp_path, ship=f"a 0.5 {dented}\nb 0.5 {turned}\n")
    assert len(check_submission(good)) == 2
    (good / "Task1_ship.txt").write_text(f"a 0.5 {crossed}\n")
    with pytest.raises(LabelError, match="four corners"):
        check_submission(good)


def test_foreign_files_in_a_zip_are_refused(tmp_path):
    for name in ("../Task1_ship.txt", "Task1/Task1_ship.txt", "readme.md"):
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            archive.writestr(name, GOOD)
        with pytest.raises(ValueError, match="nothing but"):
            read_submission(tmp_path / "x.zip")


def test_the_command(tmp_path, capsys):
    out = tmp_path / "x.zip"
    assert main(["submit", str(results(tmp_path, ship=GOOD)), str(out)]) == 0
    assert "1 detections of 15 classes" in capsys.readouterr().out and out.exists()


def test_a_zip_that_unpacks_to_unbelievably_much_is_refused(tmp_path):
    for name, text in (("bomb.zip", "0" * 9_000_000), ("twice.zip", "")):
        with (
            warnings.catch_warnings(),
            zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            warnings.simplefilter("ignore")
            for _ in range(2 - bool(text)):
                archive.writestr("Task1_ship.txt", text)
    with pytest.raises(ValueError, match="bomb.zip: its .* bytes unpack to 9000000; expected"):
        read_submission(tmp_path / "bomb.zip")
    with pytest.raises(ValueError, match="twice.zip: a name is there twice"):
        read_submission(tmp_path / "twice.zip")
    with pytest.raises(ValueError, match="bomb.zip.*unpack to"):
        load_checkpoint(tmp_path / "bomb.zip")
