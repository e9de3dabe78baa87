"Processes that a launcher has started share the images of a data set, and write the files of one."

import itertools
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from test_safety import LINE, TRAIN, contents

from atss_nb.cli.main import atss
from atss_nb.scenes.scenes import write_scenes

pytest.importorskip("accelerate")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are copies of this one")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    "Seven images, of which one has another size and one no objects, and a run on them."
    folder = tmp_path_factory.mktemp("shares")
    write_scenes(folder / "data/train", 6, 64, 1)
    write_scenes(folder / "wide", 1, 96, 2)
    for path in (folder / "wide").rglob("0000.*"):
        path.rename(folder / "data/train" / path.parent.name / f"0002b{path.suffix}")
    for path in (folder / "data/train/labelTxt").glob("*.txt"):
        path.write_text("" if path.stem == "0004" else LINE)
    code, text = atss("train", "--data", folder / "data", "--out", folder / "run", *TRAIN)
    for name, words in (
        commands(folder).items() if code == 0 else ()
    ):  # copies of this process need not import
        code, text = atss(
            *[str(w).replace("OUT", str(folder / "run" if name == "test" else folder / name)) for w in words]
        )
        assert code == 0, text
    return folder


def commands(home: Path) -> dict[str, list]:
    "Those that share images; they write to OUT."
    images = home / "data/train/images"
    kinds = ["--format", "json", "csv", "task1", "dota", "--score", 0, "--batch-size", 2, "--device", "cpu"]
    return {
        "predict": ["predict", home / "run", images, "--out", "OUT", *kinds],
        "test": ["test", "OUT", "--split", "train", "--device", "cpu"],
        "split": ["split", home / "data/train", "OUT", "--size", 32, "--gap", 8],
        "stats": ["stats", home / "data", "--out", "OUT", "--strides", 8, 16],
    }


def die_before_opening(folder: Path, number: int) -> None:
    "End this process as the plug would, before it opens another file of a folder after so many."
    left = itertools.count(number, -1)

    def hook(event: str, args: tuple) -> None:
        if event == "open" and str(args[0]).startswith(str(folder)) and next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def work(words: list[str], rank: int, world: int, port: int, dies: tuple[Path, int] | None) -> None:
    "One process of several, of which the last may die. Only the first prints."
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    time.perf_counter = itertools.count(1.0).__next__
    if dies and rank == world - 1:
        die_before_opening(*dies)
    code, text = atss(*words)
    os.write(2, f"process {rank}: {text}".encode() if code or (rank and text) else b"")
    os._exit(4 if rank and text and not code else code)


def shared(words: list, world: int, out: Path, dies: tuple[Path, int] | None = None) -> list[int]:  # statuses
    "Call a command in several processes, and wait for all of them."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words, children = [str(word).replace("OUT", str(out)) for word in words], []
    for rank in range(world):
        children.append(os.fork())
        if not children[-1]:
            try:
                work(words, rank, world, port, dies)
            finally:
                os._exit(3)
    return [os.waitpid(child, 0)[1] for child in children]


def start(command: str, home: Path, out: Path) -> Path:
    shutil.rmtree(out, ignore_errors=True)
    return shutil.copytree(home / "run", out) if command == "test" else out


@needs_fork
@pytest.mark.parametrize("command", ["predict", "test", "split", "stats"])
def test_two_processes_write_the_files_of_one(home, tmp_path, command):
    words, out, found = commands(home)[command], tmp_path / "out", []
    for world in (1, 2):
        start(command, home, out)
        assert shared(words, world, out) == [0] * world
        found.append(contents(out))
    assert found[0] == found[1]
    assert not [p.name for p in tmp_path.rglob(".*") if p.name != ".atss"], "strays"


def ages(folder: Path, pattern: str) -> dict[str, int]:
    "When files were written."
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


@needs_fork
@pytest.mark.parametrize(
    ("command", "place", "number", "done"),  # by the first process, which did not die
    [
        ("predict", ".predict.1.jsonl", 1, ".predict.0.jsonl"),
        ("split", "images", 3, "images/0000*.png"),
    ],
)
def test_a_process_that_dies_leaves_a_run_that_goes_on(home, tmp_path, command, place, number, done):
    "The others end with an error instead of waiting; what they had found is not looked for again."
    words, out = commands(home)[command], tmp_path / "out"
    assert shared(words, 1, out) == [0]
    whole, seen = contents(out), []
    shutil.rmtree(out)
    for _ in range(2):
        first, last = shared(words, 2, out, (out / place, number))
        assert os.waitstatus_to_exitcode(first) == 1 and os.WTERMSIG(last) == signal.SIGKILL
        seen.append(ages(out, done))
    assert seen[0] and seen[0] == seen[1]
    assert shared(words, 2, out) == [0, 0]
    assert contents(out) == whole
