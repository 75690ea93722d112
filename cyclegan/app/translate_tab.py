"""Translate: one picture with a slider between before and after, or many at once."""

import base64
import html
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from cyclegan.app.limits import gather
from cyclegan.app.offered import Offered
from cyclegan.app.service import AT_ONCE, Service, session_of, teller, told
from cyclegan.app.translating import Done, Wish, remove, zipped
from cyclegan.app.uploads import files_upload, picture_upload
from cyclegan.errors import BadInput
from cyclegan.translation.inspection import inspect_file

SIZES = [("its own size", 0), ("128", 128), ("256", 256), ("512", 512), ("1024", 1024)]
CUTS = [
    ("only what memory cannot hold", "auto"),
    ("always, exact: as if translated whole", "exact"),
    ("always, dense: statistics shared by all tiles", "dense"),
    ("always, naive: fastest, seams may show", "naive"),
    ("never", "off"),
]
FORMATS = [("the picture's own", ""), ("JPEG", "jpg"), ("PNG", "png"), ("WebP", "webp"), ("TIFF", "tiff")]
IN_GALLERY = 60  # pictures shown; all are in the zip
EVERY_S = 1.0
NOTHING = "There is no generator yet: train one in the tab Train, or name one when you start the page."


@dataclass(frozen=True)
class Results:
    """The side of the page where translations appear."""

    one: gr.Column
    slider: gr.ImageSlider
    download: gr.DownloadButton
    label: gr.HTML
    many: gr.Column
    gallery: gr.Gallery
    download_all: gr.DownloadButton
    said: gr.HTML
    files: gr.File


def build_translate_tab(service: Service, page: gr.Blocks, tab: gr.Tab) -> None:
    """Add the tab's controls and what they do."""
    with gr.Row(equal_height=False, elem_classes="sides"):
        with gr.Column(scale=5, min_width=300):
            generator = _choice_of_generator()
            card = gr.HTML(elem_id="generator-card")
            with gr.Tabs(elem_id="how-many"):
                with gr.Tab("One picture"):
                    picture, examples, go = _one_picture()
                with gr.Tab("Many, or a zip"):
                    pictures, go_many, stop = _many_pictures()
            wish = _settings()
        with gr.Column(scale=7, min_width=300):
            results = _results()

    def offer(now: str | None) -> gr.Dropdown:
        offered = service.shelf.generators()
        chosen = now if now in offered else next(iter(offered), None)
        return gr.Dropdown([(each.title, name) for name, each in offered.items()], value=chosen)

    def show(name: str | None) -> tuple[str, gr.Gallery]:
        if not name:
            return f"<p>{NOTHING}</p>", gr.Gallery([], visible=False)
        with told():
            offered = service.shelf.generator(name)
        count = len(service.shelf.examples(offered))
        shown = [str(path) for path in (service.example(offered, i) for i in range(count)) if path]
        return _card(service, offered), gr.Gallery(shown, visible=bool(shown))

    def take(name: str, event: gr.SelectData, request: gr.Request) -> str:
        """A held-out picture as it lies there, copied to where the visitor's own are."""
        with told():
            found = service.shelf.examples(service.shelf.generator(name))
            if not 0 <= event.index < len(found):
                raise BadInput("this picture is not offered any more; choose the generator again")
            source = found[event.index]
            folder = service.sessions.new_folder(session_of(request))
            return shutil.copy(source, folder / source.name)

    private = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on([page.load, tab.select], offer, generator, generator, queue=False, **private)
    generator.change(show, generator, [card, examples], **private)
    examples.select(take, generator, picture, queue=False, **private)
    _translates_one(service, go, picture, generator, wish, results)
    _translates_many(service, go_many, stop, pictures, generator, wish, results)


def _choice_of_generator() -> gr.Dropdown:
    return gr.Dropdown(
        [],
        label="Generator",
        info="What translates: which pictures become which, and whose training made it.",
        elem_id="generator",
    )


