"What is published: what travels, what it says of itself, and what is enough for whom."

import ast
import json
import re
import shutil
import subprocess
import sys
import zlib
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
INSTALL = (ROOT / "INSTALL.md").read_text(encoding="utf-8")
MODULE = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "lazy-loader": "lazy_loader",
    "typing-extensions": "typing_extensions",
}


def settings() -> dict[str, str]:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


WITH_JUPYTER = {"IPython", "traitlets"}  # of ipywidgets


def modules(requirements: str) -> list[str]:
    "The names of the modules that a list of requirements brings."
    names = [re.split(r"[^\w.-]", one.strip('"'))[0].lower() for one in requirements.split()]
    return [MODULE.get(name, name.replace("-", "_")) for name in names]


def required(key: str) -> list[str]:
    return modules(settings()[key])


def run(code: str, *words: object) -> str:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# What travels


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    "The package as a wheel holds it."
    folder = tmp_path_factory.mktemp("built")
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", folder]
    subprocess.run(build, cwd=ROOT, check=True)
    return folder / "atss_nb"


def test_a_wheel_is_small(built):
    sizes = [len(zlib.compress(path.read_bytes())) for path in built.rglob("*") if path.is_file()]
    assert 5e6 < sum(sizes) < 8e6


def test_a_wheel_holds_weights_widgets_and_lessons_and_no_index_of_nbdev(built):
    names = {path.relative_to(built).as_posix() for path in built.rglob("*")}
    for name in ("weights/scenes.safetensors", "explore/microscope.js", "notebooks/index.ipynb", "py.typed"):
        assert name in names
    sources = {path.relative_to(ROOT / "nbs").as_posix() for path in (ROOT / "nbs").rglob("*.ipynb")}
    lessons = {name for name in sources if ".ipynb_checkpoints" not in name}
    assert {f"notebooks/{name}" for name in lessons} <= names
    assert "_modidx.py" not in names


