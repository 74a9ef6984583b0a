"""How often rules that judge a canary err, and how soon they see harm, on streams with a known truth."""
