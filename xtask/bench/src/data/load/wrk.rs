//! Runs wrk and reads what it prints.
//!
//! Never here: another load. Called by `load`.

use std::{process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Done, Target};
use crate::process::on_core;

/// Runs it.
pub(super) fn run(target: Target<'_>, connections: usize, bytes: usize, length: Duration) -> Result<Done> {
    let mut command: Command = on_core(target.core, "wrk");
    command.args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{}s", length.as_secs().max(1))]);
    command.args(["--latency", "--timeout", "10s", "-H", "Host: reviews"]);
    command.arg(format!("http://{}/{bytes}", target.address));
    let output = command.output().context("could not start wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    parse(&text).with_context(|| format!("not what wrk prints: {text}"))
}

fn parse(text: &str) -> Option<Done> {
    let mut done = Done::default();
    let mut latency = (None, None);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["50%", value] => latency.0 = microseconds(value),
            ["99%", value] => latency.1 = microseconds(value),
            [count, "requests", "in", took, ..] => {
                done.count = count.parse().ok()?;
                done.took = Duration::from_secs_f64(microseconds(took.trim_end_matches(','))? / 1e6);
            }
            ["Socket", "errors:", rest @ ..] => {
                done.failed +=
                    rest.iter().filter_map(|word| word.trim_end_matches(',').parse::<u64>().ok()).sum::<u64>();
            }
            ["Non-2xx", .., count] => done.failed += count.parse::<u64>().ok()?,
            _ => {}
        }
    }
    done.latency = latency.0.zip(latency.1);
    (done.count > 0).then_some(done)
}

/// `620.00us`, `1.20ms`, `6.00s`, `1.50m`.
fn microseconds(text: &str) -> Option<f64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let factor = match &text[unit..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "m" => 6e7,
        _ => return None,
    };
    Some(text[..unit].parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "Running 2s test @ http://127.0.0.1:1/64
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   620.00us  100.00us   4.00ms   90.00%
    Req/Sec    49.00k     1.00k   52.00k    70.00%
  Latency Distribution
     50%  620.00us
     75%  700.00us
     90%  800.00us
     99%    1.20ms
  98000 requests in 2.00s, 10.00MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:  49000.00
Transfer/sec:      5.00MB
";

    #[test]
    fn counts_latencies_and_failures_are_read() {
        let done = parse(PRINTED).unwrap();
        assert_eq!((done.count, done.failed, done.latency), (98_000, 11, Some((620.0, 1200.0))));
        assert_eq!(done.took, Duration::from_secs(2));
    }

    #[test]
    fn text_without_requests_is_not_a_result() {
        assert!(parse("unable to connect").is_none());
    }
}
