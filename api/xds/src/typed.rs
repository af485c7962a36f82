//! The wrapper of configurations whose message the sender does not have: a type URL and a JSON object.
//!
//! Never here: what is inside. Used by `encode` (Istio's metrics filter) and `decode` (refused or ignored by its type URL).

use envoy_types::pb::google::protobuf::Struct;

/// `xds.type.v3.TypedStruct`, and with the same fields `udpa.type.v1.TypedStruct`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TypedStruct {
    /// Type of what is inside.
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    /// What is inside.
    #[prost(message, optional, tag = "2")]
    pub(crate) value: Option<Struct>,
}

/// Type URLs of the wrapper.
pub(crate) const TYPE_URLS: [&str; 2] =
    ["type.googleapis.com/xds.type.v3.TypedStruct", "type.googleapis.com/udpa.type.v1.TypedStruct"];

impl prost::Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";
    fn type_url() -> String {
        TYPE_URLS[0].to_owned()
    }
}
