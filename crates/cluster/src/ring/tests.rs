use std::collections::BTreeMap;

use linnet_types::{ConvId, GroupId, SdkAppId, UserId};
use proptest::prelude::*;

use super::*;

fn node(n: usize) -> NodeId {
    NodeId::trusted(format!("node-{n}"))
}

fn ring(n: usize) -> Ring {
    Ring::new((0..n).map(node))
}

fn keys() -> Vec<RouteKey> {
    (0..20_000).map(|n| RouteKey::conv(ConvId(n))).collect()
}

/// If one of these changes, nodes of two builds disagree: a rolling update would move conversations back and forth.
#[test]
fn placement_is_fixed_for_ever() {
    let (app, alice, bob) = (SdkAppId(1_600_000_001), UserId::trusted("alice"), UserId::trusted("bob"));
    let keys = [
        RouteKey::user(app, &alice),
        RouteKey::group(app, &GroupId::trusted("@TGS#1")),
        RouteKey::conv(ConvId(42)),
        RouteKey::pair(app, &alice, &bob),
        RouteKey::app(app),
        RouteKey::slot(7),
    ];
    let ring = ring(5);
    let placed: Vec<_> = keys
        .iter()
        .map(|key| {
            format!("{} {:016x} {}", key.as_bytes()[0] as char, siphash::hash(key.as_bytes()), ring.owner(key).unwrap())
        })
        .collect();
    assert_eq!(placed, GOLDEN);
}

const GOLDEN: [&str; 6] = [
    "u 551969703524cb77 node-3",
    "g 3cc719071fe2e68c node-3",
    "c 567daefca1c6ce93 node-3",
    "p 5506ce23a2df911c node-3",
    "a f8167f402e7b16da node-2",
    "s adc9d014daa62eff node-1",
];

#[test]
fn pairs_route_alike_from_both_sides_and_kinds_never_collide() {
    let (app, a, b) = (SdkAppId(1), UserId::trusted("a"), UserId::trusted("b"));
    assert_eq!(RouteKey::pair(app, &a, &b), RouteKey::pair(app, &b, &a));
    let (long, short) = (UserId::trusted("ab"), UserId::trusted("c"));
    let (first, second) = (UserId::trusted("a"), UserId::trusted("bc"));
    assert_ne!(RouteKey::pair(app, &long, &short), RouteKey::pair(app, &first, &second));
    assert_ne!(RouteKey::user(app, &a), RouteKey::group(app, &GroupId::trusted("a")));
}

#[test]
fn load_is_even() {
    let ring = ring(16);
    let mut load = BTreeMap::new();
    let keys = keys();
    keys.iter().for_each(|key| *load.entry(ring.owner(key).expect("nodes")).or_insert(0_usize) += 1);
    let mean = keys.len() / 16;
    assert!(load.len() == 16 && load.values().all(|&n| n > mean * 3 / 4 && n < mean * 5 / 4), "{load:?}");
}

#[test]
fn no_nodes_no_owner_one_node_owns_all() {
    assert_eq!(ring(0).owner(&RouteKey::slot(1)), None);
    assert_eq!(ring(1).owner(&RouteKey::slot(1)), Some(&node(0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Only keys of the node that left move, and about 1/n of all.
    #[test]
    fn a_leaving_node_moves_its_own_keys_only(n in 2_usize..20, leaver in 0_usize..20) {
        let leaver = leaver % n;
        let (before, after) = (ring(n), Ring::new((0..n).filter(|&i| i != leaver).map(node)));
        let keys = keys();
        let mut moved = 0;
        for key in &keys {
            let (old, new) = (before.owner(key).expect("nodes"), after.owner(key).expect("nodes"));
            if old == &node(leaver) {
                moved += 1;
                prop_assert_eq!(Some(new), before.candidates(key).nth(1), "keys pass to the next candidate");
            } else {
                prop_assert_eq!(old, new);
            }
        }
        let fair = keys.len() / n;
        prop_assert!(moved > fair * 6 / 10 && moved < fair * 14 / 10, "{} of {} moved with {} nodes", moved, keys.len(), n);
    }

    #[test]
    fn order_of_nodes_does_not_matter(mut order in Just((0..9).collect::<Vec<usize>>()).prop_shuffle()) {
        let (a, b) = (ring(9), Ring::new(order.drain(..).map(node)));
        for key in keys().iter().take(500) {
            prop_assert_eq!(a.owner(key), b.owner(key));
        }
    }
}
