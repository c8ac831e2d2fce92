"""The dry run against a model that really runs, and every configuration of the paper's tables."""

import argparse
import math
import re
from pathlib import Path

import pytest
import torch
from recipe_options import recipe_options
from tiny_avsr import collate, utterances
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from mome.analysis.dry_run import (
    build,
    encoder_flops,
    heaviest,
    llm_flops,
    report,
    step_peak,
    weight_bytes,
)
from mome.encoders.avhubert import SIZES
from mome.encoders.avhubert import build as build_avhubert
from mome.encoders.whisper import TAIL
from mome.models.rates import RatePair, TaskPair
from mome.tasks.avsr import AVSRTask
from mome.tasks.config import parse, read_config

ROOT = Path(__file__).parents[2]
CONF = ROOT / "egs/lrs3/conf"
CONFIGS = {
    name: sorted(
        str(path.relative_to(ROOT / f"egs/{name}/conf").with_suffix(""))
        for path in (ROOT / f"egs/{name}/conf").rglob("*.yaml")
    )
    for name in ("lrs2", "lrs3")
}
PAIRS = ["a4_v2", "a4_v5", "a16_v2", "a16_v5"]
SIZES_OF = {  # width, layers, width of the values
    "meta-llama/Llama-3.2-1B": (2048, 16, 512),
    "meta-llama/Llama-3.2-3B": (3072, 28, 1024),
    "meta-llama/Llama-3.1-8B": (4096, 32, 1024),
}
# The rows of the paper's tables with their numbers of active parameters in millions on LRS2 and
# LRS3, where it gives them. MS and SS have 8.1 on LRS3 there, which no rank of LoRA gives.
TABLE_1 = {
    "llama_avsr": (27.5, 6.8),
    "llama_mtsk_ms": (27.5, None),
    "llama_mtsk_ss": (27.5, None),
    "llama_mtsk_mss": (55.0, 13.6),
    "mome_mhsa_i": (12.7, 3.5),
    "mome_ffn": (12.7, 3.5),
    "mome_mhsa": (12.7, 3.5),
    "mome_layer": (12.7, 3.5),
    "mome_layer_small": (2.3, 0.9),
}
TABLE_6 = {
    "llama_avsr": (27.3, 27.3),
    "llama_mtsk_ms": (27.3, 27.3),
    "llama_mtsk_ss": (27.3, 27.3),
    "llama_mtsk_mss": (54.5, 54.5),
    "mome_mhsa": (14.1, 14.1),
    "mome_layer": (14.1, 14.1),
    "mome_mhsa_small": (3.5, 3.5),
}
TABLE_3 = ["1_0_48", "4_0_24", "4_1_24", "7_1_24", "15_1_24", "23_1_12", "23_2_12", "23_3_12"]
ROWS = {
    "lrs3": [
        *(f"table1/{row}" for row in TABLE_1),
        *(f"table6/{row}" for row in TABLE_6),
        *(f"table7/mome_layer_{row}" for row in ("shared", "disjoint", "weighted")),
        *("mome_asr", "mome_vsr", "llama_mtsk_ss_vsr"),  # Figure 3
    ]
}
ROWS["lrs2"] = [
    *ROWS["lrs3"],
    *(f"table3/mome_{row}" for row in TABLE_3),
    *(f"table4/mome_8_{k}" for k in (1, 2, 4, 6, 8)),
]
STREAMS = ("speech", "speech_lengths", "lips", "lips_lengths")
SECONDS = 2.0


def tiny_args(lm: str, whisper: str):
    """A configuration of tiny parts, all in float32."""
    args = parse(["--config", str(CONF / "train.yaml")])
    args.decoder_conf |= {"lm": lm, "lm_dtype": "float32"}
    args.decoder_conf["adapter_conf"] = {"num_routed": 3, "top_k": 2, "bottleneck": 2}
    args.audio_encoder_conf |= {"model": whisper, "dtype": "float32", "pad_to_30s": False}
    args.video_encoder = "visual"
    args.video_encoder_conf = {"width": 4, "output_size": 16, "layers": 1, "heads": 2}
    return args


