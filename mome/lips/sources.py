"""What the clips of a set were made from, so that those of other sources are made anew."""

import os
from pathlib import Path

from mome.common.marks import digest_of
from mome.data.kaldi import read_scp, write_scp, write_text
from mome.lips.clips import AUDIO, Clip

ROOT = Path(__file__).resolve().parents[2]


def made_of(clip: Clip, dump: Path) -> list[Path]:
    """The files that were made of a clip, also by runs that were asked for other streams."""
    made = [Path(path) for path in clip.outputs]
    known = Path(clip.audio_output or clip.lips_output).relative_to(dump)  # audio/<speaker>/<file>
    if not clip.lips_output:
        made.append(dump / "lips" / known.parent.name / f"{clip.utterance}.mp4")
    if not clip.audio_output:
        made += [dump / "audio" / known.parent.name / f"{clip.utterance}.{f}" for f in AUDIO]
    return list(filter(os.path.isfile, made))


def drop_changed(dump: Path, clips: list[Clip], same: bool) -> None:
    """Delete the outputs of clips that were made from other sources, and record those of now.

    The record comes before the work, so that a killed run keeps what it has finished. What it says
    holds for streams that are not asked for now, too, as a later run may take what is left of them.

    Args:
        dump: folder of the record, ``sources``.
        clips: all clips of the set.
        same: whether the settings are those of before; otherwise all outputs are deleted.
    """
    record = dump / "sources"
    known = read_scp(record) if same and record.is_file() else {}
    sources = {clip.utterance: clip.made_from for clip in clips}
    for clip in clips:
        if known.get(clip.utterance) != sources[clip.utterance]:
            for path in made_of(clip, dump):
                path.unlink()
    write_scp(record, sources)


def look(dump: Path, clips: list[Clip]) -> None:
    """Write a checksum of what clips would be made from now, and say what has changed.

    Without any of the sources, as where a disk is not mounted, the checksum of before stays. Moving
    the repository changes nothing.
    """
    now = {clip.utterance: clip.made_from for clip in clips}
    record = dump / "sources.sha256"
    if record.is_file() and all(each.endswith(" absent") for each in now.values()):
        print(f"{dump}: none of the recordings is there now; they are taken to be as they were")
        return
    made = read_scp(dump / "sources") if (dump / "sources").is_file() else {}
    changed = sorted(name for name in now.keys() & made.keys() if now[name] != made[name])
    if changed:
        first = changed[0]
        print(
            f"{dump}: {len(changed)} of {len(made)} clips were made from other files than there"
            f" are now, such as {first}: was {made[first]}, is {now[first]}. To make only these"
            f" anew, delete {dump / '.done'}"
        )
    from_root = {name: made_from.replace(f"{ROOT}/", "") for name, made_from in now.items()}
    write_text(record, f"{digest_of(from_root)}\n")
