"""Logging: the name of the logger that all of fedpress writes to."""

LOGGER = "fedpress"
