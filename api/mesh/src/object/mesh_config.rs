//! Mesh-wide settings: `MeshConfig`, stored in ConfigMap `istio` under the key `mesh`.
//!
//! Never here: defaults and meaning. YAML has been turned into JSON by the caller.
//! Called by `model`.
