"""A world for whole runtimes: a seeded scheduler, virtual time, a disk that outlives crashes, and faults."""
