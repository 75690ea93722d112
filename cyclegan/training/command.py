"""The settings of a run from the command line: defaults, then the recipe, then the options."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from cyclegan.arguments import parse_known
from cyclegan.config import TrainSettings
from cyclegan.datasets.cards import list_cards
from cyclegan.datasets.licences import allowed_list
from cyclegan.errors import BadInput, nearest
from cyclegan.networks import settings_of
from cyclegan.recipes import project_files, read_yaml, truths, validated
from cyclegan.reporting.trackers import PACKAGES, check_trackers
from cyclegan.training.changes import with_meant
from cyclegan.training.checkpoint import is_checkpoint
from cyclegan.training.launch import is_spokesman
from cyclegan.training.networks import build_networks
from cyclegan.training.objectives import adversarial_loss
from cyclegan.training.run import find_run

PROG = "cyclegan train"


class _OptionsAlone(TrainSettings):
    """What was given on the command line; whether it clashes shows beside the recipe's values alone."""

    def _clashes(self) -> Iterator[tuple[bool, str]]:
        return iter(())


@dataclass(frozen=True)
class Options:
    """What the command does besides training."""

    dry_run: bool = False
    json: bool = False


def settings_from(args: Sequence[str]) -> tuple[TrainSettings, Options]:
    """Resolve ``cyclegan train [DOMAIN or RECIPE.yaml] [options]``.

    With ``--resume`` the settings that the run was begun with take the recipe's place.

    Raises:
        BadInput: an unknown key or option, a wrong value, settings that clash.
    """
    args = _as_recipes_say(_with_joined_trackers(_with_resume_value(args)))
    (given, _), words = _parse(args, _OptionsAlone())
    if len(words) > 1:
        raise BadInput(f"one DOMAIN at a time; got {', '.join(words)}")
    values, source = _base(words[0] if words else given.domain, given)
    values, lost = _for_other_networks(values, given, args)
    base = validated(TrainSettings, values, source)
    try:
        (settings, options), _ = _parse(args, base)
    except BadInput as error:
        # Each option for itself was good, so one of them clashes with what stands there.
        raise BadInput(f"{error} (what no option says is from {source})" if values else str(error)) from error
    settings = with_meant(settings)
    _refuse_unbuildable(settings)
    if lost and is_spokesman():
        print(f"{source}: left out, for the networks chosen have no such: {', '.join(lost)}", file=sys.stderr)
    return settings, options


def _for_other_networks(
    values: dict[str, Any], given: TrainSettings, args: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """A recipe whose network an option replaces, without what the new one has no setting for, and that."""
    lost: list[str] = []
    named = {_path(arg.partition("=")[0]) for arg in args if arg.startswith("--")}
    for kind in ("generator", "discriminator"):
        table, name = values.get(kind) or {}, getattr(given, kind).name
        if f"{kind}.name" not in named or table.get("name") == name:
            continue
        known = settings_of(kind, name)
        kept = {key: value for key, value in table.items() if key in known}
        values = {**values, kind: kept}
        gone = (key for key in table if key not in {*kept, "name"} and table[key] is not None)
        lost += [f"{kind}.{key}" for key in gone]
    return values, lost


def _refuse_unbuildable(settings: TrainSettings) -> None:
    """Make networks (without memory), loss and transforms, so that a wrong name ends it here."""
    with torch.device("meta"):
        build_networks(settings)
    adversarial_loss(settings.losses.adversarial)
    check_trackers(settings.trackers)
    if settings.require_license is not None:
        allowed_list(settings.require_license.split(","))
    if settings.augment.transforms:
        from cyclegan.datasets.augment import Augment

        Augment(settings)


def _parse(args: Sequence[str], base: TrainSettings) -> tuple[tuple[TrainSettings, Options], list[str]]:
    def command(
        settings: Annotated[type(base), tyro.conf.arg(name="")] = base,
        dry_run: bool = False,
        json: bool = False,
    ) -> tuple[TrainSettings, Options]:
        """Train both generators on DOMAIN (a name from 'cyclegan data list', or a RECIPE.yaml).

        Args:
            settings: what the recipe can say too
            dry_run: print the resolved settings and stop
            json: end with one line of JSON
        """
        return settings, Options(dry_run, json)

    return parse_known(command, args, PROG, TrainSettings)


def _with_resume_value(args: Sequence[str]) -> list[str]:
    """``--resume`` alone means ``--resume latest``."""
    args = list(args)
    for i, arg in enumerate(args):
        if arg == "--resume" and (i + 1 == len(args) or args[i + 1].startswith("--")):
            return [*args[: i + 1], "latest", *args[i + 1 :]]
    return args


def _with_joined_trackers(args: Sequence[str]) -> list[str]:
    """``--tracker wandb tensorboard`` means ``--tracker wandb,tensorboard``."""
    joined: list[str] = []
    for arg in args:
        names_one = arg in PACKAGES and len(joined) > 1 and joined[-2] == "--tracker"
        if names_one and all(name in PACKAGES for name in joined[-1].split(",")):
            joined[-1] += f",{arg}"
        else:
            joined.append(arg)
    return joined


def _as_recipes_say(args: Sequence[str]) -> list[str]:
    """``true`` means ``True``; ``--augment.flip=False``, as sweeps say it, means ``--augment.no-flip``."""
    alone = dict(truths(TrainSettings))
    found: list[str] = []
    for arg in args:
        option, _, value = arg.partition("=")
        if arg in ("true", "false") and found and alone.get(_path(found[-1])) is False:
            found.append(arg.title())
        elif arg.startswith("--") and value.lower() in ("true", "false") and _path(option) in alone:
            truth = value.lower() == "true"
            table, dot, name = option.removeprefix("--").rpartition(".")
            flag = f"--{table}{dot}{'' if truth else 'no-'}{name}"
            found.append(flag if alone[_path(option)] else f"{option}={truth}")
        else:
            found.append(arg)
    return found


def _path(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _base(name: str | None, given: TrainSettings) -> tuple[dict, str | Path]:
    """The values that the options are laid over, and where they come from."""
    if given.resume is not None:
        wanted = given if name is None else given.model_copy(update={"domain": name})
        found = find_run(wanted)
        if found is not None:
            path = (found.parent.parent if is_checkpoint(found) else found) / "config.yaml"
            return read_yaml(path), path
    if name is None:
        return {}, "the options"
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        values = read_yaml(path)
        if "domain" not in values and not _has_own_data(given) and not values.get("data"):
            values["domain"] = path.stem
        return values, path
    recipes = project_files("experiments")
    if name in recipes:
        return {"domain": name, **read_yaml(recipes[name])}, recipes[name]
    known = sorted({*recipes, *list_cards()})
    if name not in list_cards() and not _has_own_data(given):
        raise BadInput(
            f"{name}: there is no such domain{nearest(name, known)} ('cyclegan data list' shows them; own "
            "pictures: --data.root, or --data.a and --data.b)"
        )
    return {"domain": name}, "the options"


def _has_own_data(given: TrainSettings) -> bool:
    return given.data.root is not None or given.data.a is not None
