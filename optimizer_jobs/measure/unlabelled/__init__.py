"""Quality of rows without labels: where the reference speaks for them, how its rows count, how sure answers are."""
