"""Evaluation while training: what is written, which generators are kept, when a run ends early."""

import json

import pytest
from safetensors.torch import load_file

from cyclegan.artifacts import read_config
from cyclegan.errors import BadInput
from cyclegan.evaluation.command import evaluate_folder
from cyclegan.evaluation.figures import Figure
from cyclegan.reporting.report.figures import figures_of
from cyclegan.training import judging, loop
from cyclegan.training.checkpoint import read_log
from cyclegan.training.judging import best_step, stops_early
from cyclegan.training.train import train


def lines(run):
    return read_log(run / "evaluations.jsonl")


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


BRIGHTER = "psnr_to_truth"  # rises in these few steps, so that there is more than one best


class QuickJudge:
    """Answers at once, by the pictures: what training does with a figure does not hang on which one it is."""

    def __init__(self, data, device, networks, closely):
        self.data = data

    def __call__(self, translate):
        brightness = float(translate(self.data.read(self.data.sources[:2])).double().mean())
        psnr = Figure("psnr_to_truth", brightness, 0.0, 0.0)
        return [Figure("kid_vgg19", brightness, 0.0, 0.0, interval=(0.0, 1.0)), psnr]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(judging, "Judge", QuickJudge)


def test_a_run_judges_as_the_command_does(tiny, capsys):
    """The figures of the last line are those of `cyclegan evaluate` on the run's generators."""
    run = train(tiny(evaluation__every=2, steps=4)).run.folder
    found = lines(run)
    assert [(line["step"], line["images_seen"], line["direction"]) for line in found] == [
        (2, 4, "AtoB"), (2, 4, "BtoA"), (4, 8, "AtoB"), (4, 8, "BtoA"),
    ]  # fmt: skip
    for line in found[2:]:
        report = evaluate_folder(run, None, line["direction"]).as_json()
        for name, figures in line["metrics"].items():
            # While training the networks' arithmetic is another (networks/trained.py), and rounds otherwise.
            numbers = {key: value for key, value in figures.items() if isinstance(value, float)}
            assert {key: report["metrics"][name][key] for key in numbers} == pytest.approx(numbers, rel=1e-4)
            interval = report["metrics"][name]["interval"]
            assert (interval or []) == pytest.approx(figures["interval"] or [], rel=1e-4)
        kept = json.loads((report_folder := run / "generators" / f"G_{line['direction'].replace('to', '')}")
                          .joinpath("metrics.json").read_text())  # fmt: skip
        assert kept["metrics"] == line["metrics"] and kept["images"] == 6
        assert "kid_vgg19" in (report_folder / "README.md").read_text()
    best = best_step(found, "kid_vgg19")
    assert best == read_config(run / "generators" / "best" / "G_BA").steps
    again = evaluate_folder(run / "generators" / "best", None, "BtoA").as_json()["metrics"]["kid_vgg19"]
    noted = next(x for x in found if x["step"] == best and x["direction"] == "BtoA")["metrics"]["kid_vgg19"]
    assert again["value"] == pytest.approx(noted["value"], rel=1e-4) and again["inputs"] == noted["inputs"]
    assert "inputs" in capsys.readouterr().err


def made_up(values):
    return [
        {"step": step, "direction": d, "metrics": {m: {"value": value} for m in ("kid_vgg19", "ssim_to_truth")}}
        for step, value in values.items() for d in ("AtoB", "BtoA")
    ]  # fmt: skip


def test_the_best_is_the_lowest_or_the_highest_and_patience_is_counted_from_it():
    found = made_up({10: 0.3, 20: 0.1, 30: 0.2, 40: 0.1, 50: float("nan")})
    assert best_step(found, "kid_vgg19") == 20 and best_step(found, "ssim_to_truth") == 10
    assert best_step([], "kid_vgg19") is None
    # Half of an evaluation, as a power cut leaves it, counts for nothing.
    assert (
        best_step(
            [*found, {"step": 60, "direction": "AtoB", "metrics": {"kid_vgg19": {"value": 0}}}], "kid_vgg19"
        )
        == 20
    )
    for patience, stops in ((0, False), (1, True), (2, True), (3, False)):
        chosen = judging.EvaluationSettings(early_stop=patience)
        assert stops_early(found, chosen) is stops


def test_where_real_pictures_are_no_nearer_there_is_no_way_to_them():
    """As 24 images gave it: the target's own training images had a higher KID and FID than the inputs."""
    anchors = {"inputs": 22.4, "target_train": 31.4, "best": 0.0, "better": "lower"}
    found = {"fid_vgg19": {"value": 28.3, "interval": None, **anchors},
             "ssim_to_truth": {"value": 0.4, "inputs": 0.3, "target_train": 0.2, "best": 1.0, "better": "higher"},
             "cycle_l1": {"value": 0.1, "inputs": 0.0, "target_train": 0.3, "best": 0.0, "better": "lower"}}  # fmt: skip
    fid, ssim, cycle = figures_of({"metrics": found})
    assert fid.way is None and fid.verdict.startswith("cannot be told")
    assert ssim.way == pytest.approx(1 / 7) and (cycle.way, cycle.verdict) == (None, "")


def test_what_completes_masked_pictures_is_not_judged(tiny, monkeypatch, quick):
    monkeypatch.setattr(QuickJudge, "__call__", lambda self, translate: [Figure("kid_vgg19", 0.5, 1.0, 0.0)])
    pretrain = {"steps": 5, "patch": 8}
    run = train(tiny(steps=9, pretrain=pretrain, evaluation={"every": 2, "early_stop": 2})).run.folder
    judged = [json.loads(line)["step"] for line in (run / "evaluations.jsonl").open()]
    assert sorted(set(judged)) == [6, 8, 9]
    assert read_config(run / "generators" / "best" / "G_AB").steps == 6


