"""House rules that a machine can check."""

import ast
import importlib
import inspect
import os
import re
from pathlib import Path

import pytest

import recurra
from recurra.config import fields
from recurra.errors import RecurraError
from recurra.training.recipe import parts

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "recurra").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT / "src")) for path in SOURCES]


def trees():
    return [(name, ast.parse(path.read_text(encoding="utf-8"))) for name, path in zip(NAMES, SOURCES, strict=True)]


def test_no_file_is_a_drawer():
    drawers = {"utils", "util", "common", "helpers", "helper", "misc", "base"}
    found = []
    for top in ("src", "tests", "csrc", "benchmarks", "docs"):
        for folder, inside, files in os.walk(ROOT / top):
            inside[:] = [name for name in inside if name[0] != "."]
            found += [f"{folder}/{name}" for name in files if Path(name).stem.lower() in drawers]
    assert found == []


def test_csrc_knows_no_python():
    found = []
    for path in sorted((ROOT / "csrc").glob("*.[hc]pp")):
        includes = re.findall(r'#\s*include\s*[<"]([^>"]+)', path.read_text())
        found += [
            f"{path.name}: {name}" for name in includes if re.search("python|nanobind|pybind|torch|aten", name.lower())
        ]
    assert all(line.split(":")[0].endswith("bindings.cpp") for line in found), found


def test_all_is_what_is_public():
    assert sorted(recurra.__all__) == list(recurra.__all__) or len(set(recurra.__all__)) == len(recurra.__all__)
    for name in recurra.__all__:
        assert getattr(recurra, name) is not None
    assert set(recurra._HOMES) | {"__version__"} == set(recurra.__all__)
    assert set(dir(recurra)) == set(recurra.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        recurra.trane  # noqa: B018
    for name, tree in trees():
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and getattr(node.targets[0], "id", "") == "__all__"
                and name != "recurra/__init__.py"
            ):
                module = importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
                assert all(hasattr(module, public) for public in ast.literal_eval(node.value)), name


def test_no_open_ends_in_public_signatures():
    """`**kwargs` hides what a function takes."""
    found = []
    for name, tree in trees():
        classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
        bodies = [("", tree.body)] + [(f"{c.name}.", c.body) for c in classes if not c.name.startswith("_")]
        for prefix, body in bodies:
            for node in body:
                public = isinstance(node, ast.FunctionDef) and (
                    not node.name.startswith("_") or node.name == "__init__"
                )
                if public and node.args.kwarg:
                    found.append(f"{name}: {prefix}{node.name}(**{node.args.kwarg.arg})")
    assert found == []


def test_the_readme_s_tree_lists_every_module():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text.split("## The tree", 1)[1].split("```")[1]
    top = {
        path.name
        for path in (ROOT / "src" / "recurra").iterdir()
        if path.name[0] not in "_." and path.name != "py.typed"
    }
    missing = [name for name in sorted(top) if not re.search(rf"\b{re.escape(name)}", tree)]
    assert missing == []


@pytest.mark.parametrize("part", ["task", "data", "core", "fit"])
def test_configs_are_small_frozen_and_explained(part):
    cls = parts("forecast")[part]
    assert len(fields(cls)) <= 12
    for name, field in fields(cls).items():
        assert field.description, name
    made = cls(3) if part == "task" else cls("x.csv") if part == "data" else cls()
    with pytest.raises((AttributeError, TypeError, ValueError)):
        setattr(made, next(iter(fields(cls))), 1)
    with pytest.raises(RecurraError, match="has no option 'nonsense'"):
        cls(**({"horizon": 3} if part == "task" else {"source": "x"} if part == "data" else {}), nonsense=1)


def test_public_functions_say_what_they_do():
    found = []
    for name, tree in trees():
        for node in tree.body:
            if (
                isinstance(node, (ast.FunctionDef, ast.ClassDef))
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                found.append(f"{name}: {node.name}")
    assert found == []


def test_assert_is_for_our_own_mistakes_and_eval_for_none():
    words = {"pickle", "eval", "exec", "yaml"}
    found = []
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in words:
                found.append(f"{name}: {node.func.id}()")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                found += [f"{name}: import {m}" for m in modules if m.split(".")[0] in words]
    assert found == []


def test_errors_are_one_family():
    from recurra import errors

    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert all(issubclass(kind, RecurraError) for kind in kinds)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds)


def test_the_compiled_part_has_three_doors():
    found = {name for name, tree in trees() for node in ast.walk(tree) if _imports_core(node)}
    assert found == {"recurra/kernels/cpu.py", "recurra/runtime/layers.py", "recurra/codec/scaling.py"}


def _imports_core(node):
    names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
    return "_core" in names or "recurra._core" in names
