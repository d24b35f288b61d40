"""The data of a site, as its scripts are given them."""

import json
import re
from pathlib import Path
from typing import Any


def data_of(file: Path) -> Any:
    """What a data script gives to the site, under the name that the site asks for."""
    found = re.fullmatch(r"loaded\((.*?), (.*)\);\n", file.read_text("ascii"), re.DOTALL)
    assert found
    name, value = found.groups()
    assert json.loads(name) == str(file.relative_to(file.parents[0 if file.stem == "site" else 1]).with_suffix(""))
    return json.loads(value)
