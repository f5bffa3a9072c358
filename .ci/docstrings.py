"""Docstrings as Keras writes them, for mkdocstrings: examples and sections."""

import re
import textwrap

import griffe

# Sections that Griffe does not know: it would fold them away.
_SECTION = re.compile(
    r"^(Call arguments|Input shape|Output shape):\n((?: +.*\n?|\n(?= ))+)",
    re.M,
)
_TITLE = re.compile(r"^(Example|References?):\n\n?", re.M)
_PROMPTS = re.compile(r"^>>> .*(?:\n.+)*", re.M)


class KerasDocstrings(griffe.Extension):
    """Turns what is no Markdown into Markdown."""

    def on_instance(self, *, node, obj, agent, **kwargs):
        if not obj.is_alias and obj.docstring is not None:
            obj.docstring.value = in_markdown(obj.docstring.value)


def in_markdown(text):
    """Returns a docstring whose examples and shapes are Markdown."""
    text = _SECTION.sub(_section, text)
    text = _TITLE.sub(r"**\1:**\n\n", text)
    return _PROMPTS.sub(r"```pycon\n\g<0>\n```", text)


def _section(match):
    body = textwrap.dedent(match[2]).strip("\n")
    if match[1] == "Call arguments":
        body = re.sub(r"^(\**\w+): ", r"- `\1`: ", body, flags=re.M)
        body = re.sub(r"^(?=[^-\n])", "  ", body, flags=re.M)
        body = re.sub(r"^ +", "  ", body, flags=re.M)
    return f"**{match[1]}:**\n\n{body}\n\n"
