"""The house and its floors: a module imports from the floors below it and from nowhere else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fastdil"

#: First part of a module's name inside the package -> its floor.
FLOORS = {
    **dict.fromkeys(("", "cli", "__main__", "blocks", "dask"), 6),
    **dict.fromkeys(("functional", "partition", "signals", "streaming", "wavelets", "banks", "rocket"), 5),
    **dict.fromkeys(("plans", "signal_layout"), 4),
    "dispatch": 3,
    "algorithms": 2,
    "kernels": 1,
    "cuda": 0.5,  # beside the engine: knows what a convolution is, and nothing of how the CPU computes it
    **dict.fromkeys(
        (
            "arguments",
            "dtypes",
            "problem",
            "padding",
            "hardware",
            "helper_compiler",
            "jit",
            "addresses",
            "cache",
            "costmodel",
            "arrays",
            "errors",
            "explanation",
            "workspace",
            "_version",
        ),
        0,
    ),
    "theory": 5.5,  # beside the engine: above it only to run a stack and measure
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """Dotted name of a file: ``fastdil.kernels.pack``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path) for path in MODULES}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at the top or inside a function, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} line {node.lineno}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in NAMES else node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                found.add(argument.value)
    return found


def part(name: str) -> str:
    """``fastdil.kernels.pack`` to ``kernels``."""
    return ([*name.split("."), ""])[1]


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_floors(path):
    me = part(module_name(path))
    assert me in FLOORS, f"{module_name(path)} stands on no floor: add it to the table and to the documentation"
    for name in imports(path):
        if name.split(".")[0] != "fastdil":
            continue
        other = part(name)
        assert other in FLOORS, f"{name} does not exist"
        inside = other == me and (PACKAGE / me).is_dir()
        allowed = FLOORS[other] < FLOORS[me] or inside or FLOORS[me] == FLOORS[other] == 0 or FLOORS[me] == 6
        assert allowed, f"{module_name(path)} (floor {FLOORS[me]}) imports {name} (floor {FLOORS[other]})"


def test_floor_table_has_no_ghosts():
    assert {part(name) for name in NAMES} == set(FLOORS)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_intrinsics_import_llvmlite(path):
    uses = {name.split(".")[0] for name in imports(path)}
    builders = {
        "kernels": ("vectors", "intrinsics", "places", "copies", "tile_unit", "split"),
        "cuda": ("intrinsics", "tensor_cores"),
    }
    if module_name(path) not in [f"fastdil.{package}.{name}" for package in builders for name in builders[package]]:
        assert "llvmlite" not in uses


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_dependencies_are_the_declared_ones(path):
    """Optional ones belong to one place each: Pillow to the command line, Matplotlib to the theory's pictures, dask.

    `ml_dtypes` is asked for by the name of its dtype only.
    """
    allowed = {"fastdil", "numpy", "numba", "scipy", "llvmlite", *sys.stdlib_module_names}
    if part(module_name(path)) == "cli":
        allowed.add("PIL")
    if module_name(path) == "fastdil.theory.plots":
        allowed.add("matplotlib")
    if module_name(path) == "fastdil.dtypes":
        allowed.add("ml_dtypes")
    if part(module_name(path)) == "dask":
        allowed.add("dask")
    assert {name.split(".")[0] for name in imports(path)} <= allowed


def test_no_circular_imports():
    graph = {}
    for path in MODULES:
        me = module_name(path)
        graph[me] = {n for n in imports(path) if n in NAMES and n != me and n != "fastdil"}
    done = set()
    while len(done) < len(graph):
        ready = {name for name, needs in graph.items() if name not in done and needs <= done}
        assert ready, f"in a circle: {sorted(set(graph) - done)}"
        done |= ready


def in_child(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_light():
    code = (
        "import sys, fastdil, fastdil.cuda; fastdil.__version__; dir(fastdil); dir(fastdil.cuda);"
        "print([m for m in ('numba', 'llvmlite', 'scipy', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    assert in_child(code) == "[]"


def test_public_names():
    code = "import fastdil; print(*sorted(fastdil.__all__)); [getattr(fastdil, n) for n in fastdil.__all__]"
    expected = [
        "conv",
        "conv1d",
        "conv2d",
        "conv3d",
        "convolve",
        "correlate",
        "explain",
        "machine",
        "methods",
        "plan",
        "warmup",
        "__version__",
    ]
    expected += ["Explanation", "Machine", "Plan", "Problem"]
    assert set(in_child(code).split()) >= set(expected)


def test_unknown_names_raise_attribute_error():
    code = "import fastdil\ntry: fastdil.nonsense\nexcept AttributeError as e: print(e)"
    assert "nonsense" in in_child(code)


def test_a_module_does_not_hide_a_public_function():
    """Loading every module leaves the public names what they were."""
    listed = [name for name in sorted(NAMES) if "__main__" not in name]
    code = (
        f"import importlib, fastdil; [importlib.import_module(n) for n in {listed!r}];"
        "print(*[n for n in fastdil.__all__ if type(getattr(fastdil, n)).__name__ == 'module'])"
    )
    assert in_child(code) == ""


@pytest.mark.parametrize("name", ["naive.py", "paths_oracle.py"])
def test_the_oracles_are_independent(name):
    tree = ast.parse((ROOT / "tests" / name).read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add(node.module.split(".")[0])
    assert roots <= {"__future__", "collections", "math", "numpy"}
