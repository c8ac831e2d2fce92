"""Compare methods over several trainings each: means, spreads, and paired bootstraps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mome.analysis.wer import RESAMPLES, count_errors, normalised_pairs


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
    references: Mapping[str, str], transcripts: Sequence[Mapping[str, str]]
) -> tuple[np.ndarray, np.ndarray]:
    """Errors of S trainings in U utterances.

    Returns:
        (S, U) errors, and (U,) words of the references.

    Raises:
        ValueError: if references and hypotheses do not fit, naming an utterance.
    """
    counts = [count_errors(normalised_pairs(references, each)) for each in transcripts]
    return np.stack([each[:, :3].sum(1) for each in counts]), counts[0][:, 3]


def wer_of(errors: np.ndarray, words: np.ndarray) -> float:
    """WER in % over all trainings and utterances."""
    return float(100 * errors.mean(0).sum() / words.sum())


def paired_bootstrap(
    errors: np.ndarray, baseline: np.ndarray, words: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % confidence interval of a difference of WERs in % (Bisani & Ney, ICASSP 2004).

    Utterances are drawn with their errors in both systems. Seeds are drawn too, a seed for both
    systems where these have the same number of them, since they begin with the same weights and
    see the same batches: another seed is as much by chance as another utterance. With one seed the
    interval speaks of these trainings alone.

    Args:
        errors: (S, U) of a system.
        baseline: (S', U) of the other.
        words: (U,) of the references.
    """
    rng = np.random.default_rng(seed)
    utterances = rng.integers(len(words), size=(RESAMPLES, len(words)))
    seeds = rng.integers(len(errors), size=(RESAMPLES, len(errors)))
    if len(baseline) == len(errors):
        others = seeds
    else:
        others = rng.integers(len(baseline), size=(RESAMPLES, len(baseline)))
    differences = [
        wer_of(errors[s][:, u], words[u]) - wer_of(baseline[o][:, u], words[u])
        for u, s, o in zip(utterances, seeds, others, strict=True)
    ]
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def compare(errors: np.ndarray, baseline: np.ndarray | None, words: np.ndarray) -> Compared:
    """A method beside a baseline; see `paired_bootstrap`."""
    wers = [float(100 * each.sum() / words.sum()) for each in errors]
    spread = float(np.std(wers, ddof=1)) if len(wers) > 1 else None
    mean = float(np.mean(wers))
    if baseline is None:
        return Compared(wers, mean, spread, None, None, None)
    low, high = paired_bootstrap(errors, baseline, words)
    return Compared(wers, mean, spread, mean - wer_of(baseline, words), low, high)
