"""What a Job can be asked, one folder or module a command, in the order of a run; no command imports another."""
