"""Topics as tables for people."""

from rich.table import Table

from bench.result import Topic


def table(topic: Topic) -> Table:
    """The rows of a topic."""
    found = Table("", title=topic.title, caption="\n".join((topic.method, *topic.checks)), caption_justify="left")
    for column in topic.columns:
        found.add_column(column.heading, justify="right")
    found.add_column("target")
    found.add_column("")
    for row in topic.rows:
        style = "bold red" if row.holds is False else ""
        figures = (column.text(row) for column in topic.columns)
        found.add_row(row.name, *figures, row.judgement, row.note, style=style)
    return found
