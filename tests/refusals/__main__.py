"""Prints the table."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from refusals import TABLE

table = Table(show_lines=True)
for column, ratio in (("when", 2), ("says", 5), ("then", 2)):
    table.add_column(column, ratio=ratio)
for each in TABLE:
    table.add_row(each.when, Text(each.says), each.then)
Console().print(table)
