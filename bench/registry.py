"""Methods, datasets and engines by name, from the tree and from installed packages.

In the tree, a decorator registers a class::

    @register_method("copy")
    class Copy(Method): ...

An installed package names its class in an entry point instead (group ``bench.methods``,
``bench.datasets`` or ``bench.engines``). A plugin that fails to import is recorded with its
reason in :data:`FAILURES`, and the rest go on.

The registries are mmengine's; discovery imports by name, which is the only way the harness ever
reaches the packages ``methods`` and ``datasets``.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from mmengine.registry import Registry

from bench.dataset import Dataset
from bench.engine.base import Engine
from bench.errors import ConfigError, PluginError
from bench.method import Method

METHODS = Registry("method", scope="bench")
DATASETS = Registry("dataset", scope="bench")
ENGINES = Registry("engine", scope="bench")


@dataclass(frozen=True)
class Failure:
    """A plugin or in-tree package that could not be imported.

    Attributes:
        group: ``bench.methods``, ``bench.datasets`` or ``bench.engines``.
        name: entry point or module name.
        reason: the exception in one line.
    """

    group: str
    name: str
    reason: str


FAILURES: list[Failure] = []
_discovered: set[str] = set()

Class = TypeVar("Class", bound=type[Any])


def _register(registry: Registry, name: str, found: type[Any]) -> None:
    known = registry.module_dict.get(name)
    if known is found:
        return
    if known is not None:
        raise PluginError(
            f"{registry.name} {name!r}",
            f"two classes of that name: {known.__module__}.{known.__qualname__} and "
            f"{found.__module__}.{found.__qualname__}",
            "one",
            "Rename one of them or uninstall its package.",
        )
    registry.register_module(name=name, module=found)


def _decorator(registry: Registry, name: str) -> Callable[[Class], Class]:
    def register(found: Class) -> Class:
        _register(registry, name, found)
        return found

    return register


def register_method(name: str) -> Callable[[Class], Class]:
    """Class decorator that registers a :class:`bench.method.Method` under a name."""
    return _decorator(METHODS, name)


def register_dataset(name: str) -> Callable[[Class], Class]:
    """Class decorator that registers a :class:`bench.dataset.Dataset` under a name."""
    return _decorator(DATASETS, name)


def register_engine(name: str) -> Callable[[Class], Class]:
    """Class decorator that registers a :class:`bench.engine.base.Engine` under a name."""
    return _decorator(ENGINES, name)


def _import_tree(package: str, group: str) -> None:
    """Import every direct submodule of an in-tree package, so that its decorators run."""
    try:
        root = importlib.import_module(package)
    except ImportError as error:
        FAILURES.append(Failure(group, package, f"{type(error).__name__}: {error}"))
        return
    for info in pkgutil.iter_modules(root.__path__):
        try:
            importlib.import_module(f"{package}.{info.name}")
        except Exception as error:  # any failure of one package must leave the others usable
            FAILURES.append(
                Failure(group, f"{package}.{info.name}", f"{type(error).__name__}: {error}")
            )


def _load_plugins(group: str, registry: Registry, base: type[Any]) -> None:
    for entry in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            found = entry.load()
            if not (isinstance(found, type) and issubclass(found, base)):
                raise PluginError(
                    f"entry point {entry.name} = {entry.value}",
                    repr(found),
                    f"a subclass of {base.__module__}.{base.__qualname__}",
                    "Point it at the class itself, as package.module:Class.",
                )
            _register(registry, entry.name, found)
        except Exception as error:  # third-party code may raise anything at import
            FAILURES.append(Failure(group, entry.name, f"{type(error).__name__}: {error}"))


def discover(group: str) -> None:
    """Fill one registry: ``"methods"``, ``"datasets"`` or ``"engines"``; later calls do nothing."""
    if group in _discovered:
        return
    _discovered.add(group)
    packages = {"methods": "methods", "datasets": "datasets", "engines": "bench.engine"}
    registries: dict[str, tuple[Registry, type[Any]]] = {
        "methods": (METHODS, Method),
        "datasets": (DATASETS, Dataset),
        "engines": (ENGINES, Engine),
    }
    _import_tree(packages[group], f"bench.{group}")
    _load_plugins(f"bench.{group}", *registries[group])


def _get(group: str, registry: Registry, name: str) -> Any:
    discover(group)
    found = registry.module_dict.get(name)
    if found is not None:
        return found
    names = sorted(registry.module_dict)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    failed = "; ".join(
        f"{failure.name} failed to import: {failure.reason}"
        for failure in FAILURES
        if failure.group == f"bench.{group}"
    )
    raise ConfigError(
        f"{registry.name} {name!r}",
        "no such name",
        f"one of {', '.join(names)}",
        f"{hint}`python -m bench list {group if group != 'datasets' else 'data'}` describes them."
        + (f" Not loaded: {failed}." if failed else ""),
    )


def get_method(name: str) -> type[Method]:
    """The method registered under a name; :class:`ConfigError` names the closest one."""
    found: type[Method] = _get("methods", METHODS, name)
    return found


def get_dataset(name: str) -> tuple[type[Dataset], str | None]:
    """The dataset registered under ``NAME`` or ``NAME-SPLIT``, and the split if one was named."""
    discover("datasets")
    for base, found in DATASETS.module_dict.items():
        split = name.removeprefix(f"{base}-")
        if split != name and split in found.splits:
            return found, split
    dataset: type[Dataset] = _get("datasets", DATASETS, name)
    return dataset, None


def get_engine(name: str) -> type[Engine]:
    """The engine registered under a name."""
    found: type[Engine] = _get("engines", ENGINES, name)
    return found


def load_reports() -> Any:
    """The package that turns runs into tables and pages; the harness knows it by name only."""
    return importlib.import_module("reports")


def load_gap_page() -> Any:
    """The module that draws what ``python -m bench gap`` measured, known by name only as well."""
    return importlib.import_module("reports.gap")
