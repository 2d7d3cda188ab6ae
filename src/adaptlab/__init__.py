"""adaptlab finds out which way of adapting a language model suits your task and your budget."""

__version__ = "0.1.0"
