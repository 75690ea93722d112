"""The page: its tabs, how it looks, and a tooltip in plain words for every control."""

import json
from pathlib import Path
from typing import Any

import gradio as gr

from cyclegan.app.api import build_api
from cyclegan.app.runs_tab import build_runs_tab
from cyclegan.app.service import Service
from cyclegan.app.stylize_tab import build_stylize_tab
from cyclegan.app.train_tab import build_train_tab
from cyclegan.app.translate_tab import build_translate_tab

ASSETS = Path(__file__).parent / "assets"
SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
MONOSPACE = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
HEADING = """# cyclegan
Two folders of pictures go in, a translator between them comes out. All of it stays on this machine."""


def build_page(service: Service) -> gr.Blocks:
    """The whole page, with the functions for programs."""
    with gr.Blocks(title="cyclegan", analytics_enabled=False) as blocks:
        build_api(service)  # first, for names go to who comes first, and these must stay
        gr.Markdown(HEADING, elem_id="heading")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Translate") as tab:
                build_translate_tab(service, blocks, tab)
            with gr.Tab("Stylize"):
                build_stylize_tab(service)
            with gr.Tab("Train") as tab:
                timer = build_train_tab(service, blocks, tab)
            with gr.Tab("Runs") as tab:
                build_runs_tab(service, blocks, tab)
        tabs.select(
            _watch_if_seen, None, timer, queue=False, show_progress="hidden", api_visibility="private"
        )
        # With it the page holds a line open, by whose end its temporary files are known to be over.
        blocks.unload(lambda: None)
    return blocks


def _watch_if_seen(event: gr.SelectData) -> gr.Timer:
    return gr.Timer(active=event.value == "Train")


def look_of_page() -> dict[str, Any]:
    """What ``gr.mount_gradio_app`` takes: fonts of the system alone, for others would be fetched."""
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="stone", font=SYSTEM_FONTS, font_mono=MONOSPACE, radius_size="md"
    )
    tips = json.loads((ASSETS / "tooltips.json").read_text(encoding="utf-8"))
    script = (ASSETS / "page.js").read_text(encoding="utf-8").replace("TOOLTIPS", json.dumps(tips))
    return {
        "theme": theme,
        "css": (ASSETS / "page.css").read_text(encoding="utf-8"),
        "head": f"<script>{script}</script>",
    }
