"""What the decoded conditions of a table have in common, checked and in words."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from mome.common.marks import Settings, demand_same
from mome.data import test_sets
from mome.data.kaldi import read_scp


def demand_alike(
    conditions: Mapping[Path, Settings], dump: Path, but: Collection[str] = ()
) -> None:
    """See that conditions may stand in one table.

    Beam, weights and what else was given to decoding are the same, the test sets are those that
    there are now, all copies with one kind of noise have it of one source and seed, and all lips
    that are corrupted in one way are so by one seed and the same strengths.

    Args:
        conditions: folder ``<decode>/<task>/<set>/<rate pair>`` -> settings of its decoding.
        dump: folder of the test sets.
        but: settings that may differ, such as the weights of several models.

    Raises:
        mome.common.marks.OtherSettings: if not; names both conditions, or both sets.
    """
    first = next(iter(conditions))
    for folder, settings in conditions.items():
        demand_same(
            f"{folder}, unlike {first},",
            _without(settings, "test_set", *but),
            _without(conditions[first], "test_set", *but),
            "--decode_tag",
        )
        name = folder.parent.name
        decoded = {key: value for key, value in settings.items() if key == "test_set"}
        now = {"test_set": test_sets.settings_of(dump, name)}
        demand_same(f"{folder}, unlike {dump / name} now,", decoded, now, "--decode_tag")
    names = [folder.parent.name for folder in conditions]
    for copies in (*_by_noise(names).values(), *_by_corruption(names).values()):
        settings_of = {name: test_sets.settings_of(dump, name) for name in copies}
        for name, settings in settings_of.items():
            demand_same(
                f"{dump / name}, unlike {dump / copies[0]},",
                _without(settings, "source"),
                _without(settings_of[copies[0]], "source"),
                "--dumpdir",
            )


def describe_search(settings: Settings) -> str:
    """The settings of a decoding in words, without the weights."""
    words = [f"Beam {settings['beam']}", f"at most {settings['max_new_tokens']} new tokens"]
    if penalty := settings["length_penalty"]:
        words.append(f"length penalty {penalty:g}")
    if size := settings.get("no_repeat_ngram_size"):
        words.append(f"no {size}-gram of tokens twice")
    return ", ".join(words)


def describe_copies(dump: Path, names: Iterable[str]) -> list[str]:
    """Lines about noise and corrupted lips of test sets: the source, the seed, and a checksum.

    Two tables with the same checksum have the same recordings of noise in their tests.
    """
    names = list(names)
    lines = []
    for kind, copies in _by_noise(names).items():
        settings = test_sets.settings_of(dump, copies[0])
        words = [f"- Noise `{kind}`", _source(kind, settings)]
        if digest := noise_digest(dump, kind):
            words.append(f"recordings of tests SHA-256 {digest[:12]}")
        lines.append(f"{words[0]}: {', '.join(words[1:])}.")
    seeds = {
        str(test_sets.settings_of(dump, name).get("seed", "unknown"))
        for copies in _by_corruption(names).values()
        for name in copies
    }
    if seeds:
        lines.append(f"- Corrupted lips: seed {', '.join(sorted(seeds))}.")
    return lines


def noise_digest(dump: Path, kind: str) -> str:
    """SHA-256 of the test recordings of a kind of noise, by id; empty if they are not listed.

    Of recordings that lie elsewhere, as MUSAN's, size stands for content.
    """
    folder = dump / "noise"
    listed = folder / f"test_{kind}.scp"
    if not listed.is_file():
        return ""
    digest = hashlib.sha256()
    for name, path in sorted(read_scp(listed).items()):
        file = Path(path)
        if not file.is_file():
            return ""
        ours = folder.resolve() in file.resolve().parents
        content = file.read_bytes() if ours else str(file.stat().st_size).encode()
        digest.update(name.encode() + b" " + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _source(kind: str, settings: Mapping[str, Any]) -> str:
    """Where the noise of a copy comes from, and its seed."""
    seed = f"seed {settings.get('seed', 'unknown')}"
    if kind == "babble":
        folder = settings.get("test_babble_from") or settings.get("babble_from")
        voices = Path(folder).name if folder else settings.get("train_set", "an unknown set")
        count = settings.get("speakers")
        return f"{f'up to {count} ' if count else ''}voices of `{voices}`, {seed}"
    if kind == "noisex":
        files = ", ".join(sorted(settings.get("noisex", ["unknown"])))
        return f"the end of NOISEX-92's {files}, {seed}"
    return f"MUSAN of {settings.get('musan', 'an unknown folder')}, {seed}"


def _by_noise(names: Iterable[str]) -> dict[str, list[str]]:
    """Kind of noise -> the sets that have it as made by stage 3, without their corrupted copies."""
    copies: dict[str, list[str]] = {}
    for name in sorted(dict.fromkeys(names)):
        each = test_sets.parse(name)
        if each.noise:
            source = each.source if each.corruption else name
            copies.setdefault(each.noise, [])
            if source not in copies[each.noise]:
                copies[each.noise].append(source)
    return copies


def _by_corruption(names: Iterable[str]) -> dict[str, list[str]]:
    """Corruption of lips -> the copies that have it."""
    copies: dict[str, list[str]] = {}
    for name in sorted(dict.fromkeys(names)):
        if corruption := test_sets.parse(name).corruption:
            copies.setdefault(corruption, []).append(name)
    return copies


def _without(settings: Settings, *names: str) -> Settings:
    return {key: value for key, value in settings.items() if key not in names}
