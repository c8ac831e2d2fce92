"""How recordings are transcribed: tasks, rates, what they may cost, and where they are cut."""

from dataclasses import dataclass
from typing import Self

MIN_SECONDS = 0.5  # of the longest segment


@dataclass(frozen=True)
class Budget:
    """What a second of speech may cost, by what was measured when the model was packed.

    Attributes:
        limit: of seconds of computation, or of TFLOPs.
        unit: ``seconds_per_second`` or ``tflops_per_second``, as the table of rates calls them.
    """

    limit: float
    unit: str = "seconds_per_second"

    @classmethod
    def parse(cls, text: str) -> Self:
        """``0.5`` (seconds) or ``0.2tflops``.

        Raises:
            ValueError: for anything else.
        """
        number = text.lower().removesuffix("tflops")
        unit = "seconds_per_second" if number == text.lower() else "tflops_per_second"
        try:
            limit = float(number)
        except ValueError:
            limit = 0.0
        if not limit > 0:
            raise ValueError(f"{text!r} is no budget such as 0.5 (real-time factor) or 0.2tflops")
        return cls(limit, unit)


@dataclass(frozen=True)
class Options:
    """How to transcribe.

    Attributes:
        task: ``avsr``, ``asr``, ``vsr``, or ``auto``: whatever streams a segment has.
        rates: compression rates such as ``a4_v2``; None takes the finest that were trained, or the
            best within the budget.
        budget: see :class:`Budget`; None sets none.
        cascade: read at the coarsest rates first, and again at those chosen what is doubtful, that
            is what has a lower confidence than this; None reads all at once.
        beam: hypotheses kept; 1 is greedy.
        batch_size: segments at once.
        max_seconds: longest segment; None takes a quarter more than in the model's training.
        min_pause: shortest pause between segments, in seconds.
        max_new_tokens: longest transcript of a segment; None takes a quarter more than in the
            model's training, and at least 64.
    """

    task: str = "auto"
    rates: str | None = None
    budget: Budget | None = None
    cascade: float | None = None
    beam: int = 4
    batch_size: int = 8
    max_seconds: float | None = None
    min_pause: float = 0.4
    max_new_tokens: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.max_seconds is not None and self.max_seconds < MIN_SECONDS:
            raise ValueError(f"max_seconds {self.max_seconds:g} must be {MIN_SECONDS:g} or more")
        if self.min_pause <= 0:
            raise ValueError(f"min_pause {self.min_pause:g} must be more than 0 seconds")
        if self.cascade is not None and not 0 <= self.cascade <= 1:
            raise ValueError(f"cascade {self.cascade:g} is a confidence, between 0 and 1")
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be 1 or more")
