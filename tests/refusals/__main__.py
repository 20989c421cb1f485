"""Prints the table."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from refusals import TABLE

table = Table("when", "says", "then", show_lines=True)
for each in TABLE:
    table.add_row(each.when, Text(each.says), each.then)
Console().print(table)
