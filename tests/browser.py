"JupyterLab and Chromium for tests, benchmarks and pictures: a server of its own, a fresh profile, nothing from outside."

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat

from atss_nb.explore.page import lab_command

TOKEN = "tests"
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --disable-dev-shm-usage"
ROOT = Path(__file__).resolve().parent.parent


def clean_environment(folder: Path) -> dict[str, str]:
    "An environment in which Jupyter neither finds nor leaves anything of the user's."
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    names += ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")
    own = {name: str(folder / name.lower()) for name in names}
    return os.environ | own | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}


def write_notebook(path: Path, cells: list[str]) -> None:
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=kernel), path)


def write_config(folder: Path, dark: bool) -> None:
    "All cells are in the page, in the theme asked for; the tests may look inside the application."
    theme = {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}
    plugins = {"apputils-extension:themes": theme, "notebook-extension:tracker": {"windowingMode": "none"}}
    settings = {f"@jupyterlab/{name}": values for name, values in plugins.items()}
    (folder / "labconfig").mkdir(parents=True)
    (folder / "labconfig/default_setting_overrides.json").write_text(json.dumps(settings))
    (folder / "jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')


def free_port() -> int:
    "A port of this machine that nobody uses."
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, server: subprocess.Popen, seconds: float = 90) -> None:
    "Return when the server answers."
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            return urlopen(url, timeout=2).close()
        except (URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError("JupyterLab did not start; `atss lab` shows what it says")


@contextmanager
def lab(folder: Path, dark: bool = False) -> Iterator[str]:  # the server's address
    "The JupyterLab of `atss lab` on a folder, without anything of the user's; it ends with the block."
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as state:
        write_config(Path(state) / "jupyter_config_dir", dark)
        port = free_port()
        command = lab_command(folder, Path(state) / "settings", port=port, open_browser=False)
        environment = clean_environment(Path(state)) | {"JUPYTER_TOKEN": TOKEN}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        server = subprocess.Popen(command, env=environment, **quiet)
        try:
            wait_for(f"http://127.0.0.1:{port}/api", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait(20)


class Watch:
    "What a page must not do: complain in the console, or ask another machine."

    def __init__(self, page):
        self.complaints, self.foreign = [], []
        page.on("console", lambda m: self.complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.complaints.append(str(e)))
        page.on("request", lambda r: self.foreign.append(r.url) if self.is_foreign(r.url) else None)

    @staticmethod
    def is_foreign(url: str) -> bool:
        return not url.startswith(("data:", "blob:", "http://127.0.0.1:", "ws://127.0.0.1:"))


@contextmanager
def browser(width: int = 1360, height: int = 1000, density: float = 1, dark: bool = False):
    "A page of a fresh Chromium, and what it did wrong."
    from playwright.sync_api import sync_playwright

    scheme = "dark" if dark else "light"
    with sync_playwright() as play, tempfile.TemporaryDirectory() as profile:
        context = play.chromium.launch_persistent_context(
            profile,
            executable_path=CHROMIUM,
            args=FLAGS.split(),
            viewport={"width": width, "height": height},
            device_scale_factor=density,
            color_scheme=scheme,
        )
        context.set_default_timeout(120_000)  # two cores may be busy with other tests
        page = context.pages[0]
        try:
            yield page, Watch(page)
        finally:
            context.close()


def open_notebook(page, url: str, name: str, run: bool = True, doc: bool = True) -> None:
    "A notebook in the browser, its kernel ready, all cells started."
    page.goto(f"{url}/{'doc' if doc else 'lab'}/tree/{name}?token={TOKEN}")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    status = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    page.wait_for_function(f"() => {status}")
    if run:
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); return 1 }")
