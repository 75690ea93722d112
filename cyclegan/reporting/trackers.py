"""The trackers that accelerate knows by name, each told the same things in its own words."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from cyclegan.errors import BadInput, nearest

# accelerate's name of a tracker, the module that it imports, and what pip calls that.
PACKAGES = {
    "wandb": ("wandb", "wandb"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "trackio": ("trackio", "trackio"),
    "mlflow": ("mlflow", "mlflow"),
    "aim": ("aim", "aim"),
    "comet_ml": ("comet_ml", "comet-ml"),
    "clearml": ("clearml", "clearml"),
    "dvclive": ("dvclive", "dvclive"),
    "swanlab": ("swanlab", "swanlab"),
}

Row = Sequence[Any]  # of a table: words, numbers, PIL images


def check_trackers(names: Sequence[str]) -> None:
    """Whether every one of the names can be had here.

    Raises:
        BadInput: an unknown name, or a package that is not installed.
    """
    for name in names:
        if name not in PACKAGES:
            known = [*PACKAGES, "none"]
            raise BadInput(
                f"tracker: there is no {name!r}{nearest(name, known)} (known: {', '.join(known)}; several "
                "go with commas, none only alone)"
            )
        module, package = PACKAGES[name]
        if find_spec(module) is None:
            raise BadInput(f"tracker: {name} is not installed; pip install {package}, or --tracker none")


@dataclass(frozen=True)
class RunFacts:
    """What a tracker is told of a run before the first number.

    ``begun`` is what this tracker's record says when the run goes on: its id, how far it was told.
    """

    folder: Path
    project: str
    name: str
    group: str | None
    tags: tuple[str, ...]
    notes: str | None
    config: Mapping[str, Any]
    step: int = 0
    begun: Mapping[str, Any] | None = None


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    """Dotted names and plain values, for trackers that take no tables and no None."""
    found: dict[str, int | float | str | bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, int | float | str) else str(value)
    return found


class Tracker:
    """A tracker by accelerate's class for it. It takes numbers; those that show more are below."""

    # Whether the tracker itself forgets what lies past the step that a resumed run goes on from.
    rewinds = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.doubtful = False  # something that it was told has not arrived

    def options(self, facts: RunFacts) -> dict[str, Any]:
        """What the tracker's class is made with, besides its project."""
        return {"dir": str(facts.folder / "dvclive")} if self.name == "dvclive" else {}

    def start(self, facts: RunFacts) -> str | None:
        """Begin the run, or go on with it; returns the tracker's id of it."""
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        self.tracker = LOGGER_TYPE_TO_CLASS[self.name](facts.project, **self.options(facts))
        self.tracker.start()
        self.tracker.store_init_configuration(flat(facts.config))
        return None

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.tracker.log(dict(values), step=step)

    def log_picture(self, name: str, picture: Image.Image, caption: str, place: Mapping[str, int]) -> None:
        """``place`` holds step and images_seen."""

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Row], step: int) -> None:
        pass

    def log_generator(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        pass

    def log_card(self, name: str, card: Path, about: Mapping[str, Any]) -> None:
        pass

    def alert(self, title: str, text: str, step: int) -> None:
        pass

    def record(self) -> dict[str, Any]:
        """What the tracker has to know again when the run goes on."""
        return {}

    def told(self) -> dict[str, int] | None:
        """The last step of numbers and of samples that arrived before a resume; None: as the record says."""
        return None

    def finish(self, failed: bool) -> str | None:
        """Close the run; returns the command that uploads what stayed here."""
        self.tracker.finish()
        return None


class TensorBoard(Tracker):
    """Event files in ``<run>/tensorboard``; ``tensorboard --logdir runs`` shows all runs."""

    rewinds = True  # by purge_step

    def start(self, facts: RunFacts) -> str | None:
        from accelerate.tracking import TensorBoardTracker

        # What a broken run wrote past its checkpoint is hidden, and written anew.
        was_here = facts.begun is not None or (facts.folder / "tensorboard").is_dir()
        purge = facts.step + 1 if was_here else None
        self.tracker = TensorBoardTracker("tensorboard", facts.folder, purge_step=purge)
        self.tracker.start()
        if facts.begun is None:
            self.tracker.store_init_configuration(flat(facts.config))
        return None

    def log_picture(self, name: str, picture: Image.Image, caption: str, place: Mapping[str, int]) -> None:
        import numpy as np

        writer = self.tracker.writer
        writer.add_image(name, np.asarray(picture), place["step"], dataformats="HWC")
        writer.flush()

    def alert(self, title: str, text: str, step: int) -> None:
        self.tracker.writer.add_text("alerts", f"**{title}**: {text}", step)
        self.tracker.writer.flush()


class Trackio(Tracker):
    """A local database; ``trackio show`` opens it."""

    def options(self, facts: RunFacts) -> dict[str, Any]:
        return {
            "name": facts.name,
            "group": facts.group,
            "resume": "allow" if facts.begun is not None else "never",
            "embed": False,
        }

    def log_picture(self, name: str, picture: Image.Image, caption: str, place: Mapping[str, int]) -> None:
        import trackio

        image = trackio.Image(picture, caption=caption)
        self.tracker.run.log({name: image, "images_seen": place["images_seen"]}, step=place["step"])

    def alert(self, title: str, text: str, step: int) -> None:
        import trackio

        self.tracker.run.alert(title, text, level=trackio.AlertLevel.ERROR, step=step)


class MLflow(Tracker):
    """Where MLFLOW_TRACKING_URI says, else mlflow's own default beside the working folder."""

    def options(self, facts: RunFacts) -> dict[str, Any]:
        # Of its own accord mlflow tries a server that is away for minutes, at every call.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        tags = dict.fromkeys(facts.tags, "") | ({"group": facts.group} if facts.group else {})
        run_id = (facts.begun or {}).get("id")
        return {"run_name": facts.name, "run_id": run_id, "tags": tags, "description": facts.notes}

    def start(self, facts: RunFacts) -> str | None:
        from accelerate.tracking import MLflowTracker

        self.tracker = MLflowTracker(facts.project, **self.options(facts))
        self.tracker.start()
        if facts.begun is None:  # mlflow refuses a parameter that changes
            self.tracker.store_init_configuration(flat(facts.config))
        return self.tracker.tracker.info.run_id

    def log_picture(self, name: str, picture: Image.Image, caption: str, place: Mapping[str, int]) -> None:
        import mlflow

        mlflow.log_image(picture, artifact_file=f"{name}/step-{place['step']:08d}.png")

    def log_generator(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        self.tracker.log_artifacts(str(folder), artifact_path=f"generators/{folder.name}")

    def log_card(self, name: str, card: Path, about: Mapping[str, Any]) -> None:
        self.tracker.log_artifact(str(card), artifact_path="data")

    def alert(self, title: str, text: str, step: int) -> None:
        import mlflow

        mlflow.set_tag("alert", f"step {step}: {title}: {text}")


class Aim(Tracker):
    """A repository ``.aim`` in the working folder; ``aim up`` opens it."""

    def start(self, facts: RunFacts) -> str | None:
        from accelerate.tracking import AimTracker

        run_hash = (facts.begun or {}).get("id")
        self.tracker = AimTracker(facts.name, ".", run_hash=run_hash, experiment=facts.project)
        self.tracker.start()
        self.tracker.store_init_configuration(flat(facts.config))
        for tag in facts.tags if facts.begun is None else ():
            self.tracker.writer.add_tag(tag)
        return self.tracker.writer.hash

    def log_picture(self, name: str, picture: Image.Image, caption: str, place: Mapping[str, int]) -> None:
        self.tracker.log_images({name: (picture, caption)}, step=place["step"])


def make_tracker(name: str) -> Tracker:
    """The tracker of that name, not yet started."""
    if name == "wandb":
        from cyclegan.reporting.wandb_run import WandB

        return WandB(name)
    kinds = {"tensorboard": TensorBoard, "trackio": Trackio, "mlflow": MLflow, "aim": Aim}
    return kinds.get(name, Tracker)(name)
