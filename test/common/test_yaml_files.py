"""mome.common.yaml_files: what is wrong with a file is said in one line."""

import pytest

from mome.common.yaml_files import read_yaml


def test_keys_and_values(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: {b: [1, 2.5]}\n")  # as some editors begin a file
    assert read_yaml(path) == {"a": {"b": [1, 2.5]}}
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: c: d\n", ", line 2: mapping values are not allowed here; fix the YAML there"),
        ("a: 1\n\tb: 2\n", ", line 2: "),
        ("a:\n  - 1\n b: 2\n", ", line 3: "),
        ("a: [1, 2\nb: 3\n", ", line 2: "),
        ('a: "open\n', ", line 2: found unexpected end of stream"),
        ("a: !!python/object/new:os.system [echo]\n", ", line 1: could not determine a constr"),
        ("a: 1\n---\nb: 2\n", ", line 2: but found another document"),
        ("a: \0\n", ": unacceptable character"),
        ("a: 2024-13-45\n", ": month must be in 1..12"),
        ("[" * 5000, ": maximum recursion depth exceeded"),
        ("{[a]: 1}", "found unhashable key"),
        ("- 1\n- 2\n", " is no configuration: it holds no `key: value`"),
        ("", " is no configuration"),
    ],
)
def test_errors_are_one_line_with_the_file(tmp_path, text, message):
    path = tmp_path / "train.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"train\.yaml") as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"{path}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_encoding_is_named(tmp_path):
    (tmp_path / "train.yaml").write_bytes("lm: Lämmer\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"^\S+train\.yaml is not UTF-8"):
        read_yaml(tmp_path / "train.yaml")
