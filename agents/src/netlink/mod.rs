//! Blocking netlink: links, routes, rules, nftables batches.
