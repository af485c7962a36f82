//! Tests of the suite `faults`, by what fails: peers, what the machine gives, or the control plane; and the load.
//!
//! Never here: their order; the suite has it. Called by the suite `faults`.

pub(crate) mod control;
pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod peers;
