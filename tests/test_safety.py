"A user's files are never harmed: not by what a command writes, not by a name in a file, not by a kill."

import errno
import itertools
import json
import mmap
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atss_nb.cli.main import atss, main
from atss_nb.core.files import draft_of, replacing
from atss_nb.core.outputs import FolderInUse, locked
from atss_nb.evaluation.task1 import read_task1
from atss_nb.scenes.scenes import write_scenes

LINE = "1 1 20 1 20 20 1 20 ship 0\n"


def as_bytes(value) -> bytes:
    "What a checkpoint holds; its file says whether equal objects were one object, too."
    if isinstance(value, dict):
        value = [part for item in value.items() for part in item]
    if isinstance(value, list | tuple):
        return b"\n".join(map(as_bytes, value))
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()


def contents(folder: Path) -> dict[str, bytes]:
    "All files but the records of what was made."
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != ".atss"]
    return {
        p.relative_to(folder).as_posix(): as_bytes(torch.load(p, weights_only=True))
        if p.suffix == ".pt"
        else p.read_bytes()
        for p in paths
    }


def write_images(folder: Path, names, label: str | None = LINE) -> Path:
    "A data set in DOTA's layout."
    for name in names:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)
        if label is not None:
            (folder / "labelTxt").mkdir(exist_ok=True)
            (folder / "labelTxt" / f"{path.stem}.txt").write_text(label)
    return folder


