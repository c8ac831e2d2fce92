"""Tables in Markdown."""


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: list[str]) -> str:
        _, *others = (f" {cell:>{width}} " for cell, width in zip(cells, widths, strict=True))
        return "|" + "|".join([f" {cells[0]:<{widths[0]}} ", *others]) + "|"

    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return [line(header), "|" + "|".join(rule) + "|", *map(line, rows)]
