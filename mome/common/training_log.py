"""The log of ESPnet's trainer: what it reports, and what of it a person wants to see.

The trainer writes its options, the whole model and a warning for each tensor that a warm start does
not have. All of that stays in the log; a line of progress stands for it on the screen.
"""

import re

from mome.common.progress import Pace

STARTED = re.compile(
    r"INFO: (?P<epoch>\d+)/(?P<epochs>\d+)epoch started(\. Estimated time to finish: (?P<left>.+))?"
)
STEPS = re.compile(r"INFO: (?P<epoch>\d+)epoch:train:\d+-(?P<step>\d+)batch: (?P<values>.+)")
FINISHED = re.compile(r"\(trainer:\d+\) INFO: (?P<epoch>\d+)epoch results: (?P<parts>.*)")
PART = re.compile(r"\[(train|valid)\] ")
VALUE = re.compile(r"(\w+)=([-+.\d]+(?:e[-+]?\d+)?|nan|-?inf)(?=,|$| )")
PROBLEM = re.compile(r"\b(?:WARNING|ERROR|CRITICAL): (?P<what>.*)")
# A warning for each tensor that is in a warm start and not in the model: its lip encoder, exported.
EXPECTED = "Filter out "
DURATION = re.compile(r"(\d+) (day|hour|minute)s?|([\d.]+) seconds?")


def epoch_results(line: str) -> tuple[int, dict[str, dict[str, str]]] | None:
    """What a line reports of a finished epoch; None if it reports none.

    Returns:
        the epoch, and for ``train`` and ``valid`` the statistics as they are written.
    """
    if (found := FINISHED.search(line)) is None:
        return None
    _, *pieces = PART.split(found["parts"])
    parts = zip(pieces[::2], pieces[1::2], strict=True)
    return int(found["epoch"]), {part: dict(VALUE.findall(text)) for part, text in parts}


def condense(line: str) -> str | None:
    """A line for the screen; None if this one is for the log alone."""
    if found := STARTED.search(line):
        left = "" if found["left"] is None else f", some {shorter(found['left'])} left"
        return f"epoch {found['epoch']} of {found['epochs']}{left}"
    if found := STEPS.search(line):
        values = dict(VALUE.findall(found["values"]))
        return (
            f"  step {found['step']}: {_chosen(values)}, {values.get('train_time', '?')} s a step"
        )
    if results := epoch_results(line):
        epoch, parts = results
        train, valid = (_chosen(parts.get(part, {})) for part in ("train", "valid"))
        return f"  epoch {epoch}: {train}; validation {valid}"
    if found := PROBLEM.search(line):
        return None if found["what"].startswith(EXPECTED) else f"  {found['what']}"
    return None


class Follower:
    """Condenses the log of a training line by line, and says how far it is and what time is left.

    Args:
        steps: of an epoch; None if that follows from the data, and then epochs alone tell how far
            the training is.
        pace: says the time that is left.
    """

    def __init__(self, steps: int | None = None, pace: Pace | None = None):
        self.steps = steps
        self.pace = pace or Pace()
        self.epochs = 0
        self.begun = False

    def __call__(self, line: str) -> str | None:
        """As :func:`condense`; steps are counted from the first epoch on, as far as known."""
        if found := STARTED.search(line):
            self.epochs = int(found["epochs"])
            if not self.begun:
                self.begun = True
                self.pace.begin((int(found["epoch"]) - 1) / self.epochs)
        shown = condense(line)
        found = STEPS.search(line)
        if shown is None or found is None or not self.epochs or not self.steps:
            return shown
        step = (int(found["epoch"]) - 1) * self.steps + int(found["step"])
        total = self.epochs * self.steps
        values = shown.partition(": ")[2]
        return self.pace.line(f"step {step} of {total}, {values}", step / total)


def _chosen(values: dict[str, str]) -> str:
    names = {"loss": "loss", "acc": "accuracy"}
    return ", ".join(f"{title} {values[name]}" for name, title in names.items() if name in values)


def shorter(duration: str) -> str:
    """``1 hour, 2 minutes and 3.5 seconds`` as ``1 hour 2 minutes``."""
    parts = [found[0] for found in DURATION.finditer(duration)]
    return " ".join(parts[: max(1, len(parts) - 1)]) or duration
