"""How recordings are transcribed: tasks, rates, what they may cost, and where they are cut."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

MIN_SECONDS = 0.5  # of the longest segment


@dataclass(frozen=True)
class Budget:
    """What a second of speech may cost, by what was measured when the model was packed.

    That is what the encoders and the search cost, with the beam and on the machine of that
    measurement. Decoding the file, finding and following faces and cutting the recording are not
    part of it, so that it is no real-time factor.

    Attributes:
        limit: of seconds, or of TFLOPs.
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
            raise ValueError(
                f"{text!r} is no budget such as 0.5 (seconds of encoders and search for a second "
                f"of speech) or 0.2tflops"
            )
        return cls(limit, unit)

    def cost(self, row: Mapping[str, Any], coarse: Mapping[str, Any] | None = None) -> float:
        """What a second of speech costs at most.

        Args:
            row: of the table of rates.
            coarse: row of the rates that all is read at first, by the same output of the encoders;
                None without a cascade. At most, all of it is doubtful and read again. Of models
                that earlier versions packed the encoders' share is not known, and counts twice.
        """
        cost = float(row[self.unit])
        if coarse is not None and coarse["rates"] != row["rates"]:
            cost += coarse[self.unit] - coarse.get(f"encoder_{self.unit}", 0.0)
        return cost


@dataclass(frozen=True)
class Options:
    """How to transcribe.

    Attributes:
        task: ``avsr``, ``asr``, ``vsr``, or ``auto``: whatever streams a segment has.
        rates: compression rates such as ``a4_v2``; None takes the finest that were trained, or the
            best within the budget.
        budget: see :class:`Budget`; None sets none. It is for the encoders and the search alone.
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
