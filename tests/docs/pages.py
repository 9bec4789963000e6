"""The commands of a page as one shell script, in the order in which they stand.

Every block ```` ```sh ```` is run. An HTML comment right before a block says what else is done with it:

| comment | meaning |
| --- | --- |
| `<!-- not run: REASON -->` | left out |
| `<!-- run -->` | Python: run, too |
| `<!-- slow -->` | run, by the slow tests alone |
| `<!-- background until WORDS -->` | run in the background; what follows waits until its output has these words |
| `<!-- slow background until WORDS -->` | both |
| `<!-- file NAME -->` | the block is written to this file |
| `<!-- in NAME, for: LINE -->` | the block takes the place of this line of the file |
| `<!-- in NAME, before: LINE -->` | the block is inserted before this line of the file |
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EDIT = re.compile(r"in (\S+), (for|before): (.*)")
_RUN = re.compile(r"(run|slow)? ?(?:background until (.+))?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    mark: str  # what the comment before it says
    text: str

    @property
    def runs(self) -> bool:
        """Whether it is run, by the slow tests or by all."""
        return _RUN.fullmatch(self.mark) is not None and (self.language == "sh" or self.mark in ("run", "slow"))

    @property
    def slow(self) -> bool:
        """Whether only the slow tests run it."""
        return self.mark.partition(" ")[0] == "slow"

    @property
    def shell(self) -> str:
        """The lines that run it."""
        if self.language == "python":
            return f"python - <<'END OF CODE'\n{self.text}END OF CODE"
        found = _RUN.fullmatch(self.mark)
        words = found[2] if found else None
        return _background(self, words) if words else self.text


def read_blocks(page: Path) -> list[Block]:
    """Return all fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start(2)) + 1, found[2], found[1] or "", found[3])
        for found in _BLOCK.finditer(text)
    ]


def build_script(page: Path, *, slow: bool) -> str:
    """Return a bash script that does what the page says, with its `slow` blocks or without."""
    return "\n".join(["set -euo pipefail", *_steps(page, slow)]) + "\n"


def _steps(page: Path, slow: bool) -> Iterator[str]:
    files: dict[str, str] = {}
    for block in read_blocks(page):
        if edit := _EDIT.fullmatch(block.mark):
            name, how, line = edit.groups()
            files[name] = _edit(files[name], line, block.text, keep=how == "before")
            yield _write(name, files[name])
        elif block.mark.startswith("file "):
            name = block.mark.removeprefix("file ")
            files[name] = block.text
            yield _write(name, block.text)
        elif block.runs and (slow or not block.slow):
            yield f"echo '== {page.name}, line {block.line}' >&2\n{block.shell}"


def _write(name: str, text: str) -> str:
    return f"mkdir -p {Path(name).parent}\ncat > {name} <<'END OF FILE'\n{text}END OF FILE"


def _edit(text: str, line: str, block: str, *, keep: bool) -> str:
    lines = text.splitlines(keepends=True)
    (place,) = (number for number, one in enumerate(lines) if one.strip() == line)
    return "".join([*lines[:place], block, *lines[place if keep else place + 1 :]])


def _background(block: Block, words: str) -> str:
    log = f"background-{block.line}.log"
    return (
        f"({block.text}) >{log} 2>&1 &\nstarted=$!\n"
        f"until grep -q '{words}' {log}; do\n"
        f"    kill -0 $started || {{ cat {log} >&2; exit 1; }}\n    sleep 0.2\ndone"
    )
