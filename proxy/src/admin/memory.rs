//! `/memory`: how much the process holds, as the kernel counts it.
//!
//! The allocator tells nothing, so what Envoy reads from its own (free pages, thread caches) is nought.
//! Never here: limits. Called by `admin`.

use serde_json::{Value, json};

/// The page, from the text of `/proc/self/status`.
pub(crate) fn page(status: &str) -> Value {
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib: u64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        (kib * 1024).to_string()
    };
    json!({
        "allocated": bytes("RssAnon"),
        "heap_size": bytes("VmData"),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": bytes("VmRSS"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernel() {
        let page = page("Name:\tproxy\nVmRSS:\t    2048 kB\nRssAnon:\t    1024 kB\nVmData:\t   4096 kB\n");
        assert_eq!(page["total_physical_bytes"], "2097152");
        assert_eq!((&page["allocated"], &page["heap_size"]), (&json!("1048576"), &json!("4194304")));
        assert_eq!(super::page("")["allocated"], "0");
    }
}
