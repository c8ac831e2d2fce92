"""Models that are gated, misspelt or out of reach, against a hub that answers as the real one."""

import http.server
import importlib.util
import json
import threading

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from tiny import make_lm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, WhisperModel

from mome.encoders.whisper import WhisperEncoder
from mome.llm.decoder import MoMELLMDecoder
from mome.pretrained.hub import load
from mome.pretrained.model_sizes import LLAMA, WHISPER, published


class Hub(http.server.BaseHTTPRequestHandler):
    """Says what huggingface.co says of gated and of unknown models."""

    def do_GET(self):
        gated = "/meta-llama/" in self.path
        self.send_response(403 if gated else 401)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The hub is a server of this test, and its cache is empty."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_hub(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def use_hub(monkeypatch, tmp_path, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        endpoint + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # The pauses between repeated attempts, which the hub's client makes, are not what is tested.
    monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: None)


LOADERS = [AutoConfig, AutoTokenizer, AutoModelForCausalLM, WhisperModel]


@pytest.mark.parametrize("loader", LOADERS)
def test_a_gated_model_says_how_to_get_access(hub, loader):
    with pytest.raises(PermissionError, match=r"accept its licence at .*meta-llama/Llama-3.2-1B"):
        load(loader, "meta-llama/Llama-3.2-1B")


@pytest.mark.parametrize("loader", LOADERS)
def test_an_unknown_name_is_called_a_misspelling(hub, loader):
    with pytest.raises(FileNotFoundError, match=r"no model called 'nobody/lama'.*spelling"):
        load(loader, "nobody/lama")
    with pytest.raises(FileNotFoundError, match=r"no model called 'not a name'"):
        load(loader, "not a name")


@pytest.mark.parametrize("loader", LOADERS)
def test_a_hub_out_of_reach_points_to_a_folder(monkeypatch, tmp_path, loader):
    use_hub(monkeypatch, tmp_path, "http://127.0.0.1:9")  # the port that nobody listens on
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9 cannot be reached.*--local-dir"):
        load(loader, "openai/whisper-small")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE forbids.*--local-dir"):
        load(loader, "openai/whisper-small")


def test_folders_without_a_model_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        load(AutoModelForCausalLM, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load(AutoModelForCausalLM, str(tmp_path / "nothing"))


@pytest.mark.parametrize("loader", [AutoConfig, AutoModelForCausalLM])
@pytest.mark.parametrize("config", ['{"model_type": "of tomorrow"}', "{"])
def test_what_transformers_cannot_read_is_named(tmp_path, loader, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises((ValueError, OSError), match=str(tmp_path)) as caught:
        load(loader, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_decoder_and_whisper_give_these_errors(hub):
    with pytest.raises(PermissionError, match="is gated"):
        MoMELLMDecoder(lm="meta-llama/Llama-3.2-1B")
    with pytest.raises(FileNotFoundError, match="no model called"):
        WhisperEncoder(model="openia/whisper-small")


def test_published_sizes_give_the_published_numbers_of_parameters():
    parameters = {  # as the hub's safetensors headers of these models sum up
        "Llama-3.2-1B": 1_235_814_400,
        "Llama-3.2-3B": 3_212_749_824,
        "Llama-3.1-8B": 8_030_261_248,
        "whisper-tiny": 37_760_640,
        "whisper-base": 72_593_920,
        "whisper-small": 241_734_912,
        "whisper-medium": 763_857_920,
    }
    assert set(parameters) == {*LLAMA, *WHISPER}
    for name, expected in parameters.items():
        kind = WhisperModel if name in WHISPER else AutoModelForCausalLM
        with torch.device("meta"):
            config = published(f"somebody/{name}")
            model = kind(config) if kind is WhisperModel else kind.from_config(config)
        assert sum(p.numel() for p in model.parameters()) == expected, name
    assert published("gpt2") is None


@pytest.mark.parametrize(
    ("values", "package", "message"),
    [
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes", "bitsandbytes"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", "bitsandbytes"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao", "torchao"),
        ({"quant_method": "gptq", "bits": 4}, "optimum", "optimum"),
        ({"quant_method": "of_tomorrow"}, "", "does not know: install a newer one"),
        ({"bits": 4}, "", "quantised (without `quant_method`)"),
    ],
)
def test_a_quantised_lm_that_cannot_be_read_is_refused(tmp_path, values, package, message):
    if package and importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    folder = make_lm(tmp_path / "lm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": values}))
    with pytest.raises(ValueError, match=r"lm is quantised \(") as refused:
        MoMELLMDecoder(lm=str(folder))
    assert message in str(refused.value)
    assert str(refused.value).endswith("or name the LM as it was before")
    assert "\n" not in str(refused.value)
