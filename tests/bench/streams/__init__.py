"""A year of real data, end to end: what Retune's defaults make of dated streams, beside other ways to retrain."""
