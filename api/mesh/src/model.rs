//! The valid form of each kind, and all of them together.
//!
//! An object is parsed once, when it is seen; what is wrong with it becomes notes, what is usable a model.
//! Never here: what one object means for another (that is `mesh`), or for one proxy.
//! Called by pilot's store and webhook and by `meshctl`.

mod catalog;

pub use catalog::{Catalog, Change, ServiceId, Settings};