def test_a_run_that_gets_no_better_ends_early(tiny, monkeypatch, quick, capsys):
    values = iter([0.5, 0.5, 0.2, 0.2, 0.4, 0.4, 0.3, 0.3, 0.1, 0.1])
    monkeypatch.setattr(
        QuickJudge, "__call__", lambda self, translate: [Figure("kid_vgg19", next(values), 1.0, 0.0)]
    )
    result = train(tiny(steps=20, log_every=3, evaluation={"every": 2, "early_stop": 2}))
    assert result.step == 8
    run = result.run.folder
    logged = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
    assert logged == [3, 6, 8]
    assert read_config(run / "generators" / "best" / "G_AB").steps == 4
    assert read_config(run / "generators" / "G_AB").steps == 8
    assert "the run ends here" in capsys.readouterr().err
    # Resumed, it stays stopped; told to go on, it does.
    assert train(tiny(resume=str(run), steps=20, evaluation={"every": 2, "early_stop": 2})).step == 8
    assert train(tiny(resume=str(run), steps=9, evaluation={"every": 2})).step == 9


@pytest.mark.parametrize("cut", ["between", "before the lines", "before the best"])
def test_a_resumed_run_keeps_the_best_of_the_run_never_stopped(tiny, here, quick, monkeypatch, cut):
    changes = {"steps": 9, "checkpoint__every": 100, "evaluation": {"every": 2, "best_by": BRIGHTER}}
    whole = train(tiny(run_dir=here / "whole", **changes)).run.folder
    name = {"between": "_report", "before the lines": "_write", "before the best": "_keep_best"}[cut]
    plain = getattr(judging.Judging, name)
    calls = []

    def power_cut(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(judging.Judging, name, power_cut)
        try:
            train(tiny(run_dir=here / "broken", **changes))
        except KeyboardInterrupt:
            train(tiny(resume=str(here / "broken"), **changes))
    assert len(calls) >= 2, "nothing was cut"
    broken = here / "broken"
    assert lines(broken) == lines(whole) and len(lines(whole)) == 10
    best = best_step(lines(whole), BRIGHTER)
    for run in (whole, broken):
        assert read_config(run / "generators" / "best" / "G_AB").steps == best
    for side in ("G_AB", "G_BA"):
        assert weights(whole / "generators/best" / side) == weights(broken / "generators/best" / side)


def test_evaluation_changes_nothing_in_training(tiny, here):
    runs = [train(tiny(run_dir=here / str(every), evaluation__every=every)).run for every in (0, 1)]
    plain, judged = (load_file(run.generator("G_AB") / "model.safetensors") for run in runs)
    assert all(plain[key].equal(judged[key]) for key in plain)
    assert not (here / "0" / "evaluations.jsonl").exists() and not (here / "0" / "generators/best").exists()


def test_resumed_before_its_best_a_run_seeks_it_anew(tiny, here, monkeypatch, quick):
    values = iter([0.5, 0.5, 0.2, 0.2, 0.4, 0.4, 0.3, 0.3])
    monkeypatch.setattr(
        QuickJudge, "__call__", lambda self, translate: [Figure("kid_vgg19", next(values), 1.0, 0.0)]
    )
    changes = {"steps": 4, "evaluation": {"every": 2}, "run_dir": here / "run"}
    run = train(tiny(**changes)).run.folder
    assert read_config(run / "generators/best/G_AB").steps == 4
    train(tiny(resume=str(run / "checkpoints/step-00000002"), **changes))
    assert [line["metrics"]["kid_vgg19"]["value"] for line in lines(run)] == [0.5, 0.5, 0.4, 0.4]
    assert read_config(run / "generators/best/G_AB").steps == 4
    assert (
        json.loads((run / "generators/best/G_AB/metrics.json").read_text())["metrics"]["kid_vgg19"]["value"]
        == 0.4
    )


def test_without_held_out_images_a_run_says_so_and_goes_on(tiny, small_domain, here, capsys):
    for split in ("trainA", "trainB"):
        (here / "mine" / split).parent.mkdir(exist_ok=True)
        (here / "mine" / split).symlink_to(small_domain / split)
    assert train(tiny(data__root=here / "mine", steps=2, evaluation__every=1)).step == 2
    assert "No evaluation while training: evaluation needs two held-out images" in capsys.readouterr().err
    with pytest.raises(BadInput, match="two held-out images"):
        train(tiny(data__root=here / "mine", run_dir=here / "b", evaluation={"every": 1, "early_stop": 3}))
    assert not (here / "b").exists()


def test_a_file_that_goes_bad_ends_the_evaluation_not_the_run(tiny, small_domain, here, capsys):
    import shutil

    shutil.copytree(small_domain, here / "mine")
    next((here / "mine" / "testA").iterdir()).write_bytes(b"no image")
    result = train(
        tiny(
            data__root=here / "mine",
            data__skip_bad=True,
            steps=3,
            evaluation__every=1,
            samples__translate=0,
        )
    )
    assert result.step == 3 and "is not a JPEG" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kid_vgg", "did you mean 'kid_vgg19'"),
        ("vgg19_distance_to_truth", "no metric to choose by here"),
        ("kid_inception", "no metric to choose by here"),
        ("colour_shift", "no metric to choose by here"),
    ],
)
def test_best_by_names_a_metric_that_there_will_be(tiny, name, message):
    with pytest.raises(BadInput, match=f"evaluation.best_by: .*{message}"):
        loop.Trainer(tiny(evaluation={"every": 1, "best_by": name}))
