"""Settings as files: recipes and cards are read strictly, and written so that they read back the same."""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cyclegan.errors import BadInput, nearest


def spelled_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every setting's dotted name, as recipes and the command line spell it."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from spelled_keys(field.annotation, f"{prefix}{name}.")


def truths(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The dotted names of settings that can be true or false, and whether they can be nothing else."""
    for name, field in model.model_fields.items():
        if bool in (field.annotation, *get_args(field.annotation)):
            yield prefix + name, field.annotation is bool
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from truths(field.annotation, f"{prefix}{name}.")


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets the later of two equal keys win in silence; here they are an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be a word, not {key!r}", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 4e-4 as a word; people who write recipes mean a number.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a table of settings; tags, duplicate keys and other shapes are refused."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise BadInput(f"{path}:{line} {problem}") from error
    except RecursionError as error:
        raise BadInput(f"{path}: is nested too deeply for settings") from error
    except ValueError as error:  # a date or a number that looks like one and is none
        raise BadInput(f"{path}: holds a value that cannot be: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{path}: must hold 'key: value' lines, not a {type(content).__name__}")
    return content


def validated(model: type[BaseModel], values: Mapping[str, Any], source: str | Path) -> Any:
    """Make ``model`` from ``values``, or say in one line which key of ``source`` is wrong and how."""
    try:
        return model(**values)
    except ValidationError as error:
        raise BadInput(f"{source}: {explain(error, model)}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Every finding of pydantic in one line, with the nearest valid spelling of unknown keys."""
    known = list(spelled_keys(model))
    findings = []
    for item in error.errors():
        # pydantic names the branch of a union too: batch_size.int
        parts = (str(part) for part in item["loc"] if part not in ("int", "literal['auto']"))
        # A key of the user's own may be anything, a line break too.
        key = ".".join(part if part.isprintable() else repr(part) for part in parts)
        if item["type"] == "extra_forbidden":
            findings.append(f"unknown key {key!r}{nearest(key, known)}")
        elif item["type"] == "value_error":
            findings.append(str(item["ctx"]["error"]))
        else:
            message = item["msg"][0].lower() + item["msg"][1:]
            given = repr(item["input"])
            given = given if len(given) <= 80 else f"{given[:77]}..."
            findings.append(f"{key}: {message}, not {given}" if key else f"{message}, not {given}")
    return "; ".join(findings)


def to_yaml(settings: BaseModel) -> str:
    """The complete settings as a recipe that gives the same settings again."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


SWEEP = "sweep.yaml"  # beside the recipes, but W&B's to read
# From here, from the checkout, or from where pip put them.
PROJECT_FOLDERS = (Path(), Path(__file__).resolve().parent.parent, Path(sys.prefix, "share", "cyclegan"))


def project_files(folder: str) -> dict[str, Path]:
    """All ``<folder>/<name>.yaml`` (cards in ``data``, recipes in ``experiments``) by name."""
    found: dict[str, Path] = {}
    for base in PROJECT_FOLDERS:
        for path in sorted((base / folder).glob("*.yaml")):
            if path.name != SWEEP:
                found.setdefault(path.stem, path)
    return found
