"""What an encoder is here, beside ESPnet's interface.

An encoder maps waveforms or mouth crops to frames. Training and decoding need of it only what
ESPnet's ``AbsEncoder`` asks for; the frame rate and a pass without values let a dry run count what
it costs. Another one is a class in a file of its own, registered by name (docs/extend.md):

    @register_video_encoder("my_encoder")
    class MyEncoder(Encoder):
        frames_per_second = 25
        ...
"""

from abc import abstractmethod
from collections.abc import Callable

from mome.common.espnet import AbsEncoder
from mome.common.registry import Registry


class Encoder(AbsEncoder):
    """Base class of all encoders.

    ``forward(xs_pad, ilens)`` gives frames (B, T, D), their numbers (B,) and None, and
    ``output_size()`` is D. Audio encoders read waveforms (B, N) at 16 kHz, video encoders
    normalised mouth crops (B, T, 88, 88) at 25 a second, both zero beyond ``ilens``. What an
    utterance gives must not depend on the padding of its batch.

    Attributes:
        frames_per_second: T of a second.
    """

    frames_per_second: int

    @abstractmethod
    def dry_run(self, batch: int, seconds: float) -> None:
        """Compute what ``forward`` computes on clips without padding, on the meta device.

        Every product and convolution must run, as FLOPs and memory are counted from them; nothing
        may look at a value, as the tensors have none.

        Args:
            batch: number B of clips.
            seconds: length of each.
        """


AUDIO_ENCODERS: Registry[type[AbsEncoder]] = Registry(
    "audio encoder", "mome.encoders.register_audio_encoder"
)
VIDEO_ENCODERS: Registry[type[AbsEncoder]] = Registry(
    "video encoder", "mome.encoders.register_video_encoder"
)


def register_audio_encoder(name: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Decorate an encoder so that ``audio_encoder: <name>`` in a configuration takes it.

    Raises:
        ValueError: if the name is taken.
    """
    return AUDIO_ENCODERS.add(name)


def register_video_encoder(name: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Decorate an encoder so that ``video_encoder: <name>`` in a configuration takes it.

    Raises:
        ValueError: if the name is taken.
    """
    return VIDEO_ENCODERS.add(name)
