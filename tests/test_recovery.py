"""Going back: what is waited for, what goes back with the weights, and who is told."""

import json
import threading
from dataclasses import replace

import pytest
from poison import poison
from test_judging import QuickJudge, lines

from cyclegan.cli import main
from cyclegan.recipes import to_yaml
from cyclegan.training import judging, loop
from cyclegan.training import keeping as keeping_module
from cyclegan.training.checkpoint import checkpoints
from cyclegan.training.outcome import TrainingFailed
from cyclegan.training.train import train


def warnings(run):
    return [json.loads(line)["message"] for line in (run / "warnings.jsonl").read_text().splitlines()]


class Unmoved(QuickJudge):
    """Finds nothing better than the first time: no later evaluation saves a best one."""

    def __call__(self, translate):
        return [replace(figure, value=1.0) for figure in super().__call__(translate)]


@pytest.fixture
def alerts(monkeypatch):
    """What the trackers are told, beside what they are told."""
    told = []
    monkeypatch.setattr(loop.Tracking, "alert", lambda self, title, text, step: told.append((title, text)))
    return told


def test_a_save_on_its_way_is_waited_for(tiny, here, monkeypatch, capsys):
    """The checkpoint of step 4 is still being written when training goes back: to that one, not to step 2."""
    plain, gate = keeping_module.save_checkpoint, threading.Event()

    def slow(folder, state, progress, settings, keep):
        if progress.step == 4:
            assert gate.wait(60)
        return plain(folder, state, progress, settings, keep)

    monkeypatch.setattr(keeping_module, "save_checkpoint", slow)
    poison(monkeypatch, lambda call: 4 <= call < 6)
    waited = loop.Saver.wait

    def wait(self):
        # Called to go back: the save is let go a moment later, from another thread.
        threading.Timer(0.2, gate.set).start()
        waited(self)

    monkeypatch.setattr(loop.Saver, "wait", wait)
    result = train(tiny(steps=6, checkpoint__every=2, numbers={"refused": 2}, run_dir=here / "run"))
    assert result.step == 6
    assert "back to step 4" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_gone_back_to(tiny, here, monkeypatch, capsys):
    run = here / "run"

    def spoil(call):
        if call == 4:
            (run / "checkpoints" / "step-00000004" / "state.pt").write_bytes(b"damaged")
        return 4 <= call < 6

    monkeypatch.setattr(loop.Saver, "begin", lambda self, prepare, what: self.now(prepare, what))
    poison(monkeypatch, spoil)
    result = train(tiny(steps=6, checkpoint__every=2, numbers={"refused": 2}, run_dir=run))
    assert result.step == 6
    said = capsys.readouterr().err
    assert "state.pt has 7 bytes" in said and "back to step 2" in said
    assert (run / "checkpoints" / "damaged-step-00000004").is_dir()


def test_a_setback_takes_evaluations_with_it_and_the_trackers_hear_of_it(tiny, here, monkeypatch, alerts):
    """Judged at every step: those past the checkpoint are judged anew, so each step is there once."""
    monkeypatch.setattr(judging, "Judge", Unmoved)
    poison(monkeypatch, lambda call: 6 <= call < 8)
    seen, plain = [], judging.Judging.rewind

    def rewind(self, step):
        seen.append((step, [line["step"] for line in self.lines]))
        plain(self, step)
        assert all(line["step"] <= step for line in lines(self.run.folder))

    monkeypatch.setattr(judging.Judging, "rewind", rewind)
    run = here / "run"
    settings = tiny(
        steps=10, checkpoint__every=4, log_every=1, numbers={"refused": 2}, run_dir=run, evaluation__every=1
    )
    assert train(settings).step == 10
    before = [step for step in (1, 2, 3, 4, 5, 6, 7) for _ in range(2)]
    assert seen[-1] == (4, before)
    assert [line["step"] for line in lines(run)] == [step for step in range(1, 11) for _ in range(2)]
    assert [title for title, _ in alerts] == ["NaN", "NaN", "Setback"]
    assert warnings(run) == [text for _, text in alerts]
    assert "back to step 4 with a new data order" in warnings(run)[-1]


