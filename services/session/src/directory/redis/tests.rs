//! What needs a server is in `tests/redis.rs`.

use super::*;

#[test]
fn users_keep_their_server_in_every_build() {
    let at = |servers: usize| {
        let ring = Ring::new((0..servers).map(place));
        let at = |user: &str| ring.owner(&RouteKey::user(SdkAppId(1_400_000_000), &UserId::trusted(user))).cloned();
        ["alice", "bob", "carol", "dave", "erin", "frank"].into_iter().filter_map(at).collect::<Vec<_>>()
    };
    assert_eq!(at(3), ["0", "1", "0", "1", "1", "2"].map(NodeId::trusted));
}

#[test]
fn a_new_server_takes_its_share_only() {
    let (two, three) = (Ring::new((0..2).map(place)), Ring::new((0..3).map(place)));
    let user = |n: u32| RouteKey::user(SdkAppId(1), &UserId::trusted(format!("user-{n}")));
    let moved = (0..3_000).filter(|n| two.owner(&user(*n)) != three.owner(&user(*n)));
    let moved: Vec<_> = moved.map(|n| three.owner(&user(n)).cloned()).collect();
    assert!(moved.iter().all(|to| *to == Some(place(2))), "nobody moves between old servers");
    assert!((800..1_200).contains(&moved.len()), "{}", moved.len());
}
