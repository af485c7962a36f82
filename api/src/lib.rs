//! Every run-time decision of the mesh, as plain functions over plain values.
//!
//! Which rule, may it, which endpoint, try again? Proxy, pilot, injector and `meshctl` are shells around these answers.
//! Never here: I/O, clocks, randomness, environment, logging, locks. Each module may use only those listed above it.
//! Used by every other package; `ARCHITECTURE.md` shows where.

pub mod name;
pub mod note;
pub mod spec;

pub mod head;
pub mod pattern;
pub mod why;

pub mod authz;
pub mod balance;
pub mod retry;
pub mod table;

pub mod route;
