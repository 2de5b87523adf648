"""The rules of the house that can be read off the files, and what `import hf_attn_mi` does not do."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import hf_attn_mi
from hf_attn_mi._version import library_versions

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_attn_mi"
FILES = sorted(PACKAGE.rglob("*.py"))
# A part imports from its own row only where it is the same part, and from rows further down.
ROOMS = [  # a room imports from itself and from those further down
    "__init__",
    "_auto_registration",
    "__main__",
    "cli",
    "tasks",
    "methods",
    "results",
    "evaluation",
    "attention",
    "mi",
    "targets",
    "models",
    "capture",
    "kernels",
    "data",
    "heads",
    "figures",
    "hub_cards",
    "atomic_files",
    "errors",
    "_version",
]
OPTIONAL = {"PIL", "captum", "datasets", "evaluate", "matplotlib", "triton"}  # never imported at the top of a file
LATE = OPTIONAL | {
    "accelerate",
    "filelock",
    "huggingface_hub",
    "jinja2",
    "markupsafe",
    "pandas",
    "pyarrow",
    "rich",
    "sklearn",
}  # may be imported inside functions: slow, and rarely needed
DOORS = {  # what else may be imported inside the functions of a part
    "cli": ("transformers", "hf_attn_mi.", "tqdm"),  # `--version` and `--help` answer at once
    "kernels": ("hf_attn_mi.kernels.",),  # files that import Triton at their top
}
WITH_TRITON = {"kernels"}
MOST_LINES, MOST_FUNCTION = 400, 60


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
    """(dotted name, whether the statement is inside a function) of every import that runs (not under TYPE_CHECKING)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_type_checkers = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imported(node, path):
                if id(node) not in for_type_checkers or name.startswith("hf_attn_mi."):
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
        door = package in LATE or name.startswith(DOORS.get(part, ("no such module",)))
        assert not inside or door, f"{path.relative_to(ROOT)} imports {name} inside a function"
        kernel = package == "triton" and part in WITH_TRITON
        assert inside or kernel or package not in OPTIONAL, f"{path.relative_to(ROOT)} imports {name} at the top"


def test_files_are_short():
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}


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


def lazy_names():
    """What `hf_attn_mi/__init__.py` imports for type checkers: name -> module."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {alias.name: node.module for node in block.body for alias in node.names}


def test_public_names():
    assert sorted(hf_attn_mi.__all__) == hf_attn_mi.__all__
    assert set(hf_attn_mi.__all__) <= set(dir(hf_attn_mi))
    missing = [name for name in hf_attn_mi.__all__ if not getattr(hf_attn_mi, name, None)]
    assert not missing, f"named in hf_attn_mi.__all__, but not there: {missing}"
    assert all(getattr(hf_attn_mi, name).__doc__ for name in hf_attn_mi.__all__)
    modules = {part_of(path) for path in FILES}
    assert not modules & set(hf_attn_mi.__all__)  # no module shares the name of an exported function
    with pytest.raises(AttributeError, match="has no attribute 'explian'"):
        _ = hf_attn_mi.explian


def test_type_checkers_and_the_run_time_see_the_same_public_names():
    assert lazy_names() == hf_attn_mi._MODULE_OF_NAME
    assert sorted(lazy_names()) == hf_attn_mi.__all__
    assert (PACKAGE / "py.typed").exists()


def test_the_version_is_written_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "hf_attn_mi/_version.py"
    assert hf_attn_mi.__version__ == library_versions()["hf_attn_mi"]
    source = json.loads(distribution("hf_attn_mi").read_text("direct_url.json") or "{}").get("url", "")
    if Path(source.removeprefix("file://")) == ROOT:  # not where this checkout is on the path of another one's packages
        assert version("hf_attn_mi") == hf_attn_mi.__version__, "installed before the version changed: make test"
    assert not re.search("^version:", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)


KNOWN_TO_FAIL = {  # with transformers 5.0 the recomputation of layers counted as new calls
    "transformers": ("5.0.0", "5.22.0"),
    "torch": ("2.5.0", "2.12.0"),
}


def test_versions_that_give_wrong_numbers_are_not_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bounds = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    for name, specifier in bounds.items():
        assert specifier.contains(version(name), prereleases=True), f"{name}: the suite runs with another version"
        assert any(one.operator in (">=", "==", "~=") for one in specifier), f"{name} has no lower bound"
    allowed = {name: [one for one in known if one in bounds[name]] for name, known in KNOWN_TO_FAIL.items()}
    assert allowed == {"transformers": [], "torch": []}


# What is loaded by the import on its own, and which state of the process it changes after torch and transformers.
PROBE = """
import json, logging, os, sys, warnings
started = set(sys.modules)
if len(sys.argv) > 1:
    import torch, transformers
def state():
    values = [dict(os.environ), list(logging.getLogger().handlers), logging.getLogger().level, list(warnings.filters),
              sys.excepthook, list(sys.path_hooks)]
    if len(sys.argv) > 1:
        values += [torch.get_default_dtype(), torch._C._len_torch_function_stack(), torch.is_grad_enabled(),
                   torch.random.initial_seed(), transformers.utils.logging.get_verbosity(), torch.get_num_threads(),
                   torch.nn.functional.scaled_dot_product_attention, torch.nn.Module.__call__]
    return values
before, modules, finders = state(), set(sys.modules), list(sys.meta_path)
import hf_attn_mi
print(json.dumps({
    "unchanged": before == state(),
    "finders": [type(finder).__name__ for finder in sys.meta_path if finder not in finders],
    "new": sorted({name.split(".")[0] for name in set(sys.modules) - modules}),
    "own": sorted(name for name in set(sys.modules) - modules if name.startswith("hf_attn_mi")),
    "cuda": len(sys.argv) > 1 and torch.cuda.is_initialized(),
}))
"""


@pytest.mark.parametrize("after", [(), ("torch and transformers",)], ids=["first", "after torch and transformers"])
def test_import_is_inert(after):
    # A small environment: this process has imported the package, and what that sets would be inherited.
    kept = ("PATH", "HOME", "SYSTEMROOT", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *after],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1  # the probe's own line
    result = json.loads(done.stdout)
    assert result["unchanged"]
    assert not result["cuda"]
    assert result["finders"] == ["AutoClassFinder"]  # tests/heads/test_auto_registration.py: it removes itself
    assert result["own"] == ["hf_attn_mi", "hf_attn_mi._auto_registration", "hf_attn_mi._version"]
    third_party = set(result["new"]) - set(sys.stdlib_module_names)
    assert third_party == {"hf_attn_mi"}


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
