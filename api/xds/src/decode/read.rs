//! Small shapes that every message is made of, checked: durations, addresses, shares, metadata, wrapped messages.
//!
//! Never here: anything about one kind of resource. Used by the other files of `decode`.

use std::{net::IpAddr, net::SocketAddr, time::Duration};

use api::{
    name::Percent,
    note::ObjectRef,
    spec::{Address, Origin},
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            self as core, CidrRange, ConfigSource, DataSource, Metadata, SocketAddress, address,
            config_source::ConfigSourceSpecifier, data_source::Specifier, socket_address::PortSpecifier,
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{self, value::Kind},
};
use ipnet::IpNet;

use super::{DecodeError, In};

/// The message inside a wrapper; the wrapper must be of its type.
pub(super) fn message<M: prost::Name + Default>(
    input: &In<'_>,
    path: &str,
    any: &protobuf::Any,
) -> Result<M, DecodeError> {
    if any.type_url != M::type_url() {
        return Err(input.invalid(path, format!("{} is not {}", any.type_url, M::type_url())));
    }
    M::decode(any.value.as_slice()).map_err(|error| input.invalid(path, format!("not a {}: {error}", M::NAME)))
}

/// A duration in whole milliseconds.
pub(super) fn duration(input: &In<'_>, path: &str, raw: &protobuf::Duration) -> Result<Duration, DecodeError> {
    let seconds = u64::try_from(raw.seconds).ok().filter(|seconds| *seconds <= 315_576_000_000);
    let nanos = u64::try_from(raw.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Duration::from_millis(seconds * 1000 + nanos / 1_000_000)),
        _ => Err(input.invalid(path, "not a duration of zero to ten thousand years")),
    }
}

pub(super) fn duration_or(
    input: &In<'_>,
    path: &str,
    raw: Option<&protobuf::Duration>,
    default: Duration,
) -> Result<Duration, DecodeError> {
    raw.map_or(Ok(default), |raw| duration(input, path, raw))
}

pub(super) fn number(raw: Option<&protobuf::UInt32Value>, default: u32) -> u32 {
    raw.map_or(default, |raw| raw.value)
}

pub(super) fn truth(raw: Option<&protobuf::BoolValue>, default: bool) -> bool {
    raw.map_or(default, |raw| raw.value)
}

pub(super) fn port(input: &In<'_>, path: &str, raw: u32) -> Result<u16, DecodeError> {
    u16::try_from(raw).map_err(|_| input.invalid(path, format!("{raw} is not a port")))
}

pub(super) fn status(input: &In<'_>, path: &str, raw: u32) -> Result<u16, DecodeError> {
    u16::try_from(raw)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| input.invalid(path, format!("{raw} is not a status of 200 to 599")))
}

pub(super) fn address(input: &In<'_>, path: &str, raw: Option<&core::Address>) -> Result<Address, DecodeError> {
    match raw.and_then(|raw| raw.address.as_ref()) {
        Some(address::Address::SocketAddress(socket)) => {
            let port = socket_port(input, path, socket)?;
            if socket.address.is_empty() {
                return Err(input.invalid(path, "no address"));
            }
            Ok(match socket.address.parse::<IpAddr>() {
                Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
                Err(_) => Address::Name(socket.address.clone(), port),
            })
        }
        Some(address::Address::Pipe(pipe)) => Ok(Address::Unix(pipe.path.clone())),
        Some(address::Address::EnvoyInternalAddress(_)) => {
            Err(input.invalid(path, "internal addresses are not served"))
        }
        None => Err(input.invalid(path, "no address")),
    }
}

fn socket_port(input: &In<'_>, path: &str, socket: &SocketAddress) -> Result<u16, DecodeError> {
    if socket.protocol != 0 {
        return Err(input.invalid(path, "only TCP is served"));
    }
    match &socket.port_specifier {
        Some(PortSpecifier::PortValue(value)) => port(input, path, *value),
        Some(PortSpecifier::NamedPort(name)) => Err(input.invalid(path, format!("port {name:?} has no number"))),
        None => Err(input.invalid(path, "no port")),
    }
}