def clip(seconds: float) -> dict[str, torch.Tensor]:
    """One real clip of this length with as many text tokens as the dry run assumes."""
    item = utterances(1)[0]
    item["speech"] = torch.randn(round(seconds * 16000))
    item["lips"] = torch.randn(round(seconds * 25), 88, 88)
    item["text"] = torch.randint(5, 60, (round(seconds * 4),))
    return item


@pytest.fixture
def plain_attention():
    """Attention as products of matrices; of fused kernels PyTorch counts CUDA's alone."""
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        yield
    torch.backends.mha.set_fastpath_enabled(True)


def test_flops_are_those_of_the_running_model(tiny_lm, tiny_whisper, plain_attention):
    args = tiny_args(tiny_lm, tiny_whisper)
    real, meta = AVSRTask.build_model(args).eval(), build(args)
    batch = collate([clip(SECONDS)])
    with torch.no_grad():
        with FlopCounterMode(display=False) as audio:
            real.audio_encoder(batch["speech"], batch["speech_lengths"])
        with FlopCounterMode(display=False) as video:
            real.video_encoder(batch["lips"], batch["lips_lengths"])
        features = real.encode(*(batch[key] for key in STREAMS))
        # The spectrogram is not the encoder's: 201 bins to 80 mel bands, two frames a step.
        mel = 2 * 201 * 80 * 2 * (round(SECONDS * 50) + TAIL)
        assert encoder_flops(meta, "audio", SECONDS) == audio.get_total_flops() - mel
        assert encoder_flops(meta, "video", SECONDS) == video.get_total_flops()
        for condition in real.draw():
            with FlopCounterMode(display=False) as counter:
                real.loss(features, batch["text"], batch["text_lengths"], [condition])
            assert llm_flops(meta, condition, SECONDS) == counter.get_total_flops() > 0


def measured_peak(step) -> int:
    """Most bytes that PyTorch's CPU allocator gave out at once, by its profiler's log."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_memory_is_that_of_the_running_model(tiny_lm, tiny_whisper, checkpointing):
    args = tiny_args(tiny_lm, tiny_whisper)
    args.decoder_conf["gradient_checkpointing"] = checkpointing == "true"
    real, meta = AVSRTask.build_model(args).train(), build(args)
    batch = collate([clip(10.0)] * 4)
    features = real.encode(*(batch[key] for key in STREAMS))
    features = {kind: (frames.detach(), lengths) for kind, (frames, lengths) in features.items()}

    def step():
        loss, _ = real.loss(features, batch["text"], batch["text_lengths"], real.draw())
        loss.backward()

    step()
    real.zero_grad(set_to_none=True)
    given = sum(frames.nbytes for frames, _ in features.values())
    expected = step_peak(meta, 4, 10.0)["LLM, forward and backward"]
    assert expected == pytest.approx(measured_peak(step) + given, rel=0.15)
    encoder = step_peak(meta, 4, 10.0)["video encoder"]
    with torch.no_grad():
        measured = measured_peak(lambda: real.video_encoder(batch["lips"], batch["lips_lengths"]))
    crops = batch["lips"].nbytes
    assert encoder == pytest.approx(measured, abs=3 * crops, rel=0.2)


def test_weights_are_summed_by_type(tiny_lm, tiny_whisper):
    args = tiny_args(tiny_lm, tiny_whisper)
    args.decoder_conf["lm_dtype"] = "auto"  # bfloat16 on a GPU
    model = build(args)
    sizes = weight_bytes(model)
    assert sizes["bfloat16"] == 2 * sum(p.numel() for p in model.decoder.lm.inner.parameters())
    assert sizes["float32"] > 4 * sum(p.numel() for p in model.parameters())


def number(text: str, row: str, column: int) -> int:
    """A number of the report's table of parameters."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {row}"))
    return int(line.split("|")[column + 1].replace(",", ""))


def configuration(recipe: str, row: str) -> argparse.Namespace:
    """A row as its recipe's ``run.sh`` trains it."""
    given = recipe_options(recipe, "--train_config", f"conf/{row}.yaml")
    options = ["--config", str(ROOT / "egs" / recipe / given["train_config"])]
    options += ["--decoder_conf", f"lm={given['lm']}"]
    options += ["--audio_encoder_conf", f"model={given['audio_model']}"]
    return parse(options)


