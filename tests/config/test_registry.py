"""A registry holds one object a name, and says what there is when it is asked for something else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayclean.config.registry import Entry, Registry, load_plugins
from rayclean.errors import ConfigError


def triple(number: int) -> int:
    return 3 * number


@pytest.fixture
def registry() -> Registry[Entry]:
    return Registry("things.kind", "thing", (Entry("join", "joins", "os.path:join"), Entry("triple", "x 3", triple)))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages; plug-ins are looked for anew."""
    monkeypatch.syspath_prepend(tmp_path)
    load_plugins.cache_clear()
    yield tmp_path
    load_plugins.cache_clear()


def install(folder: Path, name: str, text: str) -> None:
    """A package of one module that is a plug-in."""
    (folder / f"{name}.py").write_text(text)
    facts = folder / f"{name}-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(f"[rayclean.plugins]\n{name} = {name}\n")


def test_entries_are_in_order_and_their_functions_are_found(registry: Registry[Entry]) -> None:
    added = registry.register(Entry("upper", "shouts", "builtins:str.upper"))
    assert registry.names() == ("join", "triple", "upper")
    assert registry.get("upper") is added
    assert added.load()("a") == "A"
    assert registry.get("triple").load()(2) == 6
    assert registry.get("join").load()("a", "b") == str(Path("a/b"))


def test_what_is_not_there_is_told_with_what_is(registry: Registry[Entry]) -> None:
    with pytest.raises(ConfigError, match=r"^things\.kind jion: no such thing; there are join, triple$"):
        registry.get("jion")


@pytest.mark.parametrize("name", ["", "Join", "two words", "a/b", "3d", "a-b"])
def test_a_name_that_can_be_no_file_is_refused(name: str, registry: Registry[Entry]) -> None:
    with pytest.raises(ConfigError, match="a name of a-z, 0-9 and _ expected"):
        registry.register(Entry(name, "-", triple))


def test_a_name_is_given_once_but_for_cells_of_a_notebook(
    registry: Registry[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"thing join of .*test_registry is there already, of os\.path; choose"):
        registry.register(Entry("join", "-", triple))
    monkeypatch.setattr(triple, "__module__", "__main__")
    registry.register(Entry("mine", "first", triple))
    registry.register(Entry("mine", "second", triple))
    assert registry.get("mine").meaning == "second"
    with pytest.raises(ConfigError, match="there already"):
        registry.register(Entry("join", "-", triple))


@pytest.mark.parametrize("function", ["no_such_module:f", "os.path:no_such_function", "not a name"])
def test_a_function_that_is_not_there_is_named(function: str, registry: Registry[Entry]) -> None:
    entry = registry.register(Entry("lost", "-", function))
    with pytest.raises(ConfigError, match=f"lost: its function {function} cannot be loaded here"):
        entry.load()


def test_plugins_are_loaded_when_a_registry_is_first_read(registry: Registry[Entry], installed: Path) -> None:
    install(installed, "a_plugin_of_the_test", "")
    registry.register(Entry("own", "-", triple))
    assert "a_plugin_of_the_test" not in sys.modules
    registry.names()
    assert sys.modules.pop("a_plugin_of_the_test")


def test_a_plugin_that_cannot_be_loaded_is_an_error(registry: Registry[Entry], installed: Path) -> None:
    install(installed, "a_broken_plugin", "1 / 0")
    said = (
        r"plug-in a_broken_plugin \(a_broken_plugin, of a_broken_plugin\) cannot be loaded: division by zero; mend it"
    )
    for _ in range(2):  # it is not taken for loaded
        with pytest.raises(ConfigError, match=said):
            registry.get("join")
