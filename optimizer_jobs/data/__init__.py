"""Files named by URIs: finding them, copying them to this machine, and reading data sets as rows."""
