"""A data set names one label column or several; what earlier releases stored means what it meant."""

from typing import Any

import pytest
from pydantic import ValidationError

from retune.api.crd import modeloptimization_crd
from retune.api.model import Dataset

URI = "pvc://models/test.csv"


@pytest.mark.parametrize("column", ["label", "price"])
@pytest.mark.parametrize("names", [("labelColumn", "labelColumns"), ("label_column", "label_columns")])
def test_both_forms_are_refused(column: str, names: tuple[str, str]) -> None:
    """Even where the one column has the usual name: nobody could say which of them was meant."""
    one, several = names
    with pytest.raises(ValidationError, match="give labelColumn or labelColumns, not both"):
        Dataset.model_validate({"uri": URI, one: column, several: ("h1", "h2")})


@pytest.mark.parametrize(
    ("fields", "labels", "label"),
    [
        ({}, ("label",), "label"),
        ({"labelColumn": "label"}, ("label",), "label"),
        ({"labelColumn": "price"}, ("price",), "price"),
        ({"labelColumns": ["h1", "h2", "h3"]}, ("h1", "h2", "h3"), "h1, ..., h3"),
    ],
)
def test_labels_are_the_columns_that_are_named(fields: dict[str, Any], labels: tuple[str, ...], label: str) -> None:
    """Left out, it is the column `label`, as it has always been."""
    dataset = Dataset.model_validate({"uri": URI, **fields})
    assert (dataset.labels, dataset.label) == (labels, label)


def test_the_former_default_is_no_other_data_set() -> None:
    """Stored objects have `labelColumn: label` from when it was filled in; nothing is measured again because of it."""
    assert Dataset.model_validate({"uri": URI, "labelColumn": "label"}) == Dataset(uri=URI)


def test_the_server_fills_no_label_column_in() -> None:
    """A default would stand beside labelColumns, and the rule would refuse every object that has them."""
    version = modeloptimization_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    validation = version["properties"]["spec"]["properties"]["data"]["properties"]["validation"]
    assert "default" not in validation["properties"]["labelColumn"]
    assert validation["properties"]["labelColumns"]["x-kubernetes-list-type"] == "atomic"
