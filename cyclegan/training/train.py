"""From settings to a result, with every way to fail in one line."""

from cyclegan.config import TrainSettings
from cyclegan.errors import out_of_memory
from cyclegan.training.batch_size import advice
from cyclegan.training.claim import Claim
from cyclegan.training.group import end_threads
from cyclegan.training.loop import Trainer
from cyclegan.training.outcome import Result, TrainingFailed, TrainingStopped
from cyclegan.training.saving import disk_is_full
from cyclegan.training.signals import is_lost_contact


def train(settings: TrainSettings) -> Result:
    """Train to the end that the settings name.

    Raises:
        BadInput: settings or images that cannot be used; found before the first step.
        TrainingFailed: losses or weights became NaN or infinite, the disk is full, memory ran out, another
            process is gone.
        TrainingStopped: a signal asked for it.
    """
    with Claim() as claim:
        try:
            return _train(settings, claim)
        finally:
            end_threads()


def _train(settings: TrainSettings, claim: Claim) -> Result:
    trainer = Trainer(settings, claim)
    try:
        return trainer.train()
    except TrainingStopped:
        raise
    except BaseException as error:
        if not (isinstance(error, Exception) and out_of_memory(error)):
            explained = _explained(error)
            trainer.abandon(str(explained or error))
            if explained is not None:
                raise explained from error
            raise
    # Out of the handler, which holds on to all that lies in memory.
    trainer.abandon("out of memory")
    settings, accelerator = trainer.settings, trainer.accelerator
    del trainer
    raise TrainingFailed(advice(settings, accelerator))


def _explained(error: BaseException) -> TrainingFailed | None:
    """What people can act on in the error's place, where it is known what that is."""
    if isinstance(error, OSError) and disk_is_full(error):
        return TrainingFailed(
            f"{error.filename or 'the disk'}: {error.strerror}; free some space, then go on with --resume: "
            "what was saved before is good"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return TrainingFailed(
            f"speed.compile: torch cannot compile these networks here; leave it out "
            f"({' '.join(str(error).split())[:200]})"
        )
    if isinstance(error, RuntimeError) and is_lost_contact(error):
        return TrainingFailed(
            f"lost contact with another process ({' '.join(str(error).split())[:200]}); started again, the "
            "run goes on from its last checkpoint"
        )
    return None
