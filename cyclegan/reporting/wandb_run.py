"""W&B: numbers over images_seen, goals, media, tables, artifacts with lineage, alerts."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cyclegan.reporting.offline_runs import last_steps
from cyclegan.reporting.trackers import Row, RunFacts, Tracker

# Of these a run is to have much; of all other figures little.
HIGHER_IS_BETTER = ("psnr", "ssim", "diversity", "images_per_s")
# No figures of merit: the latest value is the summary.
NO_GOAL = ("images_seen", "step", "epoch", "lr_", "gradient_norm_")
# Of an evaluation: anchors, the interval's ends, and figures that describe and do not judge.
NO_GOAL_LAST = (
    "low", "high", "inputs", "target_train",
    "colour_shift", "vgg19_distance_to_input", "vgg19_pairwise_distance", "vgg19_nearest_train",
)  # fmt: skip
# Seconds that the run waits for W&B at its begin and at its end; what is not uploaded stays here.
TIMEOUTS = {"init_timeout": 30, "finish_timeout": 60}


def wandb_mode() -> str:
    """What WANDB_MODE says, else ``online`` where an account is known and ``offline`` where none is."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    # Looks for a key where wandb keeps one; asks neither the user nor the network.
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


def goal_of(metric: str) -> str | None:
    """``min`` or ``max``, what a run's summary keeps of a metric besides the last value; None: only that.

    The name's last part decides: ``AtoB/psnr`` is a PSNR.
    """
    last = metric.rsplit("/", 1)[-1]
    if metric.startswith(NO_GOAL) or last in NO_GOAL_LAST:
        return None
    return "max" if any(word in last for word in HIGHER_IS_BETTER) else "min"


