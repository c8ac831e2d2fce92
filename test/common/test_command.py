"""How programs end."""

import pytest

from mome.common.command import in_one_line
from mome.common.yaml_files import read_yaml


def end_of(call, *further):
    with in_one_line("mome-x", *further):
        call()


def fail(error):
    raise error


def test_what_the_user_can_mend_is_one_line(tmp_path):
    (tmp_path / "a.yaml").write_text("words")
    with pytest.raises(SystemExit, match=r"^mome-x: error: .*a\.yaml is no configuration"):
        end_of(lambda: read_yaml(tmp_path / "a.yaml"))
    with pytest.raises(SystemExit, match=r"^mome-x: error: .*No such file .*nothing"):
        end_of((tmp_path / "nothing").read_text)


@pytest.mark.parametrize("error", [ValueError("of a library"), OSError("of a library"), KeyError()])
def test_other_errors_keep_their_traceback(error):
    with pytest.raises(type(error)):
        end_of(lambda: fail(error))
    with pytest.raises(type(error)):  # not of this package, whatever its type
        end_of(lambda: fail(error), KeyError)
