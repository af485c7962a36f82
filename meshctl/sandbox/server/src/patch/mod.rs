//! The four kinds of patches, and who manages which field.
//!
//! Never here: HTTP, storing. Called by `verb`.

pub(crate) mod apply;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod managed;
pub(crate) mod merge;
pub(crate) mod strategic;
