"What `from atss_nb import ...` offers, what it costs, and that help() is a table of contents."

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import atss_nb
import atss_nb.recipes

FACE = [
    "AngleDef",
    "regularize",
    "poly2obb",
    "obb2poly",
    "obb2hbb",
    "hbb2obb",
    "convert",
    "box_iou_rotated",
    "nms_rotated",
    "batched_nms_rotated",
    "AnchorGrid",
    "DeltaXYWHA",
    "DistanceLTRB",
    "ATSS",
    "MaxIoU",
    "CenterSampling",
    "assignment_report",
    "RetinaNet",
    "FasterRCNN",
    "ModelConfig",
    "build_model",
    "TrainConfig",
    "train",
    "load",
    "Detector",
    "Detections",
    "predict",
    "evaluate",
    "open_dataset",
    "make_scene",
    "write_scenes",
    "recipes",
    "Microscope",
]
RECIPES = ["Recipe", "find_recipe", "override", "recipe_names", "run_recipe", "score_recipe"]


@pytest.mark.parametrize(("package", "names"), [(atss_nb, FACE), (atss_nb.recipes, RECIPES)])
def test_the_face_is_pinned(package, names):
    assert sorted(package.__all__) == sorted(names)
    assert set(names) <= set(dir(package))


@pytest.mark.parametrize("package", [atss_nb, atss_nb.recipes])
def test_every_name_is_what_its_module_holds(package):
    stub = ast.parse(Path(package.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    for node in stub.body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            name = f"{package.__name__}.{node.module or alias.name}"
            module = importlib.import_module(name)
            assert getattr(package, alias.name) is (getattr(module, alias.name) if node.module else module)


def test_help_is_a_table_of_contents():
    page = atss_nb.__doc__
    assert [name for name in FACE if name not in page.replace(",", " ").split()] == []


def test_every_public_name_says_what_it_is():
    for name in FACE:
        assert len((getattr(atss_nb, name).__doc__ or "").split()) > 3, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="box_iou_rotatd"):
        _ = atss_nb.box_iou_rotatd


def test_importing_the_face_loads_nothing_heavy():
    heavy = "('torch', 'numba', 'numpy', 'matplotlib', 'PIL', 'pydantic')"
    code = (
        f"import sys, atss_nb, atss_nb.recipes; dir(atss_nb); print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