def cells_of(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def kinds(cells: list[dict]) -> list[str]:
    "Of what is shown below the cells."
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return sorted(kind for output in outputs for kind in output.get("data", ()))


def test_a_lesson_travels_with_its_code_and_all_its_pictures(built):
    for name in ("course/01_turned_boxes.ipynb", "course/14_scenes.ipynb", "index.ipynb"):
        old, new = cells_of(ROOT / "nbs" / name), cells_of(built / "notebooks" / name)
        code = [[cell["source"] for cell in cells if cell["cell_type"] == "code"] for cells in (old, new)]
        assert code[0] == code[1]
        assert sorted(re.sub("png|jpeg", "webp", kind) for kind in kinds(old)) == kinds(new)
    assert {"image/png", "image/jpeg"} <= set(kinds(cells_of(ROOT / "nbs/course/14_scenes.ipynb")))


def test_pictures_that_lessons_link_to_travel(built):
    count = 0
    for path in (built / "notebooks").rglob("*.ipynb"):
        prose = "".join("".join(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == "markdown")
        for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", prose):
            count += (path.parent / link).is_file()
            assert (path.parent / link).is_file(), f"{path}: {link}"
    assert count > 10


def test_it_says_what_it_is(tmp_path):
    words = ["setup.py", "-q", "egg_info", "--egg-base", tmp_path]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)
    text = (tmp_path / "atss_nb.egg-info/PKG-INFO").read_text(encoding="utf-8")
    head = text.partition("\n\n")[0]
    for line in (
        "License-Expression: Apache-2.0",
        "License-File: LICENSE",
        "Requires-Python: >=3.10",
        "Project-URL: Paper, https://arxiv.org/abs/1912.02424",
    ):
        assert line in head.splitlines()
    assert "Classifier: License" not in head, "an expression and a classifier exclude one another (PEP 639)"


@pytest.mark.parametrize("address", ["", "https://example.org/atss"])
def test_a_package_index_shows_no_link_that_leads_nowhere(address, tmp_path):
    "There a README stands alone: its links lead to the forge, or are only their text where there is none yet."
    for name in ("setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    text = (ROOT / "settings.ini").read_text(encoding="utf-8")
    (tmp_path / "settings.ini").write_text(re.sub("(?m)^git_url =.*$", f"git_url = {address}", text))
    words = ["setup.py", "-q", "egg_info", "--egg-base", tmp_path]
    (tmp_path / "nbs").mkdir()
    subprocess.run([sys.executable, *words], cwd=tmp_path, check=True)
    page = (tmp_path / "atss_nb.egg-info/PKG-INFO").read_text(encoding="utf-8").partition("\n\n")[2]
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert [link for link in links if not link.startswith(("https:", "#"))] == []
    assert page.startswith("# atss_nb") and "CONTRIBUTING.md" in page
    assert ("](https://example.org/atss/raw/main/nbs/images/report.png)" in page) == bool(address)
    assert ("](https://example.org/atss/blob/main/INSTALL.md)" in page) == bool(address)


# What is enough for whom

# A fresh Python where nothing but what the page lists can be imported: it predicts, from Python and by the command.
NARROW = """
import json, sys
for name in sys.argv[2:]:
    sys.modules[name] = None  # from now on, importing it fails
from PIL import Image
from atss_nb import Detections, load, make_scene
from atss_nb.cli.main import atss

def error_of(work):
    try:
        work()
    except ImportError as error:
        return str(error)

home = sys.argv[1]
Image.fromarray(make_scene(128, 7).image).save(home + "/a.png")
found = load("scenes", device="cpu")(home + "/a.png")
words = "predict", "scenes", home + "/a.png", "--out", home + "/out"
print(json.dumps({
    "found": len(found),
    "predict": atss(*words, "--format", "json", "csv", "--no-pictures"),
    "pictures": atss(*words),
    "plot": error_of(found.plot),
    "microscope": error_of(lambda: __import__("atss_nb").Microscope),
    "lab": atss("lab", "--folder", home + "/lab"),
    "list": atss("lab", "--folder", home + "/lab", "--list"),
}))
"""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory) -> tuple[Path, dict]:
    "What happened where only what the page lists for predicting can be imported."
    listed = re.search(r"^pip install (lazy-loader .+)$", INSTALL, re.M)[1]
    enough, home = set(modules(listed)), tmp_path_factory.mktemp("narrow")
    assert enough < set(required("requirements")), "nothing is listed that the package does not ask for"
    left_out = set(required("requirements")) - enough
    assert left_out == {"matplotlib", "ipywidgets", "anywidget", "jupyterlab", "fastcore"}
    return home, json.loads(run(NARROW, home, *left_out, *WITH_JUPYTER).splitlines()[-1])


def test_who_only_predicts_needs_what_the_page_lists(narrow):
    home, said = narrow
    assert said["found"] > 0
    assert said["predict"][0] == 0 and said["predict"][1].endswith(f"wrote json, csv to {home}/out\n")
    names = {path.name for path in (home / "out").glob("[!.]*")}
    assert names == {"predictions.json", "predictions.csv"}
    assert said["list"][0] == 0 and "07_who_learns_what.ipynb: " in said["list"][1]


def test_what_was_left_out_is_named_with_its_command(narrow):
    _, said = narrow
    assert said["plot"] == "matplotlib is missing: pip install matplotlib"
    assert said["microscope"] == "anywidget is missing: pip install anywidget"
    assert said["pictures"] == [1, "atss predict: matplotlib is missing: pip install matplotlib\n"]
    assert said["lab"] == [1, "atss lab: jupyterlab is missing: pip install jupyterlab\n"]


def test_every_extra_is_explained():
    extras = {key.removesuffix("_requirements") for key in settings() if key.endswith("_requirements")}
    assert set(re.findall(r"^\| `(\w+)` \|", INSTALL, re.M)) == extras


def imported(notebook: Path) -> set[str]:
    "What a notebook imports from outside, without what only extras and their tests need."
    code = "\n".join("".join(cell["source"]) for cell in cells_of(notebook) if cell["cell_type"] == "code")
    tree = ast.parse(re.sub(r"^\s*[%!].*$", "", code, flags=re.M))
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [
        name
        for node in nodes
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    ]
    return {name.split(".")[0] for name in names if name} - sys.stdlib_module_names


@pytest.mark.parametrize("path", sorted((ROOT / "nbs/course").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_lesson_runs_with_what_was_installed(path):
    "Whoever typed `pip install atss_nb` and `atss lab` has all that a lesson imports."
    assert imported(path) - WITH_JUPYTER - {"atss_nb"} <= set(required("requirements"))


def test_every_requirement_has_a_lowest_version(monkeypatch):
    "`make test-oldest` can try it."
    monkeypatch.syspath_prepend(ROOT / "tools")
    from release_check import EXTRAS, lowest

    bounds = dict(one.split("==") for one in lowest())
    keys = ["requirements", *(f"{extra}_requirements" for extra in EXTRAS.split(","))]
    named = {re.split(r"[^\w.-]", one)[0] for key in keys for one in settings()[key].split()}
    assert set(bounds) == named and bounds["torch"] == "2.10"
