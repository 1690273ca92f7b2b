//! What Ganeti runs on instance operations: network state, neighbour clean-up, image progress
