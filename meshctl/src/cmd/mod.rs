//! One verb a file: what it takes, what it does, what it prints.
//!
//! Never here: decisions about the mesh. Called by `main`.

pub(crate) mod down;
pub(crate) mod env;
pub(crate) mod get;
pub(crate) mod install;
pub(crate) mod kube_inject;
pub(crate) mod ls;
pub(crate) mod manifest;
pub(crate) mod proxy_config;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod uninstall;
pub(crate) mod up;
pub(crate) mod version;
