"""Runs: each with its figures between doing nothing and the best possible, its report, and its commands."""

import html
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from cyclegan.app.service import TELLING, Service, session_of, told
from cyclegan.app.shown import frame
from cyclegan.app.trainings import said
from cyclegan.errors import BadInput, Failed
from cyclegan.reporting.report.figures import Figure, newest, shown
from cyclegan.reporting.report.folder import RunFolder, read_run
from cyclegan.reporting.report.page import REPORT, commands, standing

COMPARED = "compare.html"
MOST_COMPARED = 6
WORK_S = 3600.0  # a judgement on a slow machine; whoever waits longer uses the command itself
HEADINGS = ("metric", "value", "doing nothing", "best possible", "of the way")


def build_runs_tab(service: Service, page: gr.Blocks, tab: gr.Tab) -> None:
    """Add the tab's controls and what they do."""
    run = gr.Dropdown([], label="Run", info="Which training to look at.", elem_id="run")
    about = gr.HTML(elem_id="run-about")
    with gr.Row():
        judge = gr.Button("Judge on held-out pictures", elem_id="judge")
        again = gr.Button("Make the report anew", elem_id="report-anew")
    what = gr.HTML(elem_id="run-commands")
    output = gr.Textbox(
        label="What the command says",
        info="The last lines of the command whose button you pressed.",
        lines=3,
        max_lines=16,
        interactive=False,
        visible=False,
        elem_id="run-output",
    )
    report = gr.HTML(elem_id="report")
    with gr.Accordion("Compare runs side by side", open=False, elem_id="compare"):
        several = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=MOST_COMPARED,
            label="Runs",
            info="Two or more of one domain: settings that differ, figures, the same pictures by each.",
            elem_id="compared",
        )
        compare = gr.Button("Compare", elem_id="compare-runs")
        compare_command = gr.HTML(elem_id="compare-command")
        comparison = gr.HTML(elem_id="comparison")

    def list_runs(now: str | None, chosen: list[str] | None) -> tuple[gr.Dropdown, gr.Dropdown]:
        names = list(service.shelf.runs())
        kept = [name for name in chosen or [] if name in names]
        first = now if now in names else next(iter(names), None)
        return gr.Dropdown(names, value=first), gr.Dropdown(names, value=kept)

    def show(name: str | None) -> tuple[str, str, str]:
        if not name:
            return "<p>No run yet: train one in the tab Train.</p>", "", ""
        with told():
            folder = service.shelf.run(name)
            found = read_run(folder)
        return _about(found), _commands(found), _report(name, folder)

    def command(verb: str, name: str) -> tuple[gr.Textbox, str, str, str]:
        with told():
            text = _run_command([verb, str(service.shelf.run(name))])
        return gr.Textbox(text, visible=True), *show(name)

    def compared(names: list[str], request: gr.Request) -> str:
        with told():
            arguments = _compared(service, names)
            folder = service.sessions.new_folder(session_of(request))
            _run_command(["compare", *arguments, "--output", str(folder)])
        token = folder.relative_to(service.sessions.root).as_posix()
        return frame(f"comparison/{token}", "The comparison of the runs")

    def preview(names: list[str]) -> str:
        if len(names or []) < 2:
            return ""
        with told():
            return _command_line("It runs", said(_compared(service, names), "compare"))

    private = {"api_visibility": "private", "show_progress": "hidden"}
    shows = [about, what, report]
    gr.on([page.load, tab.select], list_runs, [run, several], [run, several], queue=False, **private)
    gr.on([run.change, tab.select], show, run, shows, queue=False, **private)
    several.change(preview, several, compare_command, **TELLING)
    at_work = {"api_visibility": "private", "concurrency_limit": 1, "concurrency_id": "commands"}
    for button, verb in ((judge, "evaluate"), (again, "report")):
        button.click(
            lambda name, verb=verb: command(verb, name),
            run,
            [output, *shows],
            show_progress_on=[about],
            **at_work,
        )
    compare.click(compared, several, comparison, **at_work)


def _run_command(arguments: Sequence[str]) -> str:
    """What a command prints, run as one would type it.

    Raises:
        BadInput, Failed: it says so.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cyclegan", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=WORK_S,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(
            f"cyclegan {arguments[0]}: has not come to its end in {WORK_S / 60:.0f} minutes"
        ) from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise BadInput(lines[-1] if lines else f"cyclegan {arguments[0]}: ended with {done.returncode}")
    return done.stdout.strip()


def _compared(service: Service, names: Sequence[str] | None) -> list[str]:
    if len(names or []) < 2:
        raise BadInput("choose two runs or more")
    return [str(service.shelf.run(name)) for name in names]


def _about(run: RunFolder) -> str:
    state = standing(run)
    titles = run.titles
    words = (
        f"<p><b>{html.escape(titles['A'])} ↔ {html.escape(titles['B'])}</b>, {html.escape(state['word'])}. "
    )
    words += f"{run.step:,} steps, {run.images_seen:,} pictures of A seen.</p>"
    judged = newest(run.evaluations)
    if not judged:
        return words + "<p>Not judged yet.</p>"
    for each in judged:
        head = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
        rows = "".join(map(_row, each.told))
        words += (
            f'<div class="wide" tabindex="0"><table><caption>{each.direction}, at step {each.step}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        )
    return words


def _row(figure: Figure) -> str:
    cells = [shown(figure.value), shown(figure.inputs), shown(figure.floor), figure.percent or "–"]
    verdict = f"<small>{html.escape(figure.verdict or figure.meaning)}</small>"
    name = html.escape(figure.name).replace("_", "_<wbr>")
    return f'<tr><th scope="row">{name}{verdict}</th>' + "".join(f"<td>{c}</td>" for c in cells) + "</tr>"


def _commands(run: RunFolder) -> str:
    lines = "".join(_command_line(says, line) for says, line in commands(run))
    return f"<details><summary>What one would type</summary><dl>{lines}</dl></details>"


def _command_line(says: str, line: str) -> str:
    return f"<dt>{html.escape(says)}</dt><dd><pre>{html.escape(line)}</pre></dd>"


def _report(name: str, folder: Path) -> str:
    if not (folder / REPORT).is_file():
        return "<p>No report yet; the button above makes one.</p>"
    return frame(f"report/{name}", f"The report of {name}")
