"""One worker process among others: the roles that it has besides running jobs."""
