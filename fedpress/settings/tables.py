"""Settings as rows of a table, and as a commented TOML file."""

from collections.abc import Iterator
from dataclasses import MISSING

from fedpress.common.settings import Declared, Schema, toml, values
from fedpress.settings.run import RunSettings

Row = tuple[str, str, str, str, str]  # key, type, default, range, help


def rows(schema: Schema) -> list[Row]:
    """Return a row for each setting of `schema`: key, type, default, range and help."""
    return [
        (setting.key, setting.kind_name, _default(setting), setting.option.range, setting.option.help)
        for setting in schema.declared.values()
    ]


def _default(setting: Declared) -> str:
    if setting.default is MISSING:
        return "the workload's"
    return "" if setting.default is None else toml(setting.default)


def commented(settings: RunSettings, schema: Schema) -> str:
    """Return `settings` as TOML, each below a comment; settings without a value are commented out."""
    return "\n".join(_lines(settings, schema)) + "\n"


def _lines(settings: RunSettings, schema: Schema) -> Iterator[str]:
    sections = settings.sections
    given = {key: value for name in schema.sections for key, value in values(sections[name], f"{name}.").items()}
    section = ""
    for setting in schema.declared.values():
        if setting.section != section:
            yield from ([""] if section else [])
            section = setting.section
            yield f"[{section}]"
        bounds = f" ({setting.option.range})" if setting.option.range else ""
        yield f"# {setting.option.help}{bounds}"
        value = given.get(setting.key)
        yield f"# {setting.name} = " if value is None else f"{setting.name} = {toml(value)}"
