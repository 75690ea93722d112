"""Stylization for programs, under a name that stays."""

from contextlib import closing
from pathlib import Path

import gradio as gr

from cyclegan.app.service import Service, session_of, told
from cyclegan.app.stylizing import Look, stylized
from cyclegan.app.uploads import file_upload
from cyclegan.errors import BadInput


def build_stylize_api(service: Service) -> None:
    """Add the function to the page that is being built, within a column that is not shown."""
    content, style = file_upload(label="content"), file_upload(label="style")
    second = file_upload(label="second_style")
    method = gr.Textbox("fast", label="method")
    strength, blend = gr.Number(1, label="strength"), gr.Number(0.5, label="blend")
    size, steps = gr.Number(0, label="size", precision=0), gr.Number(100, label="steps", precision=0)
    file = gr.File(label="stylized")

    def stylize(
        content: Path | None,
        style: Path | None,
        second_style: Path | None,
        method: str,
        strength: float,
        blend: float,
        size: float,
        steps: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        """Give a picture the look of another one, as `cyclegan stylize` does; returns the file."""
        session = session_of(request)
        folder = service.sessions.new_folder(session)
        with told(content, style, second_style):
            if content is None or style is None:
                raise BadInput("content, style: one of them is missing")
            look = Look(method, strength, blend, int(size or 0) or None, int(steps or 0))
            wanted = lambda: service.sessions.is_open(session)  # noqa: E731
            sights = stylized(content, style, second_style, look, folder, service.limits, wanted)
            with closing(sights):
                for sight in sights:
                    if sight.done:
                        return str(sight.made)
                    progress((sight.step, sight.steps), f"steps at {sight.scale}", unit="steps")
        raise gr.Error("Stopped.", print_exception=False)

    gr.on(
        [],
        stylize,
        [content, style, second, method, strength, blend, size, steps],
        file,
        api_name="stylize",
        concurrency_limit=1,
        concurrency_id="stylize",
    )
