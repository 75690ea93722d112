"""From settings to a result, with every way to fail in one line."""

from cyclegan.config import TrainSettings
from cyclegan.training.batch_size import advice, out_of_memory
from cyclegan.training.loop import Trainer
from cyclegan.training.outcome import Result, TrainingFailed
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
    trainer = Trainer(settings)
    try:
        return trainer.train()
    except (OSError, RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            _explain(error)
            raise
    # Out of the handler, which holds on to all that lies in memory.
    settings, accelerator = trainer.settings, trainer.accelerator
    del trainer
    raise TrainingFailed(advice(settings, accelerator))


def _explain(error: Exception) -> None:
    """Raise what people can act on in the error's place, where it is known what that is."""
    if isinstance(error, OSError) and disk_is_full(error):
        raise TrainingFailed(
            f"{error.filename or 'the disk'}: {error.strerror}; free some space, then go on with --resume: "
            "what was saved before is good"
        ) from error
    if isinstance(error, RuntimeError) and is_lost_contact(error):
        raise TrainingFailed(
            f"lost contact with another process ({' '.join(str(error).split())[:200]}); started again, the "
            "run goes on from its last checkpoint"
        ) from error
