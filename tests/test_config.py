"""Settings: recipes, the command line over them, and what each mistake is told."""

import pytest

from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.recipes import project_files, read_yaml, to_yaml, validated
from cyclegan.training.command import settings_from


def test_settings_survive_their_own_recipe(here):
    settings = TrainSettings(domain="x", size=64, losses={"lambda_cycle_a": 3}, data={"held_out": 0.2})
    (here / "config.yaml").write_text(to_yaml(settings))
    assert validated(TrainSettings, read_yaml(here / "config.yaml"), "config.yaml") == settings


@pytest.mark.parametrize("name", sorted(project_files("experiments")))
def test_every_recipe_is_valid(name, here):
    settings, _ = settings_from([str(project_files("experiments")[name])])
    assert isinstance(settings, TrainSettings) and settings.idle == {}


@pytest.mark.parametrize("name", ["photo2monet", "horse2zebra"])
def test_the_papers_settings(name):
    """CycleGAN §4 and §7: 256 px, 9 blocks, lsgan, 10 and 5, Adam 2e-4, 100 + 100 epochs, pool 50."""
    settings, _ = settings_from([name])
    assert (settings.size, settings.load_size, settings.batch_size) == (256, 286, 1)
    assert (settings.epochs, settings.optimizer.decay_from) == (200, 0.5)
    assert (settings.optimizer.lr, settings.optimizer.beta1, settings.optimizer.beta2) == (2e-4, 0.5, 0.999)
    assert (settings.losses.lambda_cycle_a, settings.losses.lambda_identity_a) == (10, 5)
    assert (settings.losses.adversarial, settings.pool_size) == ("lsgan", 50)
    assert settings.generator.blocks == 9


def test_the_command_line_overrides_the_recipe_which_overrides_the_defaults(here):
    (here / "mine.yaml").write_text("domain: noto2twemoji\nsize: 128\nbatch_size: 4\noptimizer: {lr: 4e-4}\n")
    settings, options = settings_from(["mine.yaml", "--batch-size", "2", "--generator.blocks", "6", "--json"])
    assert (settings.size, settings.batch_size, settings.pooled) == (128, 2, 50)
    assert settings.generator.blocks == 6
    assert settings.optimizer.lr == 4e-4
    assert options.json


def test_the_domain_may_stand_anywhere():
    assert settings_from(["--steps", "7", "horse2zebra"]) == settings_from(["horse2zebra", "--steps", "7"])