def _one_picture() -> tuple[gr.Image, gr.Gallery, gr.Button]:
    picture = picture_upload(label="Picture", height=280, elem_id="picture", buttons=["fullscreen"])
    go = gr.Button("Translate", variant="primary", elem_id="translate-one")
    examples = gr.Gallery(
        label="Held-out pictures to try",
        columns=6,
        height=120,
        allow_preview=False,
        interactive=False,
        object_fit="contain",
        elem_id="examples",
        buttons=[],
    )
    return picture, examples, go


def _many_pictures() -> tuple[gr.File, gr.Button, gr.Button]:
    pictures = files_upload(label="Pictures, or zips of them", height=200, elem_id="pictures")
    with gr.Row():
        go = gr.Button("Translate all", variant="primary", elem_id="translate-many")
        stop = gr.Button("Stop", elem_id="stop-many")
    return pictures, go, stop


def _settings() -> list[gr.components.Component]:
    """Size, tiles, format, quality: in the order of ``_wish``."""
    with gr.Accordion("Size, tiles and format", open=False, elem_id="settings"):
        size = gr.Dropdown(
            SIZES,
            value=0,
            label="Size",
            info="Side in pixels at which it is translated; it comes back at its own size.",
            elem_id="size",
        )
        tiling = gr.Dropdown(
            CUTS,
            value="auto",
            label="Tiles",
            info="Whether large pictures are cut into pieces and put together again.",
            elem_id="tiling",
        )
        format = gr.Dropdown(
            FORMATS, value="", label="Format", info="Of the file that you download.", elem_id="format"
        )
        quality = gr.Slider(
            1,
            100,
            value=95,
            step=1,
            label="Quality",
            info="Of JPEG and WebP: higher is closer and larger.",
            elem_id="quality",
        )
    return [size, tiling, format, quality]


def _results() -> Results:
    with gr.Column() as one:
        slider = gr.ImageSlider(
            label="Before and after: drag the line",
            type="filepath",
            interactive=False,
            elem_id="slider",
            buttons=["fullscreen"],
            max_height=560,
        )
        download = gr.DownloadButton("Download the translation", interactive=False, elem_id="download-one")
        label = gr.HTML(elem_id="label")
    with gr.Column(visible=False) as many:
        gallery = gr.Gallery(
            label="Translations",
            columns=4,
            height=420,
            object_fit="contain",
            interactive=False,
            elem_id="gallery",
            buttons=["fullscreen"],
        )
        download_all = gr.DownloadButton("Download all (zip)", interactive=False, elem_id="download-all")
        said = gr.HTML(elem_id="many-said")
        files = gr.File(label="Single files", file_count="multiple", interactive=False, elem_id="files")
    return Results(one, slider, download, label, many, gallery, download_all, said, files)


def _translates_one(
    service: Service,
    go: gr.Button,
    picture: gr.Image,
    generator: gr.Dropdown,
    wish: Sequence[gr.components.Component],
    results: Results,
) -> None:
    def translate(
        source: Path | None,
        name: str,
        size: int,
        tiling: str,
        format: str,
        quality: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how gradio asks for it
    ) -> tuple[Any, ...]:
        session = session_of(request)
        folder = service.sessions.new_folder(session)
        with told(source):
            try:
                if source is None:
                    raise BadInput("choose a picture first")
                work = service.translating(name, _wish(size, tiling, format, quality), session)
                done = work.one(source, source.name, folder, teller(progress))
            except BaseException:
                remove(folder)
                raise
        return (
            gr.Column(visible=True),
            (str(done.before), str(done.after)),
            gr.DownloadButton("Download " + done.target.name, value=str(done.target), interactive=True),
            _label(done.target),
            gr.Column(visible=False),
        )

    outputs = [results.one, results.slider, results.download, results.label, results.many]
    go.click(
        translate,
        [picture, generator, *wish],
        outputs,
        api_visibility="private",
        concurrency_limit=AT_ONCE,
        concurrency_id="translate",
        show_progress_on=[results.slider],
    )


