//! The nfdhcpd binding file: one interface, its guest, and what to tell it.
