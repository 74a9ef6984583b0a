"""Reading Markdown as GitHub shows it."""

from tools.docs.markdown import Page, anchor_of, table

TEXT = """# Top

```sh
make help # no heading
```

## Second `part`

```yaml
a: 1
```

| Reason | What |
| --- | --- |
| `One`, `Two` | is `x \\| y` |

    indented
"""


def test_anchors_are_those_of_github() -> None:
    """Lower case, spaces as hyphens, no punctuation; letters of every language, underscores and hyphens stay."""
    assert anchor_of("Install: `helm` & co.") == "install-helm--co"
    assert anchor_of("spec.model_uri[]") == "specmodel_uri"
    assert anchor_of("Größe — wie?") == "größe--wie"


def test_blocks_come_with_language_line_and_heading() -> None:
    """So that whoever checks them can say where they stand."""
    blocks = list(Page(TEXT).blocks())
    assert [(each.language, each.line, each.section) for each in blocks] == [
        ("sh", 3, "Top"),
        ("yaml", 9, "Second part"),
    ]
    assert [each.text for each in Page(TEXT).blocks("yaml")] == ["a: 1\n"]


def test_rows_come_with_what_is_marked_as_code() -> None:
    """Cell by cell, with the table's header and the heading above it."""
    (row,) = Page(TEXT).rows()
    assert row.header == ("Reason", "What")
    assert row.cells == ("One, Two", "is x | y")
    assert row.codes == (("One", "Two"), ("x | y",))
    assert (row.section, row.line) == ("Second part", 15)


def test_a_table_that_is_written_is_read_again() -> None:
    """Bars in cells are no borders."""
    (row,) = Page("\n".join(table(("A", "B"), [("`x|y`", "z")]))).rows()
    assert row.codes == (("x|y",), ())