def test_a_resume_drops_the_warnings_from_beyond_its_checkpoint(tiny, here, monkeypatch):
    """Resumed from step 4, it meets the bad picture of step 6 again: one warning, as if never broken off."""
    run = here / "run"
    changes = {"run_dir": run, "checkpoint__every": 4, "checkpoint__keep": 3, "log_every": 1}
    with monkeypatch.context() as patched:
        poison(patched, lambda call: call in (2, 5))
        train(tiny(steps=7, **changes))
    told = (run / "warnings.jsonl").read_text()
    assert [json.loads(line)["step"] for line in told.splitlines()] == [3, 6]
    with monkeypatch.context() as patched:
        poison(patched, lambda call: call == 1)
        train(
            tiny(steps=7, **{**changes, "run_dir": None}, resume=str(run / "checkpoints" / "step-00000004"))
        )
    assert (run / "warnings.jsonl").read_text() == told


def test_what_every_start_warns_of_is_in_the_report_once(tiny, here, monkeypatch):
    monkeypatch.setattr(loop, "of_domain", lambda domain: ["twins"])
    monkeypatch.setattr(loop, "describe", lambda twins: "a held-out image is in training too")
    train(tiny(steps=2, run_dir=here / "run"))
    train(tiny(steps=3, resume=str(here / "run")))
    assert warnings(here / "run") == ["a held-out image is in training too"]


def test_a_setback_in_pretraining_and_one_back_into_it(tiny, here, monkeypatch):
    """Steps 1 to 4 fill in masked pictures; the weights end finite, the log has each step once."""
    for first, when in (("in", lambda call: 3 <= call < 5), ("into", lambda call: 5 <= call < 7)):
        with monkeypatch.context() as patched:
            poison(patched, when)
            run = here / first
            settings = tiny(
                steps=8,
                pretrain={"steps": 4, "patch": 8},
                checkpoint__every=3,
                log_every=1,
                numbers={"refused": 2},
            )
            assert train(settings.model_copy(update={"run_dir": run})).step == 8
        kept = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in kept] == list(range(1, 9))
        adversarial = [line["step"] for line in kept if "cycle_a" in line]
        assert adversarial == list(range(5, 9))
        entries = [json.loads(line) for line in (run / "trouble.jsonl").read_text().splitlines()]
        assert [entry["back_to"] for entry in entries if "back_to" in entry] == [3]


def test_a_run_that_gives_up_says_so_everywhere(tiny, here, monkeypatch, alerts):
    poison(monkeypatch, lambda call: True)
    with pytest.raises(TrainingFailed) as failed:
        train(tiny(steps=9, numbers={"refused": 2}, run_dir=here / "run"))
    assert alerts[-1] == ("The run ended", str(failed.value))
    assert warnings(here / "run")[-1] == str(failed.value)
    assert len(warnings(here / "run")) == 3 and not checkpoints(here / "run" / "checkpoints")


def test_debug_shows_where_a_failure_came_from(tiny, here, monkeypatch, capsys):
    """Words in an error may mislead about its cause; the error itself is to be had."""
    (here / "mine.yaml").write_text(to_yaml(tiny()))

    def lost(self, parts, factor):
        raise RuntimeError("something with gloo in it")

    monkeypatch.setattr(loop.TrainingStep, "__call__", lost)
    with pytest.raises(SystemExit) as leaving:
        main(["train", "mine.yaml", "--run-dir", "one"])
    assert leaving.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("cyclegan train: lost contact with another process (something with gloo in it)")
    with pytest.raises(TrainingFailed) as failed:
        main(["train", "mine.yaml", "--run-dir", "two", "--debug"])
    assert str(failed.value.__cause__) == "something with gloo in it"
