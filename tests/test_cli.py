"The `atss` command as a user runs it: the whole way from scenes to pictures, and what wrong input gives."

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from atss_nb.cli.main import _COMMANDS, _parse, atss, main
from atss_nb.data.convert import read_dataset
from atss_nb.data.dota import DOTA_V10_CLASSES

ROOT = Path(__file__).resolve().parent.parent


def run(*words) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A data folder and a run on it, made by the command."
    folder = tmp_path_factory.mktemp("cli")
    for split, seed in (("train", 0), ("valid", 1), ("test", 2)):
        assert run("scenes", folder / "data" / split, "--n", 4, "--size", 128, "--seed", seed) == 0
    words = [
        "--data",
        folder / "data",
        "--out",
        folder / "run",
        "--epochs",
        2,
        "--batch-size",
        2,
        "--size",
        128,
    ]
    assert run("train", *words, "--classes", *DOTA_V10_CLASSES) == 0
    return folder


def test_train_leaves_a_complete_run(trained):
    names = {path.name for path in (trained / "run").glob("[!.]*")}
    assert names == {"best.pt", "config.json", "last.pt", "log.csv", "log.jsonl"}
    rows = [json.loads(line) for line in (trained / "run/log.jsonl").read_text().splitlines()]
    assert any("AP50" in row for row in rows) and any("loss" in row for row in rows)


def test_test_scores_and_reports(trained, capsys):
    assert run("test", trained / "run") == 0
    metrics = json.loads((trained / "run/test.json").read_text())
    assert {"AP50", "AP75", "mAP", "per_class"} <= metrics.keys()
    page = (trained / "run/report.html").read_text()
    assert "<img" in page and 'src="http' not in page
    assert "AP50" in capsys.readouterr().out


def test_predict_writes_pictures_and_task1(trained, tmp_path):
    assert (
        run("predict", trained / "run", trained / "data/test/images", "--out", tmp_path, "--score", 0.0) == 0
    )
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert list(tmp_path.glob("Task1_*.txt"))


def predictions_of(folder) -> dict[str, list[dict]]:
    images = json.loads((folder / "predictions.json").read_text())["images"]
    return {one["image_id"]: one["objects"] for one in images}


def test_the_printed_count_is_what_scores_enough(trained, tmp_path, capsys):
    words = ["predict", trained / "run", trained / "data/test/images", "--out", tmp_path, "--format", "json"]
    for score in (0.001, 0.02, 0.3):
        assert run(*words, "--score", score) == 0
        lines = capsys.readouterr().out.splitlines()[:-1]
        found = predictions_of(tmp_path)
        counts = [sum(one["score"] >= score for one in objects) for objects in found.values()]
        assert [int(line.split(": ")[-1].split()[0]) for line in lines] == counts
    assert run(*words, "--score", 0.001) == 0
    scores = [one["score"] for objects in predictions_of(tmp_path).values() for one in objects]
    assert 0.001 <= min(scores) < 0.05, "below the threshold that the run was trained with"


def test_thresholds_of_predict(trained, tmp_path):
    words = ["predict", trained / "run", trained / "data/test/images", "--out", tmp_path, "--format", "json"]
    counts = {}
    for more in ([], ["--max-detections", 3], ["--nms", 0.9], ["--agnostic"], ["--precision", "float32"]):
        assert run(*words, "--score", 0.001, *more) == 0
        counts[more[0] if more else ""] = [len(objects) for objects in predictions_of(tmp_path).values()]
    assert max(counts["--max-detections"]) == 3
    assert sum(counts["--agnostic"]) < sum(counts[""]) < sum(counts["--nms"])


def test_thresholds_of_test(trained, capsys):
    words = ["--score", 0.001, "--nms", 0.3, "--max-detections", 1, "--agnostic", "--precision", "auto"]
    assert run("test", trained / "run", *words) == 0
    metrics = json.loads((trained / "run/test.json").read_text())
    assert sum(one["detections"] for one in metrics["counts"].values()) == 4, "one of each image"
    assert "max_detections is 1" in metrics["notes"] and "max_detections is 1" in capsys.readouterr().out


