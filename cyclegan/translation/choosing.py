"""Which backend and precision compute a folder: those asked for, those that began it, or the fastest."""

from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan.errors import BadInput
from cyclegan.translation.backends import BackendName, Precision, pick_backend
from cyclegan.translation.manifest import choice_in, computed_by
from cyclegan.translation.options import Tiling
from cyclegan.translation.shares import chosen, tell
from cyclegan.translation.translator import Translator

if TYPE_CHECKING:
    from cyclegan.translation.plan import Plan
    from cyclegan.translation.shares import Share


def open_for(
    planned: "Plan",
    share: "Share",
    overwrite: bool,
    generator: Path,
    backend: BackendName,
    precision: Precision,
    tiling: Tiling,
    reference: Path | None,
) -> Translator:
    """The generator, opened to compute all of ``planned`` alike.

    What ``auto`` means is measured, and comes out otherwise on a busy machine or on another one. So a
    folder is gone on with by what began it, and of processes that share it the first chooses for all.

    Args:
        planned: what is to be translated.
        share: which process this is.
        overwrite: whether what lies there does not matter.
        generator: and all that follows: as ``Translator.from_pretrained`` takes it.

    Raises:
        BadInput: from ``Translator.from_pretrained``; or the choice cannot be written for the others.
    """

    def opened(backend: BackendName, precision: Precision) -> Translator:
        return Translator.from_pretrained(generator, share.device(), backend, precision, tiling, reference)

    question = str((str(generator), backend, precision, str(tiling), str(reference), overwrite))
    begun, at = computed_by(planned.target) if planned.is_folder and not overwrite else (None, None)
    in_torch_only = reference is not None or tiling.method is not None or isinstance(tiling.tile, int)
    if backend == "auto" and in_torch_only:
        backend = "torch"
    elif backend == "auto" and generator.suffix != ".onnx":
        backend = begun or "auto"
    if precision == "auto" and begun == backend and tiling.method != "exact":
        precision = at or "auto"
    shared = share.world > 1 and planned.is_folder and "auto" in (backend, precision)
    choice = chosen(planned.target, share, question) if shared else None
    if choice is not None:
        return opened(*choice)
    if backend == "auto":
        backend = pick_backend(generator, precision, len(planned))
    translator = opened(backend, precision)
    if shared:
        _tell(planned.target, question, translator)
    return translator


def _tell(target: Path, question: str, translator: Translator) -> None:
    backend = translator.backend
    try:
        tell(target, question, (backend.name, choice_in(backend.precision) or "auto"))
    except OSError as error:
        raise BadInput(f"{target}: cannot be written ({error.strerror})") from error