def active_parameters(args: argparse.Namespace) -> int:
    """What a token uses of an adapter of this configuration, biases included."""
    conf = args.decoder_conf["adapter_conf"]
    width, layers, values = SIZES_OF[args.decoder_conf["lm"]]
    if args.decoder_conf["adapter"] != "mome":
        lora = layers * (width // conf["reduction"]) * (3 * width + values)
        return lora * (2 if conf.get("shared") else 1)
    units = conf["bottleneck"] if "bottleneck" in conf else width // conf["reduction"]
    expert = 2 * width * units + units + width
    router = conf["num_routed"] * (width + 1)
    return layers * ((conf["num_shared"] + conf.get("top_k", 0)) * expert + router)


@pytest.mark.parametrize("recipe", ["lrs2", "lrs3"])
def test_each_row_of_the_papers_tables_has_a_configuration(recipe):
    assert CONFIGS[recipe] == sorted([*ROWS[recipe], "train"])


@pytest.mark.parametrize(
    ("recipe", "row"), [(recipe, row) for recipe, rows in CONFIGS.items() for row in rows]
)
def test_every_configuration_of_the_tables_builds_and_is_counted(recipe, row):
    args = configuration(recipe, row)
    model = build(args)
    assert str(model.decoder.lm.inner.device) == "meta"
    if row.endswith("asr"):
        assert model.rates == {"audio": [4, 8, 12, 16, 20]}
    elif row.endswith("vsr") and not row.endswith("avsr"):
        assert model.rates == {"video": [1, 2, 3, 4, 5]}
    else:
        pairs = [str(pair) for pair in model.pairs["avsr"]]
        assert pairs == (PAIRS[:1] if row.endswith(("llama_avsr", "mhsa_i")) else PAIRS)
    active = model.decoder.adapter.num_active_parameters()
    assert active == active_parameters(args)
    table, _, name = row.rpartition("/")
    millions = {"table1": TABLE_1, "table6": TABLE_6}.get(table, {}).get(name)
    if millions is not None and (published := millions[recipe == "lrs3"]) is not None:
        assert active / 1e6 == pytest.approx(published, abs=0.065)


@pytest.mark.parametrize(
    ("recipe", "row", "millions"),
    [
        ("lrs3", "table1/mome_layer", "3.54"),
        ("lrs2", "table1/mome_layer", "12.73"),
        ("lrs2", "table6/mome_layer", "14.16"),
        ("lrs3", "table1/mome_layer_small", "0.885"),
        ("lrs2", "table1/mome_layer_small", "2.32"),
        ("lrs2", "table6/mome_mhsa_small", "3.54"),
        ("lrs3", "table1/llama_mtsk_ms", "6.82"),
        ("lrs2", "table1/llama_mtsk_ms", "27.5"),
        ("lrs2", "table6/llama_mtsk_ms", "27.3"),
    ],
)
def test_the_paper_s_active_parameters_to_three_digits(recipe, row, millions):
    active = build(configuration(recipe, row)).decoder.adapter.num_active_parameters() / 1e6
    digits = len(millions.partition(".")[2])
    assert f"{active:.{digits}f}" == millions


def test_the_papers_lora_has_its_number_of_parameters_with_llama_3b():
    text = report(configuration("lrs2", "table1/llama_mtsk_mss"))
    assert number(text, "adapter", 2) == 55_050_240  # MSS; the paper rounds it to 55.0 M
    assert number(text, "LLM", 3) == 3_212_749_824
    speed = re.findall(r"\| avsr a(\d+)_v(\d+) +\| +([\d.]+) ", text)
    assert {(int(a), int(v)): float(tokens) for a, v, tokens in speed} == {
        (4, 2): 25.0,
        (4, 5): 17.5,
        (16, 2): 15.6,
        (16, 5): 8.1,
    }


def tables(text: str) -> list[dict[str, list[float]]]:
    """The numbers of a report's tables, each by the name of its row."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()]
            found.append({n: [float(x.replace(",", "")) for x in cells] for n, *cells in rows[2:]})
    return found


def check_report(text: str, args: argparse.Namespace) -> None:
    """Set a report for clips of 10 s against what follows from the numbers of parameters."""
    parameters, flops, memory = tables(text)
    width, layers, _ = SIZES_OF[args.decoder_conf["lm"]]
    llm, adapter = (parameters[part][2] for part in ("LLM", "adapter"))
    task = args.model_conf.get("tasks", ["avsr"])[0]
    kinds = {"avsr": ("audio", "video"), "asr": ("audio",), "vsr": ("video",)}[task]
    encoders = sum(parameters[f"{kind} encoder"][2] for kind in kinds)

    assert parameters["adapter"][1] == active_parameters(args)
    assert parameters["sum"][2] == sum(p[2] for part, p in parameters.items() if part != "sum")
    assert (parameters["audio encoder"][2] > 0, parameters["video encoder"][2] > 0) == (
        "audio" in kinds,
        "video" in kinds,
    )
    # A token meets all weights of the layers and of every expert, as training computes them all;
    # those of the transcript meet the vocabulary too.
    vocabulary = 128256 * width
    body = llm - vocabulary * (2 if width == 4096 else 1)  # Llama 3.1-8B does not tie it
    pairs = [name for name in flops if name != f"{task}, not compressed"]
    for name in pairs:
        tokens_per_second, of_encoders, of_llm, total = flops[name]
        rates = {kind: int(rate) for kind, rate in re.findall(r"([av])(\d+)", name.split()[1])}
        frames = {"a": 50, "v": 25}
        expected = sum(frames[kind] / rate for kind, rate in rates.items())
        assert tokens_per_second == pytest.approx(expected, abs=0.05)
        # Beginning, markers, "Transcribe speech and video to text." and 40 tokens of transcript.
        tokens = 10 * expected + 1 + 2 * len(rates) + 7 + 40
        products = 2 * tokens * (body + adapter) + 2 * 41 * vocabulary
        assert 1e12 * of_llm == pytest.approx(products, rel=0.1)
        assert total == pytest.approx(of_encoders + of_llm, abs=0.011)

    trained = parameters["sum"][0]
    gigabytes = {part: size for part, (size,) in memory.items()}
    assert gigabytes["weights, bfloat16"] == pytest.approx(2e-9 * (llm + encoders), rel=0.01)
    assert gigabytes["weights, float32"] == pytest.approx(4e-9 * trained, abs=0.01)
    assert gigabytes["Adam's moments, float32"] == pytest.approx(8e-9 * trained, abs=0.01)
    *fixed, total = gigabytes.values()
    peaks = [fixed.pop() for _ in (*kinds, "LLM")]
    assert list(gigabytes)[3:-1] == [*(f"{k} encoder" for k in kinds), "LLM, forward and backward"]
    assert total == pytest.approx(sum(fixed) + max(peaks), abs=0.03)
    # At least each layer's input is kept for the gradients: of 32 clips at the finest pair, and of
    # a transcript at each.
    kept = 10 * flops[pairs[0]][0] + 40 * len(pairs)
    assert 1e9 * peaks[0] > 32 * kept * layers * width * 2


@pytest.mark.parametrize("recipe", ["lrs2", "lrs3"])
def test_gradient_checkpointing_saves_the_memory_that_the_recipes_say(recipe):
    conf = (ROOT / f"egs/{recipe}/conf/train.yaml").read_text(encoding="utf-8")
    stated = re.search(r"needs (\d+) GB in the place of\s+# (\d+)", conf).groups()
    args = configuration(recipe, "train")
    for checkpointing, gigabytes in zip((True, False), stated, strict=True):
        args.decoder_conf["gradient_checkpointing"] = checkpointing
        model = build(args)
        adam = 8 * sum(p.numel() for p in model.parameters() if p.requires_grad)
        peak = max(step_peak(model, 32, 10.0).values())
        total = sum(weight_bytes(model).values()) + adam + peak
        assert f"{total / 1e9:.0f}" == gigabytes


@pytest.mark.parametrize(
    "row", ["table7/mome_layer_disjoint", "mome_asr", "mome_vsr", "table1/llama_mtsk_ms"]
)
def test_a_row_of_each_kind_is_reported(row):
    args = configuration("lrs3", row)
    check_report(report(args), args)


def test_rows_of_table_6_have_its_models_unless_told_otherwise():
    args = configuration("lrs2", "table6/mome_mhsa_small")
    text = report(args)
    assert "LLM: meta-llama/Llama-3.1-8B\n" in text
    assert number(text, "LLM", 3) == 8_030_261_248
    assert number(text, "audio encoder", 3) == 307_216_384  # Whisper-medium's
    check_report(text, args)
    for recipe in ("lrs2", "lrs3"):
        row = ["--train_config", "conf/table6/mome_mhsa_small.yaml"]
        given = recipe_options(recipe, *row, "--lm", "folder")
        assert given["lm"] == "folder"
        assert given["audio_model"] == "openai/whisper-medium"


def test_tables_5_and_8_state_what_a_dry_run_says():
    results = (ROOT / "egs/lrs2/RESULTS.md").read_text(encoding="utf-8")

    def stated(table: int) -> dict[str, list[str]]:
        """Cells after the first of each row with a configuration."""
        text = results.split(f"## Table {table}:")[1].split("## Table")[0]
        rows = [re.split(r" *\| *", line)[1:-1] for line in text.splitlines() if "| `" in line]
        return {first: rest for first, *rest in rows}

    args = configuration("lrs2", "table3/mome_15_1_24")
    args.model_conf |= {"audio_rates": [1, 4, 16], "video_rates": [1, 2, 5]}
    model = build(args)
    encoders = sum(encoder_flops(model, kind, 10.0) for kind in model.rates)
    rows = stated(5)
    assert list(rows) == ["1, 1", "4, 2", "16, 5"]
    for name, (_, _, _, tokens, flops, _) in rows.items():
        pair = RatePair(*map(int, name.split(", ")))
        # Of 23 s, whose last, incomplete windows are kept.
        assert int(tokens) == math.ceil(23 * 50 / pair.audio) + math.ceil(23 * 25 / pair.video)
        llm = llm_flops(model, TaskPair("avsr", pair), 10.0)
        assert flops == f"{(encoders + llm) / 1e12:.2f}"
    rows = stated(8)
    assert list(rows) == ["Llama-AVSR", "Llama-MTSK", "MoME-15/3-MHSA"]
    for row, _, flops, _ in rows.values():
        model = build(configuration("lrs2", row.strip("`")))
        llm = llm_flops(model, TaskPair("avsr", RatePair(4, 2)), 10.0)
        assert flops == f"{(encoders + llm) / 1e12:.2f}"


def test_avhuberts_published_sizes_have_their_published_number_of_parameters():
    for size, millions in (("base", 103), ("large", 325)):  # Shi et al., 2022
        with torch.device("meta"):
            model = build_avhubert(SIZES[size])
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=1)


def test_bases_are_merged_as_options_are(tmp_path):
    (tmp_path / "train.yaml").write_text(
        "model: avsr\ndecoder_conf: {lm: a, adapter_conf: {x: 1}}\n"
    )
    (tmp_path / "row.yaml").write_text("base: train.yaml\ndecoder_conf: {adapter_conf: {y: 2}}\n")
    merged = read_config(tmp_path / "row.yaml")
    assert merged == {"model": "avsr", "decoder_conf": {"lm": "a", "adapter_conf": {"y": 2}}}
    args = parse(["--config", str(tmp_path / "row.yaml"), "--decoder_conf", "lm=b"])
    assert args.decoder_conf == {"lm": "b", "adapter_conf": {"y": 2}}
    assert args.config == str(tmp_path / "row.yaml")


def test_broken_configurations_are_named(tmp_path, capsys):
    (tmp_path / "loop.yaml").write_text("base: loop.yaml\n")
    (tmp_path / "lost.yaml").write_text("base: nothing.yaml\n")
    (tmp_path / "text.yaml").write_text("words\n")
    (tmp_path / "typo.yaml").write_text("modle: avsr\n")
    for name, words in (
        ("loop", "is its own base"),
        ("lost", "nothing.yaml does not exist"),
        ("text", "is no configuration"),
        ("typo", "unknown keys modle"),
    ):
        with pytest.raises(SystemExit):
            parse(["--config", str(tmp_path / f"{name}.yaml")])
        assert words in capsys.readouterr().err


def test_a_step_that_draws_pairs_is_counted_at_its_heaviest(tiny_lm, tiny_whisper):
    args = tiny_args(tiny_lm, tiny_whisper)
    args.model_conf |= {"pairs_per_step": 2}
    model = build(args)
    assert [str(pair) for _, pair in heaviest(model)] == ["a4_v2", "a4_v5"]
    text = report(args)
    assert "clips of 10 s a GPU" in text
    assert "| avsr, not compressed |     75.0 |" in text
