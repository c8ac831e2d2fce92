"""Files inside a page."""

import base64


def data_url(kind: str, data: bytes) -> str:
    """A file inside a page: its address, by its media type, such as ``image/png``."""
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
