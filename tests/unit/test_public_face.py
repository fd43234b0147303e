"""What `from headrace import ...` gives, and that there is nothing that a user cannot read about."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from types import ModuleType

import pytest
from pydantic import BaseModel

import headrace
import headrace_gateway
from support.markdown import ROOT

PACKAGES = (headrace, headrace_gateway)
NAMES = [(package, name) for package in PACKAGES for name in package.__all__]


def statements(package: ModuleType) -> list[ast.stmt]:
    """Those of the package's own file, with those that are for type checkers alone."""
    tree = ast.parse(resources.files(package).joinpath("__init__.py").read_text(encoding="utf-8"))
    return [
        inner
        for node in tree.body
        for inner in (node.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" else [node])
    ]


def imported_names(package: ModuleType) -> dict[str, str]:
    """What the package's own file imports from its parts, by name: its public face, were there no `__all__`."""
    return {
        alias.asname or alias.name: node.module
        for node in statements(package)
        if isinstance(node, ast.ImportFrom) and node.module not in (None, "__future__", "typing", "headrace.lazy_names")
        for alias in node.names
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_what_can_be_imported_is_what_is_public(package: ModuleType) -> None:
    assert sorted(package.__all__) == sorted(imported_names(package))
    assert all(hasattr(package, name) for name in package.__all__)


def test_what_is_imported_on_demand_is_what_type_checkers_see() -> None:
    on_demand = {name: module for module, names in headrace._HOMES.items() for name in names}
    assert on_demand == imported_names(headrace)
    # An import makes a module an attribute of its package: a public name that is called so would be hidden by it.
    assert not on_demand.keys() & {module.name for module in pkgutil.iter_modules(headrace.__path__)}


def test_all_that_is_public_is_listed_before_it_is_imported() -> None:
    listed = subprocess.check_output([sys.executable, "-c", "import headrace; print(*dir(headrace))"], text=True)
    assert set(listed.split()) >= {*headrace.__all__, "__version__"}


def test_a_name_that_there_is_not_is_told_as_python_tells_it() -> None:
    with pytest.raises(AttributeError, match=r"^module 'headrace' has no attribute 'Nothing'$"):
        headrace.Nothing  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_root_defines_nothing_itself(package: ModuleType) -> None:
    defined = [node for node in statements(package) if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
    assert defined == []


def public_members(value: type) -> Iterator[tuple[str, object]]:
    """Methods and properties that a class itself defines."""
    for name, member in vars(value).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)):
            yield name, member


@pytest.mark.parametrize(("package", "name"), NAMES, ids=lambda value: value if isinstance(value, str) else "")
def test_every_public_name_says_what_it_is(package: ModuleType, name: str) -> None:
    value = getattr(package, name)
    if isinstance(value, str):
        return  # a constant: its name is all there is
    # pydantic and dataclasses write docstrings of their own where there is none.
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    inherited = BaseModel.__doc__ if inspect.isclass(value) and issubclass(value, BaseModel) else None
    assert own, f"{name} has no docstring"
    assert own != inherited
    assert not own.startswith(f"{name}("), f"{name} has only the docstring that dataclasses make"
    if inspect.isclass(value):
        silent = [member for member, found in public_members(value) if not inspect.getdoc(found)]
        assert silent == [], f"{name} has members without a docstring"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_types_are_published(package: ModuleType) -> None:
    assert resources.files(package).joinpath("py.typed").is_file()


def test_no_test_is_left_out() -> None:
    """Nothing skips because something is missing: it fails. Docker's tests are collected by themselves alone."""
    forbidden = re.compile(r"(pytest(\.mark)?|mark|unittest)\.(skip\w*|SkipTest|importorskip|xfail)")
    imported = re.compile(r"(skip\w*|SkipTest|importorskip|xfail)")
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and forbidden.fullmatch(ast.unparse(node)):
                found.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and node.module in ("pytest", "unittest"):
                found.extend(f"{path.relative_to(ROOT)}: {alias.name}" for alias in node.names if imported.fullmatch(alias.name))
    assert found == []
