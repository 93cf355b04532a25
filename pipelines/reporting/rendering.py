"""Jinja templates of the pages and tables."""

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).with_name("templates")


def template_environment(*folders: str | Path) -> Environment:
    """An environment that searches templates in `folders`, then in this package's `templates/`.

    It escapes HTML in all templates but Markdown ones. An unknown variable raises jinja2.UndefinedError.
    """
    return Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )


def render_template(template: str, values: Mapping[str, object]) -> str:
    """Render a template of this package with `values` as its variables."""
    return template_environment().get_template(template).render(values)
