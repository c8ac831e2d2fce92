"""Tables in Markdown."""

from mome.common.markdown import markdown_table


def test_columns_are_as_wide_as_their_widest_cells_and_lie_to_their_sides():
    rows = [["test", 1.5, "a", 10], ["a", 20, "", 1]]
    assert markdown_table(["set", "WER", "said", "n"], rows, "<><") == [
        "| set  | WER | said | n  |",
        "|------|----:|------|----|",
        "| test | 1.5 | a    | 10 |",
        "| a    |  20 |      | 1  |",
    ]
    assert markdown_table(["set", "n"], []) == ["| set | n |", "|-----|--:|"]
    assert markdown_table(["set"], [], "<>") == ["| set |", "|-----|"]
