"""The search Job: workers share one study, and turn proposed combinations into measured and stored candidates."""
