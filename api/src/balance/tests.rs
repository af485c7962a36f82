//! Tests of `balance`: shares are counted over many choices.
//!
//! Endpoints are written as a line: `PRIORITY/PLACE_WEIGHT: WEIGHT[*BUSY][!|x] …`, `!` unhealthy, `x` draining.
//! Never here: timing. Run by `cargo test -p api`.

use std::net::SocketAddr;

use super::*;
use crate::spec::{Address, Endpoint};

struct Seen {
    usable: Usable,
    busy: u32,
}

impl State for Seen {
    fn usable(&self) -> Usable {
        self.usable
    }
    fn busy(&self) -> u32 {
        self.busy
    }
}

fn read(text: &str) -> (Layout, Vec<Seen>) {
    let mut states = Vec::new();
    let localities: Vec<Locality> = text
        .split(';')
        .map(|place| {
            let (head, rest) = place.split_once(':').unwrap();
            let (priority, weight) = head.trim().split_once('/').unwrap();
            let endpoints = rest
                .split_whitespace()
                .map(|word| {
                    let usable = match word.chars().last() {
                        Some('!') => Usable::InPanic,
                        Some('x') => Usable::Never,
                        _ => Usable::Yes,
                    };
                    let word = word.trim_end_matches(['!', 'x']);
                    let (weight, busy) = word.split_once('*').unwrap_or((word, "0"));
                    states.push(Seen { usable, busy: busy.parse().unwrap() });
                    Endpoint {
                        address: Address::Socket(SocketAddr::from(([127, 0, 0, 1], 80))),
                        weight: weight.parse().unwrap(),
                        health: Health::Healthy,
                        mtls: false,
                        workload: None,
                    }
                })
                .collect();
            Locality {
                priority: priority.parse().unwrap(),
                weight: weight.parse().unwrap(),
                endpoints,
                ..Locality::default()
            }
        })
        .collect();
    (Layout::of(&localities), states)
}

/// Shares in percent over many choices.
fn shares(text: &str, balance: Balance, panic_below_percent: u32) -> Vec<u32> {
    let (layout, states) = read(text);
    let mut hits = vec![0u32; states.len()];
    let mut roll = 1u64;
    for cursor in 0..20_000 {
        roll = roll.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mixed = roll ^ (roll >> 29);
        let choice = Choice { balance, panic_below_percent, cursor, roll: mixed };
        if let Some(at) = pick(&layout, &states, choice, |_| false) {
            hits[at] += 1;
        }
    }
    hits.iter().map(|hit| (hit + 100) / 200).collect()
}

fn check(text: &str, balance: Balance, want: &[u32]) {
    let got = shares(text, balance, 0);
    let near = got.len() == want.len() && got.iter().zip(want).all(|(got, want)| got.abs_diff(*want) <= 2);
    assert!(near, "{text} {balance:?}: {got:?}, expected {want:?}");
}

const ALL: [Balance; 3] = [Balance::RoundRobin, Balance::Random, Balance::LeastRequest];

#[test]
fn equal_endpoints_share_alike() {
    for balance in ALL {
        check("0/0: 1 1 1 1", balance, &[25, 25, 25, 25]);
    }
}

#[test]
fn weights_are_shares() {
    for balance in [Balance::RoundRobin, Balance::Random] {
        check("0/0: 1 3", balance, &[25, 75]);
        check("0/0: 5 3 2", balance, &[50, 30, 20]);
    }
}

#[test]
fn a_round_is_exact() {
    let (layout, states) = read("0/0: 5 1 1");
    let mut hits = [0; 3];
    for cursor in 0..7 {
        let choice = Choice { balance: Balance::RoundRobin, panic_below_percent: 0, cursor, roll: 0 };
        hits[pick(&layout, &states, choice, |_| false).unwrap()] += 1;
    }
    assert_eq!(hits, [5, 1, 1]);
}

#[test]
fn what_is_down_takes_nothing_and_the_rest_share_it() {
    for balance in ALL {
        check("0/0: 1! 1 1", balance, &[0, 50, 50]);
        check("0/0: 1 2! 2 1x", balance, &[33, 0, 67, 0]);
        check("0/0: 1! 1!", balance, &[0, 0]);
    }
}

