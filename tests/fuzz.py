"""Broken files for every reader: each gets a right answer or an error of the package's own that names the file.

A reader here is a function of a path with files that our own writers wrote; each input is one of these files after a
few accidents. `make test` tries a few hundred inputs a reader, the same every time; `make fuzz` goes on for as long
as wanted: `make fuzz COUNT=200000 SEED=7`.
"""

import argparse
import json
import random
import re
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from atss_nb.core.errors import AtssError
from atss_nb.core.files import read_text
from atss_nb.core.images import check_image, image_size, open_image, read_pixels
from atss_nb.data.convert import LabelledSet, read_dataset, write_dataset
from atss_nb.data.detections import Detections
from atss_nb.data.folders import LabelledImage
from atss_nb.data.formats import FORMATS
from atss_nb.evaluation.submission import check_submission, read_submission, write_submission
from atss_nb.evaluation.task1 import read_image_ids, read_results, write_task1
from atss_nb.inference.outputs import read_predictions_json, write_predictions_json
from atss_nb.model.build import build_model
from atss_nb.model.config import ModelConfig
from atss_nb.model.conversion import read_peer
from atss_nb.recipes.recipes import describe, override, read_data_home
from atss_nb.recipes.table import RECIPES
from atss_nb.tiles.merge import read_places, read_tile_detections
from atss_nb.tiles.split import split
from atss_nb.tiles.tiles import Tiling
from atss_nb.training.checkpoints import read_log, save_checkpoint
from atss_nb.training.loop import load_model
from atss_nb.training.settings import TrainConfig
from atss_nb.training.weights import save_weights

OWN = (AtssError, OSError, ValueError)
TINY = ModelConfig.small(channels=8, head_convs=1)
SECONDS = 10  # that an input may take

# --- accidents ----------------------------------------------------------------------------------------------------

NUMBERS = [
    "0",
    "-1",
    "1e39",
    "-1e39",
    "1e400",
    "nan",
    "-inf",
    "NaN",
    "Infinity",
    "1e-320",
    "9" * 5000,
    "0x10",
    "1_0",
    "٣",
]
WORDS = [
    "",
    " ",
    "null",
    "true",
    "~",
    "no",
    "[]",
    "{}",
    "\0",
    "\\u0000",
    "../../etc",
    "a/b",
    "$x$",
    "é",
    "\ud800",
    ":",
    ",",
    '"',
]
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**30,
    1e39,
    float("nan"),
    "",
    "x",
    "nan",
    "../../x",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
]
TOKEN = re.compile(rb"[^\s,\"'<>{}\[\]:=]+")


def _flip(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _remove(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 30) :]


def _double(data: bytes, rng: random.Random) -> bytes:
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in "ab")
    return data[:stop] + data[start:stop] + data[stop:]


def _token(data: bytes, rng: random.Random) -> bytes:
    "A word or a number becomes another."
    places = list(TOKEN.finditer(data))
    if not places:
        return data + b"x"
    place = rng.choice(places)
    known = rng.choice(places)[0].decode("utf-8", "replace")
    new = rng.choice([*NUMBERS, *WORDS, known]).encode("utf-8", "surrogatepass")
    return data[: place.start()] + new + data[place.end() :]


def _deep(data: bytes, rng: random.Random) -> bytes:
    opened = rng.choice([b"[", b'{"a":', b"<a>", b"- "])
    start = rng.randrange(len(data))
    return data[:start] + opened * rng.choice([30, 3000, 30_000]) + data[start:]


