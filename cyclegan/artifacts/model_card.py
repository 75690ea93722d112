"""README.md of a generator: what the artifact knows of itself, as the Hugging Face Hub reads it."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cyclegan.files import replace_file

if TYPE_CHECKING:
    from PIL import Image

    from cyclegan.artifacts.generator import GeneratorConfig

METRICS_FORMAT = "cyclegan-metrics/1"
# Beside the weights, when there are any: what `cyclegan evaluate` found, and held-out images, translated.
MODEL_CARD, METRICS, EXAMPLES = "README.md", "metrics.json", "examples.png"


def write_card(folder: Path, config: "GeneratorConfig") -> None:
    """Write ``README.md`` from the config and from the metrics and examples that lie in the folder."""
    metrics = folder / METRICS
    found = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else None
    if found is not None and found.get("format") != METRICS_FORMAT:
        found = None  # of an older version, which named its figures otherwise; evaluate again
    text = model_card(config, found, (folder / EXAMPLES).is_file())
    replace_file(folder / MODEL_CARD, text.encode())


def add_metrics(folder: Path, config: "GeneratorConfig", report: dict[str, Any]) -> None:
    """Keep what an evaluation found beside the weights, and in the card."""
    replace_file(folder / METRICS, (json.dumps(report, indent=2) + "\n").encode())
    write_card(folder, config)


def add_examples(folder: Path, config: "GeneratorConfig", grid: "Image.Image") -> None:
    """Keep a picture of images and their translations beside the weights, and in the card."""
    grid.save(folder / EXAMPLES)
    write_card(folder, config)


def model_card(config: "GeneratorConfig", metrics: dict[str, Any] | None, has_examples: bool) -> str:
    """The whole text.

    Args:
        config: facts that it does not have (None) are left out.
        metrics: ``{"domain", "images", "metrics": {name: {"value", "inputs", "target_train", ...}}}``.
        has_examples: whether ``examples.png`` lies beside it.
    """
    sections = [
        f"# {config.source} to {config.target}",
        f"{_kind(config)} generator of the domain `{config.domain}`, direction {config.direction}. What it "
        "gives is made by a machine.",
        *([f"![{config.source}, and translated]({EXAMPLES})"] if has_examples else []),
        "## Use",
        "```\npip install cyclegan\ncyclegan translate THIS_FOLDER_OR_HUB_ID photos/ translated/\n```",
        "## Intended use and limits",
        _limits(config),
        "## How it was made",
        "\n".join(_training(config)),
        "## Licences",
        _licences(config),
        *(["## Metrics", _metrics(metrics)] if metrics else []),
    ]
    return f"---\n{_front_matter(config, metrics)}---\n" + "\n\n".join(sections) + "\n"


def _kind(config: "GeneratorConfig") -> str:
    trained = {"cyclegan": "A CycleGAN", "cut": "A CUT", "fastcut": "A FastCUT"}[config.method]
    return "An image-to-image" if config.converted_from else trained


def _size(config: "GeneratorConfig") -> str:
    return f"{config.size}x{config.size} pixels" if config.size else "a size that is not known"


def _limits(config: "GeneratorConfig") -> str:
    return f"""It is made to give pictures like its source images, {config.source}, the look of its target,
{config.target}, at about the size of its training images. On other pictures or at other sizes it may lose
content, invent it or change colours. Nothing should be concluded from its results about what was in
front of a camera, a microscope or a scanner. Show them as what they are, made by a machine; what may be
done with them may depend on the licences below."""


def _training(config: "GeneratorConfig") -> list[str]:
    arguments = ", ".join(f"{key} {value}" for key, value in config.network.arguments.items())
    low, high = config.value_range
    lines = [
        f"- Network: {config.network.name} ({arguments})",
        f"- Images: {config.channels} channel(s), values {low:g} to {high:g}, trained at {_size(config)}; "
        f"height and width are padded to multiples of {config.multiple_of}",
    ]
    if origin := config.converted_from:
        lines.append("- Training: elsewhere; how, and on which images, is not known here")
        lines.append(
            f"- Converted by cyclegan {config.cyclegan_version} from `{origin.file}`, SHA-256 {origin.sha256}"
        )
        return [*lines, *(f"- Taken as given: {note}" for note in origin.notes)]
    facts = [
        None if config.steps is None else f"{config.steps:,} steps",
        None if config.images_seen is None else f"{config.images_seen:,} images of A",
        None if config.seed is None else f"seed {config.seed}",
    ]
    known = [fact for fact in facts if fact is not None]
    if known:
        known += [f"cyclegan {config.cyclegan_version}", "weights averaged over the run (EMA)"]
        lines.append(f"- Training: {', '.join(known)}")
    if config.card_sha256 is not None:
        lines.append(f"- Training images: the domain's card has the SHA-256 {config.card_sha256}")
    return lines


def _licences(config: "GeneratorConfig") -> str:
    """Of the training images of A and B, and of the generator itself where that has one of its own."""
    names = {"A": "training images of A", "B": "training images of B", "generator": "this generator"}
    lines = []
    for side, licence in sorted(config.licences.items()):
        by = config.attribution.get(side)
        lines.append(f"- {names.get(side, side)}: {licence}" + (f"; by {by}" if by else ""))
    return "\n".join(lines) or "Not known."


def _metrics(report: dict[str, Any]) -> str:
    rows = []
    for name, found in report["metrics"].items():
        interval = found.get("interval")
        reach = "" if interval is None else f" ({interval[0]:.4g} to {interval[1]:.4g})"
        anchors = f"{found['inputs']:.4g} | {found['target_train']:.4g}"
        rows.append(f"| {name} ({found['better']}) | {found['value']:.4g}{reach} | {anchors} |")
    head = ["| metric (which way is better) | translated | inputs | target's train |", "|---|---|---|---|"]
    note = (
        f"On {report['images']} held-out images of `{report['domain']}`. Inputs: the untranslated inputs in "
        "the translations' place; target's train: real training images of the target in their place. In "
        "brackets the 95 % interval. Figures of other images, or by other networks, do not compare."
    )
    return "\n".join([*head, *rows, "", note])


def _front_matter(config: "GeneratorConfig", metrics: dict[str, Any] | None) -> str:
    facts: dict[str, Any] = {
        "library_name": "cyclegan",
        "pipeline_tag": "image-to-image",
        "tags": ["cyclegan", "unpaired-image-to-image"],
    }
    if metrics:
        values = [
            {"type": name, "name": name, "value": found["value"]}
            for name, found in metrics["metrics"].items()
        ]
        domain = metrics["domain"]
        result = {
            "task": {"type": "image-to-image"},
            "dataset": {"name": domain, "type": re.sub(r"[^\w.-]", "-", domain)},
            "metrics": values,
        }
        facts["model-index"] = [{"name": f"{config.domain} {config.direction}", "results": [result]}]
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)
