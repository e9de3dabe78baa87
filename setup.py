"Builds the package from settings.ini, the one place that names versions and requirements."

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(root / "settings.ini", encoding="utf-8")
settings = config["DEFAULT"]
package = settings["lib_path"]


def listed(key: str) -> list[str]:
    return settings.get(key, "").split()


STATUS = {3: "Alpha", 4: "Beta", 5: "Production/Stable"}
extras = {key.removesuffix("_requirements"): listed(key) for key in settings if key.endswith("_requirements")}

setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license="Apache-2.0",
    keywords=settings["keywords"],
    classifiers=[
        f"Development Status :: {settings['status']} - {STATUS[int(settings['status'])]}",
        "Framework :: Jupyter",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
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
    entry_points={
        "console_scripts": listed("console_scripts"),
        "nbdev": [f"{package}={package}._modidx:d"],
    },
    zip_safe=False,
)
