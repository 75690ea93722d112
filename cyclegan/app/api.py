"""For programs: gradio's HTTP API under names that stay. docs/app.md describes each with an example."""

from pathlib import Path
from typing import Any

import gradio as gr

from cyclegan.app.limits import gather
from cyclegan.app.service import AT_ONCE, Service, session_of, teller, told
from cyclegan.app.stylize_api import build_stylize_api
from cyclegan.app.translating import TILINGS, Wish, remove
from cyclegan.app.uploads import file_upload, files_upload
from cyclegan.errors import BadInput


def build_api(service: Service) -> None:
    """Add the functions to the page that is being built; none of their components is shown."""
    with gr.Column(visible=False):
        names = gr.JSON(label="generators")
        picture, pictures = file_upload(label="picture"), files_upload(label="pictures")
        generator = gr.Textbox(label="generator")
        size = gr.Number(0, label="size", precision=0)
        tiling = gr.Textbox("auto", label="tiling")
        format = gr.Textbox("same", label="format")
        quality = gr.Number(95, label="quality", precision=0)
        file, failed = gr.File(label="translation"), gr.JSON(label="failed")
        files = gr.File(label="translations", file_count="multiple")
        wish = [size, tiling, format, quality]
        build_stylize_api(service)

    def list_generators() -> list[dict[str, Any]]:
        """The generators that are offered: name, domain, direction, licences of their training images."""
        return [offered.facts() for offered in service.shelf.generators().values()]

    def translate(
        picture: Path | None,
        generator: str,
        size: float,
        tiling: str,
        format: str,
        quality: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how gradio asks for it
    ) -> str:
        """Translate one picture, as `cyclegan translate` does; returns the file."""
        session = session_of(request)
        folder = service.sessions.new_folder(session)
        with told(picture):
            try:
                if picture is None:
                    raise BadInput("picture: is missing")
                work = service.translating(
                    generator, _wish(size, tiling, format, quality), session, seen=False
                )
                return str(work.one(picture, picture.name, folder, teller(progress)).target)
            except BaseException:
                remove(folder)
                raise

    def translate_many(
        pictures: list[Path] | None,
        generator: str,
        size: float,
        tiling: str,
        format: str,
        quality: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[list[str], dict[str, str]]:
        """Translate pictures, or zips of them; returns the files, and why others could not be, by name."""
        session = session_of(request)
        folder = service.sessions.new_folder(session)
        with told(*(pictures or [])):
            try:
                found = gather(pictures or [], folder / "unpacked", service.limits)
                work = service.translating(
                    generator, _wish(size, tiling, format, quality), session, seen=False
                )
                done = []
                for each in work.many(found, folder):
                    done.append(each)
                    progress((len(done), len(found)), "translated", unit="pictures")
                remove(folder / "unpacked")
            except BaseException:
                remove(folder)
                raise
        written = [str(each.target) for each in done if each.target is not None]
        return written, {each.name: each.error for each in done if each.error is not None}

    gr.on([], list_generators, None, names, api_name="list_generators", queue=False)
    shared = {"concurrency_limit": AT_ONCE, "concurrency_id": "translate"}
    gr.on([], translate, [picture, generator, *wish], file, api_name="translate", **shared)
    gr.on(
        [], translate_many, [pictures, generator, *wish], [files, failed], api_name="translate_many", **shared
    )


def _wish(size: float, tiling: str, format: str, quality: float) -> Wish:
    """The options of a request; size 0 is the picture's own, format ``same`` likewise.

    Raises:
        BadInput: a value that cannot be.
    """
    if tiling not in TILINGS:
        raise BadInput(f"tiling: must be {', '.join(TILINGS)}, not {tiling}")
    return Wish(int(size or 0) or None, tiling, None if format == "same" else format, int(quality or 0))
