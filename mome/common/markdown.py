"""Tables in Markdown, which can be read as they are, too."""

from collections.abc import Iterable, Sequence


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], align: str = "<>"
) -> list[str]:
    """Lines of a table, whose columns are as wide as their widest cells.

    Args:
        header: titles of the columns.
        rows: the cells of each row.
        align: ``<`` for a column to the left, ``>`` for one to the right; the last sign is that of
            all further columns.
    """
    texts = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    signs = align.ljust(len(widths), align[-1])[: len(widths)]

    def line(cells: Sequence[str]) -> str:
        columns = zip(cells, signs, widths, strict=True)
        return "|" + "|".join(f" {cell:{sign}{width}} " for cell, sign, width in columns) + "|"

    ends = ("-" if sign == "<" else ":" for sign in signs)
    rule = "|".join("-" * (width + 1) + end for width, end in zip(widths, ends, strict=True))
    return [line(texts[0]), f"|{rule}|", *map(line, texts[1:])]
