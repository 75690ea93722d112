"""Stylize: a picture in the look of another one, or of two, fast or step by step before one's eyes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from cyclegan.app import shown
from cyclegan.app.limits import check_picture
from cyclegan.app.service import TELLING, Service, session_of, told
from cyclegan.app.stylizing import Look, before_and_after, copy_of, stylized
from cyclegan.app.uploads import picture_upload
from cyclegan.errors import BadInput

METHODS = [("fast: one pass, seconds", "fast"), ("by optimization: step by step, minutes", "optimize")]
SIZES = [("its own size", 0), ("256", 256), ("384", 384), ("512", 512), ("768", 768)]
PRIVATE = {"api_visibility": "private"}


def build_stylize_tab(service: Service) -> None:
    """Add the tab's controls and what they do."""
    with gr.Row(equal_height=False, elem_classes="sides"):
        with gr.Column(scale=5, min_width=300):
            content = picture_upload(label="Picture", height=220, elem_id="content", buttons=[])
            with gr.Row():
                style = picture_upload(label="Style", height=170, elem_id="style", buttons=[])
                second = picture_upload(label="Second style", height=170, elem_id="second-style", buttons=[])
            look = _look()
            with gr.Row():
                go = gr.Button("Stylize", variant="primary", elem_id="stylize-go")
                stop = gr.Button("Stop", elem_id="stylize-stop")
        with gr.Column(scale=7, min_width=300):
            state = gr.HTML("<p>The picture in its new look will be here.</p>", elem_id="stylize-state")
            at_work = gr.Image(
                show_label=False,
                visible=False,
                interactive=False,
                type="filepath",
                elem_id="at-work",
                buttons=["fullscreen"],
                alt_text="The picture as it is at this step",
            )
            slider = gr.HTML(elem_id="stylize-slider")
            download = gr.DownloadButton("Download", interactive=False, elem_id="stylize-download")
            label = gr.HTML(elem_id="stylize-label")

    def stylize(
        content: Path | None,
        style: Path | None,
        second: Path | None,
        method: str,
        strength: float,
        blend: float,
        size: int,
        steps: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how gradio asks for it
    ) -> Iterator[tuple[Any, ...]]:
        session = session_of(request)
        folder = service.sessions.new_folder(session)
        with told(content, style, second):
            if content is None or style is None:
                raise BadInput("choose a picture and a style first")
            look = Look(method, strength, blend, size or None, int(steps))
            progress(None, "starting")
            wanted = lambda: service.sessions.is_open(session)  # noqa: E731
            sights = stylized(content, style, second, look, folder, service.limits, wanted)
            with closing(sights):
                for number, sight in enumerate(sights):
                    if sight.done:
                        yield _finished(content, sight.made, folder, service)
                        return
                    progress((sight.step, sight.steps), f"steps at {sight.scale}", unit="steps")
                    if sight.made is not None:
                        yield _at_work(copy_of(sight.made, folder, number), sight.step, sight.steps)

    def look_at(source: Path | None) -> None:
        if source is not None:
            with told(source):
                check_picture(source, service.limits)

    for picture in (content, style, second):
        picture.input(look_at, picture, None, **TELLING)
    event = go.click(
        stylize,
        [content, style, second, *look],
        [state, at_work, slider, download, label],
        concurrency_limit=1,
        concurrency_id="stylize",
        show_progress_on=[state],
        **PRIVATE,
    )
    stop.click(None, cancels=[event], **PRIVATE)


def _look() -> list[gr.components.Component]:
    """Method, strength, blend, size, steps."""
    method = gr.Radio(
        METHODS,
        value="fast",
        label="Method",
        info="Fast is a network made for any style; optimization follows the style closer.",
        elem_id="method",
    )
    with gr.Row():
        strength = gr.Slider(
            0.05,
            1,
            value=1,
            step=0.05,
            label="Strength",
            info="How much of the style: 1 is all of it.",
            elem_id="strength",
        )
        blend = gr.Slider(
            0,
            1,
            value=0.5,
            step=0.05,
            label="Blend",
            info="The second style's share, where there is one.",
            elem_id="blend",
        )
    with gr.Row():
        size = gr.Dropdown(
            SIZES,
            value=384,
            label="Longer side",
            info="In pixels while it is computed; it comes back at its own size.",
            elem_id="stylize-size",
        )
        steps = gr.Slider(
            10,
            400,
            value=100,
            step=10,
            label="Steps",
            info="Of the optimization; more follow the style closer.",
            elem_id="steps",
        )
    return [method, strength, blend, size, steps]


def _at_work(picture: Path, step: int, steps: int) -> tuple[Any, ...]:
    return (
        f"<p>Step {step} of {steps}. Stop keeps it as it is.</p>",
        gr.Image(str(picture), visible=True),
        "",
        gr.DownloadButton("Download as it is now", value=str(picture), interactive=True),
        "",
    )


def _finished(content: Path, made: Path, folder: Path, service: Service) -> tuple[Any, ...]:
    before, after = before_and_after(content, made, folder, service.limits)
    return (
        "",
        gr.Image(None, visible=False),
        shown.slider(before, after),
        gr.DownloadButton("Download " + made.name, value=str(made), interactive=True),
        shown.label(made),
    )
