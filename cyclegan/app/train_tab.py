"""Train: choose pictures, a recipe and a length; watch a training, stop it, resume it."""

import html
from pathlib import Path
from typing import Any

import gradio as gr
import pandas as pd

from cyclegan.app import shown
from cyclegan.app.service import Service, told
from cyclegan.app.trainings import (
    LENGTHS,
    Plan,
    Training,
    checked_name,
    command_of,
    console_of,
    own_pictures,
    said,
)
from cyclegan.app.uploads import file_upload
from cyclegan.datasets.cards import (
    EMBEDDED_DEFAULT,
    FolderSource,
    describe_source,
    domain_folder,
    list_cards,
    load_card,
)
from cyclegan.datasets.prepare import is_prepared
from cyclegan.errors import BadInput
from cyclegan.recipes import project_files, read_yaml
from cyclegan.reporting.report import is_run
from cyclegan.reporting.report.curves import chart_data
from cyclegan.reporting.report.folder import read_run

KNOWN, OWN = "A known domain", "My own, as two zips"
SIZES = [("as the recipe says", 0), ("64", 64), ("128", 128), ("256", 256)]
DEFAULTS, QUICK = "defaults", EMBEDDED_DEFAULT
TICK_S = 2.0
CURVES = ("Adversarial", "Cycle", "Identity")
COLOURS = ("#3b82c4", "#e07b00", "#2a9d68", "#a05fd0")  # by day and by night
STATES = {
    "starting": "is starting: it loads, and prepares the pictures",
    "training": "is at work",
    "stopping": "is stopping",
    "finished": "has come to its end",
    "stopped": "was stopped; it can be resumed",
    "failed": "has failed",
}


def build_train_tab(service: Service, page: gr.Blocks, tab: gr.Tab) -> gr.Timer:
    """Add the tab's controls and what they do; returns the timer that renews them, not yet running."""
    timer = gr.Timer(TICK_S, active=False)
    with gr.Row(equal_height=False, elem_classes="sides"):
        with gr.Column(scale=5, min_width=300):
            plan = _plan()
            command = gr.HTML(elem_id="train-command")
            start = gr.Button("Start the training", variant="primary", elem_id="start-training")
        with gr.Column(scale=7, min_width=300):
            chosen = gr.Dropdown(
                [], label="Training", info="Which run to watch, stop or resume.", elem_id="training"
            )
            status = gr.HTML(elem_id="train-status")
            with gr.Row():
                stop = gr.Button("Stop", interactive=False, elem_id="stop-training")
                resume = gr.Button("Resume", interactive=False, elem_id="resume-training")
            curves, plot, legend, grid, console = _watched()
    seen = gr.State()

    def list_runs(now: str | None) -> gr.Dropdown:
        names = list(service.trainings.known())
        alive = (name for name in names if service.trainings.look(service.trainings.known()[name]).is_alive)
        chosen = now if now in names else next(alive, next(iter(names), None))
        return gr.Dropdown(names, value=chosen)

    def begin(*values: Any) -> gr.Dropdown:
        with told(*values[3:5]):
            run = service.trainings.begin(_planned(service, *values))
        return gr.Dropdown(list(service.trainings.known()), value=f"{run.parent.name}/{run.name}")

    def watch(name: str | None, which: str, seen: Any) -> tuple[Any, ...]:
        return _watch(service, name, which, seen)

    def ask_to_stop(name: str) -> None:
        with told():
            service.trainings.stop(service.trainings.run(name))

    def go_on(name: str) -> None:
        with told():
            service.trainings.resume(service.trainings.run(name))

    private = {"api_visibility": "private", "show_progress": "hidden", "queue": False}
    watched = [status, stop, resume, plot, legend, grid, console, seen]
    gr.on([page.load, tab.select], list_runs, chosen, chosen, **private)
    gr.on([page.load, *(part.change for part in plan)], _preview, plan, command, **private)
    gr.on([chosen.change, curves.change, timer.tick], watch, [chosen, curves, seen], watched, **private)
    seen_to_work = {**private, "show_progress": "minimal", "queue": True}
    start.click(begin, plan, chosen, **seen_to_work)
    for button, act in ((stop, ask_to_stop), (resume, go_on)):
        button.click(act, chosen, None, **private).then(watch, [chosen, curves, seen], watched, **private)
    return timer


