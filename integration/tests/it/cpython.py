"""Runs test modules of CPython and prints a line for each test: its outcome and its name, sorted. Inside a container.

Each module has a process of its own, so that one that dies or hangs costs its own tests only, and says so.
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as tree

LIMIT = sys.argv[1]  # seconds for a module
results = set()
for module in sys.argv[2:]:
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "test", "-v", "--timeout", LIMIT, "--junit-xml", report.name, module]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        sys.stderr.buffer.write(done.stdout)
        try:
            cases = list(tree.parse(report.name).getroot().iter("testcase"))
        except tree.ParseError:
            cases = []
        for case in cases:
            kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
            name = case.get("name")
            results.add(("+".join(sorted(kinds)) or "passed") + " " + name)
        results.add("%s %s as a whole" % ("passed" if done.returncode == 0 and cases else "failed", module))
print("\n".join(sorted(results, key=lambda line: line.split(" ", 1)[1])))
