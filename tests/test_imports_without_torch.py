"""``--help``, ``list`` and ``validate`` answer at once because nothing they import needs torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.source_tree import modules
from tests.test_layers import ATTACHED, HEAVY, LIGHT_PARTS, part_of

BLOCK = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {sorted(HEAVY)!r}:
            raise ImportError(f'{{name}} is heavy and was imported')
sys.meta_path.insert(0, Refuse())
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter in which importing anything heavy fails."""
    return subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, timeout=120)


def test_the_block_works() -> None:
    assert "torch is heavy and was imported" in run("import torch").stderr


def test_light_modules_import_with_torch_blocked() -> None:
    heavy = ATTACHED | {"adaptlab.__main__"}
    names = [name for name in modules() if part_of(name) in LIGHT_PARTS and name not in heavy]
    done = run("import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["task", "metric", "method"])
def test_plugins_are_found_with_torch_blocked(kind: str) -> None:
    done = run(f"from adaptlab.registry import Registry\nprint(len(Registry({kind!r}, 'adaptlab.{kind}s').names()))")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.mark.parametrize("arguments", [["--help"], ["compare", "--help"], ["list", "methods"], ["list", "tasks"]])
def test_the_command_line_answers_with_torch_blocked(arguments: list[str]) -> None:
    done = run(
        f"import sys\nsys.argv = ['adaptlab', *{arguments!r}]\nfrom adaptlab.cli.main import main\nsys.exit(main())"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
