"""The configuration of a run: every setting, declared once and grouped into sections.

A process parses its run's configuration once, with `RunSettings.from_config`, and passes the typed object on. Add a
setting as a field of a section, and the section of an extension as a line in the registry of extensions.
"""

from fedpress.settings.run import RunSettings

__all__ = ["RunSettings"]
