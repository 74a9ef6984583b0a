"""The architecture page names the import contracts that are in force."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_import_contract_is_explained_and_no_other() -> None:
    """The table has one row a contract of pyproject.toml, under the contract's own name."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page.split("| contract | what it means |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (?!---)(.+?) \|", table, flags=re.MULTILINE)
    assert sorted(rows) == sorted(contract["name"] for contract in contracts)
