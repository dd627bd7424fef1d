"""One list of packages: pyproject, constraints, environment.yml and what is installed agree."""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from snakemake.cli import parse_config

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DIRECT = [
    Requirement(line)
    for line in [*PROJECT["dependencies"], *(x for e in EXTRAS.values() for x in e)]
]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^(\S+?)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}
# Needed without an import: by pandas to write Markdown, by tqdm to draw bars in notebooks.
INDIRECT = {"tabulate", "ipywidgets"}


def test_constraints_are_plain_pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    other = [line for line in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][\w.]*", line)]
    assert other == []  # a +cpu suffix, a URL or an editable line installs on one machine only
    assert not {"asnlsr", "pip"} & set(PINS)


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_pin_lies_in_the_range_of_pyproject(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin), f"{requirement} does not allow {pin}"


def installed_closure() -> dict[str, str]:
    """Return name and version of every installed package that asnlsr[book,test] pulls in."""
    found: dict[str, str] = {}
    todo = [(str(requirement.name), frozenset(requirement.extras)) for requirement in DIRECT]
    seen = set()
    while todo:
        name, extras = todo.pop()
        if (canonicalize_name(name), extras) in seen:
            continue
        seen.add((canonicalize_name(name), extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # for another platform or version of Python
        found[canonicalize_name(name)] = Version(distribution.version).public
        for line in distribution.requires or []:
            requirement = Requirement(line)
            chosen = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if not requirement.marker or any(map(requirement.marker.evaluate, chosen)):
                todo.append((requirement.name, frozenset(requirement.extras)))
    return found


def test_constraints_pin_all_that_is_needed_and_nothing_else():
    needed = installed_closure()
    assert {name: PINS.get(name) for name in needed} == needed
    assert set(PINS) - set(needed) == set()


def test_environment_yml_defers_to_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert Version("3.11") in Requirement(f"python{PROJECT['requires-python']}").specifier
    assert pip == {"pip": ["-c constraints.txt", f"-e .[{','.join(EXTRAS)}]"]}


def test_binder_builds_the_environment_of_make_test():
    """It takes environment.yml where nothing else that it knows comes before."""
    for earlier in ("binder", ".binder", "requirements.txt", "Dockerfile", "Pipfile", "setup.py"):
        assert not (ROOT / earlier).exists()
    *_, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    asked = shlex.split(" ".join(pip["pip"]))
    makefile = (ROOT / "Makefile").read_text()
    (install,) = re.findall(r"^INSTALL = (.*)", makefile, re.MULTILINE)
    (everything,) = re.findall(r"^\.venv/test: EXTRAS = (.*)", makefile, re.MULTILINE)
    for tool in install.replace("$(EXTRAS)", everything).split("||"):
        assert shlex.split(tool)[-len(asked) :] == asked


def test_forge_runs_the_commands_of_the_readme():
    workflow = yaml.safe_load((ROOT / ".github/workflows/book.yml").read_text())
    steps = workflow["jobs"]["book"]["steps"]
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```bash\ngit clone .*\n((?:make.*\n)+)```", readme)[1]
    commands = [line.split("#")[0].strip() for line in block.splitlines()]
    assert [step["run"] for step in steps if "run" in step] == commands == ["make", "make test"]
    (site,) = [step["with"]["path"] for step in steps if "pages" in step.get("uses", "")]
    preset = re.search(r"^PRESET \?= (.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    assert site == f"build/{preset}/_build/html"


def imported(folder: str) -> Iterator[str]:
    """Yield the top-level names that the Python files and notebooks of a folder import."""
    for path in [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).glob("*.ipynb")]:
        code = path.read_text()
        if path.suffix == ".ipynb":
            cells = nbformat.reads(code, 4).cells
            code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0]


def distributions(*folders: str) -> set[str]:
    """Return the third-party packages that the code of some folders imports."""
    owners = metadata.packages_distributions()
    names = {name for folder in folders for name in imported(folder)}
    names -= set(sys.stdlib_module_names) | {"asnlsr", "benchmarks", "tests", "workflow"}
    return {canonicalize_name(owners.get(name, [name])[0]) for name in names}


def names(lines: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_the_package_needs_only_its_declared_dependencies():
    assert distributions("asnlsr") <= names(PROJECT["dependencies"])


def test_every_dependency_earns_its_place():
    assert names(PROJECT["dependencies"]) - INDIRECT <= distributions("asnlsr", "book")


def test_chapters_and_tests_need_only_the_extras():
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT}
    # packaging is part of what pytest itself stands on.
    assert distributions("benchmarks", "book", "tests", "workflow") <= declared | {"packaging"}


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == citation["version"] == metadata.version("asnlsr")


def test_make_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    command = ["make", "--no-print-directory", "help"]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert [line.split()[0] for line in shown.splitlines()[: len(targets)]] == targets


# --- somebody else's machine ---------------------------------------------------------------------


@pytest.fixture
def make(tmp_path):
    """Return what `make -n` would do in a checkout whose environment was made in a folder."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)

    def dry(*arguments, made_in=tmp_path, **environment):
        (tmp_path / ".venv").mkdir(exist_ok=True)
        (tmp_path / ".venv/pyvenv.cfg").write_text(f"command = python -m venv {made_in}/.venv\n")
        (tmp_path / ".venv/stamp").touch()
        command, environment = ["make", "-n", *arguments], os.environ | environment
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    return dry


def test_environment_of_another_checkout_is_made_anew(make):
    assert "-m venv" not in make("lab")
    assert "-m venv --clear .venv\n" in make("lab", made_in="/elsewhere")


def test_home_that_cannot_be_written_to(make, tmp_path):
    show = ["-f", "Makefile", "--eval", "show: ; @echo home=$$HOME path=$$JUPYTER_PATH", "show"]
    make()
    for home, expected in (("/nonexistent", tmp_path / "build/home"), (str(tmp_path), tmp_path)):
        environment = os.environ | {"HOME": home, "JUPYTER_PATH": "/foreign"}
        found = subprocess.run(
            ["make", "-s", *show], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert found.stdout == f"home={expected} path=\n"


@pytest.mark.parametrize("name", ["2024", "007", "1e3", "2024_05", "true", "field"])
def test_any_name_of_scenes(make, tmp_path, name):
    (tmp_path / name).mkdir()
    commands = make("real", f"SCENES={name}", f"SCENES_NAME={name}")
    (line,) = [line for line in commands.splitlines() if "table_and_runs" in line]
    entries = shlex.split(line.split("--config ")[1])
    config = parse_config(entries)
    assert (config["dataset"], config["scenes_dir"]) == (name, f"./{name}")


def test_chapter_runs_in_the_python_of_the_book(tmp_path):
    kernel = tmp_path / "foreign/kernels/python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "x", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    notebook = nbformat.v4.new_notebook()
    notebook.metadata.kernelspec = spec | {"name": "python3"}
    cells = ["SEED = 1", "import sys; print(sys.executable, SEED, repr(DATASET))"]
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook.cells[0].metadata["tags"] = ["parameters"]
    nbformat.write(notebook, tmp_path / "a.ipynb")
    script = ROOT / "workflow/run_chapter.py"
    command = [sys.executable, script, tmp_path / "a.ipynb", tmp_path / "b.ipynb"]
    environment = os.environ | {"JUPYTER_PATH": str(tmp_path / "foreign")}
    subprocess.run([*command, "SEED=3", "DATASET=2024"], env=environment, check=True)
    (output,) = nbformat.read(tmp_path / "b.ipynb", 4).cells[-1].outputs
    assert output.text == f"{sys.executable} 3 '2024'\n"
