"""What a run will take: time, memory, and the machine it has."""
