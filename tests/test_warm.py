"""The server that spares programs their imports: what it runs, runs as if it were started here."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from tests.chromium import wait_until

ROOT = Path(__file__).resolve().parents[1]
WARM = [sys.executable, str(ROOT / "workflow/warm.py")]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """Start a server; return its folder, and the process."""
    folder = tmp_path_factory.mktemp("warm")
    environment = os.environ | {"ASNLSR_WARM": str(folder)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([*WARM, "serve"], env=environment, **pipes) as server:
        server.stdout.readline()
        yield folder, server
        server.kill()


def start(warm, script: Path, *arguments, **options) -> subprocess.Popen:
    environment = os.environ | {"ASNLSR_WARM": str(warm[0]), "COLOUR": "teal"}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*WARM, script, *arguments], env=environment, text=True, **options)


SHOW = """
import os, sys
print("torch" in sys.modules, sys.argv, sys.path[0], os.environ["COLOUR"], os.getcwd(), __name__)
print(sys.stdin.read(), file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 7])
def test_program_has_its_own_arguments_folder_environment_streams_and_code(warm, tmp_path, code):
    script = tmp_path / "show.py"
    script.write_text(SHOW)
    done = start(warm, script, str(code), "b c", stdin=subprocess.PIPE, cwd=tmp_path)
    out, err = done.communicate("hello")
    argv = [str(script), str(code), "b c"]
    assert out == f"True {argv} {tmp_path} teal {tmp_path} __main__\n"
    assert (err.strip(), done.returncode) == ("hello", code)


def test_error_is_told_where_the_program_was_started(warm, tmp_path):
    (tmp_path / "fails.py").write_text("raise ValueError('no such band')")
    done = start(warm, tmp_path / "fails.py")
    assert "ValueError: no such band" in done.communicate()[1]
    assert done.returncode == 1


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended may wait to be asked for its code."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
def test_killed_client_takes_its_program_along(warm, tmp_path, blow):
    (tmp_path / "waits.py").write_text("import os, time\nprint(os.getpid())\ntime.sleep(600)")
    client = start(warm, tmp_path / "waits.py")
    program = int(client.stdout.readline())
    assert alive(program)
    client.send_signal(blow)
    wait_until(lambda: not alive(program), seconds=10)


def test_chapter_is_the_same_warm_and_cold(warm, tmp_path):
    """A figure, the width of a table, the kind of bars; and no second start of a Python."""
    cells = [
        "import sys; early = 'torch' in sys.modules",
        "import pandas; pandas.options.display.max_columns, pandas.options.display.width",
        "from tqdm.auto import tqdm; tqdm.__mro__[1].__module__",
        "import matplotlib.pyplot as plt; fig, ax = plt.subplots(); ax.plot([1, 2]);",
        "early",
    ]
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    made = {}
    for folder in (warm[0], tmp_path):  # a server is in the first only
        script = ROOT / "workflow/run_chapter.py"
        client = start((folder,), script, tmp_path / "a.ipynb", tmp_path / "b.ipynb")
        assert (client.communicate()[1], client.returncode) == ("", 0)
        ran = nbformat.read(tmp_path / "b.ipynb", 4).cells
        made[folder] = [cell.outputs[0].data for cell in ran if cell.outputs]
    (*pages, early), (*others, late) = made.values()
    assert pages == others
    assert "image/png" in pages[-1]
    assert (early["text/plain"], late["text/plain"]) == ("True", "False")


def test_server_ends_with_the_workflow(warm):
    folder, server = warm
    server.stdin.close()
    assert server.wait(30) == 0
    assert not folder.exists()
