"""`make bench-steps`: durable steps beside the raw driver and other people's durable runs, in the same run."""
