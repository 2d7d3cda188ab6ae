"""Base models: which one is meant (``identity``), what is where in it (``families``), and loading it (``load``)."""
