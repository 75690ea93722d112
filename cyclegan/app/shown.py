"""What the page says in HTML of its own; whatever comes from files or people is escaped."""

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from cyclegan.app.offered import Offered
from cyclegan.translation.inspection import inspect_file

MOVE = "this.parentNode.style.setProperty('--at', this.value + '%')"


def rows(facts: Mapping[str, str]) -> str:
    """Names and what they are."""
    lines = "".join(
        f"<dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items()
    )
    return f"<dl>{lines}</dl>"


def problem(words: str) -> str:
    return f'<p class="problem">{html.escape(words)}</p>'


def command(line: str, summary: str = "The command") -> str:
    """A command as one would type it, folded."""
    return f"<details><summary>{html.escape(summary)}</summary><pre>{html.escape(line)}</pre></details>"


def card(offered: Offered, thumbnails: Mapping[str, Path | None]) -> str:
    """A generator in a few lines: thumbnails by what they show, domain, licence."""
    config = offered.config
    pictures = ""
    for says, path in thumbnails.items():
        if path is not None:
            code = base64.b64encode(path.read_bytes()).decode()
            alt = html.escape(f"{config.source}: a held-out picture, {says}")
            pictures += f'<img src="data:image/png;base64,{code}" alt="{alt}">'
    trained = "" if config.steps is None else f"{config.steps:,} steps "
    facts = {
        "Domain": f"{config.domain}, {config.source} → {config.target}",
        "Trained": f"{trained}at {config.size} px" if config.size else "at a size that is not known",
        "Licence of its training pictures": offered.licence,
    }
    return f'<div class="card"><div class="thumbs">{pictures}</div>{rows(facts)}</div>'


def slider(before: Path, after: Path) -> str:
    """Two pictures of one size and a line between them, which pointer, finger and arrow keys move."""
    with Image.open(before) as picture:
        ratio = picture.width / picture.height
    pictures = "".join(
        f'<img class="{says}" src="gradio_api/file={quote(str(path))}" alt="The picture {says} translation">'
        for says, path in (("before", before), ("after", after))
    )
    return (
        f'<div class="slider" style="--ratio: {ratio:.5f}">{pictures}'
        '<span class="tag left">before</span><span class="tag right">after</span>'
        '<input type="range" min="0" max="100" step="0.5" value="50" '
        'aria-label="Line between before and after" '
        f'title="Drag the line, or move it with the arrow keys." oninput="{MOVE}"></div>'
    )


def label(path: Path) -> str:
    """What a translation says of itself, read back from the file as `cyclegan inspect` reads it."""
    found = inspect_file(path).label
    if found is None:
        return "<p>This format has no place for a label: the file does not say that a machine made it.</p>"
    kind = found.get("digital_source_type", "").rsplit("/", 1)[-1]
    how = found.get("system") or f"{found.get('source')} to {found.get('target')}"
    whose = " ".join(found[key] for key in ("domain", "direction") if found.get(key))
    digest = f"sha256 {str(found.get('generator_sha256'))[:12]}…"
    licences = "; ".join(f"{side}: {words}" for side, words in found.get("licences", {}).items())
    facts = {
        "Made by": f"a machine ({kind}), {how}",
        "Generator" if whose else "Network": ", ".join(filter(None, (whose, digest))),
        "Trained on" if whose else "Licences": licences,
    }
    return f'<div class="card"><p>The file says of itself:</p>{rows(facts)}</div>'


def frame(address: str, title: str) -> str:
    """A page within the page; it may run only the scripts that it carries, and reach nothing."""
    safe, name = html.escape(quote(address)), html.escape(title)
    return (
        f'<p><a href="{safe}" target="_blank" rel="noopener">{name}, in a tab of its own</a></p>'
        f'<iframe src="{safe}" title="{name}" loading="lazy" sandbox="allow-scripts allow-popups"></iframe>'
    )
