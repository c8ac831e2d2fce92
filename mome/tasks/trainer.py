"""ESPnet's trainer, made to say which clips a failure is about and to survive being killed."""

import errno
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from espnet2.torch_utils.set_all_random_seed import set_all_random_seed
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.trainer import Trainer

from mome.common.atomic_files import replacing
from mome.common.distributed import of_all_processes, sum_over_processes
from mome.common.memory import lacks_memory_for, naming_utterances

CHECKPOINT = "checkpoint.pth"
COMPLETE = "checkpoint.complete.pth"


class Batches:
    """Batches as they are, and which one was given last.

    Args:
        batches: pairs of utterance ids and what the model is called with.
    """

    def __init__(self, batches: Iterable[tuple[list[str], dict[str, Any]]]):
        self.batches: Any = batches
        self.utterances: list[str] = []

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[list[str], dict[str, Any]]]:
        for utterances, batch in self.batches:
            self.utterances = list(utterances)
            yield utterances, batch


class AVSRTrainer(Trainer):
    """ESPnet's trainer with four additions.

    - Epochs can be chosen by their number: ``best_model_criterion: [[valid, epoch, max]]`` and
      ``keep_nbest_models: 4`` keep the last four epochs, and ``valid.epoch.ave.pth`` is the mean of
      their weights.
    - A loss that is no number, and running out of memory, end the training with the batch's
      utterances and a remedy, also in the validation of an epoch, whose errors would choose the
      model. ESPnet skips the update of such a step and goes on with NaN in its statistics.
      Of several processes all stop when one has such a loss, instead of waiting for its gradients.
    - ESPnet writes ``checkpoint.pth`` and the epoch's weights in place. A copy of the checkpoint is
      kept while an epoch runs, so that a job that is killed while it writes goes on from the end
      of the epoch before. A full disk is called that.
    - Every epoch seeds what it draws at random, so that an interrupted training ends as another.
    """

    @classmethod
    def run(cls, **options: Any) -> None:
        """As in ESPnet; what was not written completely is trained again.

        Raises:
            OSError: if checkpoints cannot be written, with the folder and the space left there.
        """
        trainer_options, distributed = options["trainer_options"], options["distributed_option"]
        folder = Path(trainer_options.output_dir)
        if is_first(distributed):
            restore(folder, trainer_options.resume)
        if distributed.distributed:
            torch.distributed.barrier()
        try:
            super().run(**options)
        except (RuntimeError, OSError) as error:
            if not is_full(error):
                raise
            where = Path(getattr(error, "filename", None) or folder)
            left = shutil.disk_usage(where if where.exists() else folder).free / 1e9
            raise OSError(
                f"{where} cannot be written, and {left:.1f} GB are free there: make room, or end"
                f" what else fills the disk, and run the same command again, which goes on from the"
                f" last epoch that was written completely ({str(error).splitlines()[0]})"
            ) from error
        if is_first(distributed):
            (folder / COMPLETE).unlink(missing_ok=True)

    @staticmethod
    def resume(checkpoint: str | Path, *args: Any, **options: Any) -> None:
        """As in ESPnet.

        Raises:
            ValueError: for a checkpoint that cannot be read or does not fit, with the remedy.
        """
        try:
            # ESPnet would offer to read what is damaged as a pickle that may run any code.
            torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)
            Trainer.resume(checkpoint, *args, **options)
        except Exception as error:  # of a damaged file PyTorch raises almost anything
            if lacks_memory_for(error, Path(checkpoint)):
                raise
            reason = " ".join((str(error) or type(error).__name__).split())[:300]
            raise ValueError(
                f"{checkpoint} is damaged, or of another model, so that the training cannot go on"
                f" from it: put a copy of it back, or begin anew by --force true ({reason})"
            ) from error

    @classmethod
    def train_one_epoch(cls, **options: Any) -> bool:
        """As in ESPnet, with a copy of the checkpoint and errors that name utterances.

        Raises:
            FloatingPointError: for a loss that is NaN or infinite, in all processes if it is one's.
            MemoryError: if the memory of the GPU or the machine does not suffice.
        """
        epoch = options["reporter"].get_epoch()
        if is_first(options["distributed_option"]):
            keep(Path(options["options"].output_dir), epoch)
        # What an epoch draws at random follows from its number, so that a training that goes on
        # from a checkpoint gives the weights of one that was never interrupted.
        set_all_random_seed(options["options"].seed + epoch)
        remedy = (
            "lower batch_size or batch_bins, leave out longer clips, or set decoder_conf:"
            " {gradient_checkpointing: true}"
        )
        with guarded(options["model"], options["iterator"], remedy) as batches:
            return super().train_one_epoch(**{**options, "iterator": batches})

    @classmethod
    def validate_one_epoch(cls, model, iterator, reporter, options, distributed_option) -> None:
        """As in ESPnet; reports the epoch's number too. Errors as of `train_one_epoch`."""
        remedy = "lower valid_batch_size or valid_batch_bins, or leave out longer clips"
        with guarded(model, iterator, remedy) as batches:
            super().validate_one_epoch(model, batches, reporter, options, distributed_option)
        reporter.register({"epoch": reporter.get_epoch()})
        reporter.next()


