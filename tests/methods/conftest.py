from tests.training.conftest import tiny_base, tiny_run  # noqa: F401
