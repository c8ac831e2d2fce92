"""mome.common.json_files, and the readers of models' configurations by it."""

import json

import pytest

from mome.common.json_files import read_json
from mome.encoders.avhubert import SIZES, read_weights
from mome.pretrained.ctranslate2 import read_suppressed


@pytest.mark.parametrize("content", [b"{", b"[1]", b"null", b"\xff", b"[" * 100_000, b""])
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json (cannot be read|is not UTF-8)"):
        read_json(path)
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"size": "huge"},
        {"geometry": None},
        {"geometry": SIZES["base"] | {"encoder_layers": "12"}},
        {"geometry": SIZES["base"] | {"encoder_layers": 10**9}},
        {"geometry": SIZES["base"] | {"further": 1}},
    ],
)
def test_a_damaged_configuration_of_avhubert_is_named(tmp_path, change):
    (tmp_path / "model.safetensors").touch()
    config = {"size": "base", "geometry": SIZES["base"]}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert read_weights(tmp_path, "base") == (SIZES["base"], tmp_path / "model.safetensors")
    path.write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=r"config\.json does not say which sizes"):
        read_weights(tmp_path, None)


@pytest.mark.parametrize("ids", [None, 3, ["1"], [True]])
def test_a_damaged_configuration_of_ctranslate2_is_named(tmp_path, ids):
    path = tmp_path / "config.json"
    config = {"suppress_ids": [1, 2], "suppress_ids_begin": [3]}
    path.write_text(json.dumps(config))
    assert read_suppressed(path) == ([1, 2], [3])
    path.write_text(json.dumps(config | {"suppress_ids_begin": ids}))
    with pytest.raises(ValueError, match=r"config\.json has no list of tokens suppress_ids_begin"):
        read_suppressed(path)
