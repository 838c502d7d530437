from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import tlkit

PACKAGE = Path(tlkit.__file__).parent


def test_the_list_of_public_names_is_sorted_and_complete() -> None:
    assert tlkit.__all__ == sorted(tlkit.__all__)
    assert set(tlkit.__all__) == {*tlkit._HOMES, "zoo", "__version__"}


def test_import_loads_no_tensorflow() -> None:
    heavy = {"tensorflow", "keras", "pandas", "numpy"}
    code = f"import sys, tlkit; dir(tlkit); assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_error_is_public() -> None:
    errors = {name for name, value in vars(tlkit.errors).items() if isinstance(value, type)}
    assert {name for name in errors if issubclass(getattr(tlkit.errors, name), tlkit.TlkitError)} <= set(
        tlkit.__all__
    )


def test_every_public_name_is_the_same_twice_whatever_was_imported_between() -> None:
    first = {name: getattr(tlkit, name) for name in tlkit.__all__}
    for module in _modules():
        __import__(f"tlkit.{module}")
    second = {name: getattr(tlkit, name) for name in tlkit.__all__}
    assert first == second
    strange = [
        name for name, value in second.items() if not callable(value) and name not in ("zoo", "__version__")
    ]
    assert strange == []
    assert isinstance(tlkit.zoo, ModuleType)


def test_no_public_function_shares_its_name_with_a_module() -> None:
    assert set(_modules()) & set(tlkit.__all__) == {"zoo"}


def test_public_names_are_listed() -> None:
    assert set(tlkit.__all__) <= set(dir(tlkit))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tlkit' has no attribute 'finetun'"):
        _ = tlkit.finetun


def test_every_public_function_and_class_is_documented() -> None:
    assert [name for name in tlkit.__all__ if not getattr(tlkit, name).__doc__] == []


def test_public_functions_survive_a_call() -> None:
    names = ["make_strategy", "make_plan", "load_config"]
    for _ in range(2):
        assert tlkit.make_strategy("cpu").num_replicas_in_sync == 1
        assert tlkit.make_plan("head_then_all", n_groups=9)[0].name == "head"
        assert tlkit.load_config().config == tlkit.RunConfig()
    assert all(callable(getattr(tlkit, name)) for name in names)


def _modules() -> list[str]:
    packages = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    return sorted(
        [*packages, *(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))]
    )
