//! OpenStack-compatible API, dispatcher, reconciliation: drives Ganeti over RAPI
