"""The page in Gradio. It asks nothing of any other machine, and keeps no upload."""

import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
import safehttpx

from mome.data.video import MediaError, reason_of
from mome.demo import markup
from mome.demo.reading import (
    Noises,
    Read,
    Row,
    encode,
    experts_of,
    read,
    transcribe_at,
    with_noise,
)
from mome.transcribe.choice import finest
from mome.transcribe.options import Options
from mome.transcribe.transcriber import Transcriber

MAX_SECONDS = 30.0  # of a recording that are read, so that others need not wait for long
MAX_BYTES = 200 * 2**20  # of an upload
# The noise slider, in dB; its right end stands for no noise.
LOUDEST, CLEAN, STEP = -10, 25, 5
# Seconds after which Gradio deletes uploads that were never read, and how often it looks.
FORGOTTEN, LOOKS = 600, 60
# Seconds for which what was read of a recording is kept; as long as Gradio keeps what belongs to
# pages that were closed.
KEPT = 3600
WAITING = 8  # visitors at once; further ones are told that the page is busy

Shown = tuple[str, str, str, str]  # side by side, table, player, experts
NOTHING: Shown = ("", "", "", "")


class Demo:
    """What the page does.

    Args:
        transcribe: the model.
        options: how recordings are read.
        noises: see :func:`mome.demo.reading.find_noises`.
    """

    def __init__(self, transcribe: Transcriber, options: Options, noises: Noises):
        self.transcribe = transcribe
        self.options = options
        self.noises = noises

    def receive(self, upload: str | None) -> tuple[Read | None, str, str]:
        """Read an upload and delete it.

        Returns:
            what was read (None if nothing could be), a message, and the mouth.
        """
        if upload is None:
            return None, "", ""
        path = Path(upload)
        try:
            recording = read(self.transcribe, path, self.options, MAX_SECONDS)
        except Exception as error:
            if not isinstance(error, MediaError | ValueError | FileNotFoundError):
                traceback.print_exc(file=sys.stderr)
            reason = error.reason if isinstance(error, MediaError) else reason_of(error)
            lines = [f"{path.name} cannot be read: {reason}"]
            return None, markup.message(lines, error=True), ""
        finally:
            delete(path)
        if not recording.clips:
            lines = [f"{recording.name}: nothing to read in it", *recording.notes]
            return None, markup.message(lines, error=True), ""
        seconds = sum(clip.end - clip.start for clip in recording.clips)
        parts = len(recording.clips)
        lines = [
            f"{recording.name}: {seconds:.1f} s are read, in {parts} segment{'s' * (parts > 1)}",
            *recording.notes,
        ]
        lips = ""
        if recording.has("lips"):
            lips = markup.mouth(recording.joined("lips"), self.transcribe.preprocess.crop_size)
        return recording, markup.message(lines), lips

    def show(
        self, recording: Read | None, snr: float, kind: str, progress: gr.Progress | None = None
    ) -> Shown:
        """Transcribe what was read at each rate, with noise or without.

        Returns:
            HTML of the tasks side by side, the table of all rates, the player, the experts.
        """
        if recording is None:
            return markup.message(["Nothing is there to be read: upload a recording."]), "", "", ""
        heard, noise = recording, "Without noise:"
        if snr < CLEAN and recording.has("speech"):
            heard = with_noise(recording, snr, kind, self.noises)
            noise = f"With noise ({kind}) at {snr:g} dB:"
        rows: list[Row] = []
        every = self.transcribe.model.task_pairs
        encoded = {
            task: of_task
            for task in self.transcribe.model.pairs
            if (of_task := encode(self.transcribe, heard, task)) is not None
        }
        for number, chosen in enumerate(every):
            if progress is not None:
                progress((number, len(every)), desc=str(chosen))
            if chosen.task in encoded:
                of_task = encoded[chosen.task]
                rows.append(transcribe_at(self.transcribe, heard, of_task, chosen, self.options))
        if not rows:
            lines = ["This model reads nothing of what is there."]
            return markup.message(lines, error=True), *NOTHING[1:]
        pairs = self.transcribe.model.pairs
        tasks = [task for task in ("asr", "vsr", "avsr") if task in pairs]
        side = [row for task in tasks for row in rows if row.chosen == finest(task, pairs)]
        most = max(side, key=lambda row: len(row.tokens))
        player = markup.sound(heard.joined("speech")) if heard.has("speech") else ""
        shares = experts_of(self.transcribe, encoded[most.chosen.task], most)
        return (
            markup.side_by_side(side, noise),
            markup.transcripts_table(rows),
            player,
            markup.experts(shares, str(most.chosen)),
        )


