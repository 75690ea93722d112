"""The house keeps its floors: a lower one never imports a higher one, siblings never each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cyclegan"
FLOORS = {
    "errors": 0, "allocation": 0, "chance": 0, "config": 0,
    "recipes": 0, "arguments": 0, "files": 0, "images": 0, "metadata": 0,
    "networks": 1, "losses": 1, "datasets": 1,
    "artifacts": 2,
    "translation": 3, "evaluation": 3, "stylization": 3, "reporting": 3,
    "training": 4,
    "app": 5, "commands": 5, "cli": 5, "__main__": 5,
}  # fmt: skip
SIBLINGS_APART = {3}


def imported_rooms(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "cyclegan":
                names = [f"cyclegan.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {name.split(".")[1] for name in names if name.startswith("cyclegan.")}
    return rooms & set(FLOORS)


def test_every_room_has_a_floor():
    rooms = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    assert rooms - {"__init__", "__pycache__", "py"} == set(FLOORS)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_lower_floors_never_import_higher_ones(path: Path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if room == "__init__":
        return
    for other in imported_rooms(path) - {room}:
        assert FLOORS[other] <= FLOORS[room], f"{path.name} imports {other}"
        if FLOORS[room] in SIBLINGS_APART:
            assert FLOORS[other] != FLOORS[room], f"{path.name} imports its sibling {other}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_stay_readable(path: Path):
    assert len(path.read_text().splitlines()) <= 420


def loaded_after(statement: str, names: set[str]) -> set[str]:
    """Which of the modules are in memory after a statement in a fresh interpreter."""
    script = f"{statement}\nimport sys\nprint(*({names!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_translation_needs_nothing_of_training():
    heavy = {"accelerate", "wandb", "albumentations", "cyclegan.training"}
    assert loaded_after("from cyclegan import Translator", heavy) == set()


def test_help_loads_nothing_heavy():
    heavy = {"torch", "numpy", "pydantic", "tyro", "rich", "PIL"}
    statement = "from cyclegan.cli import main; main(['--help'])"
    assert loaded_after(statement, heavy) == set()
