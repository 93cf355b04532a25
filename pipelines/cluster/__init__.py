"""Ray: the cluster, the workers' inputs, and the saved states to resume from."""
