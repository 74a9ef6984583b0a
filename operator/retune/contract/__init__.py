"""What operator and Jobs exchange: requests, results, exit codes, paths. Imports only `retune.api`."""
