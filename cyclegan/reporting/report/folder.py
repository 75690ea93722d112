"""What a run's folder holds, read back for a page; a file that is missing or half-written ends nothing."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclegan.artifacts.model_card import METRICS as METRICS_FILE
from cyclegan.artifacts.model_card import METRICS_FORMAT
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.recipes import read_yaml
from cyclegan.reporting.report.about import About, Recipe, read_about, recipe_of

CONFIG, METRICS, EVALUATIONS, WARNINGS = "config.yaml", "metrics.jsonl", "evaluations.jsonl", "warnings.jsonl"
GENERATORS = {"AtoB": "G_AB", "BtoA": "G_BA"}
# Where a run lies and what it goes on from say nothing of how it was trained.
NOT_SETTINGS = ("run_dir", "resume")


@dataclass(frozen=True)
class RunFolder:
    """Everything that a page says, as it was read."""

    folder: Path
    config: dict[str, Any]
    about: About | None
    metrics: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]
    warnings: list[dict[str, Any]]
    generators: dict[str, dict[str, Any]]  # config.json by direction

    @property
    def domain(self) -> str:
        for known in (self.about and self.about.domain, self.config.get("domain")):
            if known:
                return str(known)
        return self.folder.resolve().parent.name

    @property
    def titles(self) -> dict[str, str]:
        """What A and B show, in the card's words."""
        if self.about is not None and self.about.card is not None:
            return {"A": self.about.card.a.title, "B": self.about.card.b.title}
        forth = self.generators.get("AtoB", {})
        return {"A": forth.get("source") or "A", "B": forth.get("target") or "B"}

    @property
    def both_ways(self) -> bool:
        """Whether B is translated to A as well."""
        return self.config.get("method", "cyclegan") == "cyclegan"

    @property
    def recipe(self) -> Recipe | None:
        return recipe_of(self.domain) if self.about is None else self.about.recipe

    @property
    def step(self) -> int:
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def images_seen(self) -> int:
        return int(self.metrics[-1].get("images_seen", 0)) if self.metrics else 0


def is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def find_runs(folder: Path) -> list[Path]:
    """The runs in ``runs/`` or in ``runs/<domain>/``, in the order of their names."""
    return sorted({path.parent for pattern in ("*", "*/*") for path in folder.glob(f"{pattern}/{CONFIG}")})


def read_run(folder: Path) -> RunFolder:
    """Read a run's folder.

    Raises:
        BadInput: there is no run, or its config.yaml or about.json does not hold.
    """
    if not is_run(folder):
        raise BadInput(f"{folder}: has no {CONFIG}; a run is a folder that `cyclegan train` wrote")
    generators = {}
    for direction, name in GENERATORS.items():
        path = folder / "generators" / name / "config.json"
        if path.is_file():
            generators[direction] = _read_json(path)
    return RunFolder(
        folder=folder,
        config=read_yaml(folder / CONFIG),
        about=read_about(folder),
        metrics=[line for line in _lines(folder / METRICS) if isinstance(line.get("step"), int)],
        evaluations=[*_lines(folder / EVALUATIONS), *_later_evaluations(folder, generators)],
        warnings=_lines(folder / WARNINGS),
        generators=generators,
    )


def _later_evaluations(folder: Path, generators: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What ``cyclegan evaluate`` left beside the weights, in the shape of a line of evaluations.jsonl."""
    for direction, config in generators.items():
        path = folder / "generators" / GENERATORS[direction] / METRICS_FILE
        found = _read_json(path) if path.is_file() else {}
        # Figures on other pictures (--data) say nothing of this run's own held-out ones.
        if found.get("format") == METRICS_FORMAT and found.get("domain") == config.get("domain"):
            yield {
                "step": config.get("steps"),
                "images_seen": config.get("images_seen"),
                "direction": direction,
                "metrics": found["metrics"],
            }


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a JSON Lines file that are whole; the last one may be in the middle of being written."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


@dataclass(frozen=True)
class Setting:
    name: str
    value: str
    usual: str  # the recipe's value, or the default where there is no recipe
    says: str

    @property
    def differs(self) -> bool:
        return self.value != self.usual


def settings_of(run: RunFolder) -> list[Setting]:
    """Every setting beside the recipe's, both resolved with the defaults of this version."""
    recipe = run.recipe
    usual = dict(_flat(_over(TrainSettings().model_dump(mode="json"), recipe.values if recipe else {})))
    says = dict(_descriptions(TrainSettings))
    found = []
    for name, value in _flat(run.config):
        if name not in NOT_SETTINGS and not (name == "domain" and recipe is None):
            found.append(Setting(name, _words(value), _words(usual.get(name)), says.get(name, "")))
    return found


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        below = merged.get(key)
        merged[key] = _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _words(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_words(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _descriptions(model: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _descriptions(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.description or ""
