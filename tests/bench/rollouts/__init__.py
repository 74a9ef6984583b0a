"""How long a canary takes, from the moment when its version is accepted, and how soon harm ends it: beside Argo's."""
