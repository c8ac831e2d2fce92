"""Compare methods over several trainings each: means, spreads, and intervals of differences."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mome.analysis.wer import RESAMPLES, count_errors, error_rate, normalised_pairs


@dataclass(frozen=True)
class Compared:
    """Word error rates in % of a method's trainings, beside those of a baseline.

    Attributes:
        wers: one for each seed.
        mean: of them.
        spread: their standard deviation; None for one seed.
        difference: mean WER less that of the baseline; None for the baseline itself.
        low: lower end of the difference's 95 % confidence interval.
        high: upper end.
    """

    wers: list[float]
    mean: float
    spread: float | None
    difference: float | None
    low: float | None
    high: float | None


def errors_by_seed(
    references: Mapping[str, str], transcripts: Mapping[int, Mapping[str, str]]
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Errors of trainings in U utterances.

    Args:
        references: utterance -> text.
        transcripts: seed -> utterance -> text.

    Returns:
        seed -> (U,) errors, and (U,) words of the references.

    Raises:
        ValueError: if references and hypotheses do not fit, naming an utterance.
    """
    counts = {
        seed: count_errors(normalised_pairs(references, each)) for seed, each in transcripts.items()
    }
    words = next(iter(counts.values()))[:, 3]
    return {seed: each[:, :3].sum(1) for seed, each in counts.items()}, words


def wer_of(errors: np.ndarray, words: np.ndarray) -> float:
    """WER in % over all trainings and utterances."""
    return error_rate(errors.mean(0), words)


def paired_interval(
    errors: np.ndarray, baseline: np.ndarray, words: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % confidence interval of a difference of WERs in %, over utterances and over seeds.

    Utterances are drawn with their errors in both systems (Bisani & Ney, ICASSP 2004). Seeds are
    too few to be drawn: a bootstrap over three of them holds the true difference in two of three
    cases only. Their part is Student's t of the differences seed by seed, and both parts add up as
    independent ones do. With one seed the interval speaks of these trainings alone.

    Args:
        errors: (S, U) of a system.
        baseline: (S, U) of the other, trained with the same seeds.
        words: (U,) of the references.
    """
    gaps = errors - baseline  # (S, U)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(words), size=(RESAMPLES, len(words)))
    of_utterances = gaps.mean(0)[drawn].sum(1) / words[drawn].sum(1)
    mean = wer_of(gaps, words)
    low, high = (100 * end - mean for end in np.percentile(of_utterances, [2.5, 97.5]))
    width = 0.0
    if len(gaps) > 1:
        from scipy.stats import t

        of_seeds = [error_rate(each, words) for each in gaps]
        width = t.ppf(0.975, len(gaps) - 1) * np.std(of_seeds, ddof=1) / np.sqrt(len(gaps))
    return float(mean - np.hypot(low, width)), float(mean + np.hypot(high, width))


def compare(
    errors: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray] | None, words: np.ndarray
) -> Compared:
    """A method beside a baseline.

    Args:
        errors: seed -> (U,) errors of a training.
        baseline: the same of the baseline; None for the baseline itself. The difference is that of
            the seeds that both have; None without such seeds.
        words: (U,) of the references.
    """
    wers = [error_rate(each, words) for each in errors.values()]
    spread = float(np.std(wers, ddof=1)) if len(wers) > 1 else None
    mean = float(np.mean(wers))
    common = [each for each in errors if baseline is not None and each in baseline]
    if baseline is None or not common:
        return Compared(wers, mean, spread, None, None, None)
    one, other = (np.stack([of[each] for each in common]) for of in (errors, baseline))
    low, high = paired_interval(one, other, words)
    return Compared(wers, mean, spread, wer_of(one, words) - wer_of(other, words), low, high)
