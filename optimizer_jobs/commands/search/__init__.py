"""The search Job: one study that many workers share, from proposal to measured, stored candidate."""
