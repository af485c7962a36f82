//! Every decision of the control plane, as plain functions over plain values.
//!
//! Stored objects become valid models, models become one immutable mesh, and a mesh says what each proxy is told.
//! Never here: I/O, clocks, randomness, environment, logging, locks. Each module may use only those listed above it.
//! Used by pilot, the injector and `meshctl`, so that none of them has an opinion of its own.

pub mod object;

pub mod model;

pub mod old;

pub mod mesh;

pub mod inject;