def test_the_words_of_other_programs_and_folders_that_need_no_name(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--imgsz", 64, "--epochs", 1, "--batch-size", 2, "--classes", *DOTA_V10_CLASSES]
    for name in ("train", "train2"):
        assert run("train", trained / "data", *words) == 0
        config = json.loads((tmp_path / "runs" / name / "config.json").read_text())
        assert (config["size"], config["epochs"], config["data"]) == (64, 1, str(trained / "data"))
    assert run("train", trained / "data", *words, "--resume") == 0
    assert not (tmp_path / "runs/train3").exists()
    image = sorted((trained / "data/test/images").iterdir())[0]
    ours = ["--score", 0.01, "--nms", 0.5, "--size", 64, "--gap", 32, "--format", "json"]
    theirs = ["--conf", 0.01, "--iou", 0.5, "--window", 64, "--overlap", 32, "--format", "json"]
    for more in (ours, theirs, [*theirs, "--work-dir", "mine"]):
        assert run("predict", "runs/train", image, *more) == 0
    found = [predictions_of(tmp_path / name) for name in ("runs/predict", "runs/predict2", "mine")]
    assert found[0] == found[1] == found[2] and found[0][image.stem]


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_option_says_what_it_does(command):
    for name, settings in _COMMANDS[command][1].items():
        words = settings.get("help", "").split()
        assert len(words) >= 2 and "without:" not in words, f"atss {command} {name}: {' '.join(words)!r}"


@pytest.mark.parametrize("command", sorted(_COMMANDS))
def test_every_help_has_an_example_of_known_words(command):
    code, text = atss(command, "--help")
    example = text.split("example: atss ")[1].split()
    args = _parse(example)
    assert code == 0 and args.command == command


def test_a_stopped_search_goes_on_where_it_was(trained, tmp_path, monkeypatch):
    from atss_nb.inference import predict as module

    words = ["predict", trained / "run", trained / "data/test/images", "--score", 0.001, "--format", "json"]
    words += ["--batch-size", 2]
    assert run(*words, "--out", tmp_path / "quiet") == 0
    calls, detect = [], module.detect

    def failing(model, images, precision):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return detect(model, images, precision)

    monkeypatch.setattr(module, "detect", failing)
    assert run(*words, "--out", tmp_path / "out") == 130
    journal = tmp_path / "out/.predict.0.jsonl"
    assert len(journal.read_text().splitlines()) == 3, "what was asked, and two answers"
    assert run(*words, "--out", tmp_path / "out") == 0
    assert calls == [2, 2, 2], "the two images that were left" and not journal.exists()
    for name in ("predictions.json", *(p.name for p in (tmp_path / "quiet").glob("*.png"))):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "quiet" / name).read_bytes()
    calls[:] = []
    assert run(*words, "--out", tmp_path / "out") == 130
    assert run(*words, "--nms", 0.5, "--out", tmp_path / "out") == 0 and len(calls) == 4, "asked for more"


def test_predict_through_windows_does_not_depend_on_the_batch(trained, tmp_path):
    words = ["predict", trained / "run", trained / "data/test/images", "--score", 0.0]
    words += ["--window", 64, "--overlap", 32, "--views", "flips"]
    for batch in (1, 7):
        assert run(*words, "--batch-size", batch, "--out", tmp_path / str(batch)) == 0
    tables = [[p.read_text() for p in sorted((tmp_path / b).glob("Task1_*.txt"))] for b in "17"]
    rows = [[line.split() for text in table for line in text.splitlines()] for table in tables]
    assert rows[0] and len(rows[0]) == len(rows[1])
    for a, b in zip(*rows, strict=True):
        assert a[0] == b[0] and [float(x) for x in a[1:]] == pytest.approx(
            [float(x) for x in b[1:]], abs=0.01
        )


def test_a_run_is_not_overwritten_unasked(trained, capsys):
    assert run("train", "--data", trained / "data", "--out", trained / "run") == 1
    assert "--overwrite" in capsys.readouterr().err


def one_line(capsys) -> str:
    "The error, which is the last line; a progress bar may stand before it."
    *bars, error = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("atss ") and all("px/s" in bar for bar in bars)
    return error


def test_missing_data_folder(tmp_path, capsys):
    assert run("train", "--data", tmp_path / "none", "--out", tmp_path / "run") == 1
    assert str(tmp_path / "none") in one_line(capsys)


@pytest.mark.parametrize(
    "line, expected",
    [
        ("1 2 3 4 5 6 plane 0", "8 numbers"),
        ("0 0 9 0 9 9 0 nan plane 0", "nan"),
        ("0 0 30 0 30 30 0 30 spaceship 0", "spaceship"),
    ],
)
def test_bad_label_lines_are_named(trained, tmp_path, capsys, line, expected):
    assert run("scenes", tmp_path / "test", "--n", 2, "--size", 64, "--seed", 5) == 0
    label = sorted((tmp_path / "test/labelTxt").iterdir())[0]
    number = len(label.read_text().splitlines()) + 1
    label.write_text(label.read_text() + line + "\n")
    capsys.readouterr()
    assert run("test", trained / "run", "--data", tmp_path) == 1
    *_, title, problem = capsys.readouterr().err.strip().splitlines()
    assert title.startswith("atss test: ") and title.endswith("1"), "one problem, listed below"
    assert expected in problem and label.name in problem and f"line {number}" in problem


