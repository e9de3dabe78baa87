"Builds the package from settings.ini, the one place that names versions and requirements."

import base64
import io
import json
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

root = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(root / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
package = settings["lib_path"]


def listed(key: str) -> list[str]:
    return settings.get(key, "").split()


def smaller(picture: bytes) -> bytes:
    "A picture as WebP, no wider than Jupyter shows it: a fifth of the bytes."
    from PIL import Image

    file, image = io.BytesIO(), Image.open(io.BytesIO(picture))
    image.thumbnail((960, image.height))  # [px]
    image.save(file, "webp", quality=55, method=6)
    return file.getvalue()


def thin_outputs(cell: dict, pictures: bool) -> None:
    "Smaller pictures below a cell, or none; running it draws the full ones."
    for data in (output.get("data", {}) for output in cell.get("outputs", ())):
        picture = data.pop("image/png", None) or data.pop("image/jpeg", None)
        if picture and pictures:
            data["image/webp"] = base64.b64encode(smaller(base64.b64decode("".join(picture)))).decode()


def thin(folder: Path) -> None:
    "Make the notebooks smaller: all of a lesson's pictures stay; who changes the workshop has a clone."
    for path in folder.rglob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            thin_outputs(cell, pictures="workshop" not in path.parts)
            if cell["cell_type"] == "markdown":
                text = "".join(cell["source"])
                cell["source"] = re.sub(r"(\]\([./]*images/\w+)\.png\)", r"\1.webp)", text).splitlines(True)
        path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    for path in [*folder.glob("images/*.png"), *folder.glob("images/*.webp")]:
        picture = smaller(path.read_bytes())  # of a moving one, its first frame
        path.unlink()
        path.with_suffix(".webp").write_bytes(picture)


class BuildPackage(build_py):
    "The package as it travels: thin notebooks with what they link to and read, without nbdev's index of the sources."

    def find_package_modules(self, name, folder):
        return [one for one in super().find_package_modules(name, folder) if one[1] != "_modidx"]

    def run(self):
        super().run()
        thin(Path(self.build_lib, package, "notebooks"))
        papers = ["CITATION.cff", "*.md", "data/README.md", "*/results/**/*.json", "data/results/paper/*.md"]
        for paper in {path for pattern in papers for path in root.glob(pattern)} - {root / "README.md"}:
            there = Path(self.build_lib, package, "papers", paper.relative_to(root))
            self.mkpath(str(there.parent))
            self.copy_file(str(paper), str(there))


def described(source: str) -> str:
    "README for the page of a package index, where links into the repository lead to its forge, or are only their text."
    text = (root / "README.md").read_text(encoding="utf-8").partition("\n")[2].lstrip()
    if source:
        text = re.sub(r"(!\[[^\]]*\]\()(?!\w+:|#)", rf"\1{source}/raw/main/", text)
        return re.sub(r"(\]\()(?!\w+:|#)", rf"\1{source}/blob/main/", text)
    text = re.sub(r"^!\[[^\]]*\]\((?!\w+:)(.+\n)+\n", "", text, flags=re.M)  # pictures, and what they show
    return re.sub(r"\[([^\]]+)\]\((?!\w+:|#)[^)]+\)", r"\1", text)


STATUS = {3: "Alpha", 4: "Beta", 5: "Production/Stable"}
source = settings["git_url"].rstrip("/")  # no addresses of a forge before there is one
addresses = {
    "Source": source,
    "Issues": f"{source}/issues",
    "Changelog": f"{source}/blob/main/CHANGELOG.md",
    "Documentation": settings["doc_host"],
    "Paper": "https://arxiv.org/abs/1912.02424",
}
extras = {key.removesuffix("_requirements"): listed(key) for key in settings if key.endswith("_requirements")}

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=described(source),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    project_urls={name: address for name, address in addresses.items() if address.startswith("https:")},
    keywords=settings["keywords"],
    classifiers=[
        f"Development Status :: {settings['status']} - {STATUS[int(settings['status'])]}",
        "Environment :: Console",
        "Framework :: Jupyter",
        "Framework :: Jupyter :: JupyterLab",
        "Intended Audience :: Developers",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Natural Language :: English",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: GIS",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=[package, package + ".*"]), package + ".notebooks"],
    package_dir={package + ".notebooks": "nbs"},  # the course travels with the package: `atss lab` opens it
    package_data={
        package + ".recipes": ["*.pyi"],
        package + ".notebooks": [
            "*.ipynb",
            "course/*.ipynb",
            "workshop/*/*.ipynb",
            "images/*.png",
            "images/*.svg",
            "images/*.webp",
        ],
        package: ["py.typed", "*.pyi", "weights/*"],
        package + ".explore": ["*.js", "*.css"],
        package + ".plots": ["*.css"],
    },
    python_requires=">=" + settings["min_python"],
    install_requires=listed("requirements"),
    extras_require=extras,
    entry_points={"console_scripts": listed("console_scripts")},
    cmdclass={"build_py": BuildPackage},
    zip_safe=False,
)
