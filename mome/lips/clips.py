"""The clips of a data folder: what is read of each utterance, and where what is made of it goes."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mome.common.marks import stamp_of
from mome.data.audio import file_of
from mome.data.kaldi import read_scp, read_segments
from mome.data.text import normalise
from mome.data.video import LIP_RATE

STREAMS = ("audio", "video")
AUDIO = ("flac", "wav")  # formats


@dataclass(frozen=True)
class Clip:
    """One utterance: where its streams are and where they go.

    ``crop`` is a crop that exists; ``span`` is the first frame of a segment and the one after its
    last, at 25 a second. What is not asked for has no output: ``lips_output`` or ``audio_output``
    is empty.
    """

    utterance: str
    video: str
    audio: str
    lips_output: str
    audio_output: str
    crop: str | None
    span: tuple[int, int] | None = None

    @property
    def sources(self) -> list[str]:
        """The files that are read."""
        video = [self.crop or self.video] if self.lips_output else []
        return video + ([file_of(self.audio)] if self.audio_output else [])

    @property
    def outputs(self) -> list[str]:
        """The files that are written."""
        return [path for path in (self.audio_output, self.lips_output and self.new_crop) if path]

    @property
    def made_from(self) -> str:
        """Its sources with size and time of change, and the frames of a segment.

        No checksum: each look at a finished stage would read every recording of the corpus again.
        """
        words = [stamp_of(path) for path in dict.fromkeys(self.sources)]
        if self.span:
            words.append("frames {} to {}".format(*self.span))
        return ", ".join(words)

    @property
    def new_crop(self) -> str:
        """Where the crop goes, unless it exists."""
        return "" if self.crop else self.lips_output


def find_crop(
    lip_dir: Path, utterance: str, speaker: str, video: str, segmented: bool = False
) -> str:
    """An existing crop of an utterance; if there is none, the first path looked at.

    Here and where clips are dropped, `Path.is_file` would raise an error for too long a name.
    """
    number = utterance.removeprefix(speaker).lstrip("_-")
    folders, whole = Path(video).parts[-3:-1], Path(video).stem
    candidates = [
        lip_dir / speaker / f"{number}.mp4",
        *(
            lip_dir.joinpath(*folders[-depth:], f"{number if segmented else whole}.mp4")
            for depth in (2, 1)
            if video
        ),
        lip_dir / speaker / f"{utterance}.mp4",
        lip_dir / f"{utterance}.mp4",
    ]
    if segmented and len(folders) == 2:
        short = lip_dir / f"short-{folders[0]}" / folders[1]
        candidates.append(short / f"{number}.mp4")
        if number == f"{whole}_0":
            candidates.append(short / f"{whole}.mp4")
    return str(next(filter(os.path.isfile, candidates), candidates[0]))


def list_clips(
    data: Path,
    dump: Path,
    lip_dir: Path | None,
    audio_format: str,
    streams: Collection[str] = STREAMS,
) -> tuple[list[Clip], dict[str, str]]:
    """The clips of a data folder, and utterances excluded for what the folder lacks."""
    sound, sight = (stream in streams for stream in STREAMS)
    utt2spk, text = read_scp(data / "utt2spk"), read_scp(data / "text")
    videos = read_scp(data / "video.scp") if (data / "video.scp").is_file() else {}
    audios = read_scp(data / "wav.scp") if (data / "wav.scp").is_file() else {}
    if sight and not videos and lip_dir is None:
        raise FileNotFoundError(
            f"{data / 'video.scp'} does not exist; run stage 1, or give --lip_dir"
        )
    segments = read_segments(data / "segments") if (data / "segments").is_file() else {}
    clips, excluded = [], {}
    for utterance in sorted({*utt2spk, *(segments or videos or audios)}):
        speaker = utt2spk.get(utterance)
        segment = segments.get(utterance)
        recording = segment.recording if segment else utterance
        video = videos.get(recording, "")
        audio = audios.get(recording, video)
        span = None
        if segment:
            span = round(segment.start * LIP_RATE), round(segment.end * LIP_RATE)
        if not speaker:
            excluded[utterance] = f"{data / 'utt2spk'}: no speaker"
        elif not normalise(
            text.get(utterance, "")
        ):  # of "..." or "{NS}" scoring would keep nothing
            excluded[utterance] = f"{data / 'text'}: no words"
        elif segments and not segment:
            excluded[utterance] = f"{data / 'segments'}: no segment"
        elif span and span[0] == span[1]:
            excluded[utterance] = f"{data / 'segments'}: shorter than a frame"
        elif sound and not audio:
            excluded[utterance] = f"{data}: no audio"
        elif sight and not (video or lip_dir):
            excluded[utterance] = f"{data}: no video"
        else:
            name = f"{speaker}/{utterance}"
            crop = None
            if lip_dir and sight:
                crop = find_crop(lip_dir, utterance, speaker, video, bool(segment))
            clips.append(
                Clip(
                    utterance,
                    video,
                    audio,
                    str(dump / "lips" / f"{name}.mp4") if sight else "",
                    str(dump / "audio" / f"{name}.{audio_format}") if sound else "",
                    crop,
                    span,
                )
            )
    return clips, excluded
