"""Settings that changed since the checkpoint: harmless ones are taken, others must be meant."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput, nearest
from cyclegan.recipes import spelled_keys, validated

# Where things are, how often they are shown, when it ends, and in which format it is computed. All else
# decides what is learned. A prefix covers the table.
HARMLESS = (
    "steps", "epochs", "images", "minutes", "tracker", "project", "run_dir", "resume", "resume_with",
    "log_every", "require_license", "precision", "timeout_minutes", "samples", "checkpoint", "numbers",
    "evaluation", "tracking", "speed", "data.root", "data.a", "data.b", "data.memory_gib", "data.workers",
)  # fmt: skip
# Harmless too, but where statistics are of a batch's parts.
PARTS = "gradient_accumulation"
# Of no interest, for they differ by nature.
SILENT = ("resume", "resume_with", "run_dir")


def with_meant(settings: TrainSettings) -> TrainSettings:
    """The settings with those of ``--resume-with key=value`` laid over them.

    Raises:
        BadInput: not of the form key=value, no such key, a value that it does not take, or no --resume.
    """
    if not settings.resume_with:
        return settings
    if settings.resume is None:
        raise BadInput("resume_with: says what changes when a run goes on; it goes with --resume")
    values = settings.model_dump()
    known = list(spelled_keys(TrainSettings))
    for item in settings.resume_with:
        key, equals, value = item.partition("=")
        key = key.replace("-", "_")
        if not equals:
            raise BadInput(f"resume_with: {item!r} is not of the form key=value")
        if key not in known or isinstance(_look_up(values, key), dict):
            raise BadInput(f"resume_with: there is no setting {key!r}{nearest(key, known)}")
        *path, last = key.split(".")
        table = values
        for part in path:
            table = table[part]
        table[last] = yaml.safe_load(value)
    return validated(TrainSettings, values, "resume_with")


def check_changes(now: TrainSettings, then: Mapping[str, Any], say: Callable[[str], None]) -> set[str]:
    """Compare the settings with those of the checkpoint; say which harmless ones changed.

    Returns:
        The dotted names of all that changed.

    Raises:
        BadInput: one that decides what is learned changed and ``--resume-with`` does not name it.
    """
    meant = {item.partition("=")[0].replace("-", "_") for item in now.resume_with}
    taken, refused, changed = [], [], set()
    for key, before, after in _differences(then, now.model_dump(mode="json")):
        changed.add(key)
        words = f"{key} {_short(after)} instead of {_short(before)}"
        if key in SILENT:
            continue
        harmless = any(key == name or key.startswith(name + ".") for name in HARMLESS)
        if key in meant or harmless or (key == PARTS and not now.has_batch_norm):
            taken.append(words)
        else:
            refused.append((key, before, after))
    if refused:
        key, before, after = refused[0]
        others = f" ({', '.join(name for name, _, _ in refused[1:])} as well)" if len(refused) > 1 else ""
        raise BadInput(
            f"{key}: the checkpoint was made with {_short(before)}, not {_short(after)}{others}, and that "
            f"changes what is learned; if it is meant: --resume-with {key}={_short(after)}"
        )
    if taken:
        say(f"Changed since the checkpoint: {'; '.join(taken)}")
    return changed


def check_pretraining(now: TrainSettings, then: Mapping[str, Any], step: int) -> None:
    """Where the translation begins, Adam begins anew: that step is not to lie behind a run that goes on.

    Args:
        then: the settings of the checkpoint.
        step: of the checkpoint.

    Raises:
        BadInput: it would, or the pre-training was over.
    """
    steps = now.pretrain.steps
    before = then.get("pretrain", {}).get("steps", steps)
    if steps == before:
        return
    if step > before:
        raise BadInput(f"pretrain.steps: the checkpoint, at step {step}, is past its {before}; leave it so")
    if steps < step:
        raise BadInput(
            f"pretrain.steps: the checkpoint, at step {step}, is past {steps}; to end the pre-training "
            f"there, --resume-with pretrain.steps={step}"
        )


def _differences(
    then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    for key in now:
        if key not in then:
            continue  # a setting that a newer version has; its default does what was done before
        before, after = then[key], now[key]
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield prefix + key, before, after


def _look_up(values: Mapping[str, Any], key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _short(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return text if len(text) <= 80 else text[:77] + "..."