def test_unreadable_image(trained, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    assert run("predict", trained / "run", tmp_path / "broken.png", "--out", tmp_path / "out") == 1
    assert "broken.png" in one_line(capsys)


def test_wrong_checkpoint(tmp_path, capsys):
    torch.save({"something": 1}, tmp_path / "other.pt")
    assert run("test", tmp_path / "other.pt") == 1
    assert "other.pt" in one_line(capsys)


def test_an_image_without_objects_is_background(tmp_path, capsys):
    assert run("scenes", tmp_path / "train", "--n", 2, "--size", 64, "--seed", 0) == 0
    for label in (tmp_path / "train/labelTxt").iterdir():
        label.write_text("")
    words = ["--data", tmp_path, "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 2]
    assert run("train", *words) == 1
    assert "name the classes" in one_line(capsys)
    assert run("train", *words, "--classes", "ship") == 0
    rows = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert rows[-1]["box"] == 0 and rows[-1]["classification"] > 0


def test_images_without_a_label_file_are_background_where_that_is_asked_for(tmp_path, capsys):
    for seed, split in enumerate(("train", "val"), start=5):
        assert run("scenes", tmp_path / "data" / split, "--n", 3, "--size", 64, "--seed", seed) == 0
        min((tmp_path / "data" / split / "labelTxt").iterdir()).unlink()
    assert run("doctor", tmp_path / "data") == 1
    assert "--labels optional takes images without one as images without objects" in capsys.readouterr().out
    assert run("doctor", tmp_path / "data", "--labels", "optional") == 0
    words = ["--data", tmp_path / "data", "--out", tmp_path / "run", "--epochs", 1, "--batch-size", 3]
    assert run("train", *words) == 1
    assert run("train", *words, "--labels", "optional") == 0
    assert run("test", tmp_path / "run", "--split", "val") == 0, "the run remembers it"
    assert run("stats", tmp_path / "data", "--out", tmp_path / "stats") == 1
    assert run("stats", tmp_path / "data", "--out", tmp_path / "stats", "--labels", "optional") == 0
    counts = {}
    for target in ("coco", "yolo-obb", "labelme"):
        words = ["convert", tmp_path / "data", tmp_path / target, "--to", target, "--labels", "optional"]
        assert run(*words) == 0
        counts[target] = sorted(len(one.annotation) for one in read_dataset(target, tmp_path / target).images)
    assert counts["coco"] == counts["yolo-obb"] == counts["labelme"] and counts["coco"][:2] == [0, 0]


def test_wrong_words_exit_with_2(capsys):
    for words in (["fly"], ["train"], []):
        with pytest.raises(SystemExit) as leave:
            main(words)
        assert leave.value.code == 2
    capsys.readouterr()


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(FileNotFoundError):
        main(["--debug", "train", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")])


def test_help_is_light():
    heavy = "('torch', 'numba', 'numpy', 'matplotlib', 'PIL', 'tqdm')"
    code = f"import sys; from atss_nb.cli.main import atss; code, _ = atss('--help'); print(code, [m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_module_is_the_command():
    command = [sys.executable, "-m", "atss_nb.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("atss_nb ")


def test_demo_from_end_to_end(tmp_path, capsys):
    words = ["--out", tmp_path, "--epochs", 1, "--train-scenes", 8, "--test-scenes", 3]
    assert run("demo", *words) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["seconds"].keys() == {"drawing", "training", "testing"}
    assert (tmp_path / "report.html").exists() and "report.html" in capsys.readouterr().out


def test_a_full_gpu_says_how_to_go_on(trained, tmp_path, capsys, monkeypatch):
    def full(*args, **options):
        raise torch.OutOfMemoryError("tried to allocate 64 MiB")

    monkeypatch.setattr("atss_nb.training.trainer.train_step", full)
    data = ["--data", trained / "data", "--classes", *DOTA_V10_CLASSES]
    assert run("train", *data, "--out", tmp_path / "run", "--size", 64, "--accumulate", 2) == 1
    printed = capsys.readouterr().err
    assert "the memory of the GPU is full: a step of 8 images of 64 x 64 px takes up to" in printed
    assert "less with --accumulate 4" in printed


def test_links_of_a_working_copy_work_where_the_package_was_installed(tmp_path):
    "The package as pip lays it down, without a clone around it: what the index and the papers link to is copied."
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path / "site")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    copy = (
        "from pathlib import Path; from atss_nb.cli.lessons import _lesson_files as f; print(*f(), sep='\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    run = subprocess.run(
        [sys.executable, "-c", copy],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    copied = set(run.stdout.split("\n"))
    package = tmp_path / "site/atss_nb"
    index = json.loads((package / "notebooks/index.ipynb").read_text(encoding="utf-8"))
    prose = {"nbs": "".join("".join(c["source"]) for c in index["cells"] if c["cell_type"] == "markdown")}
    for paper in (package / "papers").glob("*.md"):
        prose[f"./{paper.name}/.."] = paper.read_text(encoding="utf-8")
    links = {
        os.path.normpath(f"{place}/{link}").replace(os.sep, "/")
        for place, text in prose.items()
        for link in re.findall(r"\]\((?!\w+:)([^)\s#]+)", text)
    }
    code = "".join(path.read_text(encoding="utf-8") for path in (package / "notebooks").rglob("*.ipynb"))
    read = set(re.findall(r"\.\./((?:data|bench)/results/\w+\.json)", code))
    assert {"data/results/scenes.json", "bench/results/memory.json"} <= read <= copied
    assert {"data/README.md", "INSTALL.md", "CODE_OF_CONDUCT.md"} <= links and links - copied == set()
