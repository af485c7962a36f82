//! Finds the virtual host of an authority: exact name, then the longest suffix, then the longest prefix, then `*`.
//!
//! One hash look-up for exact names, one for each length of suffix or prefix that occurs.
//! Never here: paths. Built and asked by `table`.

use hashbrown::HashMap;

type Map = HashMap<Box<str>, u32, foldhash::fast::RandomState>;

/// Places of virtual hosts by domain.
#[derive(Debug, Clone, Default)]
pub(super) struct Hosts {
    exact: Map,
    suffixes: Wild,
    prefixes: Wild,
    any: Option<u32>,
}

#[derive(Debug, Clone, Default)]
struct Wild {
    map: Map,
    /// Lengths that occur, longest first.
    lengths: Box<[usize]>,
}

impl Wild {
    fn measure(&mut self) {
        let mut lengths: Vec<usize> = self.map.keys().map(|text| text.len()).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        self.lengths = lengths.into();
    }

    /// The value of the longest part of `text` that is known; a wildcard stands for at least one character.
    fn longest<'t>(&self, text: &'t str, part: impl Fn(&'t str, usize) -> Option<&'t str>) -> Option<u32> {
        let shorter = self.lengths.iter().filter(|length| **length < text.len());
        shorter.filter_map(|length| part(text, *length)).find_map(|part| self.map.get(part).copied())
    }
}

impl Hosts {
    /// Builds the index; of a domain that is named twice the first counts, and the second is told to `twice`.
    pub(super) fn build<'d>(domains: impl Iterator<Item = (u32, &'d str)>, mut twice: impl FnMut(u32, &str)) -> Self {
        let mut hosts = Self::default();
        for (at, domain) in domains {
            let text = domain.to_ascii_lowercase();
            let fresh = match (text.strip_prefix('*'), text.strip_suffix('*')) {
                (Some(""), _) => hosts.any.replace(hosts.any.unwrap_or(at)).is_none(),
                (Some(suffix), _) => first(&mut hosts.suffixes.map, suffix, at),
                (None, Some(prefix)) => first(&mut hosts.prefixes.map, prefix, at),
                (None, None) => first(&mut hosts.exact, &text, at),
            };
            if !fresh {
                twice(at, domain);
            }
        }
        hosts.suffixes.measure();
        hosts.prefixes.measure();
        hosts
    }

    /// The virtual host of an authority in lower case.
    pub(super) fn find(&self, authority: &str) -> Option<u32> {
        self.exact
            .get(authority)
            .copied()
            .or_else(|| self.suffixes.longest(authority, |text, length| text.get(text.len() - length..)))
            .or_else(|| self.prefixes.longest(authority, |text, length| text.get(..length)))
            .or(self.any)
    }
}

fn first(map: &mut Map, text: &str, at: u32) -> bool {
    if map.contains_key(text) {
        return false;
    }
    map.insert(text.into(), at);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(domains: &str, authority: &str, want: Option<u32>) {
        let hosts = Hosts::build((0..).zip(domains.split(' ')), |_, _| ());
        assert_eq!(hosts.find(authority), want, "{domains}: {authority}");
    }

    #[test]
    fn the_most_specific_domain_wins() {
        let all = "* *.com *.a.com a.com a.* x.a.com";
        check(all, "a.com", Some(3));
        check(all, "x.a.com", Some(5));
        check(all, "y.a.com", Some(2));
        check(all, "b.com", Some(1));
        check(all, "a.net", Some(4));
        check(all, "b.net", Some(0));
    }

    #[test]
    fn a_wildcard_stands_for_something() {
        check("*.com a.*", ".com", None);
        check("*.com a.*", "a.", None);
        check("*-bar.com", "foo-bar.com", Some(0));
    }

    #[test]
    fn ports_are_part_of_a_domain() {
        check("a a:80", "a:80", Some(1));
        check("a", "a:80", None);
    }

    #[test]
    fn the_first_of_equal_domains_counts() {
        let mut twice = Vec::new();
        let hosts = Hosts::build([(0, "a"), (1, "A"), (2, "*"), (3, "*")].into_iter(), |at, _| twice.push(at));
        assert_eq!((hosts.find("a"), hosts.find("b"), twice), (Some(0), Some(2), vec![1, 3]));
    }
}
