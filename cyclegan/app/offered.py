"""Which generators and runs there are to choose from; what is not among them is refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclegan.artifacts import CONFIG, GeneratorConfig, read_config
from cyclegan.artifacts.hub import locate
from cyclegan.config import TrainSettings
from cyclegan.datasets.cards import domain_folder, list_cards
from cyclegan.datasets.domain import Domain, open_domain
from cyclegan.datasets.prepare import is_prepared
from cyclegan.errors import BadInput, nearest
from cyclegan.evaluation.held_out import spread
from cyclegan.recipes import read_yaml, validated
from cyclegan.reporting.report import find_runs, is_run

GENERATORS = ("G_AB", "G_BA")
EXAMPLES = 6


@dataclass(frozen=True)
class Offered:
    """A generator that can be chosen.

    Args:
        name: how programs and the page call it; ``domain/run/G_AB`` for one of a run.
        path: of its folder.
        run: the folder of the run that made it, if one did.
    """

    name: str
    path: Path
    config: GeneratorConfig
    run: Path | None = None

    @property
    def title(self) -> str:
        """In words, for people: whose it is, and what becomes what."""
        best = ", best so far" if self.path.parent.name == "best" else ""
        whose = f"{self.config.domain} {self.run.name}{best}" if self.run else self.name
        return f"{whose}: {self.config.source} → {self.config.target}"

    @property
    def licence(self) -> str:
        """Of the pictures that it was trained on."""
        licences = self.config.licences
        return " / ".join(f"{side}: {licences[side]}" for side in sorted(licences)) or "not known"

    def facts(self) -> dict[str, Any]:
        """For programs."""
        config = self.config
        return {
            "name": self.name,
            "domain": config.domain,
            "direction": config.direction,
            "source": config.source,
            "target": config.target,
            "licences": dict(config.licences),
            "channels": config.channels,
            "size": config.size,
            "steps": config.steps,
        }


class Shelf:
    """All that is offered: what was named at the start, and what lies under ``runs``.

    Args:
        named: generators' folders, ids on the Hub, runs, or folders of runs.
        runs: looked into anew each time, for trainings bring new ones.

    Raises:
        BadInput: one of ``named`` is none of these.
    """

    def __init__(self, named: Sequence[Path], runs: Path) -> None:
        self.roots, self._generators = [runs], []
        for path in named:
            if path.is_dir() and not (path / CONFIG).is_file():
                if not (is_run(path) or find_runs(path)):
                    raise BadInput(f"{path}: is no generator, no run and no folder of runs")
                self.roots.append(path)
                continue
            located = locate(path)
            read_config(located)
            self._generators.append((path.as_posix().strip("/."), located))
        self._configs: dict[Path, tuple[int, GeneratorConfig]] = {}
        self._domains: dict[Path, Domain | None] = {}

    def runs(self) -> dict[str, Path]:
        """Runs by name, ``domain/run``, the newest first."""
        found = {}
        for root in self.roots:
            for run in [root] if is_run(root) else find_runs(root):
                found.setdefault(f"{run.resolve().parent.name}/{run.resolve().name}", run)
        began = {name: (run / "config.yaml").stat().st_mtime for name, run in found.items()}
        return {name: found[name] for name in sorted(found, key=began.__getitem__, reverse=True)}

    def run(self, name: str) -> Path:
        """The folder of a run that is offered.

        Raises:
            BadInput: it is not.
        """
        return _offered(name, self.runs(), "run")

    def generators(self) -> dict[str, Offered]:
        """Generators by name: those named at the start, then those of runs, the newest first."""
        found = {}
        for name, path in self._generators:
            self._add(found, name, path, None)
        for run_name, run in self.runs().items():
            for kind in ("best", ""):
                for generator in GENERATORS:
                    path = run / "generators" / kind / generator
                    self._add(found, "/".join(filter(None, (run_name, kind, generator))), path, run)
        return found

    def generator(self, name: str) -> Offered:
        """The generator of a name.

        Raises:
            BadInput: it is not offered, whatever else the name may be.
        """
        return _offered(name, self.generators(), "generator")

    def _add(self, found: dict[str, Offered], name: str, path: Path, run: Path | None) -> None:
        try:
            written = (path / CONFIG).stat().st_mtime_ns
            if self._configs.get(path, (None,))[0] != written:
                self._configs[path] = written, read_config(path)
        except (OSError, BadInput):  # not yet written by a training, or not whole: not offered
            return
        found.setdefault(name, Offered(name, path, self._configs[path][1], run))

    def examples(self, offered: Offered) -> list[Path]:
        """Held-out pictures of a generator's source domain, as far as they are on this machine."""
        domain = self._domain(offered)
        if domain is None:
            return []
        return spread(domain.test_a if offered.config.direction == "AtoB" else domain.test_b, EXAMPLES)

    def _domain(self, offered: Offered) -> Domain | None:
        key = offered.run or Path(offered.config.domain)
        if key not in self._domains:
            self._domains[key] = _domain_of(offered)
        return self._domains[key]


def _domain_of(offered: Offered) -> Domain | None:
    """The pictures that a run trained on, or its domain's; nothing is fetched for it."""
    try:
        if offered.run is not None:
            path = offered.run / "config.yaml"
            settings = validated(TrainSettings, read_yaml(path), path)
        else:
            settings = TrainSettings(domain=offered.config.domain)
        own = settings.data.root is not None or settings.data.a is not None
        name = settings.domain
        if not own and (name not in list_cards() or not is_prepared(domain_folder(name))):
            return None
        return open_domain(settings)
    except BadInput:  # moved or removed since
        return None


def _offered(name: str, known: dict[str, Any], kind: str) -> Any:
    if not isinstance(name, str) or name not in known:
        raise BadInput(f"{name}: no such {kind} is offered here{nearest(str(name), known)}")
    return known[name]
