"""Ray: the cluster, what reaches its workers, and the state that outlives them."""
