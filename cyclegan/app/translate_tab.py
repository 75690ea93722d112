"""Translate: one picture with a slider between before and after, or many at once."""

import html
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from cyclegan.app import shown
from cyclegan.app.limits import check_picture, gather, refuse_large
from cyclegan.app.offered import EXAMPLES
from cyclegan.app.service import AT_ONCE, TELLING, Service, session_of, teller, told
from cyclegan.app.translating import Done, Wish, remove, zipped
from cyclegan.app.uploads import files_upload, picture_upload
from cyclegan.errors import BadInput

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
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
NOTHING = "There is no generator yet: train one in the tab Train, or name one when you start the page."


@dataclass(frozen=True)
class Results:
    """The side of the page where translations appear."""

    one: gr.Column
    slider: gr.HTML
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
            generator = _generators(service, page, tab)
            with gr.Tabs(elem_id="how-many"):
                with gr.Tab("One picture"):
                    picture, go = _one_picture()
                    _examples(service, generator, picture)
                with gr.Tab("Many, or a zip"):
                    pictures, go_many, stop = _many_pictures()
            wish = _settings()
        with gr.Column(scale=7, min_width=300):
            results = _results()
    _translates_one(service, go, picture, generator, wish, results)
    _translates_many(service, go_many, stop, pictures, generator, wish, results)


def _generators(service: Service, page: gr.Blocks, tab: gr.Tab) -> gr.Dropdown:
    """Those that are offered, to choose by name or by thumbnail."""
    generator = gr.Dropdown(
        [],
        label="Generator",
        info="What translates: whose training made it, and which pictures become which.",
        elem_id="generator",
    )
    card = gr.HTML(elem_id="generator-card")
    with gr.Accordion("All generators, by picture", open=False, elem_id="all-generators"):
        shelf = gr.Gallery(
            show_label=False,
            columns=3,
            allow_preview=False,
            interactive=False,
            object_fit="contain",
            elem_id="shelf",
            buttons=[],
        )

    def offer(now: str | None) -> tuple[gr.Dropdown, list[tuple[str, str]]]:
        offered = service.shelf.generators()
        chosen = now if now in offered else next(iter(offered), None)
        pictures = [(str(service.face(each)), f"{each.title}. {each.licence}") for each in offered.values()]
        return gr.Dropdown([(each.title, name) for name, each in offered.items()], value=chosen), pictures

    def show(name: str | None) -> str:
        if not name:
            return f"<p>{NOTHING}</p>"
        with told():
            offered = service.shelf.generator(name)
        return shown.card(offered, dict(zip(("before", "after"), service.thumbnail(offered), strict=True)))

    def choose(event: gr.SelectData) -> str:
        names = list(service.shelf.generators())
        with told():
            if not 0 <= event.index < len(names):
                raise BadInput("this generator is not offered any more; load the page again")
            return names[event.index]

    offering = gr.on([page.load, tab.select], offer, generator, [generator, shelf], queue=False, **PRIVATE)
    offering.then(show, generator, card, queue=False, **PRIVATE)
    generator.change(show, generator, card, queue=False, **PRIVATE)
    shelf.select(choose, None, generator, **TELLING)
    return generator


def _examples(service: Service, generator: gr.Dropdown, picture: gr.Image) -> None:
    """The generator's held-out pictures; one that is chosen becomes the picture."""
    say = gr.HTML(
        "<p>Or try a held-out picture, which its training has not seen:</p>", elem_id="examples-say"
    )
    examples = gr.Gallery(
        show_label=False,
        columns=EXAMPLES,
        height=96,
        allow_preview=False,
        interactive=False,
        object_fit="contain",
        elem_id="examples",
        buttons=[],
    )

    def show(name: str | None) -> tuple[gr.Gallery, gr.HTML]:
        pictures = []
        if name:
            with told():
                offered = service.shelf.generator(name)
            count = len(service.shelf.examples(offered))
            pictures = [str(path) for path in (service.example(offered, i) for i in range(count)) if path]
        return gr.Gallery(pictures, visible=bool(pictures)), gr.HTML(visible=bool(pictures))

    def take(name: str, event: gr.SelectData, request: gr.Request) -> str:
        """The picture as it lies there, copied to where the visitor's own are."""
        with told():
            found = service.shelf.examples(service.shelf.generator(name))
            if not 0 <= event.index < len(found):
                raise BadInput("this picture is not offered any more; choose the generator again")
            source = found[event.index]
            folder = service.sessions.new_folder(session_of(request))
            return shutil.copy(source, folder / source.name)

    generator.change(show, generator, [examples, say], queue=False, **PRIVATE)
    examples.select(take, generator, picture, **TELLING)


def _one_picture() -> tuple[gr.Image, gr.Button]:
    picture = picture_upload(label="Picture", height=280, elem_id="picture", buttons=["fullscreen"])
    go = gr.Button("Translate", variant="primary", elem_id="translate-one")
    return picture, go


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
        slider = gr.HTML("<p>The translation will be here.</p>", elem_id="slider")
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
        files = gr.File(
            label="Single files", file_count="multiple", interactive=False, height=220, elem_id="files"
        )
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
            shown.slider(done.before, done.after),
            gr.DownloadButton("Download " + done.target.name, value=str(done.target), interactive=True),
            shown.label(done.target),
            gr.Column(visible=False),
        )

    def look(source: Path | None) -> None:
        """Say at once what cannot be; the file now belongs to this visit, however long it waits."""
        if source is not None:
            with told(source):
                check_picture(source, service.limits)

    picture.input(look, picture, None, **TELLING)
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
                visit = service.sessions.visit(session)
                visit.stop = False
                told_at = time.monotonic()
                with closing(work.many(found, folder)) as translated:
                    for each in translated:
                        done.append(each)
                        progress((len(done), len(found)), "translated", unit="pictures")
                        if visit.stop:
                            break
                        if time.monotonic() - told_at > EVERY_S:
                            told_at = time.monotonic()
                            yield _so_far(done, len(found))
            except BaseException:
                remove(folder)
                raise
        remove(folder / "unpacked")
        written = [each for each in done if each.target is not None]
        archive = zipped(written, folder / "translated.zip") if written else None
        *so_far, _, _ = _so_far(done, len(found))
        yield (
            *so_far,
            gr.DownloadButton(value=archive and str(archive), interactive=archive is not None),
            [str(each.target) for each in written],
        )

    def look(sources: list[Path] | None) -> None:
        for source in sources or []:
            with told(source):
                refuse_large(source, service.limits)

    pictures.upload(look, pictures, None, **TELLING)
    outputs = [results.one, results.many, results.gallery, results.said, results.download_all, results.files]

    def ask_to_stop(request: gr.Request) -> None:
        service.sessions.visit(session_of(request)).stop = True

    go.click(
        translate,
        [pictures, generator, *wish],
        outputs,
        api_visibility="private",
        concurrency_limit=AT_ONCE,
        concurrency_id="translate",
        show_progress_on=[results.gallery],
    )
    stop.click(ask_to_stop, queue=False, **PRIVATE)


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
