"""Read text files as any system's editors write them."""

import codecs
from pathlib import Path

BYTE_ORDER_MARK = "\ufeff"


def read_text(path: str | Path, otherwise: str | None = None) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it begins with a byte order mark of that.

    Byte order marks are left out wherever they are: joined files have some in their middle. Line
    ends are those of the file.

    Args:
        path: the file.
        otherwise: encoding of a file that is not in UTF-8; None makes that an error.

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: for a file in another encoding; the message names it.
    """
    raw = Path(path).read_bytes()
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = raw.decode("utf-16" if wide else "utf-8")
    except UnicodeDecodeError as error:
        if otherwise is None or wide:
            raise ValueError(f"{path} is not UTF-8 ({error}); convert it") from error
        text = raw.decode(otherwise)
    return text.replace(BYTE_ORDER_MARK, "")
