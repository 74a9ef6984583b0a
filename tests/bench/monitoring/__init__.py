"""How often monitoring cries wolf, how soon it sees a change, and what a check costs, beside Evidently's defaults."""