@contextmanager
def guarded(
    model: torch.nn.Module, iterator: Iterable[tuple[list[str], dict[str, Any]]], remedy: str
) -> Iterator[Batches]:
    """The batches of an epoch; inside the context, what fails for one of them names it.

    Args:
        model: that is called with them.
        iterator: the batches.
        remedy: against running out of memory.

    Raises:
        FloatingPointError: as of `check_finite`.
        MemoryError: if the memory of the GPU or the machine does not suffice.
    """
    batches = Batches(iterator)

    def check(model: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        loss = output["loss"] if isinstance(output, dict) else output[0]
        check_finite(loss.detach(), batches.utterances)

    hook = model.register_forward_hook(check)
    try:
        with naming_utterances(lambda: batches.utterances, remedy):
            yield batches
    finally:
        hook.remove()


def check_finite(loss: torch.Tensor, utterances: Sequence[str]) -> None:
    """See that a loss is a number, here and in the other processes of the training.

    Args:
        loss: of any shape.
        utterances: of the batch that it is of.

    Raises:
        FloatingPointError: if it is NaN or infinite in any process, in all of them; names the
            utterances of those that have such a loss.
    """
    wrong = (~torch.isfinite(loss)).any()
    if not sum_over_processes(wrong.float()):
        return
    here = (str(loss.float().mean().item()), list(utterances)) if wrong else ("", [])
    values, batches = zip(*of_all_processes(here), strict=True)
    raise FloatingPointError(
        f"the loss is {' and '.join(filter(None, values))} for the utterances"
        f" {', '.join(chain(*batches))}: look at their recordings and transcripts;"
        f" if they are sound, lower optim_conf.lr or grad_clip"
    )


def is_first(option: DistributedOption) -> bool:
    """Whether this is the process that writes files."""
    return not option.distributed or option.dist_rank == 0


def is_full(error: Exception) -> bool:
    """Whether an error is of a file that could not be written for lack of space.

    PyTorch's says nothing of the kind: its writer finds itself at an unexpected place.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    texts = ("unexpected pos", "PytorchStreamWriter", "iostream error")
    return getattr(error, "errno", None) in full or any(text in str(error) for text in texts)


def keep(folder: Path, epoch: int) -> None:
    """Before ``epoch``: copy the last one's checkpoint beside it; an empty file before the first.

    A checkpoint that is there before the first epoch is of another training.
    """
    checkpoint, copy = folder / CHECKPOINT, folder / COMPLETE
    with replacing(copy) as partial:
        if epoch > 1 and checkpoint.is_file():
            shutil.copyfile(checkpoint, partial)
        else:
            partial.write_bytes(b"")


def restore(folder: Path, resume: bool) -> None:
    """Go back to the copy of the checkpoint, if the epoch after it did not come to its end.

    Without a checkpoint, training begins anew, and the copy is of an earlier one.
    """
    checkpoint, copy = folder / CHECKPOINT, folder / COMPLETE
    if not copy.is_file():
        return
    if not resume or not checkpoint.is_file():
        copy.unlink()
    elif copy.stat().st_size == 0:
        checkpoint.unlink()
        copy.unlink()
        logging.warning(f"{folder}: the first epoch was not written completely; it is run again")
    else:
        os.replace(copy, checkpoint)
        logging.warning(f"{folder}: going on from the last epoch that was written completely")
