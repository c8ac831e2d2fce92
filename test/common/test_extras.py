"""What stands in the place of ESPnet's interfaces, and errors where an extra is missing."""

import inspect
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
import torch

from mome.common import espnet
from mome.common.extras import demand_installed, extra, without_type_checks


class NoESPnet:
    """Of the places where Python looks for modules, one that ends the search for ESPnet."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "espnet2":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def plain(monkeypatch):
    """The module of ESPnet's interfaces as it is where ESPnet is not installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "espnet2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoESPnet, *sys.meta_path])
    spec = spec_from_file_location("plain_espnet", espnet.__file__)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["AbsEncoder", "AbsDecoder", "AbsESPnetModel"])
def test_a_plain_interface_demands_what_that_of_espnet_demands(plain, name):
    real, own = getattr(espnet, name), getattr(plain, name)
    assert (real.__module__.partition(".")[0], own.__module__) == ("espnet2", "plain_espnet")
    assert issubclass(own, torch.nn.Module)
    assert own.__abstractmethods__ == real.__abstractmethods__
    for method in own.__abstractmethods__:
        parameters = [list(inspect.signature(getattr(c, method)).parameters) for c in (real, own)]
        assert parameters[0] == parameters[1]


@pytest.mark.parametrize("weight", [torch.tensor(7), 3])
def test_losses_are_made_gatherable_as_by_espnet(plain, weight):
    stats = {"loss": torch.tensor(0.5), "each": torch.tensor([1.0, 2.0])}
    given = (torch.tensor(2.0, requires_grad=True), stats, weight)
    real, own = (m.force_gatherable(given, torch.device("cpu")) for m in (espnet, plain))
    torch.testing.assert_close(own, real, rtol=0, atol=0)
    assert own[0].requires_grad
    assert own[0].shape == own[2].shape == (1,)


def test_an_espnet_that_lacks_a_part_is_not_taken_for_none(monkeypatch):
    name = "espnet2.train.abs_espnet_model"
    monkeypatch.setitem(sys.modules, name, None)
    spec = spec_from_file_location("broken_espnet", espnet.__file__)
    with pytest.raises(ModuleNotFoundError, match=name):
        spec.loader.exec_module(module_from_spec(spec))


@pytest.fixture
def without_kaldiio(monkeypatch):
    monkeypatch.setitem(sys.modules, "kaldiio", None)


@pytest.mark.usefixtures("without_kaldiio")
def test_an_error_names_the_extra():
    with (
        pytest.raises(ModuleNotFoundError, match=r"^kaldiio is missing: in the clone, pip install"),
        extra(),
    ):
        import kaldiio  # noqa: F401


@pytest.mark.usefixtures("without_kaldiio")
def test_a_command_ends_with_a_line():
    with pytest.raises(SystemExit) as stop:
        demand_installed("mome-x", "json", "kaldiio")
    assert stop.value.code == "mome-x: kaldiio is missing: in the clone, pip install '.[recipes]'"


def test_what_no_extra_brings_is_missed_as_ever():
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'no_such_library'"):
        demand_installed("mome-x", "no_such_library")


def test_espnet_is_imported_without_its_type_checks_and_others_keep_theirs(tmp_path, monkeypatch):
    half = "@typechecked\ndef half(x: int):\n    return x / 2\n"
    for name in ("as_espnet", "as_others"):
        (tmp_path / f"{name}.py").write_text(f"from typeguard import typechecked\n\n{half}")
    monkeypatch.syspath_prepend(tmp_path)
    with without_type_checks():
        import as_espnet
    import as_others
    from typeguard import TypeCheckError

    assert as_espnet.half(3.0) == 1.5
    with pytest.raises(TypeCheckError):
        as_others.half(3.0)
