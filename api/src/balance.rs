//! Which endpoint of a cluster takes this request?
//!
//! Priorities spill over as Envoy's do, places share by weight, and within a place the endpoint is chosen in turn, by luck
//! or as the less busy of two; what is down or ejected is left out unless so much is down that all are used (panic).
//! Never here: counters, clocks and luck: states, cursor and roll are arguments. Called by the proxy's pools.

use std::{ops::Range, time::Duration};

use crate::spec::{Balance, Health, Locality, Outlier};

/// How many times more than its share a level or place may carry before others help, in percent (Envoy's default).
const OVERPROVISIONING_PERCENT: u64 = 140;

/// Whether an endpoint may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usable {
    /// Yes.
    Yes,
    /// Only when so few are that all are used: it is unhealthy or ejected.
    InPanic,
    /// Not at all: it drains.
    Never,
}

impl Usable {
    /// What follows from what the control plane says and whether the endpoint is ejected.
    pub fn of(health: Health, ejected: bool) -> Self {
        match health {
            Health::Draining => Self::Never,
            Health::Unhealthy => Self::InPanic,
            Health::Healthy if ejected => Self::InPanic,
            Health::Healthy => Self::Yes,
        }
    }
}

/// The live state of an endpoint, kept by the caller.
pub trait State {
    /// Whether it may be chosen.
    fn usable(&self) -> Usable;
    /// Requests under way to it.
    fn busy(&self) -> u32;
}

/// The fixed part of a cluster's endpoints: who is in which place and level, with which weight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    levels: Box<[Level]>,
    weights: Box<[u32]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Level {
    groups: Box<[Group]>,
    members: usize,
}

/// Endpoints that share by their own weights.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    weight: u32,
    runs: Box<[Range<usize>]>,
    /// Weight of every member, where all are alike.
    alike: bool,
    members: usize,
}

impl Group {
    fn of(weight: u32, runs: Vec<Range<usize>>, weights: &[u32]) -> Self {
        let members = runs.iter().map(ExactSizeIterator::len).sum();
        let mut all = runs.iter().cloned().flatten().filter_map(|at| weights.get(at));
        let first = all.next();
        let alike = all.all(|weight| Some(weight) == first);
        Self { weight, runs: runs.into(), alike, members }
    }

    fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        self.runs.iter().cloned().flatten()
    }

    /// The member at a place in the group's order.
    fn member(&self, mut place: usize) -> Option<usize> {
        self.runs.iter().find_map(|run| match place.checked_sub(run.len()) {
            None => Some(run.start + place),
            Some(rest) => {
                place = rest;
                None
            }
        })
    }
}

/// What a choice depends on besides the endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// How to choose.
    pub balance: Balance,
    /// Below this share of usable endpoints all are used, 0 to 100; 0: never.
    pub panic_below_percent: u32,
    /// Counts choices: taken by round robin.
    pub cursor: u64,
    /// Any number, evenly spread.
    pub roll: u64,
}