#[test]
fn below_the_threshold_all_are_used_but_those_that_drain() {
    let got = shares("0/0: 1! 1! 1 1x", Balance::RoundRobin, 50);
    assert_eq!(got, [33, 33, 33, 0]);
    let got = shares("0/0: 1! 1 1 1", Balance::RoundRobin, 50);
    assert_eq!(got, [0, 33, 33, 33]);
}

#[test]
fn the_less_busy_of_two_takes_more() {
    let got = shares("0/0: 1*0 1*10", Balance::LeastRequest, 0);
    assert!(got[0] > 70, "{got:?}");
}

#[test]
fn lower_levels_help_as_the_first_fails() {
    check("0/0: 1 1; 1/0: 1 1", Balance::Random, &[50, 50, 0, 0]);
    check("0/0: 1 1!; 1/0: 1 1", Balance::Random, &[70, 0, 15, 15]);
    check("0/0: 1! 1!; 1/0: 1 1", Balance::Random, &[0, 0, 50, 50]);
}

#[test]
fn places_share_by_weight() {
    check("0/80: 1 1; 0/20: 1", Balance::Random, &[40, 40, 20]);
    check("0/80: 1! 1!; 0/20: 1", Balance::Random, &[0, 0, 100]);
}

#[test]
fn a_retry_avoids_what_failed_while_it_can() {
    let (layout, states) = read("0/0: 1 1");
    for cursor in 0..4 {
        for balance in ALL {
            let choice =
                Choice { balance, panic_below_percent: 0, cursor, roll: cursor.wrapping_mul(0x1234_5678_9abc) };
            assert_eq!(pick(&layout, &states, choice, |at| at == 0), Some(1));
            assert!(pick(&layout, &states, choice, |_| true).is_some());
        }
    }
}

#[test]
fn nobody_is_chosen_from_nothing() {
    let choice = Choice { balance: Balance::Random, panic_below_percent: 50, cursor: 0, roll: 7 };
    assert_eq!(pick::<Seen>(&Layout::default(), &[], choice, |_| false), None);
}

fn outlier() -> Outlier {
    Outlier {
        consecutive_5xx: 3,
        consecutive_gateway: 2,
        consecutive_local: 4,
        split_local: false,
        interval: Duration::from_secs(10),
        base_ejection: Duration::from_secs(30),
        max_ejection_percent: 10,
        min_health_percent: 0,
    }
}

fn out_after(outlier: &Outlier, seen: &[Observed]) -> Option<usize> {
    let mut strikes = Strikes::default();
    seen.iter().position(|one| {
        let (next, out) = strikes.after(*one, outlier);
        strikes = next;
        out
    })
}

#[test]
fn failures_in_a_row_eject() {
    use Observed::{ConnectionError, Status};
    assert_eq!(out_after(&outlier(), &[Status(500), Status(500), Status(500)]), Some(2));
    assert_eq!(out_after(&outlier(), &[Status(500), Status(500), Status(200), Status(500)]), None);
    assert_eq!(out_after(&outlier(), &[Status(503), ConnectionError]), Some(1));
    assert_eq!(out_after(&outlier(), &[Status(404); 9]), None);
    let split = Outlier { split_local: true, ..outlier() };
    assert_eq!(out_after(&split, &[ConnectionError; 4]), Some(3));
    assert_eq!(
        out_after(&Outlier { consecutive_5xx: 0, consecutive_gateway: 0, ..outlier() }, &[Status(500); 9]),
        None
    );
}

#[test]
fn ejections_are_bounded_and_grow() {
    assert!(may_eject(&outlier(), 0, 3));
    assert!(!may_eject(&outlier(), 1, 3));
    assert!(!may_eject(&Outlier { max_ejection_percent: 0, ..outlier() }, 0, 3));
    assert_eq!(ejection(&outlier(), 2), Duration::from_secs(60));
    assert_eq!(ejection(&outlier(), 99), Duration::from_secs(300));
}