def _translates_many(
    service: Service,
    go: gr.Button,
    stop: gr.Button,
    pictures: gr.File,
    generator: gr.Dropdown,
    wish: Sequence[gr.components.Component],
    results: Results,
) -> None:
    def translate(
        sources: list[Path] | None,
        name: str,
        size: int,
        tiling: str,
        format: str,
        quality: int,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple[Any, ...]]:
        session = session_of(request)
        folder = service.sessions.new_folder(session)
        done: list[Done] = []
        with told(*(sources or [])):
            try:
                found = gather(sources or [], folder / "unpacked", service.limits)
                work = service.translating(name, _wish(size, tiling, format, quality), session)
                shown = time.monotonic()
                for each in work.many(found, folder):
                    done.append(each)
                    progress((len(done), len(found)), "translated", unit="pictures")
                    if time.monotonic() - shown > EVERY_S:
                        shown = time.monotonic()
                        yield _so_far(done, len(found))
            except BaseException:
                remove(folder)
                raise
        remove(folder / "unpacked")
        written = [each for each in done if each.target is not None]
        archive = zipped(written, folder / "translated.zip") if written else None
        *shown, _, _ = _so_far(done, len(found))
        yield (
            *shown,
            gr.DownloadButton(value=archive and str(archive), interactive=archive is not None),
            [str(each.target) for each in written],
        )

    outputs = [results.one, results.many, results.gallery, results.said, results.download_all, results.files]
    event = go.click(
        translate,
        [pictures, generator, *wish],
        outputs,
        api_visibility="private",
        concurrency_limit=AT_ONCE,
        concurrency_id="translate",
        show_progress_on=[results.gallery],
    )
    stop.click(None, cancels=[event], api_visibility="private")


def _so_far(done: Sequence[Done], count: int) -> tuple[Any, ...]:
    """The results' side while a batch is at work: what is there, what could not be."""
    pictures = [(str(each.after), each.name) for each in done if each.after is not None]
    failed = [each for each in done if each.error is not None]
    words = f"<p>Translated {len(done) - len(failed)} of {count}.</p>"
    if len(pictures) > IN_GALLERY:
        words += f"<p>The first {IN_GALLERY} are shown; the zip has all of them.</p>"
    if failed:
        lines = "".join(f"<li>{html.escape(each.error)}</li>" for each in failed)
        words += f"<p>{len(failed)} could not be:</p><ul>{lines}</ul>"
    return (
        gr.Column(visible=False),
        gr.Column(visible=True),
        pictures[:IN_GALLERY],
        words,
        gr.DownloadButton(interactive=False),
        None,
    )


def _wish(size: int, tiling: str, format: str, quality: int) -> Wish:
    return Wish(size or None, tiling, format or None, int(quality))


def _card(service: Service, offered: Offered) -> str:
    """A generator in a few lines: thumbnails, domain, licence."""
    config = offered.config
    pictures = ""
    for path, says in zip(service.thumbnail(offered), ("before", "after"), strict=True):
        if path is not None:
            code = base64.b64encode(path.read_bytes()).decode()
            alt = f"{config.source}: a held-out picture, {says}"
            pictures += f'<img src="data:image/png;base64,{code}" alt="{html.escape(alt)}">'
    trained = "" if config.steps is None else f"{config.steps:,} steps; "
    facts = {
        "Domain": f"{config.domain}, {config.direction}",
        "Trained": f"{trained}at {config.size} px" if config.size else "at a size that is not known",
        "Licence of its training pictures": offered.licence,
    }
    rows = "".join(f"<dt>{key}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items())
    return f'<div class="card"><div class="thumbs">{pictures}</div><dl>{rows}</dl></div>'


def _label(path: Path) -> str:
    """What the file says of itself, read back from it as `cyclegan inspect` reads it."""
    label = inspect_file(path).label
    if label is None:
        return "<p>This format has no place for a label; the file does not say that a machine made it.</p>"
    kind = label.get("digital_source_type", "").rsplit("/", 1)[-1]
    licences = "; ".join(f"{side}: {words}" for side, words in label.get("licences", {}).items())
    facts = {
        "Made by": f"a machine ({kind}), {label.get('source')} to {label.get('target')}",
        "Generator": f"{label.get('domain')} {label.get('direction')}, "
        f"sha256 {str(label.get('generator_sha256'))[:12]}…",
        "Trained on": licences,
    }
    rows = "".join(f"<dt>{key}</dt><dd>{html.escape(value)}</dd>" for key, value in facts.items())
    return f'<div class="card"><p>The file says of itself:</p><dl>{rows}</dl></div>'
