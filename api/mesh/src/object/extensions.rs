//! Group extensions.istio.io: its kinds as they are stored.
//!
//! Never here: meaning. Used by kind.
//! Called by serde.

use super::shape::shapes;

shapes! {
    /// A WasmPlugin.
    pub struct WasmPlugin {}
    /// A TrafficExtension.
    pub struct TrafficExtension {}
}
