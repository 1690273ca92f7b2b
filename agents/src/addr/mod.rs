//! MAC addresses, EUI-64 interface identifiers, prefixes.
