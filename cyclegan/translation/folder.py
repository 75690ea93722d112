"""Whole folders: what is done is recognised, the rest is translated, and how is written down."""

import contextlib
import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan import __version__
from cyclegan.errors import BadInput
from cyclegan.translation.leftovers import sweep
from cyclegan.translation.manifest import MANIFEST, Entry, FileState, Manifest, merge, read_entries
from cyclegan.translation.options import FolderOptions
from cyclegan.translation.pipeline import (
    WINDOW_BATCHES,
    Hooks,
    Job,
    Translated,
    default_batch_size,
    run_jobs,
)
from cyclegan.translation.plan import Plan
from cyclegan.translation.shares import Share, meet, part

if TYPE_CHECKING:
    from cyclegan.translation.translator import Translator


@dataclass(frozen=True)
class Summary:
    """What came of a folder, over all processes: ``failed`` is inputs and why."""

    translated: int
    kept: int
    failed: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class FolderTranslation:
    """The translation of a folder, done while one iterates over it; each step gives a ``Translated``.

    Making one looks at what lies in the output already. A file is done when the
    manifest says that this generator, with these settings, made it from this input. An output that it
    does not know, or that was made otherwise, stops it before anything starts.

    Raises:
        BadInput: from the constructor, as said; from the iteration, when an output cannot
            be written and so no other could.
    """

    def __init__(self, translator: "Translator", plan: Plan, options: FolderOptions, share: Share) -> None:
        self.translator, self.plan, self.options, self.share = translator, plan, options, share
        if options.signer is not None:
            options.signer.refuse_unsignable([target for _, target in self.plan])
        self._prefix = _relative(self.plan.source, self.plan.target)
        facts = {
            "generator_sha256": translator.label.generator_sha256,
            "licences": dict(translator.label.licences),
            "attribution": dict(translator.label.attribution),
            "settings": translator.settings(options),
            "label": options.label,
            "signed": options.signer is not None,
            "cyclegan_version": __version__,
        }
        self._manifest = Manifest(self.plan.target, share, facts)
        self._known = read_entries(self.plan.target) if self.plan.is_folder else {}
        self._window = _window_size(translator, options)
        self._done = bytearray(len(self.plan))
        for index in self._mine():
            self._done[index] = self._is_done(index)
        # What is not done and fails again keeps what is known of an older result.
        left = (self.plan.names[index][1] for index in self._mine() if not self._done[index])
        self._known = {output: self._known[output] for output in left if output in self._known}
        self._clean: set[Path] = set()
        self.summary: Summary | None = None

    def __len__(self) -> int:
        """How many files are this process's share."""
        return sum(map(len, self.share.windows(len(self.plan), self._window)))

    def _mine(self) -> Iterator[int]:
        for window in self.share.windows(len(self.plan), self._window):
            yield from window

    def _input(self, index: int) -> str:
        """An input's name as the manifest has it, relative to the output folder."""
        return os.path.normpath(f"{self._prefix}/{self.plan.names[index][0]}").replace(os.sep, "/")

    def _is_done(self, index: int) -> bool:
        source, target = self.plan[index]
        try:
            status = os.stat(target)  # noqa: PTH116 - a hundred thousand times
        except OSError:
            return False
        if self.options.overwrite or status.st_size == 0:  # an empty file is what a power cut leaves
            return False
        if not self.plan.is_folder:
            raise BadInput(f"{target}: exists already; name another output, or replace it with --overwrite")
        entry = self._known.get(self.plan.names[index][1])
        if entry is None or entry.result is None or not entry.result.is_still(target, status):
            raise BadInput(
                f"{target}: exists, but {self.plan.target / MANIFEST} does not have it as a translation; "
                "name another output, or replace it with --overwrite"
            )
        return not entry.failed and self._is_from(entry, index, source, target)

    def _is_from(self, entry: Entry, index: int, source: Path, target: Path) -> bool:
        """Is this output of ours what would be made now? If the input has changed, it will be made again."""
        if entry.made_by != self._manifest.made_by or self.translator.label.generator_sha256 is None:
            raise BadInput(
                f"{target}: was made by another generator or with other settings (see "
                f"{self.plan.target / MANIFEST}); name another output, or make it again with --overwrite"
            )
        try:
            same = entry.source is not None and entry.source.is_still(source, source.stat())
        except OSError:
            return False  # an input that is gone is reported when its turn comes
        if not same and entry.input != self._input(index):
            raise BadInput(
                f"{target}: was made from another input, {entry.input}; name another output, or replace it "
                "with --overwrite"
            )
        return same

    def __iter__(self) -> Iterator[Translated]:
        started = time.monotonic()
        translated, kept, failed = 0, 0, {}
        try:
            with contextlib.closing(self._items()) as items:
                for item in items:
                    kept += item.kept
                    translated += not item.kept and item.error is None
                    if item.error is not None:
                        failed[str(item.source)] = item.error
                    yield item
        finally:
            self._manifest.close()
        self._end(Summary(translated, kept, failed, time.monotonic() - started))

    def _items(self) -> Generator[Translated, None, None]:
        """In the order of the plan, though batches are not."""
        hooks = Hooks(self._written, self._failed)
        work = run_jobs(self.translator, self._windows(), self.options, hooks, self.share.local_world)
        early: dict[int, Translated] = {}
        with contextlib.closing(work) as results:
            for index in self._mine():
                if self._done[index]:
                    yield Translated(*self.plan[index], kept=True)
                    continue
                while index not in early:
                    job, item = next(results)
                    early[job.index] = item
                yield early.pop(index)

    def _windows(self) -> Iterator[Sequence[Job]]:
        for window in self.share.windows(len(self.plan), self._window):
            if not all(self._done[index] for index in window):
                yield [Job(index, *self.plan[index], not self._done[index]) for index in window]

    def _written(self, job: Job, state: FileState, partial: Path) -> None:
        if not self.plan.is_folder:
            return
        if job.target.parent not in self._clean:
            self._clean.add(job.target.parent)
            sweep(job.target.parent, one_machine=self.share.world == self.share.local_world)
        result = FileState.of(partial)
        self._manifest.written(self.plan.names[job.index][1], self._input(job.index), state, result)

    def _failed(self, job: Job, error: str, state: FileState | None) -> None:
        if not self.plan.is_folder:
            return
        output = self.plan.names[job.index][1]
        try:
            self._manifest.failed(output, self._input(job.index), error, state, self._known.get(output))
        except OSError as problem:
            raise BadInput(f"{self._manifest.path}: cannot be written ({problem.strerror})") from problem

    def _end(self, summary: Summary) -> None:
        """Leave together with the other processes; the first writes the manifest in order."""
        target, alone = self.plan.target, self.share.world == 1
        if not self.plan.is_folder:
            if self.share.leads:
                self.summary = summary
            return
        try:
            reports = [vars(summary)] if alone else meet(target, self.share, vars(summary))
            if not self.share.leads:
                return
            merge(target)
            part(target)
        except OSError as error:
            raise BadInput(f"{target / MANIFEST}: cannot be written ({error.strerror})") from error
        self.summary = Summary(
            sum(report["translated"] for report in reports),
            sum(report["kept"] for report in reports),
            {name: error for report in reports for name, error in report["failed"].items()},
            max(report["seconds"] for report in reports),
        )


def translate_files(
    translator: "Translator", pairs: Sequence[tuple[Path, Path]], options: FolderOptions | None = None
) -> Iterator[Translated]:
    """Translate pairs of input and output, whatever lies there, with no record kept.

    Raises:
        BadInput: an output cannot be written, which would be so for every file.
    """
    options = options or FolderOptions()
    jobs = [Job(index, *pair) for index, pair in enumerate(pairs)]
    size = _window_size(translator, options)
    windows = (jobs[start : start + size] for start in range(0, len(jobs), size))
    for _, item in run_jobs(translator, windows, options):
        yield item


def _window_size(translator: "Translator", options: FolderOptions) -> int:
    batch_size = options.batch_size or default_batch_size(translator.device)
    return 1 if batch_size == 1 else WINDOW_BATCHES * batch_size


def _relative(source: Path, target: Path) -> str:
    try:
        return Path(os.path.relpath(source, target)).as_posix()
    except ValueError:  # on another drive
        return source.absolute().as_posix()
