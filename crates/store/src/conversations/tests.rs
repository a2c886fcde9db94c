use linnet_runtime::{Clock, Rng};

use super::*;
use crate::sim::{Faults, SimRows};

const APP: SdkAppId = SdkAppId(1_400_000_000);
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn user(name: &str) -> UserId {
    UserId::trusted(name)
}

fn conversations(seed: u64, faults: Faults) -> Conversations {
    Conversations::new(SimRows::new(Rng::seeded(seed), Clock::simulated(NOW), faults).store())
}

async fn open(conversations: &Conversations, a: &str, b: &str, conv: u64) -> (Pair, bool) {
    conversations.open_pair(APP, &user(a), &user(b), NOW, || async move { Ok(ConvId(conv)) }).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_pair_has_one_conversation_whoever_asks() {
    let conversations = conversations(1, Faults::none());
    assert_eq!(conversations.pair(APP, &user("ann"), &user("bob")).await.unwrap(), None);
    let (pair, created) = open(&conversations, "bob", "ann", 5).await;
    assert!(created);
    assert_eq!((&pair.users.0, pair.peer(&user("ann"))), (&user("ann"), &user("bob")));
    let (same, created) = open(&conversations, "ann", "bob", 6).await;
    assert_eq!((same, created), (pair, false));
    assert_eq!(conversations.pair_users(APP, ConvId(5)).await.unwrap(), Some((user("ann"), user("bob"))));
    assert_eq!(conversations.pair_users(APP, ConvId(6)).await.unwrap(), None, "no id is wasted on an existing pair");
    // Ids whose texts run together are different pairs.
    assert_eq!(open(&conversations, "a", "nnbob", 7).await.0.conv, ConvId(7));
    let (alone, _) = open(&conversations, "ann", "ann", 8).await;
    assert_eq!(alone.users, (user("ann"), user("ann")));
}

#[tokio::test(start_paused = true)]
async fn first_messages_that_cross_meet_in_one_conversation() {
    for seed in 0..100 {
        let conversations =
            conversations(seed, Faults { latency: std::time::Duration::from_millis(4), ..Faults::none() });
        let (a, b) = tokio::join!(open(&conversations, "ann", "bob", 5), open(&conversations, "bob", "ann", 6));
        assert_eq!(a.0, b.0, "seed {seed}");
        assert!(a.1 != b.1, "seed {seed}: one of them created it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_was_answered_stays_over_a_failing_store() {
    for seed in 0..200 {
        let sim = SimRows::new(Rng::seeded(seed), Clock::simulated(NOW), Faults::rough());
        let conversations = Conversations::new(sim.store());
        let mut answered = None;
        for conv in 1..12 {
            let next = || async move { Ok(ConvId(conv)) };
            let Ok((pair, _)) = conversations.open_pair(APP, &user("ann"), &user("bob"), NOW, next).await else {
                continue;
            };
            let first = *answered.get_or_insert(pair.conv);
            assert_eq!(pair.conv, first, "seed {seed}");
        }
        sim.set_faults(Faults::none());
        let pair = conversations.pair(APP, &user("ann"), &user("bob")).await.unwrap();
        assert_eq!(pair.map(|pair| pair.conv), answered, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_side_changes_its_own() {
    let conversations = conversations(2, Faults::none());
    open(&conversations, "ann", "bob", 5).await;
    let clear = |pair: &mut Pair| {
        pair.conv = ConvId(99);
        pair.side_mut(&user("bob")).unwrap().floor = Seq(12);
        pair.side_mut(&user("ann")).unwrap().pinned = Some(NOW);
    };
    let pair = conversations.update_pair(APP, &user("bob"), &user("ann"), clear).await.unwrap().unwrap();
    assert_eq!(pair.conv, ConvId(5), "only the sides change");
    assert_eq!((pair.sides.0.pinned, pair.sides.1.floor), (Some(NOW), Seq(12)));
    assert_eq!(pair.side(&user("eve")), None);
    assert_eq!(conversations.pair(APP, &user("ann"), &user("bob")).await.unwrap(), Some(pair));
    assert_eq!(conversations.update_pair(APP, &user("ann"), &user("eve"), |_| {}).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_list_pages_by_key_and_forgets_what_is_removed() {
    let conversations = conversations(3, Faults::none());
    let entry = |key: ConversationKey, conv| Entry {
        key,
        conv: ConvId(conv),
        touched: NOW,
        pinned: (conv == 2).then_some(NOW),
        floor: Seq(conv),
        deleted_at: Seq(0),
        adjust: -3,
    };
    let entries = [
        entry(ConversationKey::C2c(user("bob")), 1),
        entry(ConversationKey::C2c(user("cat")), 2),
        entry(ConversationKey::Group(linnet_types::GroupId::trusted("bob")), 3),
    ];
    let both: Vec<(UserId, Entry)> = entries.iter().map(|entry| (user("ann"), entry.clone())).collect();
    conversations.put_entries(APP, &both).await.unwrap();
    assert_eq!(conversations.entries(APP, &user("ann"), None, 0).await.unwrap(), entries);
    let rest = conversations.entries(APP, &user("ann"), Some(&entries[0].key), 1).await.unwrap();
    assert_eq!(rest, [entries[1].clone()]);
    conversations.remove_entry(APP, &user("ann"), &entries[1].key).await.unwrap();
    assert_eq!(conversations.entry(APP, &user("ann"), &entries[1].key).await.unwrap(), None);
    assert_eq!(conversations.entry(APP, &user("ann"), &entries[2].key).await.unwrap(), Some(entries[2].clone()));
    assert_eq!(conversations.entries(APP, &user("bob"), None, 0).await.unwrap(), []);
}
