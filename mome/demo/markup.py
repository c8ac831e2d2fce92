"""HTML of what the page shows. Pictures, sound and video are inside it, so that no file is left."""

import html
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mome.analysis.wer import rate_name
from mome.common.data_url import data_url
from mome.data.audio import RATE, limit_peak, write_flac
from mome.data.augment import center_crop
from mome.data.pictures import encode_png
from mome.data.video import write_lips
from mome.demo.reading import Row
from mome.transcribe.confidence import LOW, UNKNOWN
from mome.transcribe.transcript import Segment

NAMES = {"avsr": "sound and lips", "asr": "sound alone", "vsr": "lips alone"}
STILLS = 12
# Narrow screens show a row of a table as a block of its own, with the names of the columns.
CSS = """
.gradio-container .app.fillable { max-width: 1100px !important; }
.gradio-container .html-container { padding: 0; }
.mome { color: var(--body-text-color); overflow-wrap: anywhere; }
.mome h2 { margin: 12px 0 8px; }
.mome table { width: 100%; border-collapse: collapse; border: none; }
.mome th, .mome td { text-align: left; vertical-align: top; padding: 6px 10px; border: none;
    border-bottom: 1px solid var(--border-color-primary); }
.mome th:first-child, .mome td:first-child { padding-left: 0; }
.mome table tr { border: none; }
.mome th { font-weight: 600; overflow-wrap: normal; }
.mome td.number { white-space: nowrap; font-variant-numeric: tabular-nums; }
.mome mark { background: none; color: inherit; border-bottom: 2px dotted var(--error-text-color); }
.mome mark sub { opacity: 0.75; padding-left: 2px; }
.mome .cards { display: flex; flex-wrap: wrap; gap: 12px; }
.mome .card { flex: 1 1 200px; min-width: 0; border: 1px solid var(--border-color-primary);
    border-radius: 8px; padding: 12px; }
.mome .card p.said { font-size: 1.2em; margin: 6px 0; }
.mome .small { opacity: 0.75; font-size: 0.9em; margin: 2px 0; }
.mome .mouth { display: flex; flex-wrap: wrap; gap: 8px; }
.mome .mouth video { width: 156px; height: 156px; background: #000; }
.mome .stills { display: grid; grid-template-columns: repeat(6, minmax(0, 76px)); gap: 4px; }
.mome .stills img { width: 100%; margin: 0; }
.mome .experts img { width: 100%; max-width: 420px; margin: 0; }
.mome audio { width: 100%; max-width: 480px; }
.mome .message { border-left: 4px solid var(--color-accent); padding: 4px 12px; }
.mome .message.error { border-color: var(--error-text-color); }
@media (max-width: 640px) {
    .gradio-container .app { padding: 12px 16px; }
    .mome thead { display: none; }
    .mome table, .mome tbody, .mome tr { display: block; }
    .mome table tr { border: 1px solid var(--border-color-primary); border-radius: 8px;
        margin: 8px 0; padding: 6px 12px; }
    .mome td { display: inline-block; border: none; padding: 2px 14px 2px 0; }
    .mome td.text { display: block; }
    .mome td::before { content: attr(data-label) ": "; opacity: 0.75; }
}
"""


def box(inside: str, classes: str = "") -> str:
    """A part of the page, which the page's own rules of style apply to."""
    return f'<div class="mome {classes}">{inside}</div>'


def escape(text: object) -> str:
    """Text as HTML. Gradio's templates would take braces and dollars for something to fill in."""
    escaped = html.escape(str(text))
    for sign in "${}":
        escaped = escaped.replace(sign, f"&#{ord(sign)};")
    return escaped


def message(lines: Sequence[str], error: bool = False) -> str:
    """Short lines that say what was read, or why nothing could be."""
    inside = "<br>".join(escape(line) for line in lines)
    role = ' role="alert"' if error else ""
    return box(f'<p class="message{" error" if error else ""}"{role}>{inside}</p>')


def words_of(segment: Segment) -> str:
    """The words of a segment; those of low confidence are marked, with their confidence."""
    return " ".join(
        escape(word.text)
        if word.confidence >= LOW
        else f"<mark>{escape(word.text)}<sub>{word.confidence:.2f}</sub></mark>"
        for word in segment.words
    )


def said(row: Row) -> str:
    """A transcript, segment by segment, with what was unusual in it."""
    lines = []
    for segment in row.segments:
        if segment is None:
            lines.append("<i>(a segment without these streams)</i>")
            continue
        line = words_of(segment) or "<i>(no words)</i>"
        if "cut off at the limit of tokens" in segment.notes:
            line += " <i>(cut off)</i>"
        lines.append(line)
    return "<br>".join(lines)


