"""The rules of the house that can be read off the files, and what `import hf_attn_mi` does not do."""

import ast
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import hf_attn_mi

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_attn_mi"
FILES = sorted(PACKAGE.rglob("*.py"))
# A part imports from its own row only where it is the same part, and from rows further down.
ROOMS = [  # a room imports from itself and from those further down
    "__init__",
    "cli",
    "tasks",
    "methods",
    "results",
    "evaluation",
    "attention",
    "mi",
    "models",
    "capture",
    "kernels",
    "data",
    "heads",
    "errors",
]
OPTIONAL = {"captum", "datasets", "evaluate", "matplotlib", "triton"}
DOORS = {  # what else may be imported inside the functions of a part
    "cli": ("transformers", "hf_attn_mi.heads"),  # `--help` answers at once: both load all of transformers' modeling
    "kernels": ("hf_attn_mi.kernels.",),  # files that import Triton at their top
}
WITH_TRITON = {"kernels"}
MOST_LINES, MOST_MEDIAN, MOST_FUNCTION = 400, 130, 60


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor_of(part):
    assert part in ROOMS, f"{part} is no room: add it to ROOMS in tests/test_house.py"
    return ROOMS.index(part)


def imported(node, path):
    """Dotted names that an import statement asks for; relative ones made absolute."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if node.level == 0:
        base = node.module
    else:
        home = ["hf_attn_mi", *path.relative_to(PACKAGE).parts][: -node.level]
        base = ".".join([*home, *([node.module] if node.module else [])])
    return [base] if base != "hf_attn_mi" else [f"{base}.{alias.name}" for alias in node.names]


def imports(path):
    """(dotted name, whether the statement stands inside a function) of every import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported(node, path):
                yield name, id(node) in inner


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    mine = part_of(path)
    for name, _ in imports(path):
        if not name.startswith("hf_attn_mi."):
            continue
        other = name.split(".")[1]
        if other in hf_attn_mi.__all__ or other == "__version__":
            assert mine == "cli", f"{path} imports {other} from the top; import it from its own module"
            continue
        allowed = floor_of(other) >= floor_of(mine)
        assert allowed, f"{path.relative_to(ROOT)}: {mine} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_inside_functions_are_optional_doors(path):
    for name, inside in imports(path):
        package, part = name.split(".")[0], part_of(path)
        door = package in OPTIONAL or name.startswith(DOORS.get(part, ("no such module",)))
        assert not inside or door, f"{path.relative_to(ROOT)} imports {name} inside a function"
        kernel = package == "triton" and part in WITH_TRITON
        assert inside or kernel or package not in OPTIONAL, f"{path.relative_to(ROOT)} imports {name} at the top"


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}
    assert statistics.median(lengths.values()) <= MOST_MEDIAN


def public(tree):
    """Public functions and methods: no leading underscore in their name or their class's."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node
            yield from public(node)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def body_lines(node):
    """Lines of a function without its docstring, decorators and signature."""
    documented = ast.get_docstring(node) is not None
    body = node.body[1:] if documented else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_functions_are_documented_and_short(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in public(tree):
        method_of_the_framework = node.name in ("forward", "backward")  # documented by torch
        assert ast.get_docstring(node) or method_of_the_framework, f"{path}: {node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            assert body_lines(node) <= MOST_FUNCTION, f"{path}: {node.name} has {body_lines(node)} lines"


def test_public_names():
    assert len(hf_attn_mi.__all__) <= 15
    assert sorted(hf_attn_mi.__all__) == hf_attn_mi.__all__
    assert all(getattr(hf_attn_mi, name).__doc__ for name in hf_attn_mi.__all__)
    modules = {part_of(path) for path in FILES}
    assert not modules & set(hf_attn_mi.__all__)  # no module shares the name of an exported function


PROBE = """
import os, sys, json, logging, warnings
import torch, transformers
environment, modules = dict(os.environ), set(sys.modules)
handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
library = transformers.utils.logging
before = (torch.get_default_dtype(), torch._C._len_torch_function_stack(), torch.is_grad_enabled(),
          torch.random.initial_seed(), list(warnings.filters), library.get_verbosity(), torch.get_num_threads(),
          sys.excepthook, torch.nn.functional.scaled_dot_product_attention, torch.nn.Module.__call__)
import hf_attn_mi
after = (torch.get_default_dtype(), torch._C._len_torch_function_stack(), torch.is_grad_enabled(),
         torch.random.initial_seed(), list(warnings.filters), library.get_verbosity(), torch.get_num_threads(),
         sys.excepthook, torch.nn.functional.scaled_dot_product_attention, torch.nn.Module.__call__)
new = {name.split(".")[0] for name in set(sys.modules) - modules}
print(json.dumps({
    "environment": environment == dict(os.environ), "state": before == after,
    "logging": handlers == logging.getLogger().handlers and level == logging.getLogger().level,
    "new": sorted(new), "all": sorted(set(sys.modules) - modules), "cuda": torch.cuda.is_initialized(),
}))
"""


def test_import_is_inert():
    # A small environment: this process has imported the package, and what that sets would be inherited.
    wanted = ("PATH", "HOME", "SYSTEMROOT", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    environment = {name: os.environ[name] for name in wanted if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1  # the probe's own line
    found = json.loads(done.stdout)
    assert found["environment"]
    assert found["state"]
    assert found["logging"]
    assert not found["cuda"]
    heavy = {"captum", "datasets", "evaluate", "matplotlib", "pandas", "pyarrow", "triton", "sklearn", "accelerate"}
    assert not heavy & set(found["new"])
    assert not {"scipy.optimize", "scipy.stats"} & set(found["all"])


def tracked():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("no git repository here: the list of tracked files is not known")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_machine_or_a_package_registry():
    # Written in two parts, so that this file does not name them itself.
    paths = ["/wor" + "k/", "/ho" + "me/", "/Use" + "rs/", "/ro" + "ot/", "/tm" + "p/bash_jobs", "C:" + "\\Use" + "rs"]
    hosts = ["pypi." + "org", "python" + "hosted.org", "index" + "-url", "download.py" + "torch.org"]
    found = []
    for path in tracked():
        if path.suffix in (".safetensors", ".png", ".gz", ".npz"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{path.relative_to(ROOT)}: {sign}" for sign in paths + hosts if sign in text]
    assert found == []
