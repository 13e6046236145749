"""Training on streamed shards: networks, losses, trajectories, snapshots."""
