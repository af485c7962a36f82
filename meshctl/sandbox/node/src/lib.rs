//! Runs Pods as processes of one machine: the sandbox's node.
//!
//! The keeper holds namespaces; the agent, a plain client of the API, decides what runs in them.
//! Never here: pilot, citadel, injector, proxy. Called by `meshctl up`'s daemon.

mod keeper;
pub mod net;

pub use enter::{EnterError, Inside, run_inside};
pub use keeper::birth::{BirthError, Keeper, Users, start as start_keeper};

mod enter;
mod event;
mod image;
mod kubelet;
mod limits;
mod link;
mod node;
mod pod;
mod terminal;
pub use link::{Link, LinkError};
pub use node::{Agent, NodeError, NodeOptions};
