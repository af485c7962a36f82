//! Finds all of many patterns that hold for a value: exact texts by hash, prefixes, suffixes and ranges by nesting.
//!
//! Patterns of one sort that hold for the same value contain one another. Sorted, the longest of them is the last one not
//! above the value, or one that contains it; the others are those that contain the longest.
//! Never here: what a pattern belongs to (ids, told to the caller in ascending order for each pattern). Used by `authz`.

use std::{cmp::Ordering, collections::BTreeMap, net::IpAddr};

use hashbrown::HashMap;
use ipnet::IpNet;

use crate::pattern::{Template, Text};

/// Ids by key, while an index is built.
type Gathered<K> = BTreeMap<K, Vec<u32>>;

/// Keys of which some contain others.
#[derive(Debug, Clone)]
struct Nested<K>(Box<[Entry<K>]>);

#[derive(Debug, Clone)]
struct Entry<K> {
    key: K,
    /// Place of the smallest key that contains this one.
    parent: Option<u32>,
    ids: Box<[u32]>,
}

impl<K: Ord> Nested<K> {
    fn build(keys: Gathered<K>, contains: impl Fn(&K, &K) -> bool) -> Self {
        let mut entries: Vec<Entry<K>> = Vec::with_capacity(keys.len());
        for (key, ids) in keys {
            let mut parent = entries.len().checked_sub(1);
            while let Some(entry) = parent.and_then(|at| entries.get(at)) {
                if contains(&entry.key, &key) {
                    break;
                }
                parent = entry.parent.map(|at| at as usize);
            }
            entries.push(Entry { key, parent: parent.and_then(|at| u32::try_from(at).ok()), ids: ids.into() });
        }
        Self(entries.into())
    }

    /// Tells the ids of all keys that hold for a value, given where the value stands among the keys.
    fn each(&self, compare: impl Fn(&K) -> Ordering, holds: impl Fn(&K) -> bool, hit: &mut impl FnMut(&[u32])) {
        let mut at = self.0.partition_point(|entry| compare(&entry.key).is_le()).checked_sub(1);
        let mut found = false;
        while let Some(entry) = at.and_then(|at| self.0.get(at)) {
            found = found || holds(&entry.key);
            if found {
                hit(&entry.ids);
            }
            at = entry.parent.map(|at| at as usize);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn starts_with<T: AsRef<[u8]>>(outer: &T, inner: &T) -> bool {
    inner.as_ref().starts_with(outer.as_ref())
}

/// Many texts in the notation of policies.
#[derive(Debug, Clone)]
pub(super) struct Texts {
    exact: HashMap<Box<[u8]>, Box<[u32]>, foldhash::fast::RandomState>,
    prefixes: Nested<Box<[u8]>>,
    /// Suffixes, each from its last byte to its first.
    suffixes: Nested<Box<[u8]>>,
    /// Patterns that hold for every value.
    present: Box<[u32]>,
}

impl Texts {
    /// Takes texts with their ids, which ascend. Of templates, only the beginning is looked at: what they are found for
    /// is to be tried again by who asks. No other kinds of match are known here.
    pub(super) fn build<'t>(texts: impl IntoIterator<Item = (&'t str, u32)>, read: impl Fn(&str) -> Text) -> Self {
        let (mut exact, mut prefixes, mut suffixes) = (Gathered::new(), Gathered::new(), Gathered::new());
        let mut present = Vec::new();
        for (text, id) in texts {
            let ids: &mut Vec<u32> = match read(text) {
                Text::Exact(value) => exact.entry(value).or_default(),
                Text::Prefix(value) => prefixes.entry(value).or_default(),
                Text::Suffix(value) => suffixes.entry(value.iter().rev().copied().collect()).or_default(),
                Text::Template(_) => prefixes.entry(Template::literal(text).as_bytes().into()).or_default(),
                Text::Present | Text::Regex(_) | Text::ExactFold(_) | Text::PrefixFold(_) | Text::SuffixFold(_) => {
                    &mut present
                }
            };
            if ids.last() != Some(&id) {
                ids.push(id);
            }
        }
        Self {
            exact: exact.into_iter().map(|(text, ids): (Box<[u8]>, Vec<u32>)| (text, ids.into())).collect(),
            prefixes: Nested::build(prefixes, starts_with),
            suffixes: Nested::build(suffixes, starts_with),
            present: present.into(),
        }
    }

    /// Tells the ids of all texts that match.
    pub(super) fn each(&self, value: &[u8], hit: &mut impl FnMut(&[u32])) {
        if let Some(ids) = self.exact.get(value) {
            hit(ids);
        }
        self.prefixes.each(|key| (**key).cmp(value), |key| value.starts_with(key), hit);
        if !self.suffixes.is_empty() {
            let backwards = || value.iter().rev();
            self.suffixes.each(
                |key| key.iter().cmp(backwards()),
                |key| key.len() <= value.len() && key.iter().eq(backwards().take(key.len())),
                hit,
            );
        }
        if !self.present.is_empty() {
            hit(&self.present);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.suffixes.is_empty() && self.present.is_empty()
    }
}

/// A range of addresses as numbers: family, first address, length of the common part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range(bool, u128, u8);

impl Range {
    fn of(net: &IpNet) -> Self {
        match net.trunc() {
            IpNet::V4(net) => Self(false, u32::from(net.network()).into(), net.prefix_len()),
            IpNet::V6(net) => Self(true, net.network().into(), net.prefix_len()),
        }
    }

    fn point(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(false, u32::from(address).into(), u8::MAX),
            IpAddr::V6(address) => Self(true, address.into(), u8::MAX),
        }
    }

    fn contains(self, inner: Self) -> bool {
        let width = if self.0 { 128 } else { 32 };
        let rest = u32::from(width - self.2);
        self.0 == inner.0 && self.2 <= inner.2 && (self.1 ^ inner.1).checked_shr(rest).unwrap_or(0) == 0
    }
}

/// Many ranges of addresses.
#[derive(Debug, Clone)]
pub(super) struct Blocks(Nested<Range>);

impl Blocks {
    /// Takes ranges with their ids, which ascend.
    pub(super) fn build<'n>(blocks: impl IntoIterator<Item = (&'n IpNet, u32)>) -> Self {
        let mut keys: Gathered<Range> = Gathered::new();
        for (net, id) in blocks {
            let ids = keys.entry(Range::of(&canonical(*net))).or_default();
            if ids.last() != Some(&id) {
                ids.push(id);
            }
        }
        Self(Nested::build(keys, |outer, inner| outer.contains(*inner)))
    }

    /// Tells the ids of all ranges that hold an address in canonical form.
    pub(super) fn each(&self, address: IpAddr, hit: &mut impl FnMut(&[u32])) {
        let point = Range::point(address);
        self.0.each(|key| key.cmp(&point), |key| key.contains(point), hit);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A range of IPv4 addresses written as IPv6 addresses is one of IPv4 addresses: so are addresses read.
pub(super) fn canonical(net: IpNet) -> IpNet {
    if let IpNet::V6(six) = net
        && let Some(four) = six.addr().to_ipv4_mapped()
        && let Some(length) = six.prefix_len().checked_sub(96)
        && let Ok(net) = ipnet::Ipv4Net::new(four, length)
    {
        return IpNet::V4(net);
    }
    net
}