def _header(data: bytes, rng: random.Random) -> bytes:
    "Four or two bytes near the start become a large number, as where an image says its size."
    out, start = bytearray(data), rng.randrange(min(len(data), 64))
    new = rng.choice(
        [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x77\x35\x94\x00", b"\xff\xff", b"\0\0\0\0"]
    )
    out[start : start + len(new)] = new
    return bytes(out)


def _png_header(data: bytes, rng: random.Random) -> bytes:
    "A PNG that says something else of itself, with the checksum that fits."
    at, new = (
        rng.choice([16, 20]),
        struct.pack(">I", rng.choice([0, 1, 23, 2**16, 2 * 10**9, 2**31 - 1, 2**32 - 1])),
    )
    kinds = {24: bytes([rng.choice([1, 8, 16])]), 25: bytes([rng.randrange(7)]), 28: b"\1", at: new}
    at = rng.choice([*kinds, at])
    body = data[12:at] + kinds[at] + data[at + len(kinds[at]) : 29]
    return data[:12] + body + struct.pack(">I", zlib.crc32(body)) + data[33:]


def _places(value: object, holder: list) -> None:
    "Every place in a tree, as (its list or table, its index or key)."
    for key in range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ():
        holder.append((value, key))
        _places(value[key], holder)


def _tree(data: bytes, rng: random.Random) -> bytes:
    "A value of a JSON file becomes one of another type, or goes away, or is there twice."
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return _token(data, rng)
    holder = []
    _places(root, holder)
    for where, key in rng.sample(holder, min(len(holder), rng.randint(1, 2))):
        if isinstance(where, list) and key >= len(where) or isinstance(where, dict) and key not in where:
            continue
        accident = rng.randrange(6)
        if accident == 0 and where is not root:
            del where[key]
        elif accident == 1 and isinstance(where, list) and where is not root:
            where.append(where[key])
        elif accident == 2 and isinstance(where, dict):
            where[rng.choice(["x", "", "a/b", "$"])] = where.pop(key)
        else:
            where[key] = rng.choice(VALUES)
    return json.dumps(root[0]).encode()


ANY = (_flip, _cut, _remove, _double, _token, _token, _deep)
BINARY = (_flip, _cut, _remove, _double, _header, _header)
TREE = (*ANY, _tree, _tree, _tree, _tree)


def broken(seed: bytes, accidents: tuple, rng: random.Random) -> bytes:
    "A file after one to three accidents."
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        seed = rng.choice(accidents)(seed, rng) or b""
        if not seed:
            break
    return seed


# --- readers ------------------------------------------------------------------------------------------------------


@dataclass
class Reader:
    """What is tried.

    Attributes:
        read: of the home folder; raises where it should
        files: the files that may break, relative to the home folder
        named: what an error must name; "": the home folder
    """

    home: Path
    read: Callable[[Path], object]
    files: list[str]
    accidents: tuple = ANY
    share: float = 1.0
    seeds: dict[str, bytes] = field(init=False)

    def __post_init__(self):
        self.seeds = {name: (self.home / name).read_bytes() for name in self.files}


def _detections(name: str, classes: tuple[str, ...], scores: bool) -> Detections:
    polys = np.array([[[2, 3], [12, 3], [12, 9], [2, 9]], [[14.5, 10], [24, 10], [24, 20.25], [14.5, 20.25]]])
    more = {"scores": [0.9, 0.25]} if scores else {}
    return Detections.from_polygons(
        polys, [classes[0], classes[-1]], classes, size=(24, 32), image_id=name, **more
    )


_CVAT = """<annotations><version>1.1</version><meta><task><labels><label><name>ship</name></label>
<label><name>plane</name></label></labels></task></meta>
<image id="0" name="a.png" subset="train" width="32" height="24">
<box label="ship" xtl="4" ytl="3" xbr="20.5" ybr="9" rotation="30" occluded="0"><attribute name="flag">fr</attribute></box>
<polygon label="plane" points="1,1;9,1;9,7;1,7" occluded="1"></polygon></image></annotations>"""
_BOX = {"x": 10.0, "y": 20.0, "width": 40.0, "height": 30.0, "rotation": 12, "rectanglelabels": ["ship"]}
_STUDIO = {
    "data": {"image": "/data/upload/1/a.png"},
    "annotations": [
        {"result": [{"type": "rectanglelabels", "original_width": 32, "original_height": 24, "value": _BOX}]}
    ],
}


def _export(home: Path, format: str, name: str, content: str) -> Reader:
    "What other tools export and we only read."
    (home / "data").mkdir()
    Image.new("RGB", (32, 24), 50).save(home / "data/a.png")
    (home / "data" / name).write_text(content)
    accidents = TREE if name.endswith("json") else ANY
    return Reader(home, lambda home: read_dataset(format, home / "data"), [f"data/{name}"], accidents)


def _data_set(home: Path, format: str) -> Reader:
    form = FORMATS[format]
    classes = (
        ("ship", "plane")
        if form.names is None or isinstance(form.names, re.Pattern)
        else tuple(form.names)[:2]
    )
    (home / "in").mkdir(parents=True)
    images = []
    for name in ("a", "b"):
        Image.new("RGB", (32, 24), 50 if name == "a" else 90).save(home / f"in/{name}.png")
        images.append(
            LabelledImage(
                name, "train", home / f"in/{name}.png", None, _detections(name, classes, form.scores)
            )
        )
    write_dataset(format, LabelledSet(format, images, classes), home / "data", report=False)
    files = [
        str(p.relative_to(home))
        for p in sorted((home / "data").rglob("*"))
        if p.is_file() and p.suffix != ".png"
    ]
    accidents = TREE if any(name.endswith("json") for name in files) else ANY
    return Reader(home, lambda home: read_dataset(format, home / "data"), files, accidents)


def _predictions(name: str = "a") -> list[Detections]:
    return [_detections(name, ("ship", "plane"), True)]


def _run(home: Path) -> Reader:
    config = TrainConfig("data", TINY, classes=("ship", "plane"))
    model = build_model(config.model, 2, pretrained=False)
    state = {"model": model.state_dict(), "config": config.to_json(), "classes": ["ship", "plane"]}
    (home / "run").mkdir()
    save_checkpoint(home / "run/last.pt", state)
    return Reader(home, lambda home: load_model(home / "run"), ["run/last.pt"], BINARY, share=0.02)


def _run_config(home: Path) -> Reader:
    "The configuration inside a checkpoint, which is text, on its own: packing it for each input would be slow."
    (home / "config.json").write_text(_some_config().to_json())
    return Reader(
        home,
        lambda home: TrainConfig.from_json(read_text(home / "config.json"), home / "config.json"),
        ["config.json"],
        TREE,
    )


def _some_config() -> TrainConfig:
    return TrainConfig(
        "data", ModelConfig.faster_rcnn(18), classes=("ship", "plane"), size=(32, 64), rotate=(90.0,)
    )


def _image(home: Path, suffix: str, **options) -> Reader:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(pixels).save(home / f"a{suffix}", **options)

    def read(home: Path) -> None:
        path = home / f"a{suffix}"
        size = check_image(path, decode=True)
        assert size == image_size(path) == read_pixels(path).shape[:2] == tuple(open_image(path).size)

    accidents = (*BINARY, *[_png_header] * 6) if suffix == ".png" else BINARY
    return Reader(home, read, [f"a{suffix}"], accidents)


def _weights(home: Path) -> Reader:
    config = TrainConfig("data", TINY).to_json()
    save_weights(home / "a", build_model(TINY, 2, pretrained=False), config, ["ship", "plane"])
    return Reader(home, lambda home: load_model(home / "a.safetensors"), ["a.safetensors"], BINARY, 0.02)


def _peer(home: Path) -> Reader:
    torch.save({"state_dict": {"a.weight": torch.zeros(3)}, "meta": {}}, home / "a.pth")
    return Reader(home, lambda home: read_peer(home / "a.pth"), ["a.pth"], BINARY, share=0.1)


def _recipe(home: Path) -> Reader:
    row = next(iter(RECIPES.values()))
    (home / "recipe.json").write_text(json.dumps(asdict(row) | {"data_set": "data"}))
    return Reader(home, read_data_home, ["recipe.json"], TREE)


def _overrides(home: Path) -> Reader:
    recipe = next(iter(RECIPES.values()))
    lines = [re.sub("^([^=]+) = '?(.*?)'?$", r"\1=\2", line) for line in describe(recipe) if " = " in line]
    kept = [line for line in lines if not line.startswith(("name=", "published", "source"))]
    (home / "changes").write_text("\n".join(kept))

    def read(home: Path) -> None:
        for change in (home / "changes").read_text("utf-8", "replace").split("\n"):
            try:
                override(recipe, [change])
            except ValueError as error:
                assert change in str(error) or repr(change) in str(error)
                raise ValueError(f"{home}: {error}") from error

    return Reader(home, read, ["changes"], ANY, share=0.2)


def _split_record(home: Path) -> Reader:
    for folder in ("images", "labelTxt"):
        (home / "whole" / folder).mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(home / "whole/images/a.png")
    (home / "whole/labelTxt/a.txt").write_text("1 1 9 1 9 9 1 9 ship 0\n")
    split(home / "whole", home / "tiles", Tiling(size=32, gap=8))
    return Reader(home, lambda home: read_places(home / "tiles"), ["tiles/split.json"], TREE)


def _split_again(home: Path) -> Reader:
    _split_record(home)
    return Reader(
        home,
        lambda home: split(home / "whole", home / "tiles", Tiling(size=32, gap=8)),
        ["tiles/split.json"],
        TREE,
        share=0.1,
    )


def _results(home: Path) -> Reader:
    write_task1(home / "results", _predictions())
    (home / "labelTxt").mkdir()
    (home / "labelTxt/a.txt").write_text("gsd:0.5\n1 1 9 1 9 9 1 9 ship 0\n")
    (home / "set.txt").write_text("a\n")
    files = ["results/Task1_ship.txt", "results/Task1_plane.txt", "labelTxt/a.txt", "set.txt"]
    return Reader(
        home, lambda home: read_results(home / "results", home / "labelTxt", (), home / "set.txt"), files
    )


def _submission(home: Path) -> Reader:
    write_task1(home / "results", _predictions())
    write_submission(home / "a.zip", check_submission(home / "results"))
    return Reader(home, lambda home: read_submission(home / "a.zip"), ["a.zip"], BINARY, share=0.3)


def _tile_results(home: Path) -> Reader:
    (home / "Task1_ship.txt").write_text(
        "a__32__0___0 0.5 1 1 9 1 9 9 1 9\na__32__24___16 0.25 1 1 9 1 9 9 1 9\n"
    )
    (home / "Task2_ship.txt").write_text("a__1__0___0 0.5 1 1 9 9\na__1__24___16 0.25 1 1 9 9\n")
    return Reader(
        home,
        lambda home: [read_tile_detections(path) for path in sorted(home.glob("Task*"))],
        ["Task1_ship.txt", "Task2_ship.txt"],
    )


def _json_results(home: Path) -> Reader:
    write_predictions_json(home / "predictions.json", _predictions())

    def read(home: Path) -> None:
        for one in read_predictions_json(home / "predictions.json"):
            assert one.boxes.isfinite().all() and (one.scores is None or one.scores.isfinite().all())

    return Reader(home, read, ["predictions.json"], TREE)


def _log(home: Path) -> Reader:
    rows = [
        {"step": 0, "epoch": 0, "loss": 1.5, "lr": 0.1},
        {"step": 9, "epoch": 0, "AP50": None, "mAP": 0.25},
    ]
    (home / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Reader(home, lambda home: read_log(home / "log.jsonl"), ["log.jsonl"])


def _image_set(home: Path) -> Reader:
    (home / "set.txt").write_text("a\nb.png\nimages/c.png\n")
    return Reader(home, lambda home: read_image_ids(home / "set.txt"), ["set.txt"])


READERS: dict[str, Callable[[Path], Reader]] = {
    **{
        f"data set, {name}": lambda home, name=name: _data_set(home, name)
        for name, form in FORMATS.items()
        if form.save
    },
    "data set, cvat": lambda home: _export(home, "cvat", "annotations.xml", _CVAT),
    "data set, label-studio": lambda home: _export(home, "label-studio", "a.json", json.dumps([_STUDIO])),
    "result files": _results,
    "result files of tiles": _tile_results,
    "predictions.json": _json_results,
    "submission": _submission,
    "image set": _image_set,
    "split.json": _split_record,
    "split again": _split_again,
    "log.jsonl": _log,
    "checkpoint": _run,
    "configuration": _run_config,
    "weights": _weights,
    "weights of a peer": _peer,
    "recipe.json": _recipe,
    "recipe overrides": _overrides,
    "png": lambda home: _image(home, ".png"),
    "jpeg": lambda home: _image(home, ".jpg"),
    "bmp": lambda home: _image(home, ".bmp"),
    "webp": lambda home: _image(home, ".webp", lossless=True),
    "tiff": lambda home: _image(home, ".tif"),
    "tiff, packed": lambda home: _image(home, ".tiff", compression="tiff_lzw"),
}

# --- trying -------------------------------------------------------------------------------------------------------


class TooSlow(Exception):
    pass


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    "Of the processor's time: a process that others keep waiting is not slow."

    def late(*_):
        raise TooSlow(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(reader: Reader) -> tuple[str, str]:
    "What a reader makes of the files as they lie there: `right`, `error`, or `raw` with the traceback."
    try:
        with _limit(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(reader.home)
        return "right", ""
    except OWN as error:
        return ("error", str(error)) if str(reader.home) in str(error) else ("raw", traceback.format_exc())
    except Exception:
        return "raw", traceback.format_exc()


def fuzz(name: str, count: int, seed: int) -> tuple[Counter, dict[str, bytes]]:
    "Outcomes, and an input for each place that raised something raw."
    rng, outcomes, found = random.Random(f"{name} {seed}"), Counter(), {}
    with tempfile.TemporaryDirectory() as folder:
        reader = READERS[name](Path(folder).resolve())
        assert attempt(reader)[0] == "right", (
            f"{name}: the unbroken files cannot be read: {attempt(reader)[1]}"
        )
        for _ in range(max(20, round(count * reader.share))):
            file = rng.choice(reader.files)
            data = broken(reader.seeds[file], reader.accidents, rng)
            (reader.home / file).write_bytes(data)
            outcome, text = attempt(reader)
            outcomes[outcome] += 1
            if outcome == "raw":
                found.setdefault(text, data)
            (reader.home / file).write_bytes(reader.seeds[file])
    return outcomes, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=20_000, help="inputs in all, about")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", nargs="+", default=list(READERS))
    args = parser.parse_args()
    print(
        f"seed {args.seed}\n{'reader':28}{'inputs':>9}{'right':>9}{'error':>9}{'raw':>6}{'seconds':>9}",
        flush=True,
    )
    total = Counter()
    for name in args.only:
        started = time.perf_counter()
        outcomes, found = fuzz(name, round(args.count / len(args.only)), args.seed)
        total += outcomes
        counts = "".join(
            f"{outcomes[kind]:{width}}" for kind, width in (("right", 9), ("error", 9), ("raw", 6))
        )
        print(f"{name:28}{outcomes.total():9}{counts}{time.perf_counter() - started:9.1f}", flush=True)
        for text, data in found.items():
            print(f"--- {name}: {data[:300]!r}\n{text}", file=sys.stderr, flush=True)
    print(f"{'all':28}{total.total():9}{total['right']:9}{total['error']:9}{total['raw']:6}")
    return int(total["raw"] > 0)


if __name__ == "__main__":
    sys.exit(main())
