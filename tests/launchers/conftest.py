"""The small study of the integration tests."""

from tests.integration.conftest import tiny_study

__all__ = ["tiny_study"]
