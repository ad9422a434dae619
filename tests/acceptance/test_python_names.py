"""The public names: few, typed, with examples that run, and cheap to import."""

from __future__ import annotations

import ast
import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import searchae
from tests.conftest import fork_workers, make_folder

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "data" / "python_script.py"
OBJECTS = [name for name in searchae.__all__ if name != "__version__"]
FIRST = ("tune", "Search", "load")
"""Their examples make the study and the net that the others read."""
QUICK = """
[data]
name = "npz"
path = "tiny.npz"
validation = 0.25
[model]
channels = [4, 8]
latent_dim = 8
activation = { choices = ["tanh"] }
[train]
epochs = 6
batch_size = 8
optimizer = { choices = ["adam", "sgd"] }
learning_rate = { low = 3e-3, high = 3e-2, log = true }
momentum = 0.0
regularizer = { choices = ["clip", "clip+l1"] }
l1_weight = { low = 1e-6, high = 1e-5, log = true }
[search]
trials = 4
sampler = "random"
pruner = "none"
"""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def test_there_are_few_names_and_each_is_there() -> None:
    assert len(searchae.__all__) <= 15
    assert sorted(searchae.__all__) == sorted(set(searchae.__all__))
    assert set(searchae.__all__) <= set(dir(searchae))
    for name in searchae.__all__:
        assert getattr(searchae, name) is not None
    assert callable(searchae.tune), "no package takes its place"
    with pytest.raises(AttributeError, match="has no attribute 'tun'"):
        searchae.tun  # noqa: B018


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose study "quickstart" takes seconds."""
    folder = make_folder(tmp_path_factory.mktemp("examples"))
    (folder / "studies" / "quickstart.toml").write_text(QUICK)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fork_workers(patch)
        for name in FIRST:
            run_examples(name)
    return folder


def run_examples(name: str) -> int:
    """Runs the examples of a public name; returns how many there are."""
    module = sys.modules["searchae"]
    found = doctest.DocTestFinder(recurse=False).find(
        getattr(searchae, name), name, module=module, globs={"searchae": searchae, "np": np}
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in found:
        runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)
    return sum(len(test.examples) for test in found)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", OBJECTS)
def test_its_example_runs(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    fork_workers(monkeypatch)
    if name == "Search":
        shutil.rmtree(home / "best")  # which it writes
    assert run_examples(name) > 0


@pytest.mark.parametrize("name", ["tune", "open", "load"])
def test_a_function_s_options_are_typed_and_described(name: str) -> None:
    function: Any = getattr(searchae, name)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    described = function.__doc__.partition("Args:")[2]
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
        assert f"\n        {parameter.name}: " in described


def test_the_script_for_the_type_checker_uses_all_names() -> None:
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text())))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert set(searchae.__all__) <= used
    methods = {name for name in vars(searchae.Search) if not name.startswith("_")}
    assert methods <= used


@pytest.mark.fleet
def test_a_user_s_script_passes_mypy_strict(tmp_path: Path) -> None:
    """From a folder of the user's: with no settings but --strict, and a wrong one is found."""
    script = tmp_path / "script.py"
    words = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(script)]
    options: Any = {"cwd": tmp_path, "capture_output": True, "text": True}
    script.write_text(SCRIPT.read_text())
    passed = subprocess.run(words, **options, timeout=1200, check=False)
    assert passed.returncode == 0, passed.stdout + passed.stderr
    script.write_text('import searchae\nsearchae.tune("svhn", trails=3).best.psnr\n')
    refused = subprocess.run(words, **options, timeout=1200, check=False)
    assert 'Unexpected keyword argument "trails"' in refused.stdout
    assert 'has no attribute "psnr"' in refused.stdout