def delete(path: Path) -> None:
    """Delete an upload and the folder of its own that Gradio gives it."""
    path.unlink(missing_ok=True)
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def build(demo: Demo) -> gr.Blocks:
    """The page."""
    title = "MoME: sound and lips"
    with gr.Blocks(
        title=title, analytics_enabled=False, delete_cache=(LOOKS, FORGOTTEN), fill_width=False
    ) as page:
        gr.HTML(markup.box(f"<h1>{title}</h1>"))
        gr.HTML(markup.about(demo.transcribe.info))
        state = gr.State(None, time_to_live=KEPT)
        with gr.Tabs():
            with gr.Tab("File"):
                file = gr.File(label="Video or sound", elem_id="file", height=140)
            with gr.Tab("Camera"):
                camera = gr.Video(
                    label="Record yourself",
                    sources=["webcam"],
                    include_audio=True,
                    height=320,
                    webcam_options=gr.WebcamOptions(mirror=False),
                    elem_id="camera",
                )
        gr.HTML(
            f'<p class="small">The upload is deleted as soon as it has been read. At most '
            f"{MAX_SECONDS:g} s of it are read.</p>",
            elem_classes="mome",
        )
        status = gr.HTML("", elem_id="status")
        lips = gr.HTML("", elem_id="lips")
        gr.HTML(markup.box("<h2>What the lips give</h2>"))
        with gr.Row():
            snr = gr.Slider(
                LOUDEST,
                CLEAN,
                value=CLEAN,
                step=STEP,
                label="Signal-to-noise ratio in dB",
                info=f"{CLEAN} is without noise; below 0 the noise is louder than the voice",
                elem_id="snr",
                min_width=280,
            )
            kind = gr.Dropdown(
                list(demo.noises), label="Kind of noise", elem_id="kind", min_width=200
            )
        again = gr.Button("Read with this noise", variant="primary", elem_id="again")
        player = gr.HTML("", elem_id="player")
        side = gr.HTML("", elem_id="side")
        rates = gr.HTML("", elem_id="rates")
        experts = gr.HTML("", elem_id="experts")
        with gr.Accordion("What was measured of this model", open=False):
            gr.HTML(markup.measured(demo.transcribe.info))

        # The model runs one job at a time, whatever the number of visitors.
        one: dict[str, Any] = {
            "concurrency_limit": 1,
            "concurrency_id": "model",
            "api_visibility": "private",
        }
        # Another recording may come while one is read; by default it would be dropped in silence.
        each: dict[str, Any] = {**one, "trigger_mode": "multiple"}

        def show(recording, decibels, noise, progress=gr.Progress()):  # noqa: B008 (Gradio's way)
            return demo.show(recording, decibels, noise, progress)

        shown = [side, rates, player, experts]
        for source, given in ((file, file.upload), (camera, camera.stop_recording)):
            # What was shown of the recording before goes, and the field is free for another one.
            emptied = [source, *shown]
            given(
                lambda upload: (*demo.receive(upload), None, *NOTHING),
                source,
                [state, status, lips, *emptied],
                show_progress_on=status,
                **each,
            ).then(show, [state, snr, kind], shown, show_progress_on=side, **one)
        again.click(show, [state, snr, kind], shown, show_progress_on=side, **one)
    return page.queue(max_size=WAITING)


def refuse_addresses() -> None:
    """Keep Gradio from fetching what a request names, for this process.

    Where a file is expected, Gradio takes an address as well, and its server fetches that, which no
    setting forbids. It does so by these two functions, the second of which resolves the name.
    """

    async def refuse(*_: object, **__: object) -> NoReturn:
        raise gr.Error("Addresses are not fetched: send the file itself", print_exception=False)

    for name in ("get", "async_validate_url"):
        if not hasattr(safehttpx, name):
            raise RuntimeError(f"safehttpx has no {name}: this version of Gradio is not known here")
        setattr(safehttpx, name, refuse)


def launch(demo: Demo, host: str, port: int) -> tuple[gr.Blocks, str]:
    """Start to show the page, in a thread.

    Args:
        demo: what it does.
        host: address that is listened at.
        port: number of the port.

    Returns:
        the page and its address.

    Raises:
        OSError: if the port is taken.
    """
    refuse_addresses()
    system = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "monospace")]
    theme = gr.themes.Default(font=system, font_mono=mono)
    theme.set(block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300")
    page = build(demo)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        inbrowser=False,
        prevent_thread_lock=True,
        show_error=False,
        max_file_size=MAX_BYTES,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        theme=theme,
        css=markup.CSS,
    )
    return page, address


def serve(demo: Demo, host: str, port: int) -> None:
    """Show the page until the process is stopped; arguments and errors as of :func:`launch`."""
    page, address = launch(demo, host, port)
    print(f"the page is at {address} until this is stopped by Ctrl-C", flush=True)
    page.block_thread()