impl Layout {
    /// Reads the endpoints of a cluster. The caller's states are in the order of the localities, one after another.
    pub fn of(localities: &[Locality]) -> Self {
        let weights: Box<[u32]> =
            localities.iter().flat_map(|place| &place.endpoints).map(|endpoint| endpoint.weight.max(1)).collect();
        let mut places: Vec<(u32, u32, Range<usize>)> = Vec::with_capacity(localities.len());
        let mut start = 0;
        for place in localities {
            let end = start + place.endpoints.len();
            places.push((place.priority, place.weight, start..end));
            start = end;
        }
        places.retain(|(_, _, run)| !run.is_empty());
        places.sort_by_key(|(priority, _, _)| *priority);
        let levels = places
            .chunk_by(|a, b| a.0 == b.0)
            .map(|level| {
                let groups: Box<[Group]> = if level.iter().all(|(_, weight, _)| *weight == 0) {
                    [Group::of(1, level.iter().map(|(_, _, run)| run.clone()).collect(), &weights)].into()
                } else {
                    let counted = |run: &Range<usize>| u32::try_from(run.len()).unwrap_or(u32::MAX);
                    level
                        .iter()
                        .map(|(_, weight, run)| {
                            let weight = if *weight == 0 { counted(run) } else { *weight };
                            Group::of(weight, vec![run.clone()], &weights)
                        })
                        .collect()
                };
                let members = groups.iter().map(|group| group.members).sum();
                Level { groups, members }
            })
            .collect();
        Self { levels, weights }
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    fn weight(&self, at: usize) -> u64 {
        self.weights.get(at).copied().map_or(0, u64::from)
    }
}

/// Chooses an endpoint: its place in `states`, none when nothing may take traffic. `avoid` names those that have failed
/// this request; they are taken only when nothing else is left.
pub fn pick<S: State>(layout: &Layout, states: &[S], choice: Choice, avoid: impl Fn(usize) -> bool) -> Option<usize> {
    let level = pick_level(layout, states, choice.roll.rotate_right(40))?;
    let panic = choice.panic_below_percent > 0 && {
        let up = count(level, states, Usable::Yes);
        up * 100 < level.members * usize::try_from(choice.panic_below_percent).unwrap_or(100)
    };
    let usable = |at: usize| match states.get(at).map(State::usable) {
        Some(Usable::Yes) => true,
        Some(Usable::InPanic) => panic,
        Some(Usable::Never) | None => false,
    };
    let group = pick_group(level, &usable, choice.roll.rotate_right(20))?;
    pick_member(layout, group, states, choice, &|at| usable(at) && !avoid(at))
        .or_else(|| pick_member(layout, group, states, choice, &usable))
}

fn count<S: State>(level: &Level, states: &[S], wanted: Usable) -> usize {
    let all = level.groups.iter().flat_map(Group::indices);
    all.filter(|at| states.get(*at).is_some_and(|state| state.usable() == wanted)).count()
}

/// The level whose turn it is: each takes traffic as far as it is healthy, the next what is left.
fn pick_level<'l, S: State>(layout: &'l Layout, states: &[S], roll: u64) -> Option<&'l Level> {
    let (first, others) = layout.levels.split_first()?;
    if others.is_empty() {
        return Some(first);
    }
    let health = |level: &Level| {
        let up = u64::try_from(count(level, states, Usable::Yes)).unwrap_or(u64::MAX);
        let all = u64::try_from(level.members).unwrap_or(u64::MAX).max(1);
        (up.saturating_mul(OVERPROVISIONING_PERCENT) / all).min(100)
    };
    let total = layout.levels.iter().map(health).sum::<u64>().min(100);
    let Some(mut point) = roll.checked_rem(total) else { return Some(first) };
    layout.levels.iter().find(|level| match point.checked_sub(health(level)) {
        None => true,
        Some(rest) => {
            point = rest;
            false
        }
    })
}

/// The place whose turn it is, by weight, less as it is less healthy.
fn pick_group<'l>(level: &'l Level, usable: &impl Fn(usize) -> bool, roll: u64) -> Option<&'l Group> {
    if let [only] = &*level.groups {
        return Some(only);
    }
    let share = |group: &Group| {
        let up = u64::try_from(group.indices().filter(|at| usable(*at)).count()).unwrap_or(u64::MAX);
        let all = u64::try_from(group.members).unwrap_or(u64::MAX).max(1);
        let percent = (up.saturating_mul(OVERPROVISIONING_PERCENT) / all).min(100);
        u64::from(group.weight) * percent
    };
    let mut point = roll.checked_rem(level.groups.iter().map(share).sum())?;
    level.groups.iter().find(|group| match point.checked_sub(share(group)) {
        None => true,
        Some(rest) => {
            point = rest;
            false
        }
    })
}

fn pick_member<S: State>(
    layout: &Layout,
    group: &Group,
    states: &[S],
    choice: Choice,
    usable: &dyn Fn(usize) -> bool,
) -> Option<usize> {
    match choice.balance {
        Balance::OriginalDestination => None,
        Balance::RoundRobin => in_turn(layout, group, usable, choice.cursor),
        Balance::Random => by_luck(layout, group, usable, choice.roll),
        Balance::LeastRequest => {
            let one = by_luck(layout, group, usable, choice.roll)?;
            let two = by_luck(layout, group, usable, choice.roll.rotate_right(32))?;
            let load = |at: usize, other: usize| {
                states.get(at).map_or(u64::MAX, |state| u64::from(state.busy()).saturating_mul(layout.weight(other)))
            };
            Some(if load(two, one) < load(one, two) { two } else { one })
        }
    }
}

