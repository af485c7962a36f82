//! Pilot: reads what users stored, and tells every proxy what to do.
//!
//! Never here: anything but the wiring of the modules.
//! Run as a Deployment in `istio-system`, or over a folder of files.

mod limits;
mod session;

fn main() {}
