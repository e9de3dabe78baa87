"""Build what would be published, install it in fresh environments outside this checkout, and use it there.

    python tools/release_check.py            the sdist with the oldest PyTorch on Python 3.10, the wheel with the newest on 3.13
    python tools/release_check.py --oldest   the lowest version of every requirement and extra, then the tests

Needs Python and a package index, nothing else. An environment takes 6 GB and is removed before the next one is made; a
Python that this machine does not have is skipped, and said so.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 8e6  # of a wheel [bytes]
STEPS = """
atss doctor --system
atss scenes data/train --n 12 --size 128 --seed 1
atss doctor data
atss scenes data/val --n 4 --size 128 --seed 1
atss predict scenes data/val/images --out found --format json csv dota
atss export scenes detector.pt2
atss train data --out run --epochs 1 --batch-size 4
atss lab --list
python -m nbconvert --to notebook --execute --output-dir . atss_notebooks/nbs/course/05_anchors.ipynb
"""
EXTRAS = "coco,onnx,geo,distributed,tensorboard"  # `cuda` needs a GPU to be tried


def read_settings() -> dict[str, str]:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


def lowest(names: str = "") -> list[str]:
    "Constraints: each requirement, those of extras included, at its lower bound; with names, only these."
    keys = ["requirements", *(f"{extra}_requirements" for extra in EXTRAS.split(","))]
    listed = " ".join(read_settings()[key] for key in keys)
    bounds = dict(re.findall(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", listed))
    return [f"{name}=={bounds[name]}" for name in names.split() or bounds]


def testers() -> list[str]:
    "What the tests need besides the package: what builds it, and all of `dev` but mypy and what needs a GPU."
    built_by = re.findall(r'"(setuptools>=[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = read_settings()["dev_requirements"].split()
    return [*built_by, *(one for one in named if not one.startswith(("mypy", "numba-cuda")))]


def find_python(version: str) -> str | None:
    "An interpreter of this version: on the path, pyenv's or uv's."
    pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    uv = shutil.which("uv") and subprocess.run(
        ["uv", "python", "find", version], capture_output=True, text=True
    )
    asked = "import sys; print('%d.%d' % sys.version_info[:2])"
    for place in (shutil.which(f"python{version}"), *pyenv, uv and uv.stdout.strip(), sys.executable):
        if place:
            done = subprocess.run([place, "-c", asked], capture_output=True, text=True)
            if done.stdout.strip() == version:
                return str(place)
    return None


def excerpt(lines: list[str], quiet: bool) -> list[str]:
    "What is shown of a command that went well."
    if quiet:
        return lines[-1:]
    return [*lines[:1], "...", *lines[-2:]] if len(lines) > 4 else lines


def run(words: list, folder: Path, binaries: Path | None = None, quiet: bool = False) -> None:
    "One command, timed; outside the checkout nothing of it may be imported."
    left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    words = [str(binaries / words[0]) if binaries else words[0], *words[1:]]
    print(
        f"   $ {' '.join(Path(str(word)).name if word == words[0] else str(word) for word in words)}",
        flush=True,
    )
    started = time.perf_counter()
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    text = (done.stdout + done.stderr).strip().replace("\r", "\n").splitlines()
    shown = text if done.returncode else excerpt(text, quiet)
    print(
        *(f"     {line}" for line in shown),
        f"     {time.perf_counter() - started:.0f} s",
        sep="\n",
        flush=True,
    )
    if done.returncode:
        sys.exit(f"failed with {done.returncode}")


def environment(folder: Path, python: str, *wanted: object, constraints: list[str] | None = None) -> Path:
    "A fresh environment; where its programs are."
    run([python, "-m", "venv", folder], folder.parent, quiet=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    (folder / "constraints.txt").write_text("\n".join(constraints or ()))
    pip = ["python", "-m", "pip", "install", "--quiet", "--no-cache-dir", "--disable-pip-version-check"]
    run([*pip, "--constraint", folder / "constraints.txt", *wanted], folder.parent, binaries, quiet=True)
    return binaries


def copy_sources(folder: Path) -> None:
    "What git knows of this tree, so that nothing else travels and nothing is left behind here."
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def build(home: Path) -> tuple[Path, Path]:
    "The sdist and, from it, the wheel; checked as an index does before it takes them."
    print("== Building")
    (sources := home / "sources").mkdir()
    copy_sources(sources)
    binaries = environment(home / "build", sys.executable, "build", "twine")
    run(["python", "-m", "build", "--outdir", home / "dist", sources], home, binaries, quiet=True)
    (sdist,), (wheel,) = (home / "dist").glob("*.tar.gz"), (home / "dist").glob("*.whl")
    run(["python", "-m", "twine", "check", "--strict", sdist, wheel], home, binaries)
    with tarfile.open(sdist) as one, zipfile.ZipFile(wheel) as other:
        names = [*one.getnames(), *other.namelist()]
    assert not [name for name in names if name.endswith("_modidx.py")], "the index of nbdev travels"
    sizes = {path.name: path.stat().st_size for path in (sdist, wheel)}
    print(*(f"   {name}: {size / 1e6:.2f} MB" for name, size in sizes.items()), sep="\n")
    assert sizes[wheel.name] < LARGEST, f"the wheel holds more than {LARGEST / 1e6:.0f} MB"
    if not read_settings()["git_url"]:
        print("   settings.ini names no git_url yet: no addresses of source, issues and changes travel")
    return sdist, wheel


def try_out(version: str, package: Path, constraints: list[str]) -> None:
    "Install the package on a Python and use it."
    print(f"== Python {version}, {package.name}, {', '.join(constraints) or 'the newest of everything'}")
    if not (python := find_python(version)):
        print(f"   skipped: there is no Python {version} on this machine")
        return
    with tempfile.TemporaryDirectory() as home:
        binaries = environment(Path(home, "env"), python, package, constraints=constraints)
        for line in STEPS.strip().splitlines():
            run(line.split(), Path(home), binaries)


def try_oldest(version: str = "3.10") -> None:
    "The tests of this checkout with the lowest version of everything that it asks for."
    print(f"== Python {version}, the lowest version of every requirement")
    if not (python := find_python(version)):
        sys.exit(f"there is no Python {version} on this machine")
    with tempfile.TemporaryDirectory() as home:
        wanted = ["--editable", f"{ROOT}[{EXTRAS}]", *testers()]
        binaries = environment(Path(home, "env"), python, *wanted, constraints=lowest())
        tests = [
            str(binaries / "python"),
            *["-m", "pytest", "-q", "--numprocesses", "2", "--dist", "loadfile", "tests"],
        ]
        sys.exit(subprocess.call(tests, cwd=ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--oldest", action="store_true", help="run the tests at the lowest versions instead")
    if parser.parse_args().oldest:
        try_oldest()
    with tempfile.TemporaryDirectory() as home:
        sdist, wheel = build(Path(home))
        try_out("3.10", sdist, lowest("torch torchvision"))
        try_out("3.13", wheel, [])
    print("== What would be published works")


if __name__ == "__main__":
    main()
