"""The commands that a Job can run, each in a module or folder of its own. No command imports another."""
