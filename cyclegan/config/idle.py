"""Settings that are given and have no part in a run, because of what others say."""

from collections.abc import Iterator

from pydantic import BaseModel

from cyclegan.config.parts import LossSettings, NceSettings, OptimizerSettings, PretrainSettings


def changed(table: BaseModel, *names: str) -> list[str]:
    """Of the named settings of a table those that differ from their defaults; of none named, all."""
    fields = type(table).model_fields
    return [name for name in names or fields if getattr(table, name) != fields[name].default]


def idle_settings(
    method: str,
    losses: LossSettings,
    nce: NceSettings,
    pretrain: PretrainSettings,
    optimizer: OptimizerSettings,
    by_reference: bool,
) -> Iterator[tuple[str, str]]:
    """Each such setting with the reason.

    They are told, not refused: a recipe may be run by another method, or with a weight set to 0 for once.
    """
    found: list[tuple[str, BaseModel, tuple[str, ...], bool, str]] = [
        ("losses", losses, ("lambda_gradient_penalty",), losses.adversarial != "wgan-gp",
         "losses.adversarial is not wgan-gp"),
        ("losses", losses, ("content_layers",), losses.lambda_content == 0, "losses.lambda_content is 0"),
        ("losses", losses, ("style_layers",), losses.lambda_style == 0, "losses.lambda_style is 0"),
        ("losses", losses, ("consist_size",), losses.lambda_consist == 0, "losses.lambda_consist is 0"),
        ("losses", losses, ("lambda_style_code",), not by_reference, "no generator has style reference"),
        ("losses", losses,
         ("lambda_adversarial_ba", "lambda_cycle_a", "lambda_cycle_b", "lambda_identity_a",
          "lambda_identity_b", "lambda_edge_a"),
         method != "cyclegan", f"method {method} trains one direction, without cycles"),
        ("nce", nce, (), method == "cyclegan", "method cyclegan compares no patches"),
        ("pretrain", pretrain, ("masked", "patch"), pretrain.steps == 0, "pretrain.steps is 0"),
        ("optimizer", optimizer, ("decay_from", "decay_to"), optimizer.schedule == "constant",
         "optimizer.schedule is constant"),
    ]  # fmt: skip
    for name, table, settings, without_effect, why in found:
        if without_effect:
            yield from ((f"{name}.{setting}", why) for setting in changed(table, *settings))