class WandB(Tracker):
    """One W&B run.

    W&B refuses a row whose number is below the last one's. So rows are numbered as they come, whatever
    step they tell of, and the axes are the columns ``images_seen`` and ``step``.
    """

    def start(self, facts: RunFacts) -> str | None:
        from accelerate.tracking import WandBTracker

        self.facts, self.defined = facts, set()
        begun = facts.begun or {}
        self.waiting: list[str] = list(begun.get("waiting", ()))  # folders of rows that are not uploaded
        mode = self._mode()
        try:
            self.tracker = WandBTracker(facts.project, **self.options(facts), mode=mode)
            self.tracker.start()
        except Exception as error:
            if mode != "online":
                raise
            reason = " ".join(str(error).split())[:200]
            print(f"wandb: no server ({reason}); the run is kept offline", file=sys.stderr)
            self.tracker = WandBTracker(facts.project, **self.options(facts), mode="offline")
            self.tracker.start()
        self.run = self.tracker.run
        # A server says how many rows the run has; offline only the record does.
        self.rows = max(self.run.step, begun.get("rows", 0))
        if self.run.offline:
            self.waiting.append(Path(self.run.dir).parent.name)
        self.tracker.store_init_configuration(dict(facts.config))
        self.run.define_metric("images_seen", summary="max")
        self.run.define_metric("step", summary="max")
        self.run.define_metric("*", step_metric="images_seen")
        return self.run.id

    def _mode(self) -> str:
        try:
            return wandb_mode()
        except Exception as error:  # a key that wandb's own checks refuse
            print(f"wandb: {error}; the run is kept offline", file=sys.stderr)
            return "offline"

    def options(self, facts: RunFacts) -> dict[str, Any]:
        # What the environment sets (WANDB_INIT_TIMEOUT and the like) goes before our choice.
        waits = {key: value for key, value in TIMEOUTS.items() if f"WANDB_{key.upper()}" not in os.environ}
        options: dict[str, Any] = {
            "dir": str(facts.folder.resolve()),  # wandb-core has a working folder of its own
            "name": facts.name,
            "group": facts.group,
            "tags": list(facts.tags) or None,
            "notes": facts.notes,
            "job_type": "train",
            "settings": {"silent": True, "console": "off", "finish_timeout_raises": True, **waits},
        }
        if facts.begun is not None and facts.begun.get("id"):
            options |= {"id": facts.begun["id"], "resume": "allow"}
        return options

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self._row({**values, "step": step})

    def _row(self, values: dict[str, Any]) -> None:
        for name in values.keys() - self.defined:
            self.defined.add(name)
            goal = goal_of(name)
            if goal is not None and isinstance(values[name], int | float):
                self.run.define_metric(name, step_metric="images_seen", summary=f"{goal},last")
        self.run.log(values, step=self.rows, commit=True)
        self.rows += 1

    def log_picture(self, name: str, picture: Image.Image, caption: str, place: Mapping[str, int]) -> None:
        import wandb

        self._row({name: [wandb.Image(picture, caption=caption)], **place})

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Row], step: int) -> None:
        import wandb

        cells = [
            [wandb.Image(cell) if isinstance(cell, Image.Image) else cell for cell in row] for row in rows
        ]
        self._row({name: wandb.Table(columns=list(columns), data=cells), "step": step})

    def log_card(self, name: str, card: Path, about: Mapping[str, Any]) -> None:
        """The data card as the run's input."""
        import wandb

        artifact = wandb.Artifact(name, "dataset", metadata=dict(about))
        with self._staged():
            artifact.add_file(str(card))
            # run.use_artifact() refuses offline runs and waits for the server in others; this is the part
            # of it that leaves word to use the artifact when it is uploaded.
            self.run._log_artifact(artifact, is_user_created=True, use_after_commit=True)

    def log_generator(self, name: str, folder: Path, about: Mapping[str, Any]) -> None:
        """A generator as the run's output."""
        import wandb

        artifact = wandb.Artifact(name, "model", metadata=dict(about))
        with self._staged():
            for path in sorted(folder.iterdir()):
                artifact.add_file(str(path))
            self.run.log_artifact(artifact)

    @contextlib.contextmanager
    def _staged(self) -> Iterator[None]:
        """Copies of artifacts wait in the run's folder, not in the user's home, for their upload."""
        kept = os.environ.get("WANDB_DATA_DIR")
        if kept is not None:
            yield
            return
        os.environ["WANDB_DATA_DIR"] = str((self.facts.folder / "wandb").resolve())
        try:
            yield
        finally:
            del os.environ["WANDB_DATA_DIR"]

    def alert(self, title: str, text: str, step: int) -> None:
        import wandb

        self.run.alert(title, text, level=wandb.AlertLevel.ERROR)

    def record(self) -> dict[str, Any]:
        return {"rows": self.rows, "waiting": self.waiting}

    def told(self) -> dict[str, int] | None:
        """What the files of offline pieces hold: who is killed may not have written the last lines."""
        if not self.run.offline or not (self.facts.begun or {}).get("id"):
            return None
        pieces = [self.facts.folder / "wandb" / name for name in self.waiting]
        if any(piece.name.startswith("run-") for piece in pieces):  # a part of it went to a server
            return None
        return last_steps(pieces)

    def finish(self, failed: bool) -> str | None:
        here = Path(self.run.dir).parent
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                self.run.finish(exit_code=int(failed))
        except Exception as error:  # TimeoutError, or a server that is not what it was
            print(f"wandb: not all was uploaded ({error})", file=sys.stderr)
            self.doubtful = True
        sys.stderr.write(said.getvalue())
        # An upload that the server refuses ends in a warning, which names the command, and no error.
        if (self.doubtful or "wandb sync" in said.getvalue()) and here.name not in self.waiting:
            self.waiting.append(here.name)
        if not self.waiting:
            return None
        # All pieces of a run that was resumed: wandb uploads them in their order, as one run.
        pieces = [str(self.facts.folder / "wandb" / name) for name in self.waiting]
        begun_online = any(name.startswith("run-") for name in self.waiting)
        return " ".join(["wandb sync", *(["--include-online"] if begun_online else []), *pieces])
