"""How every pass ends: stray Jobs are stopped, runs are recorded, conditions and events are written."""
