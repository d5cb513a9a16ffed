"""Topics as tables for people."""

from rich.table import Table

from bench.result import Topic


def table(topic: Topic) -> Table:
    """The rows of a topic; columns in which nothing stands are left out."""
    found = Table("", title=topic.title, caption="\n".join((topic.method, *topic.checks)), caption_justify="left")
    lines = [[*(column.text(row) for column in topic.columns), row.judgement, row.note] for row in topic.rows]
    told = [place for place, texts in enumerate(zip(*lines, strict=True)) if any(texts)]
    headings = [*(column.heading for column in topic.columns), "target", "note"]
    for place in told:
        found.add_column(headings[place], justify="right" if place < len(topic.columns) else "left")
    for row, line in zip(topic.rows, lines, strict=True):
        found.add_row(row.name, *(line[place] for place in told), style="bold red" if row.holds is False else "")
    return found