MISTAKES = {
    "batchsize: 3": "unknown key 'batchsize'; did you mean 'batch_size'?",
    "losses: {lambda_cyle_a: 3}": "unknown key 'losses.lambda_cyle_a'; did you mean 'losses.lambda_cycle_a'?",
    "batch_size: many": "batch_size: input should be a valid integer",
    "batch_size: 0": "batch_size: input should be greater than or equal to 1, not 0",
    "precision: fp8": "precision: input should be 'auto', 'no', 'fp16' or 'bf16', not 'fp8'",
    "data: {a: x}": "data.a and data.b go together",
    "data: {root: r, a: x, b: y}": "data.root and data.a clash",
    "size: 64\naugment: {load_size: 32}": "augment.load_size (32) is smaller than size (64)",
    "batch_size: 3\ngradient_accumulation: 2": "batch_size (3) does not divide by gradient_accumulation (2)",
    "size: 16\nlosses: {lambda_consist: 1}": "losses.consist_size (32) is larger than size (16); set it to 16",
    "batch_size: auto\nevaluation: {every: 0, early_stop: 2}": "evaluation.early_stop needs evaluations",
    "size: 32\npretrain: {steps: 9}": "pretrain.patch (32) masks all of a picture or nothing at size 32; set it to 4",
    "augment: {preset: crop, load_size: 300}": "augment.load_size has no meaning with augment.preset 'crop'",
    "size: 64\nsize: 32": "line 2: the key 'size' appears twice",
    "size: !!python/object:os.system {}": "line 1: could not determine a constructor",
    "- size": "must hold 'key: value' lines, not a list",
    "size: [": "line 2: expected the node content",
    "1: 2": "a key must be a word, not 1",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_in_a_recipe_name_the_file_and_the_key(text, here):
    (here / "mine.yaml").write_text(text + "\n")
    with pytest.raises(BadInput) as caught:
        settings_from(["mine.yaml"])
    assert str(caught.value).startswith("mine.yaml:")
    assert MISTAKES[text] in str(caught.value)
    assert "\n" not in str(caught.value)


OPTIONS = {
    "--btch-size 3": "unknown option --btch-size; did you mean '--batch-size'?",
    "--data.rot x": "unknown option --data.rot; did you mean '--data.root'?",
    "--batch-size x": "--batch-size: takes a whole number or auto, not 'x'",
    "--size x": "--size: takes a whole number, not 'x'",
    "--epochs x": "--epochs: takes a number, not 'x'",
    "--losses.style-layers relu9_1": "--losses.style-layers: 'relu9_1' is none of relu1_1, relu1_2,",
    "--precision fp8": "--precision: 'fp8' is none of auto, bf16, fp16, no",
    "--batch-size": "Missing value for argument '--batch-size'",
    "--batch-size 0": "batch_size: input should be greater than or equal to 1, not 0",
    "horse2zebra maps": "one DOMAIN at a time",
    "hors2zebra": "there is no such domain; did you mean 'horse2zebra'?",
    "nowhere.yaml": "nowhere.yaml: cannot be read (No such file or directory)",
}


# Each would clash with the defaults that the recipe replaces.
@pytest.mark.parametrize(
    "words",
    [
        "--augment.load-size 80",
        "--gradient-accumulation 2",
        "--speed.cuda-graphs",
        "--losses.style-picture-b x.png",
        "--data.b z",
    ],
)
def test_an_option_need_only_agree_with_the_recipe(words, here):
    (here / "mine.yaml").write_text(
        "size: 64\nbatch_size: 8\nspeed: {compile: true}\nlosses: {lambda_style: 1}\ndata: {a: x, b: y}\n"
    )
    settings, _ = settings_from(["mine.yaml", *words.split()])
    assert (settings.size, settings.batch_size) == (64, 8)
    with pytest.raises(BadInput):
        settings_from(words.split())


def test_an_option_that_clashes_with_a_recipe_names_it(here):
    (here / "mine.yaml").write_text("size: 64\naugment: {load_size: 72}\n")
    with pytest.raises(BadInput) as caught:
        settings_from(["mine.yaml", "--size", "128"])
    assert str(caught.value) == (
        "augment.load_size (72) is smaller than size (128); set it to 128 or more "
        "(what no option says is from mine.yaml)"
    )


@pytest.mark.parametrize("words", OPTIONS)
def test_mistakes_on_the_command_line(words, here):
    with pytest.raises(BadInput) as caught:
        settings_from(words.split())
    assert OPTIONS[words] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_without_a_part_in_the_run_are_told():
    assert TrainSettings().idle == {}
    given = {
        "losses": {"lambda_gradient_penalty": 5, "content_layers": ["relu2_1"], "lambda_style_code": 2},
        "nce": {"temperature": 0.1},
        "pretrain": {"masked": 0.5},
        "optimizer": {"schedule": "constant", "decay_to": 0.1},
    }
    assert TrainSettings(**given).idle == {
        "losses.lambda_gradient_penalty": "losses.adversarial is not wgan-gp",
        "losses.content_layers": "losses.lambda_content is 0",
        "losses.lambda_style_code": "no generator has style reference",
        "nce.temperature": "method cyclegan compares no patches",
        "pretrain.masked": "pretrain.steps is 0",
        "optimizer.decay_to": "optimizer.schedule is constant",
    }
    used = {**given, "method": "cut", "pretrain": {"steps": 5, "masked": 0.5}, "optimizer": {"decay_to": 0.1}}
    used["losses"] = {"adversarial": "wgan-gp", "lambda_gradient_penalty": 5, "lambda_cycle_a": 3}
    assert list(TrainSettings(**used).idle) == ["losses.lambda_cycle_a"]


def test_what_may_not_be_meant_is_remarked():
    assert TrainSettings(steps=20, optimizer={"warmup_steps": 20}).remarks == []
    short = {"steps": 20, "pretrain": {"steps": 8}, "optimizer": {"warmup_steps": 20}}
    in_parts = {"gradient_accumulation": 2, "batch_size": 2, "generator": {"norm": "batch"}}
    assert TrainSettings(**short, **in_parts, nce={"temperature": 0.1}).remarks == [
        "nce.temperature has no part in this run: method cyclegan compares no patches",
        "norm batch takes its statistics of each part of gradient_accumulation by itself",
        "optimizer.warmup_steps is 20, so that these 12 steps end below the full rate",
    ]