def _plan() -> list[gr.components.Component]:
    """Kind, domain, name, zips of A and B, recipe, length, unit, size: in the order of ``_planned``."""
    kind = gr.Radio(
        [KNOWN, OWN],
        value=KNOWN,
        label="Pictures",
        info="A domain whose pictures are known, or two zips: pictures of one kind, and of the other.",
        elem_id="kind",
    )
    with gr.Column() as known:
        domain = gr.Dropdown(
            _domains(), value=EMBEDDED_DEFAULT, label="Domain", info="What becomes what.", elem_id="domain"
        )
        card = gr.HTML(_domain_card(EMBEDDED_DEFAULT), elem_id="domain-card")
    with gr.Column(visible=False) as own:
        name = gr.Textbox(
            label="Name",
            placeholder="cats2dogs",
            info="What to call it: letters, digits, - and _. It names the run and the folder of pictures.",
            elem_id="own-name",
        )
        with gr.Row():
            a = file_upload(label="A: zip of pictures", file_types=[".zip"], height=130, elem_id="zip-a")
            b = file_upload(
                label="B: zip of what they should become", file_types=[".zip"], height=130, elem_id="zip-b"
            )
    recipe = gr.Dropdown(
        _recipes(),
        value=DEFAULTS,
        label="Recipe",
        info="Network, losses and schedule. noto2twemoji is small and quick; the others take a GPU's hours.",
        elem_id="recipe",
    )
    with gr.Row():
        length = gr.Number(
            10, minimum=0, label="Length", info="How long to train. Longer is better.", elem_id="length"
        )
        unit = gr.Radio(
            list(LENGTHS),
            value="minutes",
            label="Counted in",
            info="A step shows one batch; an epoch all of A.",
            elem_id="unit",
        )
    size = gr.Dropdown(
        SIZES,
        value=0,
        label="Size in pixels",
        info="Of the pictures in training. Twice the size takes four times as long.",
        elem_id="train-size",
    )
    for side in (a, b):
        # It belongs to this visit from now on, however long it waits to be used.
        side.upload(lambda path: None, side, None, queue=False, api_visibility="private")
    kind.change(
        lambda kind: (
            gr.Column(visible=kind == KNOWN),
            gr.Column(visible=kind == OWN),
            DEFAULTS if kind == KNOWN else QUICK,
        ),
        kind,
        [known, own, recipe],
        queue=False,
        api_visibility="private",
    )
    domain.change(
        _domain_card,
        domain,
        card,
        queue=False,
        api_visibility="private",
    )
    return [kind, domain, name, a, b, recipe, length, unit, size]


def _watched() -> tuple[gr.Radio, gr.LinePlot, gr.HTML, gr.Image, gr.Textbox]:
    curves = gr.Radio(
        list(CURVES), value="Cycle", label="Curves", info="Which losses to draw.", elem_id="curves"
    )
    plot = gr.LinePlot(
        pd.DataFrame({"step": [], "value": [], "line": []}),
        x="step",
        y="value",
        color="line",
        height=300,
        x_title="step",
        y_title="loss",
        color_title=" ",
        label="Losses over the steps",
        elem_id="plot",
    )
    legend = gr.HTML(elem_id="legend")
    gr.HTML("<p>Held-out pictures and their translations, the newest grid:</p>")
    grid = gr.Image(
        label="The newest grid",
        show_label=False,
        interactive=False,
        type="filepath",
        elem_id="grid",
        buttons=["fullscreen"],
        alt_text="A grid of held-out pictures beside their translations",
    )
    console = gr.Textbox(
        label="What the training says",
        lines=4,
        max_lines=12,
        interactive=False,
        info="The last lines of console.log in the run's folder.",
        elem_id="console",
    )
    return curves, plot, legend, grid, console


def _planned(
    service: Service,
    kind: str,
    domain: str,
    name: str,
    a: Path | None,
    b: Path | None,
    recipe: str,
    length: float,
    unit: str,
    size: int,
) -> Plan:
    """What was chosen; own pictures are unpacked.

    Raises:
        BadInput: it cannot be trained so.
    """
    chosen = None if recipe == DEFAULTS else recipe
    if kind == KNOWN:
        return Plan(domain, chosen, length, unit, size or None)
    checked_name(name)
    service.trainings.refuse_second()
    Plan(name, chosen, length, unit, size or None, Path(), Path())  # before anything is unpacked
    folders = own_pictures(name, (a, b), service.limits)
    return Plan(name, chosen, length, unit, size or None, *folders)


def _preview(*values: Any) -> str:
    """The command that the button would start."""
    kind, domain, name, _, _, recipe, length, unit, size = values
    chosen = None if recipe == DEFAULTS else recipe
    try:
        own = kind == OWN
        folders = (Path("datasets", name or "NAME", side) if own else None for side in "AB")
        plan = Plan(name or "NAME" if own else domain, chosen, length, unit, size or None, *folders)
    except BadInput as error:
        return shown.problem(str(error))
    command = said(plan.arguments(Path("runs", plan.domain, "DATE-TIME")))
    return shown.command(command)


