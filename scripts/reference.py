"""Write the pages of docs/reference from the code, each time the site is built: hooks of mkdocs."""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import click
import typer

from fedpress.cli.main import app
from fedpress.client.mod.extension import ClientExtension
from fedpress.common.errors import FedpressError
from fedpress.common.settings import Schema, toml
from fedpress.compression.registry import PRESETS, STAGES, WRAPPERS, CodecEntry
from fedpress.extensions import EXTENSIONS, load
from fedpress.protocol.messages import ProtocolMessage
from fedpress.server.aggregation.client_update import FederationLimits
from fedpress.server.deploy.settings import deployment_schema
from fedpress.server.downlink.deltas import DeltaContext
from fedpress.server.extension import Extension, FinalContext, Property, RoundContext
from fedpress.server.messaging.extension_messages import RequestContext
from fedpress.server.messaging.ledger import Ledger
from fedpress.server.rate_control.policies import Budget
from fedpress.server.strategy.flower_strategies import PREFIX, arguments_of, find_strategy, names
from fedpress.settings.device import client_schema
from fedpress.settings.registry import extension_sections
from fedpress.settings.tables import rows
from fedpress.simulations.completed_run import Run
from fedpress.simulations.network.devices import FLEETS, DeviceClass
from fedpress.simulations.network.links import LINKS
from fedpress.simulations.settings import simulation_schema
from fedpress.simulations.workloads import WORKLOADS

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

PACKAGES = ("fedpress", "fedpress.compression", "fedpress.client", "fedpress.server", "fedpress.simulations")
ARGUMENTS: Mapping[str, tuple[type, ...]] = {  # what the public names of a package are given and return
    "fedpress": (Run,),
    "fedpress.server": (FederationLimits, Budget, Ledger),
}
INTERFACES = (Extension, RequestContext, RoundContext, DeltaContext, FinalContext, Property, ClientExtension)
KINDS_OF_STAGES = {  # package -> heading
    "stages": "No compression",
    "sparsify": "Sparsifiers",
    "transform": "Transforms",
    "quantize": "Quantizers",
    "lossless": "Lossless stages",
}
FILES: Mapping[str, Schema] = {
    "A run (`fedpress simulate --config FILE`)": simulation_schema(),
    "A deployed server (`fedpress server --config FILE`), in addition": Schema(
        {"deployment": deployment_schema().sections["deployment"]}
    ),
    "A device (`fedpress client --config FILE`)": client_schema(),
}
SETTING = ("setting", "type", "default", "range", "meaning")


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages to those that were found under docs."""
    from mkdocs.structure.files import File  # the pages themselves need no mkdocs

    for path, text in pages().items():
        files.append(File.generated(config, f"reference/{path}", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page without escapes before pipes in code: other renderers need them in tables, mkdocs shows them."""
    return re.sub(r"`[^`\n]+`", lambda code: code[0].replace(r"\|", "|"), markdown)


def pages() -> dict[str, str]:
    """Return each generated page as Markdown, by its path below `reference`."""
    python = {**python_pages(), "fedpress.extensions": extensions(), "fedpress.protocol": protocol()}
    return {
        "command-line.md": command_line(),
        "settings.md": settings(),
        "codecs.md": codecs(),
        "errors.md": errors(),
        **{f"python/{package.rpartition('.')[2]}.md": text for package, text in python.items()},
    }


# The command line


def command_line() -> str:
    """Return the page of the commands, with every argument and option."""
    intro = (
        "Every command ends with 0 on success, 2 after a wrong call and 1 after a failure, with one line on standard "
        "error that gives the reason. `--debug` adds the traceback.\n\n"
    )
    return "# Command line\n\n" + intro + "".join(_command(*item) for item in _leaves(typer.main.get_command(app)))


def _leaves(command: click.Command, path: str = "fedpress") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from _leaves(child, f"{path} {name}")
    else:
        yield path, command


def _command(path: str, command: click.Command) -> str:
    usage = " ".join((path, *command.collect_usage_pieces(click.Context(command, info_name=path))))
    help_text = re.sub(r"^Example: `(.*?)`", r"```sh\n\1\n```", inspect.cleandoc(command.help or ""), flags=re.M | re.S)
    panels: dict[str, list[tuple[str, ...]]] = {}
    for parameter in command.params:
        panel = getattr(parameter, "rich_help_panel", None) or (
            "Options" if isinstance(parameter, click.Option) else "Arguments"
        )
        panels.setdefault(panel, []).append(_parameter(parameter))
    tables = "".join(f"**{title}**\n\n" + _table(("name", "type", "meaning"), rows) for title, rows in panels.items())
    return f"## {path}\n\n    {usage}\n\n{help_text}\n\n{tables}"


