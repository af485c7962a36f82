//! The words of Istio's labels, and the numbers that stand for them.
//!
//! Never here: counters. Used by `metrics`, `access` and the tables.

use std::{
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use api::spec::Workload;
use hashbrown::HashMap;

/// A workload, by number; 0 is the unknown one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct PartyId(pub(super) u32);

/// A service, by number; 0 is the unknown one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct ServiceId(pub(super) u32);

/// A workload as labels show it; what is empty is shown as `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Party {
    pub(crate) workload: String,
    pub(crate) namespace: String,
    pub(crate) principal: String,
    pub(crate) app: String,
    pub(crate) version: String,
    pub(crate) cluster: String,
    pub(crate) canonical_service: String,
    pub(crate) canonical_revision: String,
}

impl Party {
    /// A workload that pilot told of, with the identity it proved.
    pub(crate) fn of(workload: &Workload, principal: &str) -> Self {
        Self {
            workload: workload.name.clone(),
            namespace: workload.namespace.clone(),
            principal: principal.to_owned(),
            app: workload.canonical_name.clone(),
            version: workload.canonical_revision.clone(),
            cluster: workload.cluster.clone(),
            canonical_service: workload.canonical_name.clone(),
            canonical_revision: workload.canonical_revision.clone(),
        }
    }

    pub(super) fn write(&self, out: &mut String, side: &str) {
        let mut put = |name: &str, value: &str| {
            if !out.is_empty() {
                out.push(',');
            }
            out.push_str(&format!("{side}_{name}=\""));
            escape(out, value);
            out.push('"');
        };
        put("workload", &self.workload);
        put("workload_namespace", &self.namespace);
        // The whole URI, as Istio's metrics have it; elsewhere a principal goes without its scheme.
        let scheme = if self.principal.is_empty() { "" } else { "spiffe://" };
        put("principal", &format!("{scheme}{}", self.principal));
        put("app", &self.app);
        put("version", &self.version);
        put("cluster", &self.cluster);
        put("canonical_service", &self.canonical_service);
        let revision = if self.canonical_revision.is_empty() { "latest" } else { &self.canonical_revision };
        put("canonical_revision", revision);
    }
}

/// A service as labels show it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Service {
    pub(crate) host: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
}

impl Service {
    pub(super) fn write(&self, out: &mut String) {
        label(out, "destination_service", &self.host);
        label(out, "destination_service_name", &self.name);
        label(out, "destination_service_namespace", &self.namespace);
    }
}

/// Writes one label, after a comma where it is not the first.
pub(super) fn label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(name);
    out.push_str("=\"");
    if name == "grpc_response_status" || name == "response_code" {
        out.push_str(value);
    } else {
        escape(out, value);
    }
    out.push('"');
}

fn escape(out: &mut String, value: &str) {
    if value.is_empty() {
        out.push_str("unknown");
    }
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// Gives equal values equal numbers, for ever; number 0 is the default value.
#[derive(Debug)]
pub(super) struct Interned<T>(Mutex<Values<T>>);

#[derive(Debug)]
struct Values<T> {
    numbers: HashMap<Arc<T>, u32>,
    values: Vec<Arc<T>>,
}

impl<T: Default + Hash + Eq> Default for Interned<T> {
    fn default() -> Self {
        let first = Arc::new(T::default());
        Self(Mutex::new(Values { numbers: [(Arc::clone(&first), 0)].into(), values: vec![first] }))
    }
}

impl<T: Clone + Hash + Eq> Interned<T> {
    pub(super) fn number(&self, value: &T) -> u32 {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = all.numbers.get(value) {
            return *number;
        }
        // Past the limit everything new is the unknown one.
        let Some(number) = u32::try_from(all.values.len()).ok().filter(|n| *n < 1_000_000) else { return 0 };
        let value = Arc::new(value.clone());
        all.values.push(Arc::clone(&value));
        all.numbers.insert(value, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> Arc<T> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.values.get(number as usize).unwrap_or(&all.values[0]);
        Arc::clone(known)
    }
}

/// Which side of an exchange reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reporter {
    Source,
    Destination,
}

impl Reporter {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http,
    Grpc,
}

impl Protocol {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
        }
    }
}

/// How the connection from the peer was protected, as far as the reporter can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    MutualTls,
    Nothing,
    Unknown,
}

impl Security {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::Nothing => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// Envoy's response flags: what went wrong, as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(crate) struct Flags(u32);

macro_rules! flags {
    ($($name:ident = $bit:expr, $text:literal;)*) => {
        impl Flags {
            $(pub(crate) const $name: Self = Self(1 << $bit);)*
        }
        const NAMES: &[(Flags, &str)] = &[$((Flags::$name, $text),)*];
    };
}

flags! {
    NO_HEALTHY_UPSTREAM = 1, "UH";
    UPSTREAM_TIMEOUT = 2, "UT";
    UPSTREAM_RESET = 4, "UR";
    UPSTREAM_FAILED = 5, "UF";
    UPSTREAM_ENDED = 6, "UC";
    UPSTREAM_OVERFLOW = 7, "UO";
    NO_ROUTE = 8, "NR";
    DELAY_INJECTED = 9, "DI";
    FAULT_INJECTED = 10, "FI";
    DOWNSTREAM_ENDED = 14, "DC";
    RETRIES_EXHAUSTED = 15, "URX";
    IDLE = 16, "SI";
    BAD_REQUEST = 18, "DPE";
    DURATION = 22, "DT";
    UPSTREAM_PROTOCOL = 23, "UPE";
    NO_CLUSTER = 25, "NC";
}

impl Flags {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("-");
        }
        let mut first = true;
        for (flag, name) in NAMES {
            if self.0 & flag.0 != 0 {
                if !first {
                    f.write_str(",")?;
                }
                first = false;
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_numbers_and_the_default_is_nought() {
        let services = Interned::<Service>::default();
        let reviews = Service { host: "reviews".into(), ..Service::default() };
        assert_eq!(services.number(&Service::default()), 0);
        assert_eq!(services.number(&reviews), services.number(&reviews.clone()));
        assert_eq!(*services.get(services.number(&reviews)), reviews);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut out = String::new();
        label(&mut out, "a", "x\"\\\ny");
        label(&mut out, "b", "");
        assert_eq!(out, "a=\"x\\\"\\\\\\ny\",b=\"unknown\"");
    }
}
