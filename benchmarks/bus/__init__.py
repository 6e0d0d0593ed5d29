"""`make bench-bus`: the message bus beside the raw driver and other people's queues, in the same run."""