def _parameter(parameter: click.Parameter) -> tuple[str, str, str]:
    is_option = isinstance(parameter, click.Option)
    spelled = ", ".join(parameter.opts) if is_option else str(parameter.name).upper()
    kind = "" if is_option and parameter.is_flag else parameter.metavar or parameter.type.name
    text = str(getattr(parameter, "help", "") or "")
    if type(parameter.default) in (str, int, float) and parameter.default != "":
        text += f" Default: `{parameter.default}`."
    return f"`{spelled}`", kind.lower(), text


# Settings


def settings() -> str:
    """Return the page of all settings, and of what the workloads and strategies set and take."""
    text = (
        "# Settings\n\nA setting is a key of a TOML file, in the table of its section, or is given as "
        "`--set KEY=VALUE`. There the section may be left out where the key is unambiguous: `training.lr` or `lr`. "
        "`fedpress settings` prints the settings of a run, `fedpress init` writes them to a TOML file.\n\n"
    )
    for title, schema in FILES.items():
        text += f"## {title}\n\n"
        for name, cls in schema.sections.items():
            if lines := list(_settings(Schema({name: cls}))):
                text += f"### `[{name}]`\n\n" + _table(SETTING, lines)
    return text + _workloads() + _strategies() + _links() + _devices()


def _settings(schema: Schema) -> Iterator[tuple[str, ...]]:
    for key, kind, default, bounds, meaning in rows(schema):
        yield f"`{key}`", kind, f"`{default}`" if default else "", bounds, meaning


def _workloads() -> str:
    lines = (
        (
            f"`{name}`",
            ", ".join(f"`{model}`" for model in workload.models),
            ", ".join(map(_pair, workload.defaults.items())),
        )
        for name, workload in WORKLOADS.items()
    )
    return "## Workloads\n\n" + _table(("`workload`", "models, the default first", "its defaults"), lines)


def _strategies() -> str:
    lines = (
        (
            f"`{name}`",
            ", ".join(
                f"`{PREFIX}{key}`, required" if default is None else _pair((PREFIX + key, default))
                for key, (_, default) in arguments_of(find_strategy(name)).items()
            ),
        )
        for name in names()
    )
    return "## Strategies\n\n" + _table(("`strategy`", "arguments, with their defaults"), lines)


def _links() -> str:
    lines = (
        (
            f"`{link.name}`",
            *(f"{rate / 1e3:g}" for rate in (link.down, link.up)),
            f"{1e3 * link.latency:g}",
            f"{link.payload} + {link.overhead}",
            f"{100 * link.duty:g} %",
            " / ".join(f"{1e6 * link.joules(way, 10**6) / 1e6:.3g}" for way in ("down", "up")) if link.power else "",
            f"{link.source}{f'; energy: {link.power.source}' if link.power else ''}",
        )
        for link in LINKS.values()
    )
    head = ("`--link`", "kbit/s down", "up", "ms one way", "bytes a packet", "duty", "J a MB, down / up", "source")
    return "## Links\n\n" + _table(head, lines)


def _devices() -> str:
    columns = [field.name for field in fields(DeviceClass) if field.name != "name"]
    lines = ((f"`{devices.name}`", *(f"{getattr(devices, name):g}" for name in columns)) for devices in FLEETS.values())
    return "## Devices\n\n" + _table(("`--devices`", *(f"`{name}`" for name in columns)), lines)


# Codecs


def codecs() -> str:
    """Return the page of the codecs: the stages by kind, the wrappers and the presets."""
    kinds: dict[str, dict[str, Any]] = {heading: {} for heading in KINDS_OF_STAGES.values()}
    for name, entry in STAGES.items():
        kinds[KINDS_OF_STAGES[entry.make.__module__.split(".")[-2]]][name] = entry
    text = (
        "# Codecs\n\nA codec is named by a spec string: stages between `|`, for example "
        "`topk(0.01) | uniform(4) | ans`. A preset is a whole codec.\n\n"
    )
    for kind, stages in kinds.items():
        text += f"## {kind}\n\n" + "".join(_stage(name, e) for name, e in stages.items())
    text += "## Wrappers\n\n" + "".join(_stage(name, e) for name, e in WRAPPERS.items())
    lines = (
        (
            f"`{_call(name, inspect.signature(e.make).parameters)}`",
            _summary(e.make),
            _examples(e.examples),
            e.instead or "yes",
        )
        for name, e in PRESETS.items()
    )
    return text + "## Presets\n\n" + _table(("preset", "method", "examples", "recommended for updates"), lines)


