//! Tests of the suite `resilience` that have a file of their own.
//!
//! Never here: their order; the suite has it. Called by the suite `resilience`.

pub(crate) mod changes;
