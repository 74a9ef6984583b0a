"""How every pass ends: Jobs that nothing waits for are stopped, runs are recorded, conditions and events are told."""
