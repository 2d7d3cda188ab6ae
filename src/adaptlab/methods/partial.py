"""The parameters whose names match a pattern are trained, and the head."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from adaptlab.errors import ConfigError
from adaptlab.methods._base import LearningRates, MethodOptions, Setup
from adaptlab.methods._selection import SelectionMethod
from adaptlab.models._base import Layout


class Options(MethodOptions):
    parameters: str | tuple[str, ...] = Field(
        description="regular expressions, searched in parameter names", examples=["[Nn]orm|ln_", r"layer\.5\..*weight"]
    )

    @field_validator("parameters")
    @classmethod
    def _expressions(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for pattern in (value,) if isinstance(value, str) else value:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is not a regular expression: {error}") from error
        return value


class Partial(SelectionMethod):
    name = "partial"
    summary = "the parameters whose names match a pattern, and the head"
    Config = Options
    learning_rates = LearningRates(default=1e-3, low=2e-5, high=1e-2)

    def chosen(self, layout: Layout, setup: Setup) -> tuple[str, ...]:
        options = setup.options
        assert isinstance(options, Options)
        patterns = (options.parameters,) if isinstance(options.parameters, str) else options.parameters
        candidates = [name for name in layout.parameters if name not in set(layout.head)]
        chosen: set[str] = set()
        for pattern in patterns:
            matched = [name for name in candidates if re.search(pattern, name)]
            if not matched:
                kinds = dict.fromkeys(re.sub(r"\.\d+\.", ".N.", name) for name in candidates)
                raise ConfigError(
                    f"The pattern '{pattern}' matches no parameter of this {layout.family} model outside the head: "
                    f"there are {', '.join(kinds)}."
                )
            chosen.update(matched)
        return tuple(name for name in candidates if name in chosen)


plugin = Partial()