/// An address that must be one already.
pub(super) fn socket(input: &In<'_>, path: &str, raw: Option<&core::Address>) -> Result<SocketAddr, DecodeError> {
    match address(input, path, raw)? {
        Address::Socket(address) => Ok(address),
        Address::Name(name, _) => Err(input.invalid(path, format!("{name:?} is not an IP address"))),
        Address::Unix(_) => Err(input.invalid(path, "only IP addresses are listened on")),
    }
}

pub(super) fn range(input: &In<'_>, path: &str, raw: &CidrRange) -> Result<IpNet, DecodeError> {
    let bad =
        || input.invalid(path, format!("{}/{} is not a range", raw.address_prefix, number(raw.prefix_len.as_ref(), 0)));
    let address: IpAddr = raw.address_prefix.parse().map_err(|_| bad())?;
    let length = u8::try_from(number(raw.prefix_len.as_ref(), 0)).map_err(|_| bad())?;
    IpNet::new(address, length).map_err(|_| bad())
}

pub(super) fn ranges(input: &In<'_>, path: &str, raw: &[CidrRange]) -> Result<Vec<IpNet>, DecodeError> {
    raw.iter().enumerate().map(|(at, one)| range(input, &format!("{path}[{at}]"), one)).collect()
}

/// A share; what is finer than millionths does not exist.
pub(super) fn share(input: &In<'_>, path: &str, raw: &FractionalPercent) -> Result<Percent, DecodeError> {
    let times = match DenominatorType::try_from(raw.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => return Err(input.invalid(path, "unknown denominator")),
    };
    // More than all is all, as Envoy reads it.
    let millionths = raw.numerator.saturating_mul(times).min(1_000_000);
    Percent::from_millionths(millionths).map_err(|error| input.invalid(path, error.to_string()))
}

/// A text field of an object.
pub(super) fn text<'s>(object: &'s protobuf::Struct, name: &str) -> Option<&'s str> {
    match &object.fields.get(name)?.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

/// One part of metadata.
pub(super) fn part<'m>(metadata: Option<&'m Metadata>, name: &str) -> Option<&'m protobuf::Struct> {
    metadata.and_then(|metadata| metadata.filter_metadata.get(name))
}

/// The object something was made from, where the sender says so in Istio's way.
pub(super) fn origin(metadata: Option<&Metadata>) -> Option<Origin> {
    let about = part(metadata, "istio")?;
    let segments: Vec<&str> = text(about, "config")?.trim_start_matches('/').split('/').collect();
    let (namespace, kind, name) = match segments.as_slice() {
        [.., "namespaces", namespace, kind, name] => (*namespace, *kind, *name),
        [_, .., kind, name] => ("", *kind, *name),
        _ => return None,
    };
    let mut camel = String::with_capacity(kind.len());
    for word in kind.split('-') {
        let mut chars = word.chars();
        camel.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        camel.push_str(chars.as_str());
    }
    let path = text(about, "path").unwrap_or_default().to_owned();
    Some(Origin { object: ObjectRef::new(camel, namespace, name), path })
}

/// The bytes of a source that carries them.
pub(super) fn inline(source: &DataSource) -> Option<Vec<u8>> {
    match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => Some(bytes.clone()),
        Some(Specifier::InlineString(text)) => Some(text.clone().into_bytes()),
        Some(Specifier::Filename(_) | Specifier::EnvironmentVariable(_)) | None => None,
    }
}

/// The file a source names.
pub(super) fn file(source: Option<&DataSource>) -> Option<String> {
    match source?.specifier.as_ref()? {
        Specifier::Filename(path) => Some(path.clone()),
        Specifier::InlineBytes(_) | Specifier::InlineString(_) | Specifier::EnvironmentVariable(_) => None,
    }
}

/// Whether a resource is to be asked for on the stream that this one came on.
pub(super) fn is_ads(source: Option<&ConfigSource>) -> bool {
    matches!(
        source.and_then(|source| source.config_source_specifier.as_ref()),
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_))
    )
}
