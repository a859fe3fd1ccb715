"""Prints a constraints file: every dependency that pyproject.toml names, at the lower bound that it states."""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parent.with_name("pyproject.toml").read_text("utf-8"))["project"]
for requirement in [
    *project["dependencies"],
    *(one for extra in project["optional-dependencies"].values() for one in extra),
]:
    if requirement.startswith(project["name"]):  # an extra that is made of the others
        continue
    bound = re.match(r"([\w.-]+)\s*>=\s*([\w.]+)", requirement)
    if bound is None:
        sys.exit(f"pyproject.toml: {requirement!r} states no lower bound; write it as NAME>=VERSION.")
    print(f"{bound[1]}=={bound[2]}")