TRAIN = ["--epochs", 1, "--batch-size", 2, "--size", 0, "--device", "cpu"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Scenes and a run on them, whose class has a name that is no file name."
    folder = tmp_path_factory.mktemp("safety")
    write_scenes(folder / "data/train", 4, 64, 1)
    for path in (folder / "data/train/labelTxt").glob("*.txt"):
        path.write_text(LINE.replace("ship", "Truck-w/Box"))
    code, text = atss("train", "--data", folder / "data", "--out", folder / "run", *TRAIN)
    assert code == 0, text
    return folder


# What others made stays


def test_pictures_do_not_go_where_the_images_are(home, tmp_path):
    write_images(tmp_path / "val", ["yard.png", "dock.png"])
    (tmp_path / "link").symlink_to(tmp_path / "val/images")
    before = contents(tmp_path)
    outs = ("val/images", "val", "link", "val/images/../images")
    for out in outs:
        code, text = atss("predict", home / "run", tmp_path / "val/images", "--out", tmp_path / out)
        assert code == 1 and "which is read" in text and str(tmp_path / out) in text
    code, text = atss("predict", home / "run", tmp_path / "val/images", "--out", tmp_path / "val/labelTxt")
    assert code == 1 and "yard.txt" in text
    assert contents(tmp_path) == before
    assert not list(tmp_path.rglob(".atss*"))


COMMANDS = {
    "scenes": lambda home, out: ["scenes", out, "--n", 1, "--size", 64],
    "convert": lambda home, out: ["convert", home / "data", out, "--to", "coco"],
    "stats": lambda home, out: ["stats", home / "data", "--out", out],
    "merge": lambda home, out: ["merge", home / "tiles", out],
    "predict": lambda home, out: ["predict", home / "run", home / "data/train/images/0000.png", "--out", out],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_with_files_of_others_is_refused(home, tmp_path, command):
    (home / "tiles").mkdir(exist_ok=True)
    (home / "tiles/Task1_ship.txt").write_text("")
    (tmp_path / "notes.md").write_text("mine")
    code, text = atss(*COMMANDS[command](home, tmp_path))
    assert code == 1 and "notes.md" in text and "did not make" in text
    assert contents(tmp_path) == {"notes.md": b"mine"}


def test_a_command_replaces_what_it_made_and_nothing_that_was_changed_since(home, tmp_path):
    words = ["predict", home / "run", home / "data/train/images/0000.png", "--out", tmp_path]
    assert atss(*words, "--format", "dota", "--score", 0)[0] == 0
    label = tmp_path / "labelTxt/0000.txt"
    assert atss(*words)[0] == 0
    assert not label.exists() and (tmp_path / "0000.png").exists(), "results of two calls are not mixed"
    assert atss(*words, "--format", "dota")[0] == 0
    label.write_text(LINE)  # corrected by hand
    code, text = atss(*words, "--format", "dota")
    assert code == 1 and "labelTxt/0000.txt" in text and label.read_text() == LINE


def test_a_single_file_of_somebody_else_stays(home, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "Task1_ship.txt").write_text("P1 0.9 1 1 9 1 9 9 1 9\n")
    out = tmp_path / "out.zip"
    assert atss("submit", results, out)[0] == atss("submit", results, out)[0] == 0
    out.write_text("mine")
    code, text = atss("submit", results, out)
    assert code == 1 and "out.zip" in text and out.read_text() == "mine"
    code, text = atss("submit", results, results / "Task1_ship.txt")
    assert code == 1 and (results / "Task1_ship.txt").read_text().startswith("P1")
    (home / "run/val.json").write_text("mine")
    code, text = atss("test", home / "run", "--split", "val")
    assert code == 1 and (home / "run/val.json").read_text() == "mine"


def test_a_command_replaces_no_file_of_another_one(home, tmp_path):
    "`atss export run run/last.pt` was the end of the weights."
    run = shutil.copytree(home / "run", tmp_path / "run")
    before = contents(run)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/Task1_ship.txt").write_text("P1 0.9 1 1 9 1 9 9 1 9\n")
    results, labels = tmp_path / "results", home / "data/train/labelTxt"
    for words in (
        ["export", run, run / "last.pt"],
        ["submit", results, run / "last.pt"],
        ["eval", results, labels, "--json", run / "config.json", "--classes", "ship"],
        ["train", "--data", home / "data", "--out", tmp_path / "other", *TRAIN, "--resume"],
    ):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other/config.json").write_text("mine")
        code, text = atss(*words)
        assert code == 1 and "did not make it" in text
    assert contents(run) == before and contents(tmp_path / "other") == {"config.json": b"mine"}


def test_training_leaves_the_files_of_a_project_alone(home, tmp_path):
    (tmp_path / "config.json").write_text("mine")
    code, text = atss("train", "--data", home / "data", "--out", tmp_path, *TRAIN)
    assert code == 1 and "config.json" in text and contents(tmp_path) == {"config.json": b"mine"}
    code, text = atss("demo", "--out", tmp_path)
    assert code == 1 and "config.json" in text and contents(tmp_path) == {"config.json": b"mine"}


def test_split_writes_neither_into_its_source_nor_over_labels(tmp_path):
    write_images(tmp_path / "in", ["a.png"])
    before = contents(tmp_path)
    assert atss("split", tmp_path / "in", tmp_path / "in", "--size", 16, "--gap", 0)[0] == 1
    assert contents(tmp_path) == before
    write_images(tmp_path / "out", [])
    (tmp_path / "out/labelTxt").mkdir(parents=True)
    (tmp_path / "out/labelTxt/a__16__0___0.txt").write_text("mine")
    code, text = atss("split", tmp_path / "in", tmp_path / "out", "--size", 16, "--gap", 0)
    assert code == 1 and "labelTxt is not empty" in text


# Names


@pytest.mark.parametrize("name", ["../../../pwned", "/tmp/pwned", "..\\pwned", "C:/pwned"])
def test_a_name_that_leads_out_of_the_data_set_is_refused(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/Task1_ship.txt").write_text(f"{name} 0.9 1 1 9 1 9 9 1 9\n")
    code, text = atss("convert", tmp_path / "in", tmp_path / "deep/a/out", "--to", "dota")
    assert code == 1 and "Task1_ship.txt, line 1" in text
    (tmp_path / "coco/annotations").mkdir(parents=True)
    image = {"id": 1, "file_name": name, "height": 9, "width": 9}
    content = {"images": [image], "categories": [{"id": 1, "name": "ship"}], "annotations": []}
    (tmp_path / "coco/annotations/x.json").write_text(json.dumps(content))
    code, text = atss("convert", tmp_path / "coco", tmp_path / "deep/a/out", "--to", "dota")
    assert code == 1 and "x.json, images[0].file_name" in text
    assert not list(tmp_path.rglob("*pwned*")) and not (tmp_path / "deep/a/out").exists()


def test_a_record_of_tiles_deletes_nothing_outside(tmp_path):
    write_images(tmp_path / "in", ["a.png"])
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/photo.png").write_text("precious")
    (tmp_path / "out/images").mkdir(parents=True)
    tiles = {"../../victim/photo": ["x", 0, 0, 1, 1.0]}
    (tmp_path / "out/split.json").write_text(json.dumps({"settings": {}, "images": {}, "tiles": tiles}))
    code, text = atss("split", tmp_path / "in", tmp_path / "out", "--size", 16, "--gap", 0, "--overwrite")
    assert code == 1 and "split.json" in text and (tmp_path / "victim/photo.png").exists()


def test_a_class_with_a_slash_is_no_folder(home, tmp_path):
    image = home / "data/train/images/0000.png"
    assert atss("predict", home / "run", image, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out/Task1_Truck-w%2FBox.txt").is_file()
    labels = home / "data/train/labelTxt"
    code, text = atss("eval", tmp_path / "out", labels)
    assert code == 0 and "Truck-w/Box" in text and "%2F" not in text


def test_terminal_codes_in_names_are_shown_and_not_obeyed(tmp_path, capsys):
    write_images(tmp_path, ["a.png"], LINE.replace("ship", "\x1b[31mship\u202e"))
    assert main(["doctor", str(tmp_path)]) == 0
    assert main(["doctor", str(tmp_path / "\x1b[2J")]) == 1
    out, error = capsys.readouterr()
    assert "\x1b" not in out + error and "\u202e" not in out
    assert "\\x1b[31mship\\u202e" in out and "\\x1b[2J" in error


def test_images_of_one_name_are_told_apart(home, tmp_path):
    for part in "ab":
        write_images(tmp_path / part, ["001.png"], None)
    found = tmp_path / "found"
    code, text = atss(
        "predict", home / "run", tmp_path / "**/*.png", "--out", found, "--format", "json", "dota"
    )
    assert code == 0, text
    assert [one["image_id"] for one in json.loads((found / "predictions.json").read_text())["images"]] == [
        "a/images/001",
        "b/images/001",
    ]
    assert {p.name for p in found.glob("*.png")} == {"a%2Fimages%2F001.png", "b%2Fimages%2F001.png"}
    assert {p.name for p in (found / "labelTxt").iterdir()} == {
        "a%2Fimages%2F001.txt",
        "b%2Fimages%2F001.txt",
    }


def test_names_that_differ_only_in_case_stay_apart(home, tmp_path, caplog):
    "Where a file system ignores case, the second would have replaced the first."
    for name in ("a/P1.png", "b/p1.png"):
        write_images(tmp_path / name[:1], [name[2:]], label=None)
    formats = ["--format", "dota"]
    code, text = atss(
        "predict",
        home / "run",
        tmp_path / "a/images",
        tmp_path / "b/images",
        "--out",
        tmp_path / "o",
        *formats,
    )
    assert code == 0 and "P1 as %501" in caplog.text
    files = [
        p.relative_to(tmp_path / "o").as_posix() for p in (tmp_path / "o").rglob("*.*") if p.name != ".atss"
    ]
    assert len({file.casefold() for file in files}) == len(files) == 4
    (tmp_path / "r").mkdir()
    for name in ("Ship", "ship"):
        (tmp_path / f"r/Task1_{name}.txt").write_text("P1 0.9 1 1 9 1 9 9 1 9\n")
    code, text = atss("convert", tmp_path / "r", tmp_path / "t", "--to", "task1")
    assert code == 0 and "Ship as %53hip" in caplog.text
    assert sorted(p.name for p in (tmp_path / "t").glob("*.txt")) == ["Task1_%53hip.txt", "Task1_ship.txt"]
    read = read_task1(tmp_path / "t", ("Ship", "ship"), ["P1"])
    assert read[0].names == ["Ship", "ship"]
    write_images(tmp_path / "c", ["P1.png", "p1.png"])
    code, text = atss("convert", tmp_path / "c", tmp_path / "d", "--to", "dota")
    assert code == 1 and "in more than case" in text and not (tmp_path / "d").exists()


def test_a_backslash_in_the_name_of_an_image_is_no_folder(tmp_path):
    write_images(tmp_path / "data/train", ["a\\b.png", "c.png"])
    for form in ("coco", "yolo-obb", "labelme", "hrsc2016", "dota"):
        code, text = atss("convert", tmp_path / "data", tmp_path / form, "--to", form)
        assert code == 0 and "slash or backslash: 1, written as" in text
        assert [p.name for p in (tmp_path / form).rglob("a*b.png")] == ["a%5Cb.png"]
        code, text = atss("doctor", tmp_path / form)
        assert code == 0 and " 0 errors" in text.replace("\n", " "), text


def test_names_with_spaces_go_wherever_they_fit(home, tmp_path):
    write_images(tmp_path, ["photo (1).png"], None)
    words = ["predict", home / "run", tmp_path / "images", "--out", tmp_path / "out", "--format"]
    for form in ("json", "csv", "dota"):
        assert atss(*words, form)[0] == 0
    code, text = atss(*words, "task1")
    assert code == 1 and "photo (1)" in text and "separates by spaces" in text


# A full disk, a second run, other data


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk is full.*labels.txt"), replacing(path) as draft:
        draft.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert contents(tmp_path) == {"labels.txt": b"old"}


def test_a_second_training_is_refused_while_the_first_lives(home, tmp_path):
    with locked(tmp_path):
        code, text = atss("train", "--data", home / "data", "--out", tmp_path, *TRAIN)
    assert code == 1 and "is writing there" in text
    with locked(tmp_path):
        words = ["split", home / "data/train", tmp_path, "--size", 32, "--gap", 0]
        command = [sys.executable, "-m", "atss_nb.cli", *map(str, words)]
        got = subprocess.run(command, capture_output=True, text=True)
    assert got.returncode == 1 and f"process {os.getpid()} is writing there" in got.stderr
    with pytest.raises(FolderInUse), locked(tmp_path), locked(tmp_path):
        pass


def test_a_run_goes_on_with_its_own_data_only(tmp_path):
    write_images(tmp_path / "data/train", ["a.png", "b.png", "c.png", "d.png"])
    words = ["train", "--data", tmp_path / "data", "--out", tmp_path / "run", *TRAIN]
    assert atss(*words)[0] == 0
    assert atss(*words, "--resume")[0] == 0
    label = tmp_path / "data/train/labelTxt/a.txt"
    label.write_text(LINE.replace("20", "21"))
    code, text = atss(*words, "--resume")
    assert code == 1 and "other images or labels" in text and "--overwrite" in text
    label.unlink()
    (tmp_path / "data/train/images/a.png").unlink()
    code, text = atss(*words, "--resume")
    assert code == 1 and "4 images then, 3 now" in text


def test_overwriting_ends_the_old_run_before_its_own_first_checkpoint(home, tmp_path, monkeypatch):
    words = ["train", "--data", home / "data", "--out", tmp_path, *TRAIN]
    assert atss(*words)[0] == 0
    monkeypatch.setattr("atss_nb.training.loop._epochs", lambda *_: 1 / 0)  # killed before the first step
    assert atss(*words, "--overwrite")[0] == 1
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("command", ["stats", "eval"])
def test_what_is_in_the_way_is_told_before_the_work(home, tmp_path, command, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    words = ["stats", home / "data", "--out", tmp_path]
    if command == "eval":
        words = ["eval", home / "results", home / "labels", "--report", tmp_path / "notes.txt"]
    code, text = atss(*words)
    assert code == 1 and "notes.txt" in text and "did not make" in text and "found" not in text
    assert contents(tmp_path) == {"notes.txt": b"mine"}


# Kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of this one")
def test_a_copy_of_the_course_is_whole_after_a_kill(tmp_path, monkeypatch):
    pages, work = {}, tmp_path / "work"
    for i in range(9):
        pages[f"nbs/course/{i}.ipynb"] = tmp_path / f"{i}.ipynb"
        pages[f"nbs/course/{i}.ipynb"].write_text(f'{{"lesson": {i}}}')
    monkeypatch.setattr("atss_nb.cli.lessons._lesson_files", lambda: pages)
    monkeypatch.setattr("os.execv", lambda *_: 0)
    monkeypatch.setattr("subprocess.call", lambda _: 0)
    words = ["lab", "--folder", work]
    status, changes = in_a_fork(words, tmp_path)
    assert status == 0 and changes > 20
    quiet = contents(work)
    for at in (3, changes // 2, changes - 1):
        shutil.rmtree(work)
        status, _ = in_a_fork(words, tmp_path, at)
        assert os.WIFSIGNALED(status)
        assert atss(*words)[0] == 0
        assert contents(work) == quiet and set(pages) <= set(quiet)
        assert not [p.name for p in work.rglob(".[0-9]*")], "strays"


def test_a_draft_of_the_record_of_tiles_is_swept(tmp_path):
    write_images(tmp_path / "in", ["a.png"])
    words = ["split", tmp_path / "in", tmp_path / "out", "--size", 16, "--gap", 0]
    assert atss(*words)[0] == 0
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    draft = draft_of(tmp_path / "out/split.json")
    draft = draft.with_name(draft.name.replace(str(os.getpid()), str(dead.pid)))
    draft.write_text("half")
    assert atss(*words)[0] == 0 and not draft.exists()


def kill_commands(home: Path) -> dict[str, list]:
    "Commands by name, which write to OUT."
    if not (home / "many").exists():
        write_images(home / "many", [f"{i:03}.png" for i in range(40)])
        (home / "results").mkdir()
        lines = (f"P{i} 0.9 {i} 1 {i + 9} 1 {i + 9} 9 {i} 9\n" for i in range(300))
        (home / "results/Task1_ship.txt").write_text("".join(lines))
        tiles = (f"P1__64__{64 * i}___0 0.9 1 1 9 1 9 9 1 9\n" for i in range(300))
        (home / "tiled").mkdir()
        (home / "tiled/Task1_ship.txt").write_text("".join(tiles))
        write_images(home / "truth", ["P1.png"])
        (home / "found").mkdir()
        (home / "found/Task1_ship.txt").write_text("P1 0.9 1 1 20 1 20 20 1 20\n")
    files = ["--json", "OUT/scores.json", "--report", "OUT/report.html"]
    scenes = ["--train-scenes", 2, "--test-scenes", 1, "--epochs", 1]
    image = home / "data/train/images"
    return {
        "scenes": ["scenes", "OUT", "--n", 9, "--size", 64],
        "convert": ["convert", home / "many", "OUT", "--to", "coco"],
        "stats": ["stats", home / "data", "--out", "OUT", "--strides", 8, 16],
        "split": ["split", home / "many", "OUT", "--size", 16, "--gap", 0],
        "merge": ["merge", home / "tiled", "OUT"],
        "submit": ["submit", home / "results", "OUT/sub.zip"],
        "predict": ["predict", home / "run", image, "--out", "OUT", "--format", "json", "dota", "--score", 0],
        "export": ["export", home / "run", "OUT/model.onnx"],
        "eval": ["eval", home / "found", home / "truth/labelTxt", *files],
        "test": ["test", "OUT", "--split", "train", "--device", "cpu"],
        "train": ["train", "--data", home / "data", "--out", "OUT", *TRAIN, "--epochs", 3, "--resume"],
        "smoke": ["train", "retina-r50-le135-1x-dota", "--smoke", "--out", "OUT"],
        "demo": ["demo", "--out", "OUT", *scenes],
    }


CHANGES = {"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"}  # as Python's audit calls them


def before_each_change(folder: Path, act: Callable[[], None]) -> None:
    "Call `act` before this process does anything to files of a folder."

    def hook(event: str, args: tuple) -> None:
        written = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (written or event in CHANGES) and str(args[0]).startswith(str(folder)):
            act()

    sys.addaudithook(hook)


def in_a_fork(
    words: list,
    folder: Path,
    at: int | None = None,  # the change before which it is killed; None: it may end
    delay: float = 0.0,  # the kill comes so much later [s]
) -> tuple[int, int]:  # status, changes made to files of the folder
    "Run a command in a process that has everything imported and a clock that counts its readings."
    changes = mmap.mmap(-1, 8)
    if child := os.fork():
        status = os.waitpid(child, 0)[1]
        return status, int.from_bytes(changes[:], "big")

    def act() -> None:
        number = int.from_bytes(changes[:], "big")
        changes[:] = (number + 1).to_bytes(8, "big")
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL) if not delay else signal.setitimer(signal.ITIMER_REAL, delay)

    try:
        torch.set_num_threads(1)
        time.perf_counter = itertools.count(1.0).__next__
        before_each_change(folder, act)
        code, text = atss(*words)
        os.write(2, text.encode() if code else b"")
        os._exit(code)
    finally:
        os._exit(3)


KILLED = ("scenes", "convert", "stats", "split", "merge", "submit", "predict", "eval")
KILLED += ("test", "train", "smoke", "demo", *(("export",) if "KILLS" in os.environ else ()))  # it is slow
KILLS = int(os.environ.get("KILLS", "2"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of this one")
@pytest.mark.parametrize("command", KILLED)
def test_killed_at_any_moment_and_run_again(home, tmp_path, command):
    "Before a change to a file, or a moment later; where a command came to its end it starts anew."
    out, seed = tmp_path / "out", int(os.environ.get("SEED", "0"))
    words = [str(word).replace("OUT", str(out)) for word in kill_commands(home)[command]]

    def start() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if command == "test":
            shutil.copytree(home / "run", out)

    start()
    status, changes = in_a_fork(words, tmp_path)
    assert status == 0 and changes > 3
    quiet, random, kills, ends, began = contents(out), np.random.default_rng(seed), 0, 1, time.monotonic()
    start()
    while status or kills < KILLS:
        at = int(random.integers(changes)) if kills < KILLS else None
        status, _ = in_a_fork(words, tmp_path, at, random.choice([0.0, random.uniform(1e-4, 1e-2)]))
        if os.WIFSIGNALED(status):
            kills += 1
            continue
        assert status == 0
        assert contents(out) == quiet
        assert not [p.name for p in tmp_path.rglob(".*") if p.name != ".atss"], "strays"
        ends += 1
        if kills < KILLS:
            start()
    seconds = time.monotonic() - began
    print(
        f"\n{command}: {kills} kills at {changes} changes of files, {ends} ends the same, {seconds:.0f} s",
        end="",
    )