def _stage(name: str, entry: CodecEntry[Any]) -> str:
    cls = entry.make
    kinds = get_type_hints(cls)
    arguments = [field for field in fields(cls) if field.name != "inner"]
    lines = (
        (
            f"`{field.name}`",
            getattr(kinds[field.name], "__name__", str(kinds[field.name])),
            "required" if field.default is MISSING else f"`{field.default!r}`",
        )
        for field in arguments
    )
    paper = _summary(import_module(cls.__module__))
    table = _table(("argument", "type", "default"), lines) if arguments else ""
    advice = f"Not recommended for updates: {entry.instead}.\n\n" if entry.instead else ""
    return f"### `{name}`\n\n{_summary(cls)}\n\n{paper}\n\n{table}{advice}Examples: {_examples(entry.examples)}\n\n"


def _call(name: str, arguments: Iterable[str]) -> str:
    return f"{name}({', '.join(arguments)})"


def _examples(specs: tuple[str, ...]) -> str:
    return ", ".join(f"`{spec}`" for spec in specs)


# Errors


def errors() -> str:
    """Return the page of the exceptions, as the tree that they are."""
    return (
        "# Errors\n\nEverything that fedpress raises on purpose is one tree. On the command line a `SettingError` ends "
        "with exit code 2, every other one with 1.\n\n" + _tree(FedpressError, 0)
    )


def _tree(cls: type[Exception], depth: int) -> str:
    children = (child for child in cls.__subclasses__() if child.__module__ == cls.__module__)
    line = f"{'    ' * depth}- **`{cls.__name__}`**: {_summary(cls)}\n"
    return line + "".join(_tree(child, depth + 1) for child in children)


# Python


def python_pages() -> dict[str, str]:
    """Return a page for each public package, with all that its `__all__` names and no earlier page describes."""
    seen: set[int] = set()
    found = {}
    for package in PACKAGES:
        module = import_module(package)
        text = f"# `{package}`\n\n{_prose(module)}\n\n"
        for name in module.__all__:
            value = getattr(module, name)
            if name.startswith("__") or id(value) in seen:
                continue
            seen.add(id(value))
            text += f"::: {package}.{name}\n\n"
        found[package] = text + "".join(map(_class, ARGUMENTS.get(package, ())))
    return found


def extensions() -> str:
    """Return the page of the extensions: those that there are, then the interfaces that one implements."""
    text = f"# `fedpress.extensions`\n\n{_prose(import_module('fedpress.extensions'))}\n\n"
    for name in EXTENSIONS:
        cls = get_type_hints(load(name, "server").build)["return"]
        section = name.replace("_", "-")
        settings = extension_sections()[section]
        text += f"{_class(cls)}The settings, `{settings.__module__}.{settings.__name__}`:\n\n"
        text += _table(SETTING, _settings(Schema({section: settings})))
    return text + "".join(map(_class, INTERFACES))


def protocol() -> str:
    """Return the page of the messages, with their fields."""
    text = f"# `fedpress.protocol`\n\n{_prose(import_module('fedpress.protocol'))}\n\n"
    for cls in ProtocolMessage.__subclasses__():
        text += f"## `{cls.__name__}`\n\n{_prose(cls)}\n\n{_fields(cls)}"
    return text


def _class(cls: type) -> str:
    """Return what describes a class, and the meaning of its fields if it is a dataclass that comments them."""
    return f"::: {cls.__module__}.{cls.__name__}\n\n" + (_fields(cls) if is_dataclass(cls) else "")


def _fields(cls: type) -> str:
    comments = _comments(cls)
    types = get_annotations(cls)
    lines = ((f"`{name}`", f"`{_type_name(types[name])}`", text) for name, text in comments.items())
    return _table(("field", "type", "meaning"), lines) if comments else ""


def _type_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def _comments(cls: type) -> dict[str, str]:
    """Return the comment behind each field of a dataclass, by name."""
    return dict(re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(cls), re.MULTILINE))


# Markdown


def _prose(documented: object) -> str:
    """Return a whole docstring; an aligned listing in it stays as it is."""
    return inspect.getdoc(documented) or ""


def _summary(documented: object) -> str:
    """Return the first paragraph of a docstring, with its addresses as links."""
    first = (inspect.getdoc(documented) or "").partition("\n\n")[0]
    return re.sub(r"(https?://[^\s,;:)]*[^\s,;:).])", r"<\1>", " ".join(first.split()))


def _table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    table = [head, ("---",) * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in table) + "\n\n"


def _pair(item: tuple[str, Any]) -> str:
    return f"`{item[0]} = {toml(item[1])}`"