/// A member by luck and weight.
fn by_luck(layout: &Layout, group: &Group, usable: &dyn Fn(usize) -> bool, roll: u64) -> Option<usize> {
    if group.alike {
        // Mixed first, so that rolls which differ in few bits do not choose alike.
        let mixed = roll.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
        let place = usize::try_from(mixed % u64::try_from(group.members).ok()?).ok()?;
        if let Some(at) = group.member(place).filter(|at| usable(*at)) {
            return Some(at);
        }
    }
    let total: u64 = group.indices().filter(|at| usable(*at)).map(|at| layout.weight(at)).sum();
    walk(layout, group, usable, roll.wrapping_mul(0x9e37_79b9_7f4a_7c15).checked_shr(16)?.checked_rem(total)?)
}

/// A member in turn: over a full round each is chosen as often as its weight says, and the heavy ones are spread.
fn in_turn(layout: &Layout, group: &Group, usable: &dyn Fn(usize) -> bool, cursor: u64) -> Option<usize> {
    if group.alike {
        let place = usize::try_from(cursor % u64::try_from(group.members).ok()?).ok()?;
        if let Some(at) = group.member(place).filter(|at| usable(*at)) {
            return Some(at);
        }
        let up = u64::try_from(group.indices().filter(|at| usable(*at)).count()).ok()?;
        // Not by the member's place: the neighbour of a missing one would take its turns too.
        let members = u64::try_from(group.members).ok()?;
        let turn = (cursor / members).wrapping_add(cursor % members);
        let nth = usize::try_from(turn.checked_rem(up)?).ok()?;
        return group.indices().filter(|at| usable(*at)).nth(nth);
    }
    let total: u64 = group.indices().filter(|at| usable(*at)).map(|at| layout.weight(at)).sum();
    let stride = spread(total);
    walk(layout, group, usable, (cursor % total.max(1)).wrapping_mul(stride).checked_rem(total)?)
}

/// A step that visits every point of a round of this length once, in a spread order.
fn spread(total: u64) -> u64 {
    fn coprime(mut a: u64, mut b: u64) -> bool {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    }
    let golden = total.saturating_mul(618) / 1000;
    (golden.max(1)..=total.max(1)).find(|step| coprime(*step, total)).unwrap_or(1)
}

/// The member at a point of the summed weights.
fn walk(layout: &Layout, group: &Group, usable: &dyn Fn(usize) -> bool, mut point: u64) -> Option<usize> {
    group.indices().filter(|at| usable(*at)).find(|at| match point.checked_sub(layout.weight(*at)) {
        None => true,
        Some(rest) => {
            point = rest;
            false
        }
    })
}

/// Failures in a row at one endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strikes {
    /// 5xx, and connection errors where these are not counted apart.
    pub five_xx: u32,
    /// 502, 503, 504, and connection errors where these are not counted apart.
    pub gateway: u32,
    /// Connection errors, where counted apart.
    pub local: u32,
}

/// What an exchange with an endpoint showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// A status.
    Status(u16),
    /// No connection, or one that broke, or no answer in time.
    ConnectionError,
}

impl Strikes {
    /// The counts after an exchange, and whether the endpoint has earned an ejection.
    #[must_use]
    pub fn after(self, seen: Observed, outlier: &Outlier) -> (Self, bool) {
        let next = match seen {
            Observed::ConnectionError if outlier.split_local => Self { local: self.local.saturating_add(1), ..self },
            Observed::Status(502..=504) | Observed::ConnectionError => Self {
                five_xx: self.five_xx.saturating_add(1),
                gateway: self.gateway.saturating_add(1),
                local: if outlier.split_local { 0 } else { self.local },
            },
            Observed::Status(500..=599) => Self { five_xx: self.five_xx.saturating_add(1), gateway: 0, local: 0 },
            Observed::Status(_) => Self::default(),
        };
        let over = |count: u32, limit: u32| limit > 0 && count >= limit;
        let out = over(next.five_xx, outlier.consecutive_5xx)
            || over(next.gateway, outlier.consecutive_gateway)
            || (outlier.split_local && over(next.local, outlier.consecutive_local));
        (next, out)
    }
}

/// Whether one more endpoint may be ejected while `ejected` of `all` are.
pub fn may_eject(outlier: &Outlier, ejected: usize, all: usize) -> bool {
    ejected * 100 < all * usize::try_from(outlier.max_ejection_percent).unwrap_or(100)
}

/// Length of the `times`-th ejection in a row (the first is 1), 300 s at the most unless the first is longer.
pub fn ejection(outlier: &Outlier, times: u32) -> Duration {
    let most = outlier.base_ejection.max(Duration::from_secs(300));
    outlier.base_ejection.saturating_mul(times.max(1)).min(most)
}

#[cfg(test)]
mod tests;
