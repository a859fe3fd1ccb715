"""Converting with the machines of a cluster; nothing of it is loaded by a plain `convert`."""