def sure(row: Row) -> str:
    """The mean confidence of a transcript, or a dash."""
    return "–" if row.confidence is None else f"{row.confidence:.2f}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str]) -> str:
    """A table of HTML cells; narrow screens show the names of the columns in each row.

    Args:
        columns: their names.
        rows: HTML of the cells.
        numbers: columns of short cells, which are not broken into lines.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = ""
    for cells in rows:
        body += "<tr>"
        for name, cell in zip(columns, cells, strict=True):
            kind = "number" if name in numbers else "text"
            body += f'<td class="{kind}" data-label="{escape(name)}">{cell}</td>'
        body += "</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def transcripts_table(rows: Sequence[Row]) -> str:
    """Transcripts at each rate with what they cost."""
    short = ["reads", "rates", "audio tokens", "video tokens", "seconds", "confidence"]
    cells = [
        [
            NAMES[row.chosen.task],
            escape(row.chosen.pair),
            *(str(row.tokens.get(kind, "–")) for kind in ("audio", "video")),
            f"{row.seconds:.2f}",
            sure(row),
            said(row),
        ]
        for row in rows
    ]
    inside = table([*short, "transcript"], cells, short)
    return box(f"<h2>At each rate</h2>{inside}", "transcripts")


def side_by_side(rows: Sequence[Row], noise: str) -> str:
    """What is understood of the sound, of the lips and of both.

    Args:
        rows: a transcript for each.
        noise: that was added, in words.
    """
    cards = "".join(
        f'<div class="card" data-task="{row.chosen.task}"><b>{NAMES[row.chosen.task]}</b> '
        f"({row.chosen.task.upper()})"
        f'<p class="said">{said(row)}</p><p class="small">confidence {sure(row)}, at '
        f"{escape(row.chosen.pair)}</p></div>"
        for row in rows
    )
    doubtful = f"underlined: words of a confidence below {LOW:g}, which is given"
    return box(
        f'<p class="noise">{escape(noise)}</p><div class="cards">{cards}</div>'
        f'<p class="small">{doubtful}</p>',
        "side",
    )


def mouth(frames: np.ndarray, size: int) -> str:
    """The mouth as the model reads it, as a video and as still pictures.

    Args:
        frames: uint8 (T, 96, 96) at 25 a second.
        size: side of the part in the middle that is read.
    """
    seen = np.ascontiguousarray(center_crop(frames, size))
    with tempfile.TemporaryDirectory(prefix="mome-") as folder:
        path = Path(folder, "mouth.mp4")
        write_lips(path, seen)
        video = data_url("video/mp4", path.read_bytes())
    places = np.linspace(0, len(seen) - 1, STILLS).round().astype(int)
    stills = "".join(
        f'<img src="{data_url("image/png", encode_png(seen[place]))}" alt="mouth at '
        f'{place / 25:.2f} s">'
        for place in places
    )
    return box(
        f'<div class="mouth"><video src="{video}" autoplay muted loop playsinline controls></video>'
        f'<div class="stills">{stills}</div></div>'
        f'<p class="small">{len(seen)} pictures of {size}×{size} pixels are read, 25 a second; '
        f"{STILLS} of them at equal steps in time</p>"
    )


def sound(samples: np.ndarray) -> str:
    """A player of float32 (N,) at 16 kHz, without the pauses between segments."""
    with tempfile.TemporaryDirectory(prefix="mome-") as folder:
        path = Path(folder, "sound.flac")
        write_flac(path, limit_peak(samples), RATE)
        url = data_url("audio/flac", path.read_bytes())
    return box(f'<audio controls src="{url}"></audio>')


def experts(shares: Mapping[str, np.ndarray], rates: str) -> str:
    """Heat maps of the experts' shares, one for each kind of token, on one scale of colours.

    Args:
        shares: kind -> (layers, Nr), see :func:`mome.analysis.routing.expert_shares`.
        rates: at which they were read.
    """
    if not shares:
        return message(["This model has no routed experts."])
    top = max(float(each.max()) for each in shares.values())
    pictures = "".join(
        f'<div class="card experts"><img src="{data_url("image/png", heat_map(each, kind, top))}" '
        f'alt="share of each expert per layer, {kind} tokens"></div>'
        for kind, each in shares.items()
    )
    num_routed = next(iter(shares.values())).shape[1]
    return box(
        f'<h2>Experts</h2><div class="cards">{pictures}</div>'
        f'<p class="small">Read at {escape(rates)}. Of the '
        f"choices that the tokens of a kind make in a layer, the share of each of the {num_routed} "
        f"routed experts; with equal shares it would be {1 / num_routed:.1%}. Text is the prompt, "
        f"the markers around the streams, and the transcript.</p>"
    )


def heat_map(shares: np.ndarray, kind: str, top: float) -> bytes:
    """A heat map as PNG: experts from left to right, layers from bottom to top.

    Args:
        shares: (layers, Nr).
        kind: of the tokens.
        top: share at the end of the scale of colours.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layers, routed = shares.shape
    figure = Figure(figsize=(3.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    # Experts and layers are counted from one.
    extent = (0.5, routed + 0.5, 0.5, layers + 0.5)
    image = axes.imshow(
        shares, vmin=0, vmax=top, cmap="magma", aspect="auto", origin="lower", extent=extent
    )
    axes.set(title=f"{kind} tokens", xlabel="routed expert", ylabel="layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes, format="{x:.0%}", label="share of choices")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=140)
    return data.getvalue()


def about(info: Mapping[str, Any]) -> str:
    """What the model was trained on, and what cannot be expected of it."""
    trained_on = escape(info.get("trained_on") or "not said")
    hours = f" ({info['training_hours']:g} h)" if "training_hours" in info else ""
    longest = ""
    if "max_seconds" in info:
        longest = f" It was trained on clips of up to {info['max_seconds']:g} s."
    return box(f"<p><b>Trained on:</b> {trained_on}{hours}.{longest} {UNKNOWN}</p>")


def measured(info: Mapping[str, Any]) -> str:
    """The error rates that were measured when the model was packed."""
    rows = info.get("rates") or []
    if not rows:
        return message(["Nothing was measured when this model was packed."])
    columns = {
        "reads": lambda row: NAMES[row["task"]],
        "rates": lambda row: escape(row["rates"]),
        f"{rate_name(rows)} in %": lambda row: f"{row['wer']:g}",
        "seconds": lambda row: f"{row['seconds_per_second']:g}",
        "TFLOPs": lambda row: f"{row['tflops_per_second']:g}",
    }
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    return box(
        table(list(columns), cells, list(columns))
        + f'<p class="small">Measured on {escape(info.get("measured", "?"))}, when the model was '
        f"packed; seconds and TFLOPs for a second of speech.</p>"
    )
