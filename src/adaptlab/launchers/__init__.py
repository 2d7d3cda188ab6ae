"""Where runs execute: a plugin a file (see docs/adding-a-launcher.md). ``inline``, in this process, is none of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from adaptlab.errors import ConfigError, unknown_name
from adaptlab.registry import Registry

if TYPE_CHECKING:
    from adaptlab.config import ExecutionConfig
    from adaptlab.launchers._base import Launcher, LaunchOptions

registry: Registry[Launcher] = Registry("launcher", "adaptlab.launchers")


def options_of(execution: ExecutionConfig) -> tuple[Launcher, LaunchOptions] | tuple[None, None]:
    """The launcher that ``execution`` names and its options; no launcher for ``inline``.

    Raises:
        ConfigError: no launcher has that name, or an option is not the launcher's, has a wrong value, or leaves the
            engine nothing to fuse.
    """
    from adaptlab.study.wording import problems_of

    name, given = execution.launcher, dict(execution.launch)
    if name == "inline":
        if given:
            raise ConfigError(f"--launch {', '.join(given)} is for a launcher: give --launcher local, slurm or ray.")
        return None, None
    if name not in registry:
        raise unknown_name("launcher", name, ["inline", *registry.names()])
    launcher = registry.get(name)
    try:
        options = launcher.Config.model_validate(given)
    except ValidationError as error:
        allowed = {"": list(launcher.Config.model_fields)}
        problems = problems_of(error, given, allowed, named=f"{name}.")
        raise ConfigError(f"--launch: {problem.message}." for problem in problems) from error
    if execution.engine == "fused" and getattr(options, "runs_per_job", None) == 1:
        raise ConfigError(
            f"--engine fused trains the runs of a job together, and a job of --launcher {name} has one: give --launch "
            "runs_per_job=N, or leave --engine out."
        )
    return launcher, options
