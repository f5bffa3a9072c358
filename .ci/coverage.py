"""Prints the least covered files, and how much of all lines tests run."""

import json
import sys

with open(sys.argv[1]) as file:
    found = json.load(file)
rows = [
    (one["summary"]["percent_covered"], len(one["missing_lines"]), path)
    for path, one in found["files"].items()
]
for percent, missing, path in sorted(rows)[:9]:
    print(f"{percent:5.1f} %, without {missing} lines: {path}")
print(f"{found['summary']['percent_covered']:.1f} % of lines")
