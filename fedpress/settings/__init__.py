"""The configuration of a run: every setting, declared once and grouped into sections.

A process parses its run's configuration once, with `RunSettings.from_config`, and passes the typed object on. A new
setting is one field of one section; a new section of an extension is one line of the registry of extensions.
"""

from fedpress.settings.run import RunSettings

__all__ = ["RunSettings"]
