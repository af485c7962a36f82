//! The load and the changes of the suite `soak`.
//!
//! Never here: what must hold; the suite has it. Called by the suite `soak`.

pub(crate) mod changes;
pub(crate) mod load;
