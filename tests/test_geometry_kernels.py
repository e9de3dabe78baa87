"""How kernels are compiled and kept: fresh after an upgrade, and right where nothing can be kept.

Each test runs processes of its own on a copy of the package, as it would be installed."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from atss_nb.geometry import kernels

PACKAGE = Path(__file__).resolve().parent.parent / "atss_nb"
SUPPRESS = """
import torch
from atss_nb.geometry.nms import nms_rotated
boxes = torch.tensor([[20.0, 20, 10, 6, 0.3], [20.5, 20, 10, 6, 0.3]])  # their IoU is 0.86
print(nms_rotated(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist())
"""
SMALL = """
from atss_nb.geometry.kernels import kernel
@kernel
def double(numbers):
    for i in range(len(numbers)):
        numbers[i] += numbers[i]
"""
DOUBLE = """
import numpy as np, small
numbers = np.arange(3, dtype=np.float64)
small.double(numbers)
print(numbers.tolist())
"""


@pytest.fixture
def site(tmp_path) -> Path:
    "A folder with the package in it, without compiled code."
    shutil.copytree(PACKAGE, tmp_path / "site" / "atss_nb", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "site" / "small.py").write_text(SMALL)
    return tmp_path / "site"


def start(site: Path, code: str, **env: str) -> subprocess.Popen:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_CACHE", "XDG_"))}
    env = {**kept, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1", **env}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=site, env=env, text=True, stdout=pipe, stderr=pipe
    )


def run(site: Path, code: str, **env: str) -> tuple[str, str]:
    "What a process prints, and what it says on its error output."
    process = start(site, code, **env)
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.strip(), err


def nowhere(site: Path) -> dict[str, str]:
    "As a package that root installed, for a user without a home: nobody can write there, root included."
    for folder in [site, *(p for p in (site / "atss_nb").iterdir() if p.is_dir())]:
        (folder / "__pycache__").write_text("a file where a folder is needed")
    return {"HOME": "/dev/null"}


def test_suppression_acts_on_the_overlap_of_an_upgrade(site):
    file = site / "atss_nb" / "geometry" / "kernels.py"
    assert run(site, SUPPRESS)[0] == "[0]"
    text, old = file.read_text(), file.stat()
    changed = text.replace("return area if area > zero", "return area / 2 if area > zero")
    assert changed != text
    file.write_text(changed)
    os.utime(file, ns=(old.st_atime_ns, old.st_mtime_ns))  # as in wheels, whose files may be of one age
    assert run(site, SUPPRESS)[0] == "[0, 1]"


def test_what_is_kept_is_used_again(site):
    used = DOUBLE + "print(sum(small.double.stats.cache_hits.values()))"
    assert run(site, used)[0].split("\n") == ["[0.0, 2.0, 4.0]", "0"]
    other = site / "atss_nb" / "core" / "files.py"
    other.write_text(other.read_text() + "\n# a file without kernels\n")
    assert run(site, used)[0].split("\n") == ["[0.0, 2.0, 4.0]", "1"]


def test_no_place_to_write(site):
    out, err = run(site, DOUBLE, **nowhere(site))
    assert out == "[0.0, 2.0, 4.0]"
    assert err.count("compiled kernels cannot be kept") == 1 and "NUMBA_CACHE_DIR" in err


def test_a_full_disk(site):
    full = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))" + DOUBLE
    out, err = run(site, full)
    assert out == "[0.0, 2.0, 4.0]" and err.count("compiled kernels cannot be kept") == 1


def test_processes_that_share_an_empty_cache(site):
    codes = [DOUBLE.replace("float64", f"float{bits}") for bits in (32, 64, 32, 64)]
    running = [start(site, code, NUMBA_CACHE_DIR=str(site / "kept")) for code in codes]
    assert [p.communicate()[0].strip() for p in running] == ["[0.0, 2.0, 4.0]"] * 4


def test_code_for_other_types_is_not_taken(site):
    "Two processes that save at the same moment may give one number to the files of two precisions."
    codes, folder = [DOUBLE.replace("float64", f"float{bits}") for bits in (32, 64)], site / "kept"
    for code in codes:
        run(site, code, NUMBA_CACHE_DIR=str(folder))
    one, two = sorted(folder.rglob("small.double*.nbc"))
    shutil.copy(two, one)
    for code in codes:
        assert run(site, code, NUMBA_CACHE_DIR=str(folder))[0] == "[0.0, 2.0, 4.0]"


def test_one_place_says_how_kernels_are_compiled():
    compiled = [
        p.name for p in PACKAGE.rglob("*.py") if re.search(r"\bn?jit\b|njit|register_jitable", p.read_text())
    ]
    assert set(compiled) == {"kernels.py", "overlap_cuda.py"}


def test_any_file_with_kernels_counts(site):
    spec = importlib.util.spec_from_file_location("copied", site / "atss_nb" / "geometry" / "kernels.py")
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    before = copied._sources()
    for file in (site / "atss_nb").rglob("*.py"):
        text = file.read_text()
        file.write_text(text + "\n# changed\n")
        changed = copied._sources.__wrapped__() != before
        assert changed == ("\n@kernel" in text or "\n@scalar" in text), file
        file.write_text(text)
    assert copied._sources.__wrapped__() == before


def test_kernels_release_the_lock_and_divide_as_numpy_does():
    options = kernels.fit_smallest_boxes.targetoptions
    assert options["nogil"] and options["error_model"] == "numpy"


def test_without_torch():
    code = "import sys; import atss_nb.geometry.quads; print('torch' in sys.modules)"
    assert run(PACKAGE.parent, code)[0] == "False"