def _watch(service: Service, name: str | None, which: str, seen: Any) -> tuple[Any, ...]:
    """How the chosen run stands; what has not changed since ``seen`` is left as it is."""
    if not name:
        nothing = "<p>No training yet. Choose pictures and a length, and start one.</p>"
        off = gr.Button(interactive=False)
        return nothing, off, off, gr.skip(), "", None, gr.Textbox("", visible=False), None
    with told():
        run = service.trainings.run(name)
        training = service.trainings.look(run)
    samples = sorted(run.glob("samples/*.png"))
    newest = samples[-1] if samples else None
    metrics = run / "metrics.jsonl"
    drawn = (name, which, metrics.stat().st_size if metrics.is_file() else 0)
    pictured = (name, str(newest))
    before = seen or (None, None)
    console = console_of(run)  # of trainings from the page; others have said theirs elsewhere
    return (
        _status(run, training),
        gr.Button(interactive=training.is_alive and training.state != "stopping"),
        gr.Button(interactive=training.state in ("stopped", "failed") and is_run(run)),
        *((gr.skip(), gr.skip()) if before[0] == drawn else _curves(run, which)),
        gr.skip() if before[1] == pictured else (newest and str(newest)),
        gr.Textbox(console, visible=bool(console)),
        (drawn, pictured),
    )


def _status(run: Path, training: Training) -> str:
    name = f"{run.parent.name}/{run.name}"
    words = f"<p><b>{html.escape(name)}</b> {STATES[training.state]}.</p>"
    if training.says and training.state != "finished":
        words += shown.problem(training.says)
    try:
        about = read_run(run) if is_run(run) else None
    except BadInput as error:
        return words + shown.problem(str(error))
    if about is not None:
        done = about.about.done if about.about is not None else 0.0
        share = 1.0 if training.state == "finished" else done
        words += f'<progress value="{share:.3f}" aria-label="share of the training that is done"></progress>'
        speed = about.metrics[-1].get("images_per_s") if about.metrics else None
        facts = [f"step {about.step:,}", f"{about.images_seen:,} pictures of A seen"]
        facts += [f"{speed:.3g} pictures a second"] if speed else []
        words += f"<p>{', '.join(facts)}.</p>"
    command = command_of(run)
    if command:
        words += shown.command(command)
    return words


def _curves(run: Path, which: str) -> tuple[gr.LinePlot, str]:
    """The losses of one group, and which colour is which; gradio's own legend falls off the plot's edge."""
    drawn = chart_data(read_run(run).metrics) if is_run(run) else {"groups": [], "steps": []}
    lines = [line for group in drawn["groups"] if group["title"] == which for line in group["lines"]]
    points = [
        {"step": step, "value": value, "line": line["name"]}
        for line in lines
        for step, value in zip(drawn["steps"], line["values"], strict=True)
        if value is not None
    ]
    colours = {line["name"]: COLOURS[i % len(COLOURS)] for i, line in enumerate(lines)}
    legend = "".join(
        f'<span class="key"><i style="background: {colour}"></i>{html.escape(name)}</span>'
        for name, colour in colours.items()
    )
    table = pd.DataFrame(points, columns=["step", "value", "line"])
    return gr.LinePlot(table, color_map=colours), f"<p>{legend}</p>"


def _domains() -> list[tuple[str, str]]:
    return [(f"{name}: {load_card(name).title}", name) for name in sorted(list_cards())]


def _recipes() -> list[tuple[str, str]]:
    """Those of known domains; templates that name folders of their own have no place here."""
    names = [name for name, path in project_files("experiments").items() if "data" not in read_yaml(path)]
    return [("the domain's own, else as in the paper", DEFAULTS), *((name, name) for name in sorted(names))]


def _domain_card(name: str) -> str:
    card = load_card(name)
    if is_prepared(domain_folder(name)):
        where = "on this machine"
    elif isinstance(card.source, FolderSource):
        where = f"to be put into {domain_folder(name)} by hand: {card.source.instructions.strip()}"
    else:
        where = f"fetched at the start of the training, {describe_source(card)}"
    rows = {
        "A": f"{card.a.title}. Licence: {card.a.licence}",
        "B": f"{card.b.title}. Licence: {card.b.licence}",
        "Pictures": where,
    }
    return f'<div class="card">{shown.rows(rows)}</div>'
