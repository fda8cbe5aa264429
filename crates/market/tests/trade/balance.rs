//! The balancer, compared with a plain model of what may be chosen.

use std::collections::BTreeMap;
use std::sync::Arc;

use bourse_market::Horizon;
use bourse_market::balancer::Balancer;
use bourse_market::chance::Chance;
use bourse_market::times::Times;
use bourse_wire::time::Mono;
use semver::{Version, VersionReq};

use crate::world::ms;

const HORIZONS: [Horizon; 4] = [Horizon::Process, Horizon::Machine, Horizon::Network, Horizon::Anywhere];

struct Model {
    version: Version,
    horizon: Horizon,
    tokens: u32,
    /// Left out until then, for how long, and whether it was tried.
    open: Option<(Mono, std::time::Duration, bool)>,
}

impl Model {
    fn is_open(&self, now: Mono) -> bool {
        self.open.is_some_and(|(until, ..)| until > now)
    }
}

/// One balancer's life.
pub fn life(seed: u64) {
    let times = Arc::new(Times::default());
    let mut dice = Chance::new(seed);
    let mut balancer = Balancer::new(Arc::clone(&times), seed);
    let mut model: BTreeMap<u32, Model> = BTreeMap::new();
    let mut now = Mono(0);
    let versions: Vec<Version> = ["1.0.0", "1.2.3", "2.0.0"].map(|v| v.parse().unwrap()).into();
    let requirements: Vec<VersionReq> =
        ["*", "^1", "^1.2", "=2.0.0", "^3"].map(|v| v.parse().unwrap()).into();
    for _ in 0..300 {
        now = now + ms(dice.below(100));
        let key = u32::try_from(dice.below(12)).unwrap();
        let pick = usize::try_from(dice.below(60)).unwrap();
        match dice.below(12) {
            0 => {
                let (version, horizon) = (versions[pick % 3].clone(), HORIZONS[pick % 4]);
                balancer.add(key, &version, horizon);
                model.insert(key, Model { version, horizon, tokens: 0, open: None });
            }
            1 => {
                balancer.remove(key);
                model.remove(&key);
            }
            2 | 3 => {
                let tokens = u32::try_from(dice.below(4)).unwrap();
                balancer.set_tokens(key, tokens);
                if let Some(m) = model.get_mut(&key) {
                    m.tokens = tokens;
                }
            }
            4 => {
                balancer.failed(now, key);
                if let Some(m) = model.get_mut(&key) {
                    m.open = match m.open {
                        None => Some((now + times.breaker_min, times.breaker_min, false)),
                        Some((until, pause, false)) if until > now => Some((until, pause, false)),
                        Some((until, pause, true)) if until > now => {
                            let pause = (pause * 2).min(times.breaker_max);
                            Some((now + pause, pause, false))
                        }
                        Some((_, pause, _)) => Some((now + pause, pause, false)),
                    };
                }
            }
            5 if dice.below(3) == 0 => {
                balancer.worked(key);
                if let Some(m) = model.get_mut(&key) {
                    m.open = None;
                }
            }
            _ => {
                let requirement = &requirements[pick % 5];
                let farthest = HORIZONS[pick / 5 % 4];
                let fits = |m: &Model| {
                    requirement.matches(&m.version)
                        && m.horizon <= farthest
                        && m.tokens > 0
                        && !m.is_open(now)
                };
                let nearest = model.values().filter(|m| fits(m)).map(|m| m.horizon).min();
                let chosen = balancer.choose(now, requirement, farthest);
                assert_eq!(chosen.is_some(), nearest.is_some(), "somebody is chosen if anybody can be");
                if let Some(key) = chosen {
                    let m = model.get_mut(&key).expect("who is chosen is there");
                    assert!(fits(m) && Some(m.horizon) == nearest, "who is chosen fits, and is near");
                    if let Some((_, pause, _)) = m.open {
                        m.open = Some((now + pause, pause, true));
                    }
                }
            }
        }
        balancer.handle_timeout(now);
        balancer.check_invariants();
        for requirement in &requirements {
            let fits = |m: &&Model| requirement.matches(&m.version) && !m.is_open(now);
            let tokens: u32 = model.values().filter(fits).map(|m| m.tokens).sum();
            assert_eq!(balancer.tokens(requirement), tokens, "the tokens that can be used");
        }
        let open = |k: &u32| model.get(k).is_some_and(|m| m.is_open(now));
        (0..12).for_each(|k| assert_eq!(balancer.is_open(now, k), open(&k), "who is left out"));
    }
}

#[test]
fn many_lives() {
    (0..1_000).for_each(life);
}

#[test]
fn choices_are_as_likely_as_their_tokens() {
    // The values that chi-square exceeds with a probability of 1 %, by degrees of freedom.
    let critical =
        BTreeMap::from([(1, 6.635), (2, 9.210), (3, 11.345), (9, 21.666), (15, 30.578), (99, 134.642)]);
    let weights: [Vec<u32>; 6] = [
        vec![1, 1],
        vec![1, 2, 3],
        vec![100, 1, 10, 1_000],
        (1..=10).collect(),
        vec![7; 16],
        (0..100).map(|i| 1 + i * i % 17).collect(),
    ];
    for (nr, weights) in weights.iter().enumerate() {
        let mut balancer = Balancer::new(Arc::new(Times::default()), 40 + nr as u64);
        for (key, tokens) in weights.iter().enumerate() {
            // Two versions, so that the choice between groups is in it.
            balancer.add(key, &Version::new(1, key as u64 % 2, 0), Horizon::Network);
            balancer.set_tokens(key, *tokens);
        }
        let any = VersionReq::STAR;
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..100_000 {
            counts[balancer.choose(Mono(0), &any, Horizon::Anywhere).unwrap()] += 1;
        }
        let total: u32 = weights.iter().sum();
        let squares = weights.iter().zip(&counts).map(|(weight, count)| {
            let expected = 100_000.0 * f64::from(*weight) / f64::from(total);
            (f64::from(*count) - expected).powi(2) / expected
        });
        let chi_square: f64 = squares.sum();
        let limit = critical[&(weights.len() - 1)];
        assert!(chi_square < limit, "{weights:?}: {chi_square} >= {limit}");
    }
}
